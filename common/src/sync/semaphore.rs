//! A count of permits.

#![allow(unsafe_code)] // A marker.

use super::Signal;
use super::object::{Kind, Object};
use super::robust::forks;
use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::{Shared, ShmError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use thiserror::Error;

/// A number of permits that processes take and give back.
///
/// A permit that is held by a process when it is killed is not given back.
///
/// ```
/// use common::sync::Semaphore;
///
/// let semaphore = Semaphore::new(2)?;
/// let first = semaphore.acquire();
/// let second = semaphore.acquire();
/// assert!(semaphore.try_acquire().is_none());
/// drop(first);
/// assert_eq!(semaphore.available(), 1);
/// # drop(second);
/// # Ok::<(), common::shm::ShmError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Semaphore(Object<State>);

/// One permit; given back when dropped. A forked child's copy is none.
#[derive(Debug)]
#[must_use = "the permit is given back when this is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    forks: u32,
}

/// More permits were given back than there are.
#[derive(Clone, Copy, PartialEq, Eq, Error)]
#[error("{released} more permits would be over the semaphore's bound of {bound}")]
pub struct Overflow {
    /// How many were given back.
    pub released: u32,
    /// The most there may be.
    pub bound: u32,
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[repr(C)]
struct State {
    value: AtomicU32,
    bound: AtomicU32,
    signal: Signal,
}

// SAFETY: atomics only.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d73_656d_6101;
}

impl Semaphore {
    /// A semaphore with so many permits; more may be released than were acquired.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no shared memory for it.
    pub fn new(permits: u32) -> Result<Semaphore, ShmError> {
        Self::with_bound(permits, u32::MAX)
    }

    /// A semaphore with so many permits, of which there are never more: releasing one too many is
    /// an error.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::new`].
    #[doc(alias = "BoundedSemaphore")]
    pub fn bounded(permits: u32) -> Result<Semaphore, ShmError> {
        Self::with_bound(permits, permits)
    }

    fn with_bound(permits: u32, bound: u32) -> Result<Semaphore, ShmError> {
        let init = |state: &State| {
            state.value.store(permits, SeqCst);
            state.bound.store(bound, SeqCst);
        };
        Object::create(0, init).map(Semaphore)
    }

    /// Takes a permit. Blocks while there is none.
    pub fn acquire(&self) -> Permit<'_> {
        self.take(Deadline::Never);
        self.permit()
    }

    /// Takes a permit if there is one.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.take(Deadline::Now).then(|| self.permit())
    }

    /// Takes a permit. Blocks while there is none, at most for `timeout`.
    #[must_use]
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.take(Deadline::after(timeout)).then(|| self.permit())
    }

    /// Gives back `permits` that were taken by whomever and [forgotten](Permit::forget), or adds
    /// some.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if there would be more than the bound; then none was given back.
    pub fn release(&self, permits: u32) -> Result<(), Overflow> {
        let state = self.0.get();
        let bound = state.bound.load(SeqCst);
        let more = |value: u32| value.checked_add(permits).filter(|value| *value <= bound);
        let released = state.value.fetch_update(SeqCst, SeqCst, more);
        released.map_err(|_| Overflow {
            released: permits,
            bound,
        })?;
        state.signal.notify(permits);
        Ok(())
    }

    /// How many permits there are now.
    #[doc(alias = "get_value")]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.get().value.load(SeqCst)
    }

    fn permit(&self) -> Permit<'_> {
        Permit {
            semaphore: self,
            forks: forks(),
        }
    }

    fn take(&self, deadline: Deadline) -> bool {
        static SPIN: Spin = Spin::new();
        let state = self.0.get();
        loop {
            let less = |value: u32| value.checked_sub(1);
            if state.value.fetch_update(SeqCst, SeqCst, less).is_ok() {
                return true;
            }
            let is_there = || self.available() > 0;
            if deadline == Deadline::Now || !state.signal.wait(&SPIN, deadline, is_there) {
                return false;
            }
        }
    }
}

impl Permit<'_> {
    /// Keeps the permit taken; somebody calls [`Semaphore::release`] for it.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Its holder gives it back, not a copy that a fork has.
        if self.forks == forks() {
            // Over the bound only if somebody has released what was not theirs.
            let _ = self.semaphore.release(1);
        }
    }
}
