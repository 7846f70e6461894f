//! Processes: start one, wait for it, get back what its function returned.
//!
//! ```text
//!   this process                        |  new process (same executable)
//!   Process::spawn(f, args)             |
//!     entry of f, encoded args  -- hello -->  caught before main
//!     handle: pid, pidfd                |     f(args)
//!   join()  <------------------ result ----  exit
//!             the lifeline: a socket    |
//!             whose hang-up ends the child
//! ```
//!
//! A child always runs this program's own executable; it is caught before `main`, after all that
//! libraries do there (C++ constructors, say), so that a program needs no guard and no initialiser.
//! Each child holds one end of a socket, its lifeline: when the other end goes, because the parent
//! has ended in whatever way, the kernel kills the child (`O_ASYNC` with SIGKILL), asleep or not,
//! with no thread that watches.
//!
//! A child's `main` thread is the only one it has. When `f` returns, the process ends, as a Rust
//! program does: threads that `f` started are not waited for.
//!
//! Not to be used in a process that [`fork()`] made from one that had used tokio or any other
//! library with a hidden state about threads: spawn there.
//!
//! To copy: the folder process/, departures.rs, reactor.rs, function.rs, image.rs, panic.rs,
//! codec.rs.

mod builder;
mod child;
mod error;
mod forkserver;
mod handle;
mod inherited;
mod packet;
mod record;
mod registry;
mod spare;
mod start;
mod sys;
#[cfg(test)]
mod tests;
mod wait;

pub use builder::{Builder, StartMethod, Stdio};
pub use child::{CurrentProcess, Parent};
pub use error::{JoinError, SpawnError};
pub(crate) use error::{commonly, remedy, signal_name};
pub use handle::Process;
pub use registry::ActiveChild;
pub use wait::wait;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Starts a process that is a copy of this one and runs the closure, captures and all; the handle
/// gives back what it returned. See fork(2).
///
/// In the child the closure runs under `catch_unwind`; then the standard streams are flushed and
/// the process ends at once. None of the parent's destructors and exit handlers run there, nor any
/// exit handlers of its own: shared memory that it made and did not drop, in a static perhaps, is
/// removed only when some process makes the next.
///
/// It has a copy of each of the parent's descriptors: a pipe that the parent closes, another
/// process's standard input perhaps, does not end while this process has it.
///
/// # Errors
///
/// [`SpawnError::Threads`] unless this process has exactly one thread; else as
/// [`Process::spawn`].
///
/// ```
/// use common::process::{self, Process};
///
/// // A doctest has threads of its own; the process it starts has one.
/// fn sum_in_a_fork() -> u32 {
///     let numbers = vec![1, 2, 3];
///     let process = process::fork(|| numbers.iter().sum()).unwrap();
///     process.join().unwrap()
/// }
/// assert_eq!(Process::spawn(sum_in_a_fork, ())?.join()?, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn fork<F, R>(f: F) -> Result<Process<R>, SpawnError>
where
    F: FnOnce() -> R,
    R: Serialize + DeserializeOwned,
{
    Process::builder().fork(f)
}

/// The process that calls this; Python's `current_process()`.
///
/// ```
/// assert_eq!(common::process::current().name(), "MainProcess");
/// ```
#[doc(alias = "current_process")]
#[must_use]
pub fn current() -> Arc<CurrentProcess> {
    child::current_process()
}

/// The process that started this one, if this library did; Python's `parent_process()`.
///
/// ```
/// use common::process::{self, Process};
///
/// fn parents_pid() -> Option<u32> {
///     process::parent().map(|parent| parent.pid())
/// }
/// assert_eq!(parents_pid(), None);
/// assert_eq!(Process::spawn(parents_pid, ())?.join()?, Some(std::process::id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "parent_process")]
#[must_use]
pub fn parent() -> Option<Parent> {
    child::parent()
}

/// The children of this process that still run; reaps those that do not. Python's
/// `active_children()`.
///
/// ```
/// use common::process::{self, Process};
/// let process = Process::spawn(|| std::thread::sleep(std::time::Duration::MAX), ())?;
/// assert!(process::active_children().iter().any(|child| child.pid == process.pid()));
/// process.kill()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn active_children() -> Vec<ActiveChild> {
    forkserver::sweep();
    registry::active()
}

/// How many CPUs this process may use: those of its affinity mask, and no more than its cgroup's
/// quota allows. At least 1.
///
/// ```
/// assert!(common::process::cpu_count() >= 1);
/// ```
#[doc(alias = "process_cpu_count")]
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What these mutexes guard is changed in one step, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
