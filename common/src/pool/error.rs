//! What can go wrong with a pool and with one task of it.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use crate::codec::{DecodeError, EncodeError};
use crate::function::{BadEntry, Failure};
use crate::process::{self, SpawnError, commonly, signal_name};
use crate::shm::ShmError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};
use thiserror::Error;

/// Which task it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Why a task gave no result. The other tasks of the pool are not touched by it.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked; the worker has printed it and goes on.
    #[error("{task} panicked{}: {message}", at(location))]
    Panicked {
        /// What the panic said.
        message: String,
        /// `file:line:column`, if known.
        location: Option<String>,
        /// Which task.
        task: TaskId,
    },
    /// The worker ended while it ran the task; it has been replaced.
    #[doc(alias = "BrokenProcessPool")]
    #[error("worker {pid} died with {task}: {}", ending(*status))]
    WorkerDied {
        /// The worker's process id.
        pid: u32,
        /// How it ended; `None` if that could not be learnt.
        #[serde(with = "raw_status")]
        status: Option<ExitStatus>,
        /// Which task.
        task: TaskId,
    },
    /// The task ran longer than the pool's `task_timeout`, so its worker was killed and replaced.
    #[error("{task} was killed at its deadline, after {after:?}")]
    TimedOut {
        /// The pool's `task_timeout`.
        after: Duration,
        /// Which task.
        task: TaskId,
    },
    /// The task waited for a lock of which its worker had, by the fork, a copy that nobody there
    /// can release; the worker has been killed and replaced.
    #[error(
        "worker {pid} was killed with {task}: it waited for a lock that was held when it was \
         forked, which nobody can release there; if that was a `LazyLock` being made, of the pool \
         itself perhaps, keep tasks from touching it or use StartMethod::Spawn"
    )]
    Deadlocked {
        /// The worker's process id.
        pid: u32,
        /// Which task.
        task: TaskId,
    },
    /// It was cancelled, or the pool was terminated before it was done.
    #[error("the task was cancelled")]
    Cancelled,
    /// An argument or the result could not be turned into bytes.
    #[error(transparent)]
    Encode(EncodeError),
    /// An argument or the result could not be made of the bytes that arrived.
    #[error(transparent)]
    Decode(DecodeError),
    /// The pool has been closed or terminated.
    #[error("the pool is closed: no task can be given to it any more")]
    Closed,
    /// The function cannot be sent.
    #[error(transparent)]
    Function(BadEntry),
    /// The function wants another state than the pool's initializer makes.
    #[error(
        "{task} wants a state of type `{wanted}`, but the pool's initializer made `{found}`: give \
         the builder an initializer that returns what the function takes"
    )]
    State {
        /// The type of the function's first argument.
        wanted: String,
        /// What the initializer returned.
        found: String,
        /// Which task.
        task: TaskId,
    },
    /// No worker is left and none can be started; the next task tries again.
    #[error("the pool has no worker and cannot start one: {reason}")]
    NoWorkers {
        /// What the last start said.
        reason: String,
    },
    /// The machine's shared memory is full or has been overwritten.
    #[error("the task could not be passed on: {reason}")]
    Memory {
        /// What the transport said.
        reason: String,
    },
    /// The pool belongs to another process: a worker cannot use the pool that it works for.
    #[error("the pool belongs to process {owner}: a worker that needs one makes a pool of its own")]
    NotOwner {
        /// The process that made the pool.
        owner: u32,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn at(location: &Option<String>) -> String {
    location
        .as_ref()
        .map(|place| format!(" at {place}"))
        .unwrap_or_default()
}

/// How a worker ended, with the usual cause.
pub(super) fn ending(status: Option<ExitStatus>) -> String {
    let Some(status) = status else {
        return "how is not known".into();
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (_, Some(signal)) => match commonly(signal) {
            Some(cause) => format!("{} ({cause})", signal_name(signal)),
            None => signal_name(signal),
        },
        _ => "how is not known".into(),
    }
}

mod raw_status {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    pub(super) fn serialize<S: Serializer>(
        status: &Option<ExitStatus>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        status.map(ExitStatus::into_raw).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ExitStatus>, D::Error> {
        let raw = Option::<i32>::deserialize(deserializer)?;
        Ok(raw.map(ExitStatus::from_raw))
    }
}

/// What a worker says of a task that gave no result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Fault {
    Failed(Failure),
    State { wanted: String, found: String },
}

impl Fault {
    pub(super) fn into_error(self, task: TaskId) -> TaskError {
        match self {
            Fault::Failed(Failure::Panicked(panic)) => TaskError::Panicked {
                message: panic.message,
                location: panic.location,
                task,
            },
            Fault::Failed(Failure::Arguments(error)) => TaskError::Decode(error),
            Fault::Failed(Failure::Result(error)) => TaskError::Encode(error),
            Fault::Failed(Failure::Entry(error)) => TaskError::Function(error),
            Fault::State { wanted, found } => TaskError::State {
                wanted,
                found,
                task,
            },
        }
    }
}

/// A pool cannot be made or used so.
#[derive(Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A number in the builder makes no sense.
    #[error("a pool cannot be made with `{what}({value})`: {remedy}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What was asked for.
        value: String,
        /// What would do.
        remedy: &'static str,
    },
    /// A worker cannot be started; those that were have been ended.
    #[error("a worker of the pool cannot be started: {0}")]
    Start(#[from] SpawnError),
    /// The shared memory cannot be had.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The pipe that wakes the pool's own thread cannot be had.
    #[error("the pipe that wakes the pool's monitor cannot be had: {}{}", .0, remedy(.0))]
    Pipe(io::Error),
    /// A thread of the pool cannot be started.
    #[error("a thread of the pool cannot be started: {}{}", .0, remedy(.0))]
    Thread(io::Error),
    /// The socket to the workers cannot be had.
    #[error("the socket to the pool's workers cannot be had: {}{}", .0, remedy(.0))]
    Socket(io::Error),
    /// The arguments of the initializer cannot be sent.
    #[error("the initializer's arguments cannot be sent: {0}")]
    Initializer(EncodeError),
    /// The initializer cannot be sent.
    #[error("the initializer cannot be sent: {0}")]
    Function(#[from] BadEntry),
    /// The pool belongs to another process, of which this one is a fork.
    #[error("the pool belongs to process {owner}: only that can join it")]
    NotOwner {
        /// The process that made the pool.
        owner: u32,
    },
    /// `join` without `close` would wait for ever.
    #[error("the pool is still open: call `close` or `terminate` before `join`")]
    Open,
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to do about it.
fn remedy(error: &io::Error) -> &'static str {
    let number = error.raw_os_error().unwrap_or(0);
    process::remedy(Errno::from_raw(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_and_reads_well() {
        let task = TaskId {
            function: "square".into(),
            index: Some(3),
        };
        let error = TaskError::WorkerDied {
            pid: 7,
            status: Some(ExitStatus::from_raw(libc::SIGKILL)),
            task,
        };
        let bytes = crate::codec::encode(&error).unwrap();
        assert_eq!(crate::codec::decode::<TaskError>(&bytes).unwrap(), error);
        assert_eq!(
            error.to_string(),
            "worker 7 died with item 3 of `square`: SIGKILL (often the kernel's out-of-memory \
             killer, or `kill`)"
        );
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
