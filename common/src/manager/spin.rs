//! Looking for an answer for a while before sleeping, as request and reply want it.
//!
//! [`futex::Spin`](crate::futex) looks for a third of the time that a sleep and a wake cost. That
//! is right for a queue; between two that take turns it has a trap: once both have slept, each
//! needs longer to wake than the other looks for it, so that both sleep in every round for ever.
//! So this one looks, now and then, for longer than a wake takes: then the first answer finds it
//! awake, and the next ones come in less than a microsecond.
//!
//! To copy: spin.rs, futex.rs.

use crate::futex::cores;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Spin {
    /// Nanoseconds.
    budget: AtomicU32,
    /// Looks in vain since the last that paid.
    misses: AtomicU32,
}

/// Longer than a sleep and a wake take.
const LONGEST: u32 = 60_000;
/// An answer that is being written arrives within this.
const SHORTEST: u32 = 2_000;
/// Where looking does not pay (more runnable processes than cores), so often it is tried anew.
const RETRY: u32 = 16;

impl Spin {
    pub(super) const fn new() -> Self {
        Spin {
            budget: AtomicU32::new(LONGEST),
            misses: AtomicU32::new(0),
        }
    }

    /// Looks until `ready` or the time is up; says whether it was ready.
    pub(super) fn until(&self, mut ready: impl FnMut() -> bool) -> bool {
        if cores() < 2 {
            return ready();
        }
        let misses = self.misses.load(Ordering::Relaxed);
        let budget = match misses % RETRY {
            0 => LONGEST,
            _ => self.budget.load(Ordering::Relaxed),
        };
        let limit = Duration::from_nanos(budget.into());
        let start = Instant::now();
        loop {
            for _ in 0..8 {
                if ready() {
                    self.misses.store(0, Ordering::Relaxed);
                    let longer = budget.saturating_mul(2).min(LONGEST);
                    self.budget.store(longer, Ordering::Relaxed);
                    return true;
                }
                hint::spin_loop();
                hint::spin_loop();
            }
            if start.elapsed() >= limit {
                self.misses.store(misses.wrapping_add(1), Ordering::Relaxed);
                let shorter = (budget / 2).max(SHORTEST);
                self.budget.store(shorter, Ordering::Relaxed);
                return false;
            }
        }
    }
}
