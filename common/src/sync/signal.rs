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
//! To copy: sync/signal.rs, futex.rs, deadline.rs, shm/, departures.rs.

#![allow(unsafe_code)] // A marker.

use crate::deadline::Deadline;
use crate::futex::{self, Spin};
use crate::shm::{AtomicU32, Shared};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[repr(C)]
pub(crate) struct Signal(AtomicU32);

// SAFETY: one atomic.
unsafe impl Shared for Signal {}

/// How long a sleeper sleeps at most before it looks again, in case who should have woken it was
/// killed just then.
pub(crate) const SLICE: Duration = Duration::from_millis(500);

const WAITING: u32 = 1;
const STEP: u32 = 2;

impl Signal {
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
        let mut old = self.0.load(SeqCst);
        loop {
            let new = old.wrapping_add(STEP) | WAITING;
            match self.0.compare_exchange(old, new, SeqCst, SeqCst) {
                Ok(_) => return new,
                Err(now) => old = now,
            }
        }
    }

    /// Sleeps until somebody notifies, or `timeout` is over, or for no reason at all.
    pub(crate) fn sleep(&self, ticket: u32, timeout: Duration) {
        futex::wait(&self.0, ticket, Some(timeout));
    }

    /// Whether somebody may sleep, or is about to.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.load(SeqCst) & WAITING != 0
    }

    /// Wakes up to `count` sleepers, after a change they may wait for. The change must be
    /// sequentially consistent: either this sees the sleeper or the sleeper sees the change.
    #[inline]
    pub(crate) fn notify(&self, count: u32) {
        if self.is_awaited() {
            self.wake(count);
        }
    }

    #[cold]
    pub(crate) fn wake(&self, count: u32) {
        let bumped = self.0.fetch_add(STEP, SeqCst).wrapping_add(STEP);
        if futex::wake(&self.0, count) < count {
            let _ = self
                .0
                .compare_exchange(bumped, bumped & !WAITING, SeqCst, SeqCst);
        }
    }
}
