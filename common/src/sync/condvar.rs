//! Waiting for a change of a mutex's value.
//!
//! `notify` hands out permits under the lock, as many as there are waiters at most, and a waiter
//! may take one that was handed out after it came. So a notify wakes exactly as many as it says,
//! and none is lost if a waiter's time runs out, or it is killed. (One that was killed stays
//! counted: a later notify may wake one more for it than it says.)

#![allow(unsafe_code)] // A marker.

use super::mutex::{Mutex, MutexError, MutexGuard};
use super::object::{Kind, Object};
use super::{SLICE, Signal};
use crate::deadline::Deadline;
use crate::shm::{Shared, ShmError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A condition on a [`Mutex`]'s value that processes wait for. One mutex goes with it; a mutex may
/// have several.
///
/// ```
/// use common::sync::{Condvar, Mutex};
///
/// let (ready, changed) = (Mutex::new(false)?, Condvar::new()?);
/// {
///     let mut guard = ready.lock()?;
///     *guard = true;
///     changed.notify_all(&mut guard)?;
/// }
/// let guard = changed.wait_while(ready.lock()?, |ready| !*ready)?;
/// assert!(*guard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Condvar(Object<State>);

/// The mutex guards the numbers.
#[repr(C)]
struct State {
    signal: Signal,
    waiters: AtomicU32,
    permits: AtomicU32,
    /// Grows with each notify.
    epoch: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d63_6f6e_6402;
}

impl Condvar {
    /// A condition variable nobody waits for.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no shared memory for it.
    pub fn new() -> Result<Condvar, ShmError> {
        Object::create(0, |_| ()).map(Condvar)
    }

    /// Lets the mutex go, blocks until notified, and locks it again.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`] and [`MutexGuard::store`].
    pub fn wait<'a, T: Serialize + DeserializeOwned>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> Result<MutexGuard<'a, T>, MutexError> {
        self.wait_until(guard, Deadline::Never)
            .map(|(guard, _)| guard)
    }

    /// As [`Condvar::wait`], at most for `timeout`; says whether it was notified. (The mutex is
    /// waited for beyond that.)
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`].
    pub fn wait_timeout<'a, T: Serialize + DeserializeOwned>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits as long as `condition` holds. Python's `wait_for` the other way round.
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`].
    pub fn wait_while<'a, T: Serialize + DeserializeOwned>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<MutexGuard<'a, T>, MutexError> {
        while condition(&guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`Condvar::wait_while`], at most for `timeout`; says whether the condition has ended.
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`].
    pub fn wait_while_timeout<'a, T: Serialize + DeserializeOwned>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&T) -> bool,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        let deadline = Deadline::after(timeout);
        while condition(&guard) {
            if deadline.passed() {
                return Ok((guard, false));
            }
            (guard, _) = self.wait_until(guard, deadline)?;
        }
        Ok((guard, true))
    }

    /// Wakes one waiter, if there is one. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`MutexGuard::store`].
    pub fn notify_one<T: Serialize>(
        &self,
        guard: &mut MutexGuard<'_, T>,
    ) -> Result<(), MutexError> {
        self.notify(guard, 1)
    }

    /// Wakes up to `count` waiters. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`MutexGuard::store`].
    pub fn notify<T: Serialize>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        count: u32,
    ) -> Result<(), MutexError> {
        guard.store()?;
        let state = self.0.get();
        let (waiters, permits) = (state.waiters.load(SeqCst), state.permits.load(SeqCst));
        let more = count.min(waiters.saturating_sub(permits));
        if more > 0 {
            state.permits.store(permits.saturating_add(more), SeqCst);
            state.epoch.fetch_add(1, SeqCst);
            // All, because nobody knows which of them may take one; the others sleep on.
            state.signal.wake(u32::MAX);
        }
        Ok(())
    }

    /// Wakes all waiters. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`MutexGuard::store`].
    pub fn notify_all<T: Serialize>(
        &self,
        guard: &mut MutexGuard<'_, T>,
    ) -> Result<(), MutexError> {
        self.notify(guard, u32::MAX)
    }

    fn wait_until<'a, T: Serialize + DeserializeOwned>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        guard.store()?;
        // The mutex outlives the guard.
        let mutex: &'a Mutex<T> = guard.mutex_of();
        let state = self.0.get();
        let came = state.epoch.load(SeqCst);
        state.waiters.fetch_add(1, SeqCst);
        loop {
            let ticket = state.signal.prepare();
            drop(guard);
            state.signal.sleep(ticket, deadline.at_most(SLICE));
            guard = mutex.lock()?;
            let permits = state.permits.load(SeqCst);
            let notified = permits > 0 && state.epoch.load(SeqCst) != came;
            if notified || deadline.passed() {
                let waiters = state.waiters.load(SeqCst);
                state.waiters.store(waiters.saturating_sub(1), SeqCst);
                if notified {
                    state.permits.store(permits - 1, SeqCst);
                }
                return Ok((guard, notified));
            }
        }
    }
}
