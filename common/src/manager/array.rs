//! Numbers in a row, in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::list::IndexError;
use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Method, Proxy};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Python's `manager.Array(..)`: items whose number is fixed, in the manager's process.
///
/// `Display` prints them: `[0, 1]`; `Debug` shows the handle.
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let array = manager.array([0i32; 3])?;
/// array.set(1, 5)??;
/// array.update(1, |x: &mut i32, by: i32| *x += by, (1,))?;
/// assert_eq!(array.to_string(), "[0, 6, 0]");
/// assert!(array.set(3, 5)?.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct ArrayProxy<T>(Proxy<Box<[T]>>);

typed_proxy!(ArrayProxy<T> of Box<[T]>);

impl Manager {
    /// Hosts these items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn array<T: Item>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<ArrayProxy<T>, CallError> {
        let items: Box<[T]> = items.into_iter().collect();
        self.host(items).map(ArrayProxy)
    }
}

impl<T: Item> ArrayProxy<T> {
    /// How many items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn len(&self) -> Result<usize, CallError> {
        self.0.call(|items: &mut Box<[T]>| items.len(), ())
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_empty(&self) -> Result<bool, CallError> {
        self.len().map(|len| len == 0)
    }

    /// A copy of the item at `index`.
    ///
    /// # Errors
    ///
    /// [`CallError`]; inside, [`IndexError`] if there is no such place.
    pub fn get(&self, index: usize) -> Result<Result<T, IndexError>, CallError>
    where
        T: Clone,
    {
        let get = |items: &mut Box<[T]>, index: usize| {
            let len = items.len();
            items.get(index).cloned().ok_or(IndexError { index, len })
        };
        self.0.call(get, (index,))
    }

    /// Puts an item in place of another.
    ///
    /// # Errors
    ///
    /// As [`get`](ArrayProxy::get).
    pub fn set(&self, index: usize, item: T) -> Result<Result<(), IndexError>, CallError> {
        let set = |items: &mut Box<[T]>, index: usize, item: T| {
            let len = items.len();
            let place = items.get_mut(index).ok_or(IndexError { index, len })?;
            *place = item;
            Ok(())
        };
        self.0.call(set, (index, item))
    }

    /// Changes the item at `index` in place; gives back what `f` returned, `None` if there is no
    /// such item.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update<F, A>(&self, index: usize, f: F, args: A) -> Result<Option<F::Output>, CallError>
    where
        F: Method<T, A, Output: Item>,
        A: Item,
    {
        let _ = f;
        let update = |items: &mut Box<[T]>, index: usize, args: A| {
            let item = items.get_mut(index)?;
            Some(crate::function::instance::<F>().call(item, args))
        };
        self.0.call(update, (index, args))
    }

    /// A copy of all items, as they are at one moment.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    #[doc(alias = "_getvalue")]
    pub fn snapshot(&self) -> Result<Vec<T>, CallError>
    where
        T: Clone,
    {
        self.0.call(|items: &mut Box<[T]>| items.to_vec(), ())
    }
}

/// The contents; in their place `<error>`, if they cannot be had.
impl<T: Item + fmt::Debug> fmt::Display for ArrayProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.call(|items: &mut Box<[T]>| format!("{items:?}"), ());
        typed::show(f, text)
    }
}
