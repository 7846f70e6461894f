//! What a put and a get can come to.

use crate::shm::ShmError;
use crate::sync::LockError;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A message was not put.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum PutError {
    /// There was no room for it until the deadline.
    #[error("no room in the ring until the deadline")]
    Full,
    /// The ring has been closed.
    #[error("the ring is closed")]
    Closed,
    /// The machine's shared memory is full.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The shared memory has been overwritten.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// No message was got.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum GetError {
    /// There was none until the deadline.
    #[error("no message in the ring until the deadline")]
    Empty,
    /// The ring has been closed and everything put before has been got.
    #[error("the ring is closed and drained")]
    Closed,
    /// Somebody called `kick`.
    #[error("the wait for a message was interrupted")]
    Interrupted,
    /// The machine's shared memory is full.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The shared memory has been overwritten.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the shared memory holds makes no sense: some process has written where it must not.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error(
    "the shared memory `{name}` has been overwritten by some process: {reason}. Messages in it \
     may be lost; make a new one"
)]
pub struct Broken {
    /// The segment's name.
    pub name: String,
    /// What makes no sense.
    pub reason: String,
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What ends an operation inside the ring; each side gives it its own name.
pub(super) enum Stop {
    Deadline,
    Closed,
    Interrupted,
    /// The reader of a long message gave up waiting for the rest.
    Rejected,
    Memory(ShmError),
    Broken(Broken),
}

impl Stop {
    pub(super) fn lock(error: LockError, name: &str) -> Stop {
        match error {
            LockError::Timeout => Stop::Deadline,
            other => Stop::Broken(Broken {
                name: name.into(),
                reason: other.to_string(),
            }),
        }
    }
}

impl From<ShmError> for Stop {
    fn from(error: ShmError) -> Self {
        Stop::Memory(error)
    }
}

impl From<Stop> for PutError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Deadline | Stop::Interrupted | Stop::Rejected => PutError::Full,
            Stop::Closed => PutError::Closed,
            Stop::Memory(error) => PutError::Memory(error),
            Stop::Broken(error) => PutError::Broken(error),
        }
    }
}

impl From<Stop> for GetError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Deadline | Stop::Rejected => GetError::Empty,
            Stop::Closed => GetError::Closed,
            Stop::Interrupted => GetError::Interrupted,
            Stop::Memory(error) => GetError::Memory(error),
            Stop::Broken(error) => GetError::Broken(error),
        }
    }
}
