//! Why a pool of coroutines gave no value.
//!
//! To copy: error.rs.

use super::coroutine::CallError;
use crate::codec::{DecodeError, EncodeError};
use crate::function::{BadEntry, Failure};
use crate::panic::Panic;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// A pool of coroutines could not be made.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A number that must be at least one is zero.
    #[error("a pool needs at least one of `{0}`, not 0")]
    Zero(&'static str),
    /// Its socket, or the thread that serves it, could not be made.
    #[error("the pool could not be set up: {0}")]
    Os(#[from] io::Error),
}

/// A coroutine in a pool gave no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TaskError {
    /// It panicked. The panic was printed on the worker's standard error as usual.
    #[error("the coroutine {0}")]
    Panicked(Panic),
    /// Its worker ended under it, and it had no retries left.
    #[error("the coroutine was lost: worker {pid} died: {reason}")]
    WorkerDied {
        /// The worker's process id.
        pid: u32,
        /// How it ended.
        reason: String,
    },
    /// It did not end in time. It was cancelled; or, where it blocked its worker's loop, its worker
    /// was killed.
    #[error("the coroutine did not end within {after:?}")]
    TimedOut {
        /// The limit it had.
        after: Duration,
    },
    /// No worker could be started, so that it was not run.
    #[error("the coroutine was not run: no worker could be started: {reason}")]
    NoWorker {
        /// Why.
        reason: String,
    },
    /// Its arguments or its result cannot be serialised.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// Its arguments or its result arrived but were not understood.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The function is not one that another process can find.
    #[error("{0}")]
    Function(#[from] BadEntry),
    /// The pool was closed or dropped before it had ended.
    #[error("the coroutine was not run to its end: the pool was closed")]
    Closed,
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(panic) => TaskError::Panicked(panic),
            Failure::Arguments(error) => TaskError::Decode(error),
            Failure::Result(error) => TaskError::Encode(error),
            Failure::Entry(error) => TaskError::Function(error),
        }
    }
}

impl TaskError {
    pub(super) fn of_call(error: CallError, limit: Option<Duration>) -> Self {
        match error {
            CallError::Panicked(panic) => TaskError::Panicked(panic),
            CallError::Result(error) => TaskError::Encode(error),
            CallError::TimedOut => TaskError::TimedOut {
                after: limit.unwrap_or_default(),
            },
        }
    }
}
