//! What can go wrong when a process is started, and how one can end without a result.
//!
//! To copy: error.rs, function.rs, image.rs, panic.rs, codec.rs.

use crate::codec::{DecodeError, EncodeError};
use crate::function::{BadEntry, Failure};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use thiserror::Error;

/// A process could not be started.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum SpawnError {
    /// The arguments could not be serialised.
    #[error("{process} was not started: its arguments: {error}")]
    Arguments {
        /// The name it would have had.
        process: String,
        /// Which value, and why.
        error: EncodeError,
    },
    /// The function is not one that another process can find.
    #[error("{process} was not started: {error}")]
    Function {
        /// The name it would have had.
        process: String,
        /// Why.
        error: BadEntry,
    },
    /// The environment cannot hold such a variable.
    #[error("{process} was not started: its environment variable {variable:?}: {reason}")]
    Environment {
        /// The name it would have had.
        process: String,
        /// The variable's name.
        variable: OsString,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A fork was asked for in a process that has other threads: they would not exist in the
    /// child, and what they had locked would stay locked there for ever.
    #[error(
        "{process} was not started: fork needs a process with exactly one thread, this one has \
         {threads}; start it before the other threads, or use StartMethod::Spawn or ForkServer"
    )]
    Threads {
        /// The name it would have had.
        process: String,
        /// How many threads there are.
        threads: u64,
    },
    /// The kernel refused.
    #[error("{process} was not started: {step}: {}{}", error.desc(), remedy(*error))]
    Os {
        /// The name it would have had.
        process: String,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to do about it.
pub(crate) fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::EMFILE => " (raise `ulimit -n`, or drop handles that are no longer needed)",
        Errno::ENFILE => " (the machine's limit on open files, fs.file-max, is reached)",
        Errno::EAGAIN => {
            " (the limit on processes is reached: `ulimit -u`, or pids.max of the container)"
        }
        Errno::ENOMEM => " (there is not enough memory, or the cgroup's limit is reached)",
        Errno::E2BIG => {
            " (the environment and the program's arguments are too large: what is long goes into \
             the arguments of the function)"
        }
        Errno::ENOENT => " (is /proc mounted?)",
        _ => "",
    }
}

/// A process ended without giving a result, or its result cannot be had.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// Its function panicked. The panic was printed on its standard error as usual.
    #[error("{process} panicked{}: {message}", at(location.as_deref()))]
    Panicked {
        /// Its name.
        process: String,
        /// The text given to `panic!`.
        message: String,
        /// `file:line:column`.
        location: Option<String>,
    },
    /// It ended by `exit` before its function returned.
    #[error("{process} exited with code {code} before its function returned")]
    Exited {
        /// Its name.
        process: String,
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    #[error("{process} was ended by {name}{}", as_told(commonly(*signal)))]
    Signaled {
        /// Its name.
        process: String,
        /// The signal's number.
        signal: i32,
        /// The signal's name, such as `SIGKILL`.
        name: String,
    },
    /// It could not be set up as asked for, so its function was not run.
    #[error("{process} did not run: {reason}")]
    SetUp {
        /// Its name.
        process: String,
        /// What could not be done, and why.
        reason: String,
    },
    /// Its function was not understood, or its result could not be serialised.
    #[error("{process}: {failure}")]
    Function {
        /// Its name.
        process: String,
        /// Which.
        failure: Failure,
    },
    /// Its result arrived but is not what its function returns.
    #[error("{process} returned something unreadable: {error}")]
    Result {
        /// Its name.
        process: String,
        /// Why.
        error: DecodeError,
    },
    /// Its function has run, but what it said when it ended could not be sent or received.
    #[error("{process} has ended, but what it had to say was not received: {reason}")]
    Unreceived {
        /// Its name.
        process: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// It ended, but how is not known: somebody else took its exit status.
    #[error(
        "{process} ended, but its exit status is lost: its fork server was killed or is stopped, \
         or other code in this program waits for all children (waitpid(-1)) or ignores SIGCHLD"
    )]
    Lost {
        /// Its name.
        process: String,
    },
    /// Only the process that started it can wait for it; this is a fork of that process.
    #[error("{process} can be joined only by the process that started it")]
    NotOwner {
        /// Its name.
        process: String,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn at(location: Option<&str>) -> String {
    location.map_or(String::new(), |place| format!(" at {place}"))
}

fn as_told(cause: Option<&str>) -> String {
    cause.map_or(String::new(), |cause| format!(": {cause}"))
}

/// A word on what a signal commonly means.
pub(crate) fn commonly(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGKILL => "often the kernel's out-of-memory killer, or `kill`",
        libc::SIGSEGV => "it used memory it must not; may be a stack overflow",
        libc::SIGBUS => "it used memory that is not there; may be a full disk or /dev/shm",
        libc::SIGABRT => "it called `abort`; a failed allocation or a double panic does so too",
        libc::SIGILL => "an invalid instruction; may be a build for another CPU",
        libc::SIGFPE => "a division by zero in foreign code",
        libc::SIGXCPU => "its limit of CPU time was reached",
        libc::SIGXFSZ => "its limit of file size was reached",
        libc::SIGSYS => "a system call that a seccomp filter forbids",
        libc::SIGTERM => "`terminate`, or somebody asked it to end",
        libc::SIGINT => "`interrupt`, or Ctrl-C",
        libc::SIGHUP => "its terminal was closed",
        _ => return None,
    })
}

/// What a child tells its parent when it gives no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChildFailure {
    SetUp(String),
    Function(Failure),
    /// There is a result, which could not be sent.
    Unsent(String),
}

impl JoinError {
    pub(super) fn of_failure(process: &str, failure: &ChildFailure) -> Self {
        let process = process.to_owned();
        match failure.clone() {
            ChildFailure::SetUp(reason) => JoinError::SetUp { process, reason },
            ChildFailure::Function(Failure::Panicked(panic)) => JoinError::Panicked {
                process,
                message: panic.message,
                location: panic.location,
            },
            ChildFailure::Function(failure) => JoinError::Function { process, failure },
            ChildFailure::Unsent(reason) => JoinError::Unreceived { process, reason },
        }
    }

    pub(super) fn of_status(process: &str, status: Option<ExitStatus>) -> Self {
        let process = process.to_owned();
        match status {
            None => JoinError::Lost { process },
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => JoinError::Exited { process, code },
                (None, Some(signal)) => JoinError::Signaled {
                    process,
                    signal,
                    name: signal_name(signal),
                },
                (None, None) => JoinError::Lost { process },
            },
        }
    }
}

pub(crate) fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_and_unwrap_print_the_words_and_the_remedy() {
        let error = SpawnError::Os {
            process: "Process-1".into(),
            step: "a socket to it",
            error: Errno::EMFILE,
        };
        let printed = format!("{error:?}");
        assert!(
            printed.starts_with("Process-1 was not started"),
            "{printed}"
        );
        assert!(printed.contains("ulimit -n"), "{printed}");
    }
}
