//! What can go wrong with a manager and its values.

use super::address::Address;
use crate::codec::{DecodeError, EncodeError};
use crate::function::{BadEntry, Failure};
use crate::panic::Panic;
use crate::process::{self, SpawnError};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// A call to a hosted value gave no result.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum CallError {
    /// The manager was shut down or killed, or it cannot be reached. Whether the function ran is
    /// not known.
    #[error(
        "{manager} cannot be reached: {reason}. Keep the `Manager` alive until the last proxy is \
         done, or start another"
    )]
    Disconnected {
        /// The manager's name.
        manager: String,
        /// What happened.
        reason: String,
    },
    /// There was no answer in time. The function may run yet.
    #[error("{manager} did not answer in time; the function may have run or run yet")]
    Timeout {
        /// The manager's name.
        manager: String,
    },
    /// The function panicked. What it changed until then stays changed; so the value is poisoned
    /// until somebody has had a look: see [`Proxy::clear_poison`](super::Proxy::clear_poison).
    #[error("the function {0}; the value is poisoned now, see `Proxy::clear_poison`")]
    Panicked(Panic),
    /// An earlier function panicked while it had the value.
    #[error(
        "the value is poisoned: a function that had it {0}; make it whole and call \
         `Proxy::clear_poison`, or host another"
    )]
    Poisoned(Panic),
    /// The value has been dropped: this proxy arrived after the last other one had gone.
    #[error("the value is gone: its last proxy was dropped before this one arrived")]
    Gone,
    /// The value is in use by the very call that this one was made from, or was given twice to
    /// one transaction.
    #[error(
        "the value is in use by the call that this one was made from, or is named twice in one \
         transaction"
    )]
    Busy,
    /// The call was made from a function that runs in the manager, and its answer takes a while:
    /// the manager would wait for itself.
    #[error(
        "a function that runs in a manager cannot wait for that manager, or for a pool of it: \
         call it from another process, or from a thread"
    )]
    WouldBlock,
    /// The values of one transaction must be of one manager, and a manager publishes its own.
    #[error(
        "a value belongs to another manager: host it where the others of the transaction are, or \
         where it is to be published"
    )]
    Foreign,
    /// The proxy is of another type than the value.
    #[error("the value is a `{found}`, not a `{expected}`")]
    Type {
        /// The proxy's type.
        expected: String,
        /// The value's type.
        found: String,
    },
    /// The arguments cannot be sent.
    #[error("the function was not run: {0}")]
    Arguments(EncodeError),
    /// The function cannot be sent.
    #[error("the function was not run: {0}")]
    Function(BadEntry),
    /// The server did not understand the function or its arguments, or could not send its result.
    #[error(transparent)]
    Server(Failure),
    /// The manager's process has no memory for a value that large. The value is as it was.
    #[error("the manager has no memory for a value that large; it is as it was")]
    NoMemory,
    /// What arrived is not what the function returns.
    #[error("the function ran, but its result was not understood: {0}")]
    Result(DecodeError),
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A manager could not be started.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// Its process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Its address cannot be used.
    #[error("{manager} cannot listen at {address}: {error}{}", remedy(*error))]
    Address {
        /// The manager's name.
        manager: String,
        /// Where.
        address: Address,
        /// What the system said.
        error: Errno,
    },
    /// Its initialiser failed.
    #[error("the initialiser of {manager} failed: {reason}")]
    Initializer {
        /// The manager's name.
        manager: String,
        /// Why.
        reason: String,
    },
    /// Its process ended, or said nothing for a while.
    #[error("{manager} did not come up: {reason}")]
    NotUp {
        /// The manager's name.
        manager: String,
        /// What happened instead.
        reason: String,
    },
    /// The system refused a socket.
    #[error("{manager} was not started: a socket: {error}{}", process::remedy(*error))]
    Os {
        /// The manager's name.
        manager: String,
        /// What the system said.
        error: Errno,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn remedy(error: Errno) -> &'static str {
    match error {
        Errno::EADDRINUSE => " (another process listens there: shut it down or take another name)",
        Errno::ENOENT => " (the folder does not exist)",
        Errno::ENAMETOOLONG => " (at most 107 bytes)",
        other => process::remedy(other),
    }
}

/// A manager at an address could not be connected to.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// Nobody listens there, or the system refused the connection.
    #[error("{} {address}: {error}", unreachable(*error))]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system said.
        error: Errno,
    },
    /// The manager said no.
    #[error("the manager at {address} refused the connection: {refusal}")]
    Refused {
        /// Where.
        address: Address,
        /// Why.
        refusal: Refusal,
    },
    /// Whoever listens there is not a manager, or does not know the key.
    #[error("who listens at {address} is no manager with this key: {reason}")]
    NotAManager {
        /// Where.
        address: Address,
        /// How it was noticed.
        reason: String,
    },
    /// No answer: the manager is busy with a long call, or stopped.
    #[error("the manager at {address} did not answer within {limit:?}")]
    Timeout {
        /// Where.
        address: Address,
        /// How long was waited.
        limit: Duration,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an error of connect(2) means for the address that follows.
pub(super) fn unreachable(error: Errno) -> &'static str {
    match error {
        Errno::ECONNREFUSED | Errno::ENOENT => "nobody listens at",
        _ => "this process cannot connect to",
    }
}

/// Why a manager sends somebody away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The key is wrong.
    #[doc(alias = "AuthenticationError")]
    #[error("the key is wrong")]
    Key,
    /// It is another program, or another build of it.
    #[error(
        "it runs another build of the program, so that functions cannot be sent to it: restart \
         both from the same executable"
    )]
    Build,
    /// It is another user's.
    #[error("it serves processes of its own user only")]
    User,
    /// It cannot take one more client: no file descriptors or memory are left.
    #[error("it has no file descriptors or memory left for one more client")]
    Full,
}
