//! A lock that the thread which holds it may take again.
//!
//! How often it was taken is counted beside the lock, and only its holder counts. What it guards
//! lies elsewhere: a value of its own, as [`Mutex`](super::Mutex) has, could not be changed
//! through two guards at a time.

#![allow(unsafe_code)] // A marker.

use super::mutex::{MutexError, lock_error};
use super::object::{Kind, Object};
use super::{LockError, RobustMutex};
use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::Shared;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A lock between processes that the thread which holds it may take again; Python's `RLock`.
///
/// It is free when as many guards were dropped as there were, in whatever order. A holder that is
/// killed holds no more, and the next one [is told](ReentrantGuard::holder_died).
///
/// ```
/// use common::Process;
/// use common::sync::ReentrantMutex;
///
/// fn is_free(lock: ReentrantMutex) -> bool {
///     lock.try_lock().is_ok()
/// }
///
/// let lock = ReentrantMutex::new()?;
/// let first = lock.lock()?;
/// let second = lock.lock()?; // a `Mutex` would say `Deadlock`
/// drop(first);
/// assert!(!Process::spawn(is_free, (lock.clone(),))?.join()?);
/// drop(second);
/// assert!(Process::spawn(is_free, (lock.clone(),))?.join()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "RLock")]
#[derive(Clone, Serialize, Deserialize)]
pub struct ReentrantMutex(Object<State>);

/// One of the times that a [`ReentrantMutex`] was taken; given back when dropped.
///
/// By the thread that took it, which the compiler sees to:
///
/// ```compile_fail
/// let lock = common::sync::ReentrantMutex::new().unwrap();
/// let guard = lock.lock().unwrap();
/// std::thread::scope(|scope| scope.spawn(move || drop(guard)));
/// ```
#[must_use = "the lock is let go when the guard is dropped"]
pub struct ReentrantGuard<'a> {
    /// A handle, so that the lock stays mapped even if the guard is forgotten: the C library's
    /// list of this thread's locks leads there.
    object: Object<State>,
    /// The thread that took it, as the lock knows it.
    holder: Option<u32>,
    holder_died: bool,
    _lock: PhantomData<&'a ReentrantMutex>,
    /// The thread that locks must unlock.
    _thread: PhantomData<*const ()>,
}

#[repr(C)]
struct State {
    mutex: RobustMutex,
    /// How many guards there are. Changed by the holder only.
    guards: AtomicU32,
}

// SAFETY: an atomic, and a mutex that checks itself.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d72_6c6f_6301;
}

impl ReentrantMutex {
    /// A lock that nobody holds.
    ///
    /// # Errors
    ///
    /// [`MutexError::Memory`].
    pub fn new() -> Result<ReentrantMutex, MutexError> {
        let mut made = Ok(());
        let object = Object::create(0, |state: &State| made = state.mutex.init())?;
        made.map_err(lock_error)?;
        Ok(ReentrantMutex(object))
    }

    /// Blocks until no other thread holds it.
    ///
    /// # Errors
    ///
    /// [`MutexError::Broken`].
    pub fn lock(&self) -> Result<ReentrantGuard<'_>, MutexError> {
        self.lock_until(Deadline::Never)
    }

    /// Takes it if no other thread holds it.
    ///
    /// # Errors
    ///
    /// As [`lock`](ReentrantMutex::lock), and [`MutexError::Locked`].
    pub fn try_lock(&self) -> Result<ReentrantGuard<'_>, MutexError> {
        let mutex = &self.0.get().mutex;
        match mutex.holder().is_some() && !mutex.is_held_here() {
            true => Err(MutexError::Locked),
            false => self.lock_until(Deadline::Now),
        }
    }

    /// Blocks until no other thread holds it, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`lock`](ReentrantMutex::lock), and [`MutexError::Locked`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ReentrantGuard<'_>, MutexError> {
        self.lock_until(Deadline::after(timeout))
    }

    /// Whether somebody holds it now; this thread as well.
    #[doc(alias = "locked")]
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.holder().is_some()
    }

    /// The thread that holds it now: its id, which is the process's own for a process of one
    /// thread, and whose process `/proc/<id>/status` names (gettid(2)). For a person who looks for
    /// the one that does not let go; it may be another's as soon as it is told.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        self.0.get().mutex.holder()
    }

    fn lock_until(&self, deadline: Deadline) -> Result<ReentrantGuard<'_>, MutexError> {
        static SPIN: Spin = Spin::new();
        let state = self.0.get();
        let mut holder_died = false;
        match state.mutex.lock(deadline, &SPIN, || holder_died = true) {
            Ok(guard) => {
                state.guards.store(1, SeqCst);
                mem::forget(guard);
            }
            // This thread has it already, so that nobody else counts now.
            Err(LockError::Deadlock) => {
                let guards = state.guards.load(SeqCst).checked_add(1);
                state
                    .guards
                    .store(guards.ok_or(MutexError::Broken)?, SeqCst);
            }
            Err(error) => return Err(lock_error(error)),
        }
        Ok(ReentrantGuard {
            object: self.0.clone(),
            holder: state.mutex.holder(),
            holder_died,
            _lock: PhantomData,
            _thread: PhantomData,
        })
    }
}

impl ReentrantGuard<'_> {
    /// Whether the last one who held the lock died with it, perhaps in the middle of a change of
    /// what it guards. Of the guards of one holder the first one knows.
    #[must_use]
    pub fn holder_died(&self) -> bool {
        self.holder_died
    }
}

impl Drop for ReentrantGuard<'_> {
    fn drop(&mut self) {
        let state = self.object.get();
        let mutex = &state.mutex;
        // A fork of the holder has a copy of the guard, which is none of what it took by itself.
        if mutex.holder() != self.holder {
            return;
        }
        match state.guards.load(SeqCst).saturating_sub(1) {
            0 => mutex.unlock(),
            // Nor does the copy count while the holder has the lock.
            left if mutex.is_held_here() => state.guards.store(left, SeqCst),
            _ => {}
        }
    }
}

impl fmt::Debug for ReentrantMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReentrantMutex")
            .field("holder", &self.holder())
            .finish()
    }
}

impl fmt::Debug for ReentrantGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReentrantGuard")
            .field("holder_died", &self.holder_died)
            .finish()
    }
}
