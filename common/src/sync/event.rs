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
    set: AtomicU32,
    signal: Signal,
}

// SAFETY: atomics only.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d65_7665_6e01;
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
        self.0.get().set.store(1, SeqCst);
        self.0.get().signal.notify(u32::MAX);
    }

    /// Clears it.
    pub fn clear(&self) {
        self.0.get().set.store(0, SeqCst);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.get().set.load(SeqCst) != 0
    }

    /// Blocks until it is set.
    pub fn wait(&self) {
        self.wait_until(Deadline::Never);
    }

    /// Blocks until it is set, at most for `timeout`; says whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        static SPIN: Spin = Spin::new();
        self.is_set() || self.0.get().signal.wait(&SPIN, deadline, || self.is_set())
    }
}
