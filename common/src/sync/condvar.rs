//! Waiting for a change of a mutex's value.
//!
//! `notify` hands out permits under the lock, as many as there are waiters at most, and a waiter
//! may take one that was handed out after it came. So a notify wakes exactly as many as it says,
//! and none is lost if a waiter's time runs out, or it is killed. (One that was killed, or did not
//! get the mutex back in time, stays counted: a later notify may wake one more for it than it says.)
//!
//! There are never more permits than waiters, whoever is killed between two stores: what is left
//! over would be subtracted from every later notify. So permits and epoch change in one store, and
//! a waiter gives its permit back before it goes.

#![allow(unsafe_code)] // A marker.

use super::mutex::{Mutex, MutexError, MutexGuard};
use super::object::{Kind, Object};
use super::{SLICE, Signal};
use crate::deadline::Deadline;
use crate::shm::{Shared, ShmError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
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
#[doc(alias = "Condition")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Condvar(Object<State>);

/// The mutex guards the numbers.
#[repr(C)]
struct State {
    signal: Signal,
    waiters: AtomicU32,
    /// [`Given`].
    given: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d63_6f6e_6403;
}

/// What was handed out, in one word.
#[derive(Clone, Copy)]
struct Given {
    /// Grows with each notify.
    epoch: u32,
    /// Not taken yet.
    permits: u32,
}

impl Given {
    fn load(word: &AtomicU64) -> Given {
        let bits = word.load(SeqCst);
        Given {
            epoch: (bits >> 32) as u32,
            permits: bits as u32,
        }
    }

    fn store(self, word: &AtomicU64) {
        word.store(
            u64::from(self.epoch) << 32 | u64::from(self.permits),
            SeqCst,
        );
    }
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
        self.wait_until(guard, Deadline::Never, Deadline::Never)
            .map(|(guard, _)| guard)
    }

    /// As [`Condvar::wait`], at most for `timeout`; says whether it was notified. (The mutex is
    /// waited for beyond that, unlike with [`Condvar::wait_within`].)
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`].
    pub fn wait_timeout<'a, T: Serialize + DeserializeOwned>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        self.wait_until(guard, Deadline::after(timeout), Deadline::Never)
    }

    /// As [`Condvar::wait_timeout`], with the waiting for the mutex included. One that another
    /// process holds when the time is over is given up after 10 ms.
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`], and [`MutexError::Locked`]: then the mutex is not held here any more.
    pub fn wait_within<'a, T: Serialize + DeserializeOwned>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        let deadline = Deadline::after(timeout);
        self.wait_until(guard, deadline, deadline)
    }

    /// Waits as long as `condition` holds. Python's `wait_for` the other way round.
    ///
    /// # Errors
    ///
    /// As [`Condvar::wait`].
    #[doc(alias = "wait_for")]
    pub fn wait_while<'a, T: Serialize + DeserializeOwned>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<MutexGuard<'a, T>, MutexError> {
        let died = guard.holder_died();
        while condition(&guard) {
            (guard, _) = self.wait_untold(guard, Deadline::Never, Deadline::Never)?;
        }
        guard.tell(died);
        Ok(guard)
    }

    /// As [`Condvar::wait_while`], at most for `timeout`; says whether the condition has ended.
    /// (The mutex is waited for beyond that, as with [`Condvar::wait_timeout`].)
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
        let died = guard.holder_died();
        let mut holds = condition(&guard);
        while holds && !deadline.passed() {
            (guard, _) = self.wait_untold(guard, deadline, Deadline::Never)?;
            holds = condition(&guard);
        }
        guard.tell(died);
        Ok((guard, !holds))
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
        let (waiters, given) = (state.waiters.load(SeqCst), Given::load(&state.given));
        let more = count.min(waiters.saturating_sub(given.permits));
        if more > 0 {
            guard.check_held()?;
            let given = Given {
                epoch: given.epoch.wrapping_add(1),
                permits: given.permits.saturating_add(more),
            };
            given.store(&state.given);
            step("notify: given");
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
        guard: MutexGuard<'a, T>,
        deadline: Deadline,
        lock_deadline: Deadline,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        let (mut guard, notified) = self.wait_untold(guard, deadline, lock_deadline)?;
        guard.tell(false);
        Ok((guard, notified))
    }

    /// A wait locks more often than its caller sees: the last of these guards is the one to say
    /// that a holder has died.
    fn wait_untold<'a, T: Serialize + DeserializeOwned>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Deadline,
        lock_deadline: Deadline,
    ) -> Result<(MutexGuard<'a, T>, bool), MutexError> {
        guard.check_held()?;
        guard.store()?;
        // The mutex outlives the guard.
        let mutex: &'a Mutex<T> = guard.mutex_of();
        let state = self.0.get();
        let came = Given::load(&state.given).epoch;
        state.waiters.fetch_add(1, SeqCst);
        loop {
            let ticket = state.signal.prepare();
            drop(guard);
            state.signal.sleep(ticket, deadline.at_most(SLICE));
            guard = mutex.lock_untold(match lock_deadline.passed() {
                true => Deadline::Now,
                false => lock_deadline,
            })?;
            let given = Given::load(&state.given);
            let notified = given.permits > 0 && given.epoch != came;
            if notified || deadline.passed() {
                if notified {
                    let permits = given.permits - 1;
                    Given { permits, ..given }.store(&state.given);
                    step("wait: permit taken");
                }
                let waiters = state.waiters.load(SeqCst);
                state.waiters.store(waiters.saturating_sub(1), SeqCst);
                return Ok((guard, notified));
            }
        }
    }
}

