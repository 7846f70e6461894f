//! Waking those who sleep, and costing nothing while nobody does.
//!
//! ```text
//!   sleeper                                  waker
//!   ticket = prepare()   (sets WAITING)      change the state
//!   look at the state again                  notify(): nothing to do unless WAITING
//!   sleep(ticket)                              bump the word, wake, clear WAITING if all woke
//! ```
//!
//! Every sleeper changes the word, so that a waker clears WAITING only if nobody has come since
//! its wake. A count of sleepers would be simpler, but one who is killed would be counted for
//! ever; WAITING is cleared by the next wake that finds nobody.
//!
//! To copy: sync/signal.rs, futex.rs, deadline.rs, shm/.

#![allow(unsafe_code)] // A marker.

use crate::deadline::Deadline;
use crate::futex::{self, Spin};
use crate::shm::Shared;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

#[repr(C)]
pub(crate) struct Signal<W = AtomicU32>(W);

/// The word that a [`Signal`] works on: a futex, or a model of one in a test that tries all
/// orders in which things may happen.
pub(crate) trait Word {
    fn load(&self) -> u32;
    fn compare_exchange(&self, old: u32, new: u32) -> Result<u32, u32>;
    fn fetch_add(&self, more: u32) -> u32;
    /// Sleeps while the word is `expected`, until woken or for `timeout`.
    fn wait(&self, expected: u32, timeout: Duration);
    /// Wakes up to `count`; says how many.
    fn wake(&self, count: u32) -> u32;
}

impl Word for AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<u32, u32> {
        self.compare_exchange(old, new, SeqCst, SeqCst)
    }

    fn fetch_add(&self, more: u32) -> u32 {
        self.fetch_add(more, SeqCst)
    }

    fn wait(&self, expected: u32, timeout: Duration) {
        futex::wait(self, expected, Some(timeout));
    }

    fn wake(&self, count: u32) -> u32 {
        futex::wake(self, count)
    }
}

// SAFETY: one atomic.
unsafe impl Shared for Signal {}

/// How long a sleeper sleeps at most before it looks again, in case who should have woken it was
/// killed just then.
pub(crate) const SLICE: Duration = Duration::from_millis(500);

const WAITING: u32 = 1;
const STEP: u32 = 2;

impl<W: Word> Signal<W> {
    /// Spins and then sleeps until `ready`, at most until `deadline`. Says whether it is.
    pub(crate) fn wait(&self, spin: &Spin, deadline: Deadline, ready: impl Fn() -> bool) -> bool {
        self.wait_spinning(spin, 1, deadline, ready)
    }

    /// As [`Signal::wait`], spinning up to `times` as long as usual.
    pub(crate) fn wait_spinning(
        &self,
        spin: &Spin,
        times: u32,
        deadline: Deadline,
        ready: impl Fn() -> bool,
    ) -> bool {
        if deadline == Deadline::Now {
            return ready();
        }
        if spin.until_within(times, &ready) {
            return true;
        }
        loop {
            let ticket = self.prepare();
            if ready() {
                return true;
            }
            let time = deadline.at_most(SLICE);
            if time.is_zero() {
                return false;
            }
            self.sleep(ticket, time);
            if ready() {
                return true;
            }
        }
    }

    /// Announces a sleeper. The caller looks once more at what it waits for, then sleeps.
    pub(crate) fn prepare(&self) -> u32 {
        let mut old = self.0.load();
        loop {
            let new = old.wrapping_add(STEP) | WAITING;
            match self.0.compare_exchange(old, new) {
                Ok(_) => return new,
                Err(now) => old = now,
            }
        }
    }

    /// Sleeps until somebody notifies, or `timeout` is over, or for no reason at all.
    pub(crate) fn sleep(&self, ticket: u32, timeout: Duration) {
        self.0.wait(ticket, timeout);
    }

    /// Wakes up to `count` sleepers, after a change they may wait for. The change must be
    /// sequentially consistent: either this sees the sleeper or the sleeper sees the change.
    #[inline]
    pub(crate) fn notify(&self, count: u32) {
        if self.0.load() & WAITING != 0 {
            self.wake(count);
        }
    }

    #[cold]
    pub(crate) fn wake(&self, count: u32) {
        let bumped = self.0.fetch_add(STEP).wrapping_add(STEP);
        if self.0.wake(count) < count {
            let _ = self.0.compare_exchange(bumped, bumped & !WAITING);
        }
    }
}

#[cfg(test)]
mod tests;
