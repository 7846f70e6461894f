//! What can go wrong with a segment.

use serde::{Deserialize, Serialize};
use std::{fmt, io};
use thiserror::Error;

/// A segment could not be made, opened or enlarged.
#[derive(Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ShmError {
    /// `/dev/shm` is full.
    #[error(
        "no room for {needed} more bytes of shared memory: /dev/shm holds {size} bytes and \
         {free} are free. Enlarge it (`mount -o remount,size=2G /dev/shm`; `docker run \
         --shm-size=2g`) or ask for less"
    )]
    NoSpace {
        /// The bytes that were asked for.
        needed: u64,
        /// How large `/dev/shm` is, in bytes.
        size: u64,
        /// How much of it is free, in bytes.
        free: u64,
    },
    /// There is no segment of this name (any more).
    #[error(
        "there is no shared memory segment `{name}`: its owner has dropped it or has ended; keep \
         the owner's handle alive until everybody has opened theirs"
    )]
    NotFound {
        /// The segment's name.
        name: String,
    },
    /// A segment of no bytes or of more than there can be, or a place beyond its end.
    #[error(
        "{bytes} bytes of shared memory are out of range (a segment has at least one, and no more \
         than it was made with; a queue has at most 4 GiB)"
    )]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// What is there is not a segment of this version of this library, or it has been overwritten.
    #[error("`{name}` cannot be used as shared memory: {reason}")]
    Invalid {
        /// The segment's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error(
        "{call} of shared memory `{name}`: {}{}",
        io::Error::from_raw_os_error(*errno),
        remedy(call, *errno)
    )]
    Os {
        /// What was called.
        call: String,
        /// The segment's name.
        name: String,
        /// The error's number, as in `errno`.
        errno: i32,
    },
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for ShmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to do about it.
fn remedy(call: &str, errno: i32) -> &'static str {
    match errno {
        libc::ENOENT | libc::EROFS | libc::EACCES if call == CREATION => {
            " (/dev/shm is to be a directory that everybody may write to: `mount -t tmpfs -o \
             mode=1777 tmpfs /dev/shm`)"
        }
        libc::EMFILE => " (raise `ulimit -n`, or drop handles that are no longer needed)",
        libc::EFBIG => " (raise `ulimit -f`, or ask for less)",
        libc::ENOMEM => " (raise `ulimit -v` or vm.max_map_count, or ask for less)",
        libc::ENFILE => " (the machine's limit on open files, fs.file-max, is reached)",
        _ => "",
    }
}

/// What [`ShmError::Os`] says was called when a segment could not be made.
pub(super) const CREATION: &str = "creation";

impl ShmError {
    pub(super) fn invalid(name: &str, reason: impl Into<String>) -> Self {
        ShmError::Invalid {
            name: name.into(),
            reason: reason.into(),
        }
    }

    pub(super) fn os(call: &str, name: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            // Without the directory there is nothing to be created in.
            Some(libc::ENOENT) if call != CREATION => ShmError::NotFound { name: name.into() },
            Some(libc::ENOSPC) => ShmError::no_space(0),
            errno => ShmError::Os {
                call: call.into(),
                name: name.into(),
                errno: errno.unwrap_or(libc::EIO),
            },
        }
    }

    pub(super) fn no_space(needed: u64) -> Self {
        let (size, free) = nix::sys::statvfs::statvfs("/dev/shm").map_or((0, 0), |fs| {
            let block = fs.fragment_size();
            (fs.blocks() * block, fs.blocks_available() * block)
        });
        ShmError::NoSpace { needed, size, free }
    }
}
