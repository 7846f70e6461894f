//! Values and arrays that processes share, after Python's `multiprocessing.Value` and `Array`.
//!
//! To copy: shared/, sync/, shm/, departures.rs, futex.rs, deadline.rs, codec.rs, panic.rs.

mod array;

pub use array::{Array, ArrayError, ArrayGuard};

use crate::deadline::Deadline;
use crate::sync::{Mutex, MutexError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A value that processes read and change, one at a time.
///
/// [`Value::update`] changes it in one step, as seen by all others: what `+=` on Python's
/// `Value.value` is not. A process killed in the middle of that has changed nothing. Each call
/// waits until nobody else holds the value; for a limit to that, see [`Value::mutex`].
///
/// ```
/// use common::shared::Value;
///
/// let counter = Value::new(40)?;
/// counter.update(|n| *n += 2)?;
/// assert_eq!(counter.get()?, 42);
/// # Ok::<(), common::sync::MutexError>(())
/// ```
#[doc(alias = "RawValue")]
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Value<T>(Mutex<T>);

impl<T: Serialize + DeserializeOwned> Value<T> {
    /// A shared value.
    ///
    /// # Errors
    ///
    /// As [`Mutex::new`].
    pub fn new(value: T) -> Result<Self, MutexError> {
        Mutex::new(value).map(Value)
    }

    /// A copy of the value.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    pub fn get(&self) -> Result<T, MutexError> {
        self.0.get()
    }

    /// Replaces the value.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`] and `MutexGuard::store`.
    pub fn set(&self, value: T) -> Result<(), MutexError> {
        self.update(|old| *old = value)
    }

    /// Changes the value while nobody else can look. Gives what `change` returns.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`] and `MutexGuard::store`: then nothing is changed.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, MutexError> {
        let mut guard = self.0.lock_untold(Deadline::Never)?;
        let result = change(&mut guard);
        guard.store()?;
        Ok(result)
    }

    /// The lock, for several steps at once, or with a limit to the waiting.
    #[doc(alias = "get_lock")]
    #[must_use]
    pub fn mutex(&self) -> &Mutex<T> {
        &self.0
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value(self.0.clone())
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.0).finish()
    }
}
