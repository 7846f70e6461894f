//! Whether this process is the one that made something, or a fork of it. A counter that each
//! fork raises costs a load; asking the kernel for the process id costs a hundred times that.
//!
//! To copy: fork.rs.

#![allow(unsafe_code)] // Registers a handler.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

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
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler touches one atomic only, which is allowed after any fork. It fails
        // for want of memory only; then forks of this process take its connection for theirs.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}
