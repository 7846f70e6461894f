//! A lock that is handed on when its holder dies, as `common/src/sync/robust.rs` has it of the
//! kernel.

#![allow(unsafe_code)] // A marker.

#[path = "../../src/sync/signal.rs"]
mod signal;

pub(crate) use signal::{SLICE, Signal};

use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::process::{is_dying, perhaps, step, turn};
use crate::shm::Shared;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use thiserror::Error;

#[repr(C)]
pub(crate) struct RobustMutex(AtomicU32);

// SAFETY: one atomic.
unsafe impl Shared for RobustMutex {}

pub(crate) struct RobustGuard<'a>(&'a RobustMutex);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LockError {
    #[error("the lock was held by another process until the deadline")]
    Timeout,
    #[error("the model's memory is never overwritten")]
    Broken,
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const ORPHANED: u32 = 2;

impl RobustMutex {
    pub(crate) fn init(&self) -> Result<(), LockError> {
        Ok(())
    }

    pub(crate) fn lock(
        &self,
        deadline: Deadline,
        _: &Spin,
        recover: impl FnOnce(),
    ) -> Result<RobustGuard<'_>, LockError> {
        loop {
            step();
            let take = |old| (old != HELD).then_some(HELD);
            match self.0.fetch_update(AcqRel, Acquire, take) {
                Ok(before) => {
                    // Made first: who dies while it repairs leaves it to the next one.
                    let guard = RobustGuard(self);
                    if before == ORPHANED {
                        recover();
                    }
                    return Ok(guard);
                }
                Err(_) if deadline == Deadline::Never => self.sleep(),
                // Sooner or later its time is over.
                Err(_) if deadline == Deadline::Now || perhaps() => return Err(LockError::Timeout),
                Err(_) => turn(),
            }
        }
    }

    pub(crate) fn try_lock(&self, recover: impl FnOnce()) -> Option<RobustGuard<'_>> {
        self.lock(Deadline::Now, &Spin::new(), recover).ok()
    }

    /// Who holds it has no number here.
    pub(crate) fn holder(&self) -> Option<u32> {
        step();
        Some(self.0.load(Acquire)).filter(|state| *state == HELD)
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// There is no step between the look at the word and this.
    #[cfg(not(miri))]
    fn sleep(&self) {
        crate::futex::sleep(self.place());
    }

    #[cfg(miri)]
    fn sleep(&self) {
        turn();
    }
}

impl Drop for RobustGuard<'_> {
    fn drop(&mut self) {
        if is_dying() {
            self.0.0.store(ORPHANED, Release);
            return;
        }
        // Nobody dies here: it would be the same as dying at the step before.
        turn();
        self.0.0.store(FREE, Release);
        #[cfg(not(miri))]
        crate::futex::wake_at(|place| place == self.0.place(), 1);
    }
}
