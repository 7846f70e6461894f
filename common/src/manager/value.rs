//! One value in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Method, Proxy};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Python's `manager.Value(..)`: one value in the manager's process, of any type.
///
/// `Display` prints it; `Debug` shows the handle.
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let value = manager.value(1.5f64)?;
/// value.update(|x: &mut f64, by: f64| *x *= by, (2.0,))?;
/// assert_eq!(value.get()?, 3.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct ValueProxy<T>(Proxy<Cell<T>>);

/// So that a hosted value of type `T` is another thing than a `Value` of it: as in Python.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cell<T>(T);

typed_proxy!(ValueProxy<T> of Cell<T>);

impl Manager {
    /// Hosts one value.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn value<T: Item>(&self, value: T) -> Result<ValueProxy<T>, CallError> {
        self.host(Cell(value)).map(ValueProxy)
    }
}

impl<T: Item> ValueProxy<T> {
    /// A copy of it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn get(&self) -> Result<T, CallError>
    where
        T: Clone,
    {
        self.0.call(|cell: &mut Cell<T>| cell.0.clone(), ())
    }

    /// Puts another in its place.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn set(&self, value: T) -> Result<(), CallError> {
        self.0
            .call(|cell: &mut Cell<T>, value: T| cell.0 = value, (value,))
    }

    /// Puts another in its place, which it gives back.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn replace(&self, value: T) -> Result<T, CallError> {
        let replace = |cell: &mut Cell<T>, value: T| std::mem::replace(&mut cell.0, value);
        self.0.call(replace, (value,))
    }

    /// Changes it in place; gives back what `f` returned.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update<F, A>(&self, f: F, args: A) -> Result<F::Output, CallError>
    where
        F: Method<T, A, Output: Item>,
        A: Item,
    {
        let _ = f;
        let update =
            |cell: &mut Cell<T>, args: A| crate::function::instance::<F>().call(&mut cell.0, args);
        self.0.call(update, (args,))
    }
}

/// The value; in its place `<error>`, if it cannot be had.
impl<T: Item + fmt::Display> fmt::Display for ValueProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.call(|cell: &mut Cell<T>| cell.0.to_string(), ());
        typed::show(f, text)
    }
}
