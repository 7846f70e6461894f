//! What a put and a get of a queue can come to.

use crate::codec::{DecodeError, EncodeError};
use crate::ring::{self, Broken};
use crate::shm::ShmError;
use std::error::Error;
use std::fmt;
use thiserror::Error;

/// A value was not put; here it is again.
#[derive(Clone, PartialEq, Eq)]
pub struct PutError<T> {
    /// The value.
    pub value: T,
    /// Why it was not put.
    pub reason: PutReason,
}

/// Why a value was not put.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum PutReason {
    /// There was no room for it, or not in time.
    #[error("the queue is full")]
    Full,
    /// Somebody closed the queue.
    #[error("the queue is closed")]
    Closed,
    /// The value does not let itself be turned into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The machine's shared memory is full.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The queue's memory has been overwritten.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for PutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Some of several values were not put; here they are again.
#[derive(Clone, PartialEq, Eq)]
pub struct PutManyError<T> {
    /// How many were put.
    pub put: usize,
    /// The others, in order.
    pub rest: Vec<T>,
    /// Why the first of them was not put.
    pub reason: PutReason,
}

/// No value was got.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum GetError {
    /// There was none, or not in time.
    #[error("the queue is empty")]
    Empty,
    /// The queue has been closed, and everything put before has been got.
    #[error("the queue is closed and empty")]
    Closed,
    /// A message was got (it is out of the queue) whose bytes are no value of the queue's type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The machine's shared memory is full.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The queue's memory has been overwritten.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Several values were not got, or not all.
#[derive(Clone, PartialEq, Eq)]
pub struct GetManyError<T> {
    /// Those that were got, in order.
    pub got: Vec<T>,
    /// Why there are no more: the first error.
    pub reason: GetError,
}

impl From<ring::PutError> for PutReason {
    fn from(error: ring::PutError) -> Self {
        match error {
            ring::PutError::Full => PutReason::Full,
            ring::PutError::Closed => PutReason::Closed,
            ring::PutError::Memory(error) => PutReason::Memory(error),
            ring::PutError::Broken(error) => PutReason::Broken(error),
        }
    }
}

impl From<ring::GetError> for GetError {
    fn from(error: ring::GetError) -> Self {
        match error {
            // A kick is the ring's affair; the queue asks again before it comes to this.
            ring::GetError::Empty | ring::GetError::Interrupted => GetError::Empty,
            ring::GetError::Closed => GetError::Closed,
            ring::GetError::Memory(error) => GetError::Memory(error),
            ring::GetError::Broken(error) => GetError::Broken(error),
        }
    }
}

// By hand, so that they are errors whether or not `T` can be printed.

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value was not put: {}", self.reason)
    }
}

impl<T> Error for PutError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

impl<T> fmt::Debug for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (put, left) = (self.put, self.rest.len());
        write!(
            f,
            "{put} values were put and {left} were not: {}",
            self.reason
        )
    }
}

impl<T> Error for PutManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

impl<T> fmt::Debug for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values were got: {}", self.got.len(), self.reason)
    }
}

impl<T> Error for GetManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

/// `task_done` was called more often than this process has got values.
#[derive(Clone, Copy, PartialEq, Eq, Error)]
#[error("task_done() was called more often than this process has got values from the queue")]
pub struct TooManyDone;

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for TooManyDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
