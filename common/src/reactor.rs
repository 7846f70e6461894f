//! Waiting for a file descriptor in async code, under any executor.
//!
//! tokio does the waiting, in a runtime of its own with one thread, started at the first use; the
//! future that it wakes belongs to whichever executor polls it.
//!
//! To copy: reactor.rs.

#![allow(unsafe_code)] // tokio asks for a promise about the descriptor.

use futures::channel::oneshot;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

/// Waits until `fd` can be read. Dropping the future ends the wait and closes `fd`.
///
/// # Errors
///
/// If the thread or the runtime's own descriptors cannot be made, or `fd` is of a kind that
/// cannot be polled.
pub(crate) async fn readable(fd: OwnedFd) -> io::Result<()> {
    let (mut done, wait) = oneshot::channel();
    handle()?.spawn(async move {
        let ready = async {
            // SAFETY: an `OwnedFd` is open and the same for as long as it lives, and the `AsyncFd`
            // owns it.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
            fd.readable().await?.retain_ready();
            Ok(())
        };
        let ready: io::Result<()> = tokio::select! {
            ready = ready => ready,
            () = done.cancellation() => return,
        };
        let _ = done.send(ready);
    });
    wait.await
        .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

/// Has the reactor's thread call `ready` whenever there may be something new to read from `fd`, and
/// once if there is something already. Ends, and closes `fd`, when `ready` says false or the
/// [`Watch`] is dropped.
///
/// # Errors
///
/// As [`readable`].
pub(crate) fn watch(
    fd: OwnedFd,
    mut ready: impl FnMut() -> bool + Send + 'static,
) -> io::Result<Watch> {
    let handle = handle()?;
    let _entered = handle.enter();
    // SAFETY: an `OwnedFd` is open and the same for as long as it lives, and the `AsyncFd` owns it.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    let task = handle.spawn(async move {
        while let Ok(mut readable) = fd.readable().await {
            // Before the call: what comes during it gives another.
            readable.clear_ready();
            if !ready() {
                return;
            }
        }
    });
    Ok(Watch(task.abort_handle()))
}

/// Dropping it ends a [`watch`].
#[derive(Debug)]
pub(crate) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The runtime itself, for tasks that never block.
///
/// # Errors
///
/// If its thread or descriptors cannot be made.
pub(crate) fn handle() -> io::Result<&'static Handle> {
    static REACTOR: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = REACTOR.get() {
        return Ok(runtime.handle());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("common-reactor")
        .enable_all()
        .build()?;
    // If another thread was quicker, this runtime goes again; it has nothing to do yet.
    if let Err(late) = REACTOR.set(runtime) {
        late.shutdown_background();
    }
    REACTOR
        .get()
        .map(Runtime::handle)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}
