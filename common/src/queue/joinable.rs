//! A queue that knows when everything put into it has been dealt with.
//!
//! Each consumer process has three words in the queue's memory: its stamp, how many values it has
//! taken, and how many of them are done. What is taken is counted by the ring in one step with
//! taking it, what is done by one store: so after a consumer was killed it is known exactly how
//! much was in its hands. Unfinished is what waits and what is in somebody's hands.

use super::get::patiently;
use super::{GetError, PutError, Queue, QueueBuilder, QueueStats, TooManyDone, with_buffer};
use crate::deadline::Deadline;
use crate::shm::{Owner, ShmError};
use crate::{codec, ring};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::process;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Consumer processes; one more would share the last slot, whose dead are not noticed.
const SLOTS: usize = 86;
const WORDS: usize = 3;
/// The stamp of the slot that several may share; no process has it.
const SHARED: u64 = u64::MAX;
/// The ring's word that says how many were lost of which no `join` has told yet. (The first four
/// count the ends of a queue that is split.)
const LOST: usize = 4;

/// A [`Queue`] whose consumers say when they are done with a value, and that can be waited for
/// until everything is.
///
/// ```
/// use common::queue::JoinableQueue;
///
/// let queue = JoinableQueue::new()?;
/// queue.put("work".to_string())?;
/// {
///     let task = queue.get_guard()?; // marked done when dropped
///     assert_eq!(*task, "work");
/// }
/// assert_eq!(queue.join(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinableQueue<T> {
    queue: Queue<T>,
}

impl<T> JoinableQueue<T> {
    /// A queue bounded by its bytes alone, as [`Queue::new`].
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn new() -> Result<Self, ShmError> {
        Self::build(Queue::builder())
    }

    /// A queue that holds at most `items` values, as [`Queue::bounded`].
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    #[doc(alias = "maxsize")]
    pub fn bounded(items: u32) -> Result<Self, ShmError> {
        Self::build(Queue::builder().items(items))
    }

