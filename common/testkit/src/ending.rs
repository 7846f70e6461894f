//! Waiting for the end of processes, whoever's children they are.

use common::process::wait;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A descriptor that becomes readable when `pid` ends. To be had while it lives: later another
/// process may have its id.
///
/// # Panics
///
/// If there is no such process.
pub fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: no memory is passed; the new descriptor is ours.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0, "process {pid} has gone already");
        OwnedFd::from_raw_fd(fd as i32)
    }
}

/// Waits until the processes of these pidfds have ended.
///
/// # Panics
///
/// If one is still there after `limit`.
pub fn ends_within(fds: &[OwnedFd], limit: Duration) {
    let end = Instant::now() + limit;
    for fd in fds {
        let left = end.saturating_duration_since(Instant::now());
        let ready = wait(&[fd], Some(left)).expect("a pidfd can be waited for");
        assert_eq!(ready, [0], "a process was still there after {limit:?}");
    }
}
