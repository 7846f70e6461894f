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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::fs::File;
    use testkit::isolated;

    #[test]
    fn only_a_fork_has_no_copy_and_its_own_forks_keep_what_it_opens() {
        isolated(|| {
            let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
            let (socket, other) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let socket = Private::new(socket);
            let child = process::fork(|| {
                nix::unistd::write(&socket, b"x").unwrap();
                let file = File::open("/proc/self/stat").unwrap();
                // SAFETY: both are open, and nobody here believes the second one to be a socket.
                unsafe { libc::dup2(file.as_raw_fd(), socket.0.as_raw_fd()) };
                let read = || {
                    let mut bytes = [0; 64];
                    nix::unistd::read(&socket, &mut bytes).unwrap();
                    let text = String::from_utf8_lossy(&bytes);
                    text.split(' ').next().map(str::to_owned)
                };
                process::fork(read).unwrap().join().unwrap()
            });
            let child = child.unwrap();
            assert_eq!(child.join().unwrap(), Some(child.pid().to_string()));
            // What the child wrote went nowhere, and the socket is as it was.
            assert!(nix::unistd::write(&socket, b"y").is_ok());
            let mut buffer = [0; 8];
            assert_eq!(nix::unistd::read(&other, &mut buffer), Ok(1));
            assert_eq!(buffer[0], b'y');
        });
    }
}