    /// As a builder says.
    ///
    /// ```
    /// use common::queue::{JoinableQueue, Queue};
    /// let queue: JoinableQueue<u64> = JoinableQueue::build(Queue::builder().capacity(1 << 20))?;
    /// # Ok::<(), common::shm::ShmError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn build(builder: QueueBuilder) -> Result<Self, ShmError> {
        let queue = builder.slots(SLOTS * WORDS).build()?;
        Ok(JoinableQueue { queue })
    }

    /// Says that a value which this process got has been dealt with. [`JoinableQueue::get_guard`]
    /// says it by itself.
    ///
    /// # Errors
    ///
    /// [`TooManyDone`] if this process has none to be done with. (Where more than 85 processes
    /// consume, the last ones count together: then it may be another's that is marked.)
    pub fn task_done(&self) -> Result<(), TooManyDone> {
        let stamp = Owner::current().stamp();
        // A process may have several: two of its threads that got their first values together have
        // each taken a slot, and it used the shared one (the last) while no other was free.
        let is_mine = |slot: &usize| [stamp, SHARED].contains(&self.word(*slot, 0).load(SeqCst));
        (0..SLOTS)
            .filter(is_mine)
            .find(|slot| self.mark_done(*slot))
            .ok_or(TooManyDone)?;
        if self.unfinished() == 0 {
            self.queue.ring().announce_change();
        }
        Ok(())
    }

    /// Counts one more as done in a slot, if it has one that is not.
    fn mark_done(&self, slot: usize) -> bool {
        let (taken, done) = (self.word(slot, 1), self.word(slot, 2));
        let one_more = |done: u64| (done < taken.load(SeqCst)).then_some(done + 1);
        done.fetch_update(SeqCst, SeqCst, one_more).is_ok()
    }

    /// Blocks until everything that was put has been got and is done. What was in the hands of a
    /// process that died counts as done; how many values that were is returned (each is reported
    /// to one caller only, and to none whose time is over before all is done).
    pub fn join(&self) -> usize {
        self.join_until(Deadline::Never).unwrap_or(0)
    }

    /// As [`JoinableQueue::join`], at most for `timeout`; `None` if there is more to do then.
    pub fn join_timeout(&self, timeout: Duration) -> Option<usize> {
        self.join_until(Deadline::after(timeout))
    }

    fn join_until(&self, deadline: Deadline) -> Option<usize> {
        loop {
            let look = Deadline::after(deadline.at_most(Duration::from_millis(250)));
            let done = self
                .queue
                .ring()
                .wait_for_change(look, || self.unfinished() == 0);
            if done {
                let lost = self.lost().swap(0, SeqCst);
                let lost = lost.saturating_add(self.queue.ring().take_dropped());
                return Some(usize::try_from(lost).unwrap_or(usize::MAX));
            }
            self.bury();
            if self.unfinished() > 0 && deadline.passed() {
                return None;
            }
        }
    }

    /// Values that were put and are not done: waiting, or in somebody's hands.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let ring = self.queue.ring();
        loop {
            let put = ring.put_count();
            // In this order: a value goes from waiting into hands. Should somebody put another
            // meanwhile and then be done with the one that led to it, neither would be seen.
            let waiting = ring.len();
            let in_hands = (0..SLOTS)
                .map(|slot| self.in_hands(slot))
                .fold(0, u64::saturating_add);
            // That something is unfinished is true at once, however busily others put.
            if waiting > 0 || in_hands > 0 || put == ring.put_count() {
                return waiting.saturating_add(usize::try_from(in_hands).unwrap_or(usize::MAX));
            }
        }
    }

    fn in_hands(&self, slot: usize) -> u64 {
        let done = self.word(slot, 2).load(SeqCst);
        self.word(slot, 1).load(SeqCst).saturating_sub(done)
    }

    /// Counts what dead processes held as done, and as lost.
    fn bury(&self) {
        let lost = (0..SLOTS).map(|slot| self.bury_in(slot));
        self.lost()
            .fetch_add(lost.fold(0, u64::saturating_add), SeqCst);
    }

    fn lost(&self) -> &AtomicU64 {
        &self.queue.ring().words()[LOST]
    }

    fn bury_in(&self, slot: usize) -> u64 {
        let (taken, done) = (self.word(slot, 1), self.word(slot, 2));
        let (was_taken, was_done) = (taken.load(SeqCst), done.load(SeqCst));
        // In this order: should another process have the slot by now, the counts are older.
        let stamp = self.word(slot, 0).load(SeqCst);
        let held = was_taken.saturating_sub(was_done);
        if held == 0 || stamp == 0 || stamp == SHARED || !Owner::stamp_is_dead(stamp) {
            return 0;
        }
        // Who died in the middle of a get has its count put right by the next to lock: perhaps now.
        if self.queue.ring().claim(0, Deadline::Now) == Err(ring::GetError::Empty) {
            return 0;
        }
        let buried = taken.load(SeqCst) == was_taken
            && done
                .compare_exchange(was_done, was_taken, SeqCst, SeqCst)
                .is_ok();
        if buried { held } else { 0 }
    }

    /// The slot of this process, its own or the shared one.
    fn slot(&self) -> usize {
        let stamp = Owner::current().stamp();
        let is_mine = |slot: &usize| self.word(*slot, 0).load(SeqCst) == stamp;
        (0..SLOTS - 1)
            .find(is_mine)
            .or_else(|| (0..SLOTS - 1).find(|slot| self.take(*slot, stamp)))
            .unwrap_or_else(|| {
                self.word(SLOTS - 1, 0).store(SHARED, SeqCst);
                SLOTS - 1
            })
    }

    fn take(&self, slot: usize, stamp: u64) -> bool {
        let owner = self.word(slot, 0);
        let old = owner.load(SeqCst);
        let holds_none = || self.in_hands(slot) == 0;
        // Once more when it is dead for certain: it may have taken one before it died.
        let free = old == 0 || (holds_none() && Owner::stamp_is_dead(old) && holds_none());
        free && owner.compare_exchange(old, stamp, SeqCst, SeqCst).is_ok()
    }

    fn word(&self, slot: usize, word: usize) -> &AtomicU64 {
        self.queue.ring().slot(slot * WORDS + word)
    }

    /// As [`Queue::len`].
    #[doc(alias = "qsize")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// As [`Queue::is_empty`].
    #[doc(alias = "empty")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// As [`Queue::is_full`].
    #[doc(alias = "full")]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    /// As [`Queue::close`].
    pub fn close(&self) {
        self.queue.close();
    }

    /// As [`Queue::is_closed`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// As [`Queue::stats`].
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.queue.stats()
    }
}

