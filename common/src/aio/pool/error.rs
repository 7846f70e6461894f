//! Why a pool of coroutines, or one coroutine in it, gave nothing.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::coroutine::CallError;
use crate::codec::{DecodeError, EncodeError};
use crate::function::{BadEntry, Failure};
use crate::panic::Panic;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
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

/// Which task it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskId {
    /// The name of its function.
    pub function: String,
    /// Its number among the items of a `map`, from 0; `None` for `apply`.
    pub index: Option<usize>,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "item {index} of `{}`", self.function),
            None => write!(f, "`{}`", self.function),
        }
    }
}

/// A coroutine in a pool gave no value. The others are not touched by it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It panicked; the worker has printed it and goes on.
    #[error("{task} panicked{}: {message}", at(location))]
    Panicked {
        /// What the panic said.
        message: String,
        /// `file:line:column`, if known.
        location: Option<String>,
        /// Which task.
        task: TaskId,
    },
    /// Its worker ended under it, and it had no retries left. The worker has been replaced.
    #[error("worker {pid} died with {task}: {}", ending(*status))]
    WorkerDied {
        /// The worker's process id.
        pid: u32,
        /// How it ended; `None` if that could not be learnt.
        status: Option<ExitStatus>,
        /// Which task.
        task: TaskId,
    },
    /// It did not end in time. It was cancelled; or, where it blocked its worker's loop, its worker
    /// was killed.
    #[error("{task} did not end within {after:?}")]
    TimedOut {
        /// The limit it had.
        after: Duration,
        /// Which task.
        task: TaskId,
    },
    /// No worker is left and none can be started; the next task tries again.
    #[error("the pool has no worker and cannot start one: {reason}")]
    NoWorkers {
        /// What the last start said.
        reason: String,
    },
    /// An argument or the result could not be turned into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An argument or the result could not be made of the bytes that arrived.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The function cannot be sent.
    #[error(transparent)]
    Function(#[from] BadEntry),
    /// The pool was closed or dropped before the task had ended.
    #[error("the task was not run to its end: the pool has been closed")]
    Closed,
}

fn at(location: &Option<String>) -> String {
    location
        .as_ref()
        .map_or(String::new(), |place| format!(" at {place}"))
}

fn ending(status: Option<ExitStatus>) -> String {
    match status {
        None => "how is not known".to_owned(),
        Some(status) => match status.signal().map(nix::sys::signal::Signal::try_from) {
            Some(Ok(signal)) => signal.to_string(),
            _ => status.to_string(),
        },
    }
}

/// Why a chunk gave nothing at all.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    Failed(Failure),
    Died {
        pid: u32,
        status: Option<ExitStatus>,
    },
    TimedOut {
        after: Duration,
    },
    NoWorkers {
        reason: String,
    },
    Closed,
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Lost::Failed(failure)
    }
}

impl Lost {
    pub(super) fn into_error(self, task: TaskId) -> TaskError {
        match self {
            Lost::Failed(Failure::Panicked(panic)) => panicked(panic, task),
            Lost::Failed(Failure::Arguments(error)) => TaskError::Decode(error),
            Lost::Failed(Failure::Result(error)) => TaskError::Encode(error),
            Lost::Failed(Failure::Entry(error)) => TaskError::Function(error),
            Lost::Died { pid, status } => TaskError::WorkerDied { pid, status, task },
            Lost::TimedOut { after } => TaskError::TimedOut { after, task },
            Lost::NoWorkers { reason } => TaskError::NoWorkers { reason },
            Lost::Closed => TaskError::Closed,
        }
    }
}

impl CallError {
    pub(super) fn into_error(self, limit: Option<Duration>, task: TaskId) -> TaskError {
        match self {
            CallError::Panicked(panic) => panicked(panic, task),
            CallError::Result(error) => TaskError::Encode(error),
            CallError::TimedOut => TaskError::TimedOut {
                after: limit.unwrap_or_default(),
                task,
            },
        }
    }
}

fn panicked(panic: Panic, task: TaskId) -> TaskError {
    TaskError::Panicked {
        message: panic.message,
        location: panic.location,
        task,
    }
}
