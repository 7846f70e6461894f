//! Values by name: how processes that know only the manager's address find each other's.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::objects;
use super::proxy::Proxy;
use std::any::type_name;
use std::collections::HashMap;

/// The table, itself a hosted value: the first.
#[derive(Default)]
pub(super) struct Names(HashMap<String, (String, Proxy<()>)>);

/// Its number.
pub(super) const NAMES: u64 = 0;

/// Hosts it; nobody ever ends its first hold.
pub(super) fn install() {
    objects::with(|objects| objects.add(Box::new(Names::default()), type_name::<Names>()));
}

pub(super) fn publish(names: &mut Names, name: String, type_name: String, proxy: Proxy<()>) {
    names.0.insert(name, (type_name, proxy));
}

/// The value of this name, and the type it was published as.
pub(super) fn find(names: &mut Names, name: String) -> Option<(String, Proxy<()>)> {
    names.0.get(&name).cloned()
}

pub(super) fn withdraw(names: &mut Names, name: String) -> bool {
    names.0.remove(&name).is_some()
}

/// How many values there are, this one not counted.
pub(super) fn count(_: &mut Names) -> usize {
    objects::with(|objects| objects.living()).map_or(0, |living| living - 1)
}
