//! Why a coroutine in a pool gave nothing, on its way to being a [`TaskError`].
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::coroutine::CallError;
use crate::function::Failure;
use crate::panic::Panic;
use crate::pool::{TaskError, TaskId};
use std::process::ExitStatus;
use std::time::Duration;

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
    /// The pool was ended before.
    Closed,
    /// The pool was ended meanwhile.
    Cancelled,
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
            Lost::Cancelled => TaskError::Cancelled,
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
