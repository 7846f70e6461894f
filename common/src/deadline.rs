//! Until when a call may wait.
//!
//! To copy: deadline.rs.

use std::time::{Duration, Instant};

/// Until when a call may wait; it bounds the whole call, the waiting for locks included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Waits for ever.
    Never,
    /// Waits until this instant.
    At(Instant),
    /// Does not wait: what cannot be done at once is not done. (For a lock that somebody holds no
    /// longer than it takes to copy a message, it does: up to 10 ms.)
    Now,
}

impl Deadline {
    /// So long from now. A time too long for the clock is for ever.
    ///
    /// ```
    /// use common::deadline::Deadline;
    /// use std::time::Duration;
    /// assert!(!Deadline::after(Duration::from_secs(60)).passed());
    /// assert!(Deadline::after(Duration::ZERO).passed());
    /// assert_eq!(Deadline::after(Duration::MAX), Deadline::Never);
    /// ```
    #[must_use]
    pub fn after(timeout: Duration) -> Deadline {
        if timeout.is_zero() {
            return Deadline::Now;
        }
        Instant::now()
            .checked_add(timeout)
            .map_or(Deadline::Never, Deadline::At)
    }

    /// Whether the time is over.
    #[must_use]
    pub fn passed(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// The time left; `None` is for ever.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self {
            Deadline::Never => None,
            Deadline::At(instant) => Some(instant.saturating_duration_since(Instant::now())),
            Deadline::Now => Some(Duration::ZERO),
        }
    }

    /// This deadline, or `limit` from now, whichever comes first.
    pub(crate) fn at_most(self, limit: Duration) -> Duration {
        self.remaining().map_or(limit, |left| left.min(limit))
    }
}

impl From<Option<Duration>> for Deadline {
    /// `None` waits for ever, as in Python.
    fn from(timeout: Option<Duration>) -> Self {
        timeout.map_or(Deadline::Never, Deadline::after)
    }
}
