//! Values of different types under names, in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Method, Proxy};
use serde::{Deserialize, Serialize};
use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::fmt;

/// Python's `manager.Namespace()`: attributes, each of its own type.
///
/// `Display` prints them, except those that begin with an underscore: `Namespace(x=1, y=2.5)`.
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let namespace = manager.namespace()?;
/// namespace.set("x", 1)?;
/// namespace.set("name", "Ann".to_string())?;
/// namespace.update("x", |x: &mut i32| *x += 1, ())?;
/// assert_eq!(namespace.get::<i32>("x")?, Some(2));
/// assert_eq!(namespace.to_string(), r#"Namespace(name="Ann", x=2)"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(Proxy<Attributes>);

/// What a [`Namespace`] stands for.
#[derive(Default)]
pub struct Attributes(BTreeMap<String, Attribute>);

struct Attribute {
    value: Box<dyn Any>,
    type_name: &'static str,
    show: fn(&dyn Any) -> String,
}

typed_proxy!(Namespace<> of Attributes);

impl Manager {
    /// An empty namespace.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn namespace(&self) -> Result<Namespace, CallError> {
        self.host_with(Attributes::default, ()).map(Namespace)
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Attributes {
    fn find<T: 'static>(&mut self, name: &str) -> Result<Option<&mut T>, CallError> {
        let Some(attribute) = self.0.get_mut(name) else {
            return Ok(None);
        };
        let found = attribute.type_name;
        let value = attribute.value.downcast_mut();
        value.map(Some).ok_or_else(|| CallError::Type {
            expected: type_name::<T>().into(),
            found: found.into(),
        })
    }
}

impl Namespace {
    /// Gives an attribute a value, of any type.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn set<T: Item + fmt::Debug>(&self, name: &str, value: T) -> Result<(), CallError> {
        let set = |attributes: &mut Attributes, name: String, value: T| {
            let attribute = Attribute {
                value: Box::new(value),
                type_name: type_name::<T>(),
                show: |value| {
                    let value = value.downcast_ref::<T>();
                    value.map_or_else(String::new, |value| format!("{value:?}"))
                },
            };
            attributes.0.insert(name, attribute);
        };
        self.0.call(set, (name.to_owned(), value))
    }

    /// A copy of an attribute's value; `None` if there is no such attribute.
    ///
    /// # Errors
    ///
    /// [`CallError::Type`] if it is of another type, and as any call.
    pub fn get<T: Item + Clone>(&self, name: &str) -> Result<Option<T>, CallError> {
        let get = |attributes: &mut Attributes, name: String| {
            attributes.find::<T>(&name).map(|found| found.cloned())
        };
        self.0.call(get, (name.to_owned(),))?
    }

    /// Changes an attribute's value in place; gives back what `f` returned, `None` if there is no
    /// such attribute.
    ///
    /// # Errors
    ///
    /// As [`get`](Namespace::get).
    pub fn update<T, F, A>(&self, name: &str, f: F, args: A) -> Result<Option<F::Output>, CallError>
    where
        T: 'static,
        F: Method<T, A, Output: Item>,
        A: Item,
    {
        let _ = f;
        let update = |attributes: &mut Attributes, name: String, args: A| {
            let found = attributes.find::<T>(&name)?;
            Ok(found.map(|value| crate::function::instance::<F>().call(value, args)))
        };
        self.0.call(update, (name.to_owned(), args))?
    }

    /// Removes an attribute; says whether it was there.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn delete(&self, name: &str) -> Result<bool, CallError> {
        let delete =
            |attributes: &mut Attributes, name: String| attributes.0.remove(&name).is_some();
        self.0.call(delete, (name.to_owned(),))
    }

    /// The names of all attributes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn names(&self) -> Result<Vec<String>, CallError> {
        let names = |attributes: &mut Attributes| attributes.0.keys().cloned().collect::<Vec<_>>();
        self.0.call(names, ())
    }
}

/// `<error>` if the attributes cannot be had.
impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |attributes: &mut Attributes| {
            let public = attributes
                .0
                .iter()
                .filter(|(name, _)| !name.starts_with('_'));
            let shown: Vec<String> = public
                .map(|(name, a)| format!("{name}={}", (a.show)(&*a.value)))
                .collect();
            format!("Namespace({})", shown.join(", "))
        };
        typed::show(f, self.0.call(show, ()))
    }
}
