//! Locks and signals between processes.
//!
//! Each of these is a handle on a small piece of shared memory: cloning it, or sending it to
//! another process, gives another handle on the same lock or signal. Its memory belongs to the
//! process that made it.
//!
//! A [`Mutex`] whose holder is killed is handed on, with the value as it was before, and so is a
//! [`ReentrantMutex`], which has no value. A [`Semaphore`]'s permits and a [`Barrier`]'s parties
//! are counts, of which nobody knows whose they are: what a killed process held stays held, and
//! timeouts are there for that.
//!
//! To copy: sync/, shm/, departures.rs, futex.rs, deadline.rs, codec.rs, panic.rs.

mod barrier;
mod condvar;
mod event;
mod mutex;
mod object;
mod reentrant;
mod robust;
mod semaphore;
mod signal;

pub use barrier::{Barrier, BarrierWait, BrokenBarrier};
pub use condvar::Condvar;
pub use event::Event;
pub use mutex::{Mutex, MutexError, MutexGuard};
pub use reentrant::{ReentrantGuard, ReentrantMutex};
pub use semaphore::{Overflow, Permit, Semaphore};

pub(crate) use robust::{LockError, RobustGuard, RobustMutex};
pub(crate) use signal::{SLICE, Signal};
