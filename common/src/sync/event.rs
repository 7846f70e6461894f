//! A flag that processes wait for.

#![allow(unsafe_code)] // A marker.

use super::Signal;
use super::object::{Kind, Object};
use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::{Shared, ShmError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A flag that any process sets and clears, and that others wait for.
///
/// ```
/// use common::sync::Event;
/// use std::time::Duration;
///
/// let event = Event::new()?;
/// assert!(!event.wait_timeout(Duration::from_millis(1)));
/// event.set();
/// event.wait();
/// assert!(event.is_set());
/// # Ok::<(), common::shm::ShmError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event(Object<State>);

#[repr(C)]
struct State {
    /// How often it was set and cleared: odd while it is set.
    changes: AtomicU32,
    signal: Signal,
}

// SAFETY: atomics only.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d65_7665_6e02;
}

impl Event {
    /// A flag that is not set.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no shared memory for it.
    pub fn new() -> Result<Event, ShmError> {
        Object::create(0, |_| ()).map(Event)
    }

    /// Sets it, and wakes all who wait.
    pub fn set(&self) {
        self.change(|changes| changes.is_multiple_of(2));
        self.0.get().signal.notify(u32::MAX);
    }

    /// Clears it.
    pub fn clear(&self) {
        self.change(|changes| !changes.is_multiple_of(2));
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.changes().is_multiple_of(2)
    }

    /// Blocks until it is set. Who waits when it is set goes on, even if it is cleared at once.
    pub fn wait(&self) {
        self.wait_until(Deadline::Never);
    }

    /// As [`Event::wait`], at most for `timeout`; says whether it was set.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        static SPIN: Spin = Spin::new();
        let before = self.changes();
        let set = || self.is_set() || self.changes() != before;
        set() || self.0.get().signal.wait(&SPIN, deadline, set)
    }

    fn changes(&self) -> u32 {
        self.0.get().changes.load(SeqCst)
    }

    /// Changes it if that is to be.
    fn change(&self, is_due: impl Fn(u32) -> bool) {
        let next = |changes| is_due(changes).then(|| changes.wrapping_add(1));
        // Otherwise it is already as it is to be.
        let _ = self.0.get().changes.fetch_update(SeqCst, SeqCst, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Instant;

    #[test]
    fn who_waits_when_it_is_set_goes_on_though_it_is_cleared_at_once() {
        const LONG: Duration = Duration::from_secs(10);
        let event = Event::new().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| event.wait_timeout(LONG));
            let end = Instant::now() + LONG;
            while !event.0.get().signal.is_awaited() {
                assert!(Instant::now() < end, "it does not come");
                thread::yield_now();
            }
            event.set();
            event.clear();
            assert!(waiter.join().unwrap());
        });
        assert!(!event.is_set());
        event.clear();
        assert!(!event.wait_timeout(Duration::ZERO));
        event.set();
        event.set();
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
    }
}
