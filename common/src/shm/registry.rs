//! What this process has open, what it still has to unlink, and what dead processes left.

use super::mapping::{Mapping, unlink};
use super::{Owner, Segment, name};
use std::collections::{HashMap, HashSet};
use std::mem::{self, ManuallyDrop};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::{fs, process};

#[derive(Default)]
struct Registry {
    /// A forked child inherits a copy, none of which it has created.
    pid: u32,
    open: HashMap<String, Weak<Mapping>>,
    /// Created here and not unlinked yet.
    owned: HashSet<String>,
    /// Created here and not held here any more, but needed by others when they were dropped.
    parked: Vec<Mapping>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// The registry, and as a courtesy of a forked child, what it must not unlink.
fn registry() -> MutexGuard<'static, Registry> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    if registry.pid != process::id() {
        registry.pid = process::id();
        registry.owned.clear();
        registry.parked.clear();
    }
    registry
}

/// The segment of this name if this process has it open.
pub(super) fn find(name: &str) -> Option<Segment> {
    registry().find(name)
}

/// Notes a new mapping. Should another thread have opened the same one meanwhile, gives that.
pub(super) fn add(mapping: Mapping) -> Segment {
    let mut registry = registry();
    if let Some(segment) = registry.find(&mapping.name) {
        return segment;
    }
    if mapping.creator.is_some() {
        unlink_at_exit();
        registry.owned.insert(mapping.name.clone());
    }
    let mapping = Arc::new(mapping);
    registry
        .open
        .insert(mapping.name.clone(), Arc::downgrade(&mapping));
    Segment(ManuallyDrop::new(mapping))
}

/// The last handle of this process is gone.
pub(super) fn remove(mapping: Mapping) {
    let mut registry = registry();
    // Unless it has been opened anew under the same name just now.
    if registry.find(&mapping.name).is_none() {
        registry.open.remove(&mapping.name);
    }
    if mapping.creator == Some(process::id()) && registry.owned.contains(&mapping.name) {
        registry.parked.push(mapping);
    }
    registry.unlink_unneeded();
}

/// The name is not this process's to unlink any more: its mapping goes with its last handle.
pub(super) fn disown(name: &str) {
    registry().owned.remove(name);
}

/// Removes the segments of dead processes, and those of this process that nobody needs any more.
pub(super) fn sweep() {
    registry().unlink_unneeded();
    let Ok(entries) = fs::read_dir(name::DIRECTORY) else {
        return;
    };
    let mut judged: HashMap<Owner, bool> = HashMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(owner) = Owner::of(name) else {
            continue;
        };
        if *judged.entry(owner).or_insert_with(|| owner.is_dead()) {
            // Another user's stay: the directory is sticky.
            let _ = unlink(name);
        }
    }
}

/// Unlinks all that this process has created.
pub(super) fn unlink_owned() {
    // A thread that is ended by `exit` in the middle of something must not hang it.
    let Ok(mut registry) = REGISTRY.try_lock() else {
        return;
    };
    if registry.pid == process::id() {
        for name in mem::take(&mut registry.owned) {
            let _ = unlink(&name);
        }
    }
}

impl Registry {
    fn find(&self, name: &str) -> Option<Segment> {
        let mapping = self.open.get(name)?.upgrade()?;
        Some(Segment(ManuallyDrop::new(mapping)))
    }

    fn unlink_unneeded(&mut self) {
        let owned = &mut self.owned;
        self.parked.retain(|mapping| {
            let needed = mapping.needed();
            if !needed {
                let _ = unlink(&mapping.name);
                owned.remove(&mapping.name);
            }
            needed
        });
    }
}

/// Handles in statics, leaked ones and those of a `main` that calls `process::exit` are never
/// dropped.
#[allow(unsafe_code)]
fn unlink_at_exit() {
    extern "C" fn at_exit() {
        unlink_owned();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of this program that unwinds never: everything in
        // it that can fail is ignored.
        unsafe { libc::atexit(at_exit) };
    });
}