#[cfg(not(test))]
#[inline]
fn step(_: &'static str) {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{self, Process};
    use crate::sync::Event;
    use std::cell::Cell;
    use std::thread;
    use std::time::Instant;
    use testkit::isolated;

    const LONG: Duration = Duration::from_secs(10);

    thread_local! {
        static LAST: Cell<&'static str> = const { Cell::new("") };
    }

    /// The steps come here; this process dies at the last one.
    pub(super) fn step(name: &'static str) {
        if LAST.get() == name {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    /// A process that does this until it comes to `last`.
    fn killed_at(last: &'static str, f: impl FnOnce()) -> Process<()> {
        let kill = || {
            LAST.set(last);
            f();
        };
        process::fork(kill).unwrap()
    }

    fn until_waiting(condvar: &Condvar, waiters: u32) {
        let end = Instant::now() + LONG;
        while condvar.0.get().waiters.load(SeqCst) != waiters {
            assert!(Instant::now() < end, "it does not come");
            thread::yield_now();
        }
    }

    /// Whether one who waits is woken, when `waiters` with it are counted.
    fn wakes(mutex: &Mutex<()>, condvar: &Condvar, waiters: u32) -> bool {
        thread::scope(|scope| {
            scope.spawn(|| {
                until_waiting(condvar, waiters);
                condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
            });
            let waited = condvar.wait_timeout(mutex.lock().unwrap(), LONG);
            waited.unwrap().1
        })
    }

    fn pair() -> (Mutex<()>, Condvar) {
        (Mutex::new(()).unwrap(), Condvar::new().unwrap())
    }

    #[test]
    fn a_notifier_killed_half_way_leaves_the_condition_usable() {
        isolated(|| {
            let (mutex, condvar) = pair();
            let notifier = killed_at("notify: given", || {
                until_waiting(&condvar, 1);
                condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
            });
            // It was notified, if not woken.
            let waited = condvar.wait_timeout(mutex.lock().unwrap(), LONG);
            assert!(waited.unwrap().1);
            assert!(notifier.join().is_err());
            assert!(wakes(&mutex, &condvar, 1));
        });
    }

    #[test]
    fn a_waiter_killed_half_way_leaves_the_condition_usable() {
        isolated(|| {
            let (mutex, condvar) = pair();
            let waiter = killed_at("wait: permit taken", || {
                let _ = condvar.wait_timeout(mutex.lock().unwrap(), LONG);
            });
            until_waiting(&condvar, 1);
            condvar.notify_all(&mut mutex.lock().unwrap()).unwrap();
            assert!(waiter.join().is_err());
            assert!(wakes(&mutex, &condvar, 2));
            assert!(wakes(&mutex, &condvar, 2));
        });
    }

    /// Counts how often the one that waits reads it.
    #[derive(Serialize)]
    struct Ready(bool);

    static LOOKS: AtomicU32 = AtomicU32::new(0);

    thread_local! {
        static WAITS: Cell<bool> = const { Cell::new(false) };
    }

    impl<'de> Deserialize<'de> for Ready {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            LOOKS.fetch_add(u32::from(WAITS.get()), SeqCst);
            bool::deserialize(from).map(Ready)
        }
    }

    #[test]
    fn a_wait_does_not_keep_a_holders_death_to_itself() {
        type Waits = fn(&Mutex<Ready>, &Condvar) -> bool;
        fn untold(mutex: &Mutex<Ready>) -> MutexGuard<'_, Ready> {
            mutex.lock_untold(Deadline::Never).unwrap()
        }
        fn a_holder_dies(mutex: &Mutex<Ready>) {
            let dies = || std::mem::forget(untold(mutex));
            thread::scope(|scope| scope.spawn(dies).join().unwrap());
        }
        let (mutex, condvar) = (Mutex::new(Ready(false)).unwrap(), Condvar::new().unwrap());
        let in_vain: [fn(&Mutex<Ready>, &Condvar); 2] = [
            |_, condvar| condvar.0.get().signal.wake(u32::MAX),
            |mutex, condvar| condvar.notify_all(&mut untold(mutex)).unwrap(),
        ];
        let all: [(usize, Waits); 3] = [
            (0, |mutex, condvar| {
                let guard = mutex.lock().unwrap();
                condvar.wait(guard).unwrap().holder_died()
            }),
            (1, |mutex, condvar| {
                let guard = mutex.lock().unwrap();
                let waited = condvar.wait_while(guard, |ready| !ready.0);
                waited.unwrap().holder_died()
            }),
            (1, |mutex, condvar| {
                a_holder_dies(mutex);
                // Nobody looks whether this guard knows of it.
                let guard = mutex.lock().unwrap();
                let waited = condvar.wait_while_timeout(guard, |ready| !ready.0, LONG);
                waited.unwrap().0.holder_died()
            }),
        ];
        WAITS.set(true);
        for (at, (wakes_in_vain, waits)) in all.into_iter().enumerate() {
            untold(&mutex).0 = false;
            let told = thread::scope(|scope| {
                scope.spawn(|| {
                    until_waiting(&condvar, 1);
                    if at < 2 {
                        a_holder_dies(&mutex);
                    }
                    let (looks, end) = (LOOKS.load(SeqCst), Instant::now() + LONG);
                    while LOOKS.load(SeqCst) == looks {
                        assert!(Instant::now() < end, "it does not look");
                        in_vain[wakes_in_vain](&mutex, &condvar);
                        thread::yield_now();
                    }
                    // It has the lock until it waits again.
                    let mut guard = untold(&mutex);
                    guard.0 = true;
                    condvar.notify_all(&mut guard).unwrap();
                });
                waits(&mutex, &condvar)
            });
            assert!(told, "{at}");
            assert!(!mutex.lock().unwrap().holder_died());
        }
    }

    #[test]
    fn a_wait_can_be_limited_as_a_whole() {
        let ((mutex, condvar), soon) = (pair(), Duration::from_millis(20));
        let waited = condvar.wait_within(mutex.lock().unwrap(), soon);
        assert!(!waited.unwrap().1);
        let waited = Event::new().unwrap();
        thread::scope(|scope| {
            let mut guard = mutex.lock().unwrap();
            scope.spawn(|| {
                // Had while the other one waits.
                let _held = mutex.lock().unwrap();
                assert!(waited.wait_timeout(LONG));
            });
            let start = Instant::now();
            // It may take some waits until the other one has come.
            let error = loop {
                assert!(start.elapsed() < LONG / 2);
                match condvar.wait_within(guard, soon) {
                    Ok((again, _)) => guard = again,
                    Err(error) => break error,
                }
            };
            assert_eq!(error, MutexError::Locked);
            waited.set();
        });
        // One more is counted, which does no harm.
        assert!(wakes(&mutex, &condvar, 2));
    }
}
