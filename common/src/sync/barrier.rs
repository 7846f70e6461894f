//! A meeting of processes: nobody goes on before all have come.

#![allow(unsafe_code)] // A marker.

use super::object::{Kind, Object};
use super::{LockError, RobustGuard, RobustMutex, Signal};
use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::panic;
use crate::shm::{Shared, ShmError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;
use thiserror::Error;

/// A number of parties that wait for each other, again and again.
///
/// A party that does not come in time, or calls [`Barrier::abort`], breaks it for all, until it
/// is [reset](Barrier::reset). A party that is killed does not come: wait with a timeout.
///
/// While the last party's action runs nobody else gets in. A party whose time is over meanwhile
/// breaks the barrier, which the others are told when the action has ended.
///
/// ```
/// use common::sync::Barrier;
///
/// let barrier = Barrier::new(1)?;
/// assert!(barrier.wait()?.is_leader());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Barrier(Object<State>);

/// How a party came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierWait {
    /// In which place it came: 0 to one less than the parties, each once.
    pub index: u32,
    leader: bool,
}

impl BarrierWait {
    /// Whether it was the last to come: true for one party each time.
    #[must_use]
    pub fn is_leader(self) -> bool {
        self.leader
    }
}

/// The barrier is broken: a party was late, gave up, or reset it.
#[doc(alias = "BrokenBarrierError")]
#[derive(Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the barrier is broken: a party came too late, aborted it, or reset it; `Barrier::reset` makes \
     it whole again"
)]
pub struct BrokenBarrier;

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[repr(C)]
struct State {
    mutex: RobustMutex,
    signal: Signal,
    parties: AtomicU32,
    broken: AtomicU32,
    /// [`Round`].
    round: AtomicU64,
    /// A bit for each of the last 64 meetings: whether it failed.
    failed: AtomicU64,
}

// SAFETY: atomics, and a mutex that checks itself.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d62_6172_7202;
}

/// Which meeting it is and who has come, in one word: a meeting ends for all or for none, whoever
/// is killed meanwhile.
#[derive(Clone, Copy)]
struct Round {
    /// Grows whenever a meeting ends.
    meeting: u32,
    waiting: u32,
}

impl State {
    fn round(&self) -> Round {
        let bits = self.round.load(SeqCst);
        Round {
            meeting: (bits >> 32) as u32,
            waiting: bits as u32,
        }
    }

    /// Under the lock.
    fn set_round(&self, round: Round) {
        let bits = u64::from(round.meeting) << 32 | u64::from(round.waiting);
        self.round.store(bits, SeqCst);
    }
}

impl Barrier {
    /// A barrier for so many parties.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no shared memory for it.
    ///
    /// # Panics
    ///
    /// If there are no parties.
    pub fn new(parties: u32) -> Result<Barrier, ShmError> {
        assert!(parties > 0, "a barrier needs at least one party");
        let mut made = Ok(());
        let init = |state: &State| {
            made = state.mutex.init();
            state.parties.store(parties, SeqCst);
        };
        let object = Object::create(0, init)?;
        made.map_err(|_: LockError| ShmError::Size { bytes: 0 })?;
        Ok(Barrier(object))
    }

    /// Blocks until all parties have come.
    ///
    /// # Errors
    ///
    /// [`BrokenBarrier`].
    pub fn wait(&self) -> Result<BarrierWait, BrokenBarrier> {
        self.wait_until(Deadline::Never, || ())
    }