impl<T: Serialize> JoinableQueue<T> {
    /// As [`Queue::put`].
    ///
    /// # Errors
    ///
    /// As [`Queue::put`].
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue.put(value)
    }

    /// As [`Queue::try_put`].
    ///
    /// # Errors
    ///
    /// As [`Queue::try_put`].
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.queue.try_put(value)
    }

    /// As [`Queue::put_timeout`].
    ///
    /// # Errors
    ///
    /// As [`Queue::put_timeout`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.queue.put_timeout(value, timeout)
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Gets the oldest value; [`JoinableQueue::task_done`] is to be called when it is dealt with.
    /// Blocks while there is none.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`].
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Never)
    }

    /// As [`JoinableQueue::get`] if there is a value at once.
    ///
    /// # Errors
    ///
    /// As [`Queue::try_get`].
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Now)
    }

    /// As [`JoinableQueue::get`], at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// As [`JoinableQueue::get`]; the value is marked done when the guard is dropped, also by a
    /// panic.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`].
    pub fn get_guard(&self) -> Result<TaskGuard<'_, T>, GetError> {
        self.get().map(|value| self.guard(value))
    }

    /// As [`JoinableQueue::get_guard`] if there is a value at once.
    ///
    /// # Errors
    ///
    /// As [`Queue::try_get`].
    pub fn try_get_guard(&self) -> Result<TaskGuard<'_, T>, GetError> {
        self.try_get().map(|value| self.guard(value))
    }

    /// As [`JoinableQueue::get_guard`], at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_timeout`].
    pub fn get_guard_timeout(&self, timeout: Duration) -> Result<TaskGuard<'_, T>, GetError> {
        self.get_timeout(timeout).map(|value| self.guard(value))
    }

    fn guard(&self, value: T) -> TaskGuard<'_, T> {
        TaskGuard {
            value,
            queue: self,
            taker: process::id(),
        }
    }

    fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        let (ring, taken) = (self.queue.ring(), self.slot() * WORDS + 1);
        with_buffer(|buffer| {
            let one_more = |_: &[u8], taken: u64| taken.wrapping_add(1);
            patiently(|| ring.get_changing(taken, buffer, deadline, one_more))?;
            // It is out of the queue: if this fails, or panics, nobody can deal with it.
            let lost = Lost(self);
            let value = codec::decode(buffer)?;
            mem::forget(lost);
            Ok(value)
        })
    }
}

/// Marks a value done that was taken and cannot be given to anybody.
struct Lost<'a, T>(&'a JoinableQueue<T>);

impl<T> Drop for Lost<'_, T> {
    fn drop(&mut self) {
        let _ = self.0.task_done();
    }
}

/// A value of a [`JoinableQueue`], marked done when dropped: by the process that got it, and not by
/// a fork, which has a copy.
#[must_use = "the value is marked done when the guard is dropped"]
pub struct TaskGuard<'a, T> {
    value: T,
    queue: &'a JoinableQueue<T>,
    /// The process that got it.
    taker: u32,
}

impl<T> Deref for TaskGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for TaskGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for TaskGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

impl<T> Drop for TaskGuard<'_, T> {
    fn drop(&mut self) {
        if self.taker == process::id() {
            // Too many only if somebody has called `task_done` for it as well.
            let _ = self.queue.task_done();
        }
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        let queue = self.queue.clone();
        JoinableQueue { queue }
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinableQueue")
            .field("queue", &self.queue)
            .field("unfinished", &self.unfinished())
            .finish()
    }
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.queue.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let queue = Queue::deserialize(deserializer)?;
        if queue.ring().slots() < SLOTS * WORDS {
            return Err(serde::de::Error::custom("this is no joinable queue"));
        }
        Ok(JoinableQueue { queue })
    }
}

#[cfg(test)]
mod tests;
