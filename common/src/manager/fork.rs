//! Whether this process is the one that made something, or a fork of it. A counter that each
//! fork raises costs a load; asking the kernel for the process id costs a hundred times that.
//!
//! And what a fork is to have no copy of: who waits for a server that has ended is told by its
//! sockets, but not before the last copy of them is closed.
//!
//! To copy: fork.rs.

#![allow(unsafe_code)] // Registers a handler; replaces descriptors in there.

use std::collections::BTreeSet;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

static FORKS: AtomicU32 = AtomicU32::new(0);
static REGISTERED: Once = Once::new();

/// A number that is another one in a forked child.
#[inline]
pub(super) fn generation() -> u32 {
    if !REGISTERED.is_completed() {
        register();
    }
    FORKS.load(Ordering::Relaxed)
}

#[cold]
fn register() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // Otherwise another thread was about to change them, and has no copy here.
        if let Ok(mut private) = PRIVATE.try_lock() {
            replace(&private);
            // Their numbers may be another file's when this process forks in turn. The memory is
            // left alone: to free it may need a lock.
            mem::forget(mem::take(&mut *private));
        }
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler touches an atomic, tries a lock, reads what that guards and makes
        // system calls, which is allowed after any fork. Registering it fails for want of memory
        // only; then forks of this process take its connection for theirs.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// A socket that no fork of this process has a copy of.
pub(super) struct Private(OwnedFd);

static PRIVATE: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

impl Private {
    pub(super) fn new(socket: OwnedFd) -> Private {
        generation(); // Registers the handler.
        private().insert(socket.as_raw_fd());
        Private(socket)
    }
}

impl AsFd for Private {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        private().remove(&self.0.as_raw_fd());
    }
}

fn private() -> MutexGuard<'static, BTreeSet<RawFd>> {
    PRIVATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts something else in the place of each: its number stays taken, for who believes to own it.
fn replace(fds: &BTreeSet<RawFd>) {
    if fds.is_empty() {
        return;
    }
    // SAFETY: the path is a C string, and the new descriptor is ours. The others belong to
    // `Private`s, for which they stay open; where they cannot, they are closed, in a process in
    // which the server never goes on, so that nobody closes them again.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for &fd in fds {
            match null {
                0.. => libc::dup3(null, fd, libc::O_CLOEXEC),
                _ => libc::close(fd),
            };
        }
        if null >= 0 {
            libc::close(null);
        }
    }
}