    /// As [`Barrier::wait`]; if not all have come after `timeout` the barrier is broken for all.
    ///
    /// # Errors
    ///
    /// [`BrokenBarrier`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWait, BrokenBarrier> {
        self.wait_until(Deadline::after(timeout), || ())
    }

    /// As [`Barrier::wait`]; the last party to come runs its `action` before anybody goes on. If
    /// that panics the barrier is broken.
    ///
    /// # Errors
    ///
    /// [`BrokenBarrier`].
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWait, BrokenBarrier> {
        self.wait_until(Deadline::Never, action)
    }

    /// As [`Barrier::wait_with`], waiting as long as [`Barrier::wait_timeout`]; the action itself
    /// may take longer.
    ///
    /// # Errors
    ///
    /// [`BrokenBarrier`].
    pub fn wait_with_timeout(
        &self,
        action: impl FnOnce(),
        timeout: Duration,
    ) -> Result<BarrierWait, BrokenBarrier> {
        self.wait_until(Deadline::after(timeout), action)
    }

    fn wait_until(
        &self,
        deadline: Deadline,
        action: impl FnOnce(),
    ) -> Result<BarrierWait, BrokenBarrier> {
        let state = self.0.get();
        let guard = self.lock(deadline)?;
        if self.is_broken() {
            return Err(BrokenBarrier);
        }
        let Round { meeting, waiting } = state.round();
        let last = state.parties.load(SeqCst).saturating_sub(1);
        let index = waiting.min(last);
        let leader = index == last;
        if leader {
            // It is not counted: it does not wait, and may be killed in its action.
            if panic::catch(action).is_err() {
                state.broken.store(1, SeqCst);
            }
            // Perhaps by somebody who could not wait for the lock any longer.
            let good = !self.is_broken();
            self.end(meeting, good);
            return match good {
                true => Ok(BarrierWait { index, leader }),
                false => Err(BrokenBarrier),
            };
        }
        let waiting = index + 1;
        state.set_round(Round { meeting, waiting });
        drop(guard);
        self.meet(meeting, deadline)?;
        Ok(BarrierWait { index, leader })
    }

    /// Waits for the others.
    fn meet(&self, meeting: u32, deadline: Deadline) -> Result<(), BrokenBarrier> {
        static SPIN: Spin = Spin::new();
        let state = self.0.get();
        let over = || state.round().meeting != meeting;
        let ready = || over() || self.is_broken();
        state.signal.wait(&SPIN, deadline, ready);
        if !over() {
            // Too late; or somebody could not wait for the lock any longer. Who has it now may be
            // about to end the meeting.
            let _guard = self.lock(deadline.remaining().into())?;
            if !over() {
                state.broken.store(1, SeqCst);
                self.end(meeting, false);
            }
        }
        match state.failed.load(SeqCst) >> (meeting % 64) & 1 {
            0 => Ok(()),
            _ => Err(BrokenBarrier),
        }
    }

    /// Ends a meeting. Under the lock.
    fn end(&self, meeting: u32, good: bool) {
        let state = self.0.get();
        let bit = 1 << (meeting % 64);
        match good {
            true => state.failed.fetch_and(!bit, SeqCst),
            false => state.failed.fetch_or(bit, SeqCst),
        };
        state.set_round(Round {
            meeting: meeting.wrapping_add(1),
            waiting: 0,
        });
        state.signal.notify(u32::MAX);
    }

    /// Breaks it: who waits and who comes gets an error, until it is reset. From inside an action
    /// too. Does not wait for an action that runs; when that has ended all are told.
    pub fn abort(&self) {
        // A lock that is not to be had breaks it too.
        self.finish(1, Deadline::Now);
    }

    /// Makes it whole again. Who waits gets an error. Waits for the end of an action that runs.
    /// (From inside an action, which is part of a meeting, it breaks it.)
    pub fn reset(&self) {
        self.finish(0, Deadline::Never);
    }

    fn finish(&self, broken: u32, deadline: Deadline) {
        let state = self.0.get();
        if let Ok(_guard) = self.lock(deadline) {
            state.broken.store(broken, SeqCst);
            self.end(state.round().meeting, false);
        }
    }

    /// Whether it is broken.
    #[doc(alias = "broken")]
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.get().broken.load(SeqCst) != 0
    }

    /// How many wait now.
    #[doc(alias = "n_waiting")]
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.get().round().waiting
    }

    /// For how many it is.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.0.get().parties.load(SeqCst)
    }

    /// A lock that is not to be had breaks the barrier: the time is over, an action asks for it,
    /// or its memory was overwritten.
    fn lock(&self, deadline: Deadline) -> Result<RobustGuard<'_>, BrokenBarrier> {
        static SPIN: Spin = Spin::new();
        let state = self.0.get();
        state.mutex.lock(deadline, &SPIN, || ()).map_err(|_| {
            state.broken.store(1, SeqCst);
            state.signal.notify(u32::MAX);
            BrokenBarrier
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overwritten_count_is_no_place() {
        let barrier = Barrier::new(3).unwrap();
        barrier.0.get().round.store(u64::MAX, SeqCst);
        let passed = barrier.wait_timeout(Duration::ZERO).unwrap();
        assert_eq!((passed.index, passed.is_leader()), (2, true));
        barrier.0.get().parties.store(0, SeqCst);
        assert_eq!(barrier.wait_timeout(Duration::ZERO).unwrap().index, 0);
    }
}
