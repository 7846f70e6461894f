//! A queue's two ends, counted: when the last one of either kind has gone the queue is closed.

use super::get::until_the_end;
use super::holders::{Holders, Side, Slot};
use super::{GetError, PutError, Queue};
use crate::deadline::Deadline;
use crate::departures::{Counted, Departures};
use crate::ring::Ring;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::process;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// How often one who waits, or asks again and again, looks whether the others are alive.
const LOOK: Duration = Duration::from_millis(250);

/// Puts into a queue that closes when the last sender, of all processes, is dropped or killed.
///
/// Cloning and sending it makes one more. That is taken back where it certainly reaches nobody: the
/// put into another queue, the start of the process, the task or the manager's call has failed, or
/// the task was cancelled before a worker had begun it. What may have arrived counts until somebody
/// opens it, and so for ever if nobody does:
///
/// * in a queue from which nobody gets, or in a result that nobody takes or that cannot be sent;
/// * in the arguments of a process or of a manager's call, where the process or the manager ends
///   before it has read them, or of a coroutine that was with a worker when its pool ended;
/// * in bytes that the program has made itself, with [`codec`](crate::codec) say;
/// * in what a process had still to send when it was killed;
/// * in the hands of a process that was killed, if 64 others that lived had got one before it.
///
/// A forked child's copy counts from its first put or get on, until it is dropped or the child
/// ends. Until then the parent must keep one of its own. A closure that is forked is dropped in the
/// parent at once, so it is to be given a clone:
///
/// ```
/// use common::process::{self, Process};
/// use common::queue::Queue;
///
/// // A doctest has threads of its own; the process it starts has one.
/// fn sum_from_a_fork() -> i32 {
///     let (sender, receiver) = Queue::new().unwrap().split();
///     let theirs = sender.clone();
///     let put = move || (1..=3).for_each(|n| theirs.put(n).unwrap());
///     let child = process::fork(put).unwrap();
///     let first = receiver.get().unwrap(); // The child's sender counts now,
///     drop(sender); // and the parent's is not needed any more.
///     let rest: i32 = receiver.iter().map(Result::unwrap).sum();
///     child.join().unwrap();
///     first + rest
/// }
/// assert_eq!(Process::spawn(sum_from_a_fork, ())?.join()?, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sender<T>(End<T>);

/// Gets from a queue that closes when the last receiver, of all processes, is dropped or killed.
/// See [`Sender`].
#[derive(Debug)]
pub struct Receiver<T>(End<T>);

impl<T> Queue<T> {
    /// A sender and a receiver for this queue: puts fail once there is no receiver any more, and
    /// gets end once there is no sender.
    ///
    /// ```
    /// use common::queue::{GetError, Queue};
    ///
    /// let (sender, receiver) = Queue::new()?.split();
    /// sender.put(1)?;
    /// drop(sender);
    /// assert_eq!(receiver.get(), Ok(1));
    /// assert_eq!(receiver.get(), Err(GetError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "Pipe")]
    #[must_use]
    pub fn split(self) -> (Sender<T>, Receiver<T>) {
        let sender = End::enter(self.clone(), Side::Senders);
        (Sender(sender), Receiver(End::enter(self, Side::Receivers)))
    }
}

impl<T> Sender<T> {
    /// As [`Queue::len`].
    #[doc(alias = "qsize")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// As [`Queue::is_empty`].
    #[doc(alias = "empty")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T> Receiver<T> {
    /// As [`Queue::len`].
    #[doc(alias = "qsize")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.queue.len()
    }

    /// As [`Queue::is_empty`].
    #[doc(alias = "empty")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }
}

impl<T: Serialize> Sender<T> {
    /// Puts a value. Blocks while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Queue::put`].
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::Never)
    }

    /// Puts a value if there is room for it at once.
    ///
    /// # Errors
    ///
    /// As [`Queue::try_put`].
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::Now)
    }

    /// Puts a value. Blocks while the queue is full, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put_timeout`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::after(timeout))
    }

    /// Puts a value, waiting for room until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put_timeout`].
    pub fn put_until(&self, value: T, deadline: Deadline) -> Result<(), PutError<T>> {
        self.0.adopt();
        let look = || self.0.look_for(Side::Receivers);
        self.0.queue.put_looking(value, deadline, LOOK, &look)
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Gets the oldest value. Blocks while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError::Closed`] once the queue is empty and there is no sender any more.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Never)
    }

    /// Gets the oldest value if there is one.
    ///
    /// # Errors
    ///
    /// As [`Receiver::get`], and [`GetError::Empty`].
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Now)
    }

    /// Gets the oldest value. Blocks while there is none, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Receiver::get`], and [`GetError::Empty`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Gets the oldest value, waiting for one until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Receiver::get_timeout`].
    pub fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        self.0.adopt();
        loop {
            let soon = Deadline::after(deadline.at_most(LOOK));
            match self.0.queue.get_until(soon) {
                // Also one who never waits as long as that is to learn it: what has just been
                // closed is tried once more, at any rate.
                Err(GetError::Empty) if self.0.look_for(Side::Senders) || !deadline.passed() => {}
                other => return other,
            }
        }
    }

    /// The values as they come, until there is no sender any more. Blocks while there is none. An
    /// error ends it, as it does [`Queue::iter`].
    pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> + use<'_, T> {
        until_the_end(|| self.get())
    }
}

/// A counted handle.
#[derive(Debug)]
struct End<T> {
    queue: Queue<T>,
    side: Side,
    /// A [`Place`].
    place: AtomicU64,
    made: Instant,
    /// When it was last looked whether the others are alive, in milliseconds since `made`.
    looked: AtomicU64,
}

/// Where a handle is counted, in one word.
#[derive(Clone, Copy)]
struct Place {
    slot: Slot,
    /// The process that is counted there.
    pid: u32,
}

impl Place {
    fn of_this_process(slot: Slot) -> Self {
        let pid = process::id();
        Place { slot, pid }
    }

    fn to_bits(self) -> u64 {
        // One more than the slot; 0 is none.
        let slot = self.slot.map_or(0, |slot| slot as u64 + 1);
        slot << 32 | u64::from(self.pid)
    }

    fn from_bits(bits: u64) -> Self {
        let slot = (bits >> 32).checked_sub(1).map(|slot| slot as usize);
        let pid = bits as u32;
        Place { slot, pid }
    }

    /// The slot, unless it is another process's: of which this is a forked child.
    fn here(self) -> Option<Slot> {
        (self.pid == process::id()).then_some(self.slot)
    }
}

impl<T> End<T> {
    fn enter(queue: Queue<T>, side: Side) -> Self {
        let slot = Holders::new(queue.ring(), side).enter();
        End::counted(queue, side, slot)
    }

    fn counted(queue: Queue<T>, side: Side, slot: Slot) -> Self {
        End {
            queue,
            side,
            place: AtomicU64::new(Place::of_this_process(slot).to_bits()),
            made: Instant::now(),
            looked: AtomicU64::new(0),
        }
    }

    fn holders(&self, side: Side) -> Holders<'_> {
        Holders::new(self.queue.ring(), side)
    }

    /// A forked child's copy was not counted when it was made: it is from now on.
    fn adopt(&self) {
        let place = self.place.load(SeqCst);
        if Place::from_bits(place).here().is_none() {
            self.count_here(place);
        }
    }

    #[cold]
    fn count_here(&self, before: u64) {
        let slot = self.holders(self.side).enter();
        let place = Place::of_this_process(slot).to_bits();
        let counted = self.place.compare_exchange(before, place, SeqCst, SeqCst);
        if counted.is_err() {
            // Another thread has done it: this is not the last.
            self.holders(self.side).leave(slot);
        }
    }

    /// Closes the queue if there is nobody on the other side any more, but looks no more often
    /// than each `LOOK`; says whether it did.
    fn look_for(&self, others: Side) -> bool {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.looked.load(Relaxed);
        let due = u128::from(now.saturating_sub(last)) >= LOOK.as_millis();
        let looks = due && self.looked.swap(now, Relaxed) == last;
        let alone = looks && self.holders(others).bury();
        if alone {
            self.queue.close();
        }
        alone
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        // A forked child's copy that was not used was never counted.
        let place = Place::from_bits(self.place.load(SeqCst));
        let last = |slot| self.holders(self.side).leave(slot);
        if place.here().is_some_and(last) {
            self.queue.close();
        }
    }
}

impl<T> Clone for End<T> {
    fn clone(&self) -> Self {
        End::enter(self.queue.clone(), self.side)
    }
}

impl<T> End<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let done = self.queue.serialize(serializer)?;
        let (ring, side) = (self.queue.ring().clone(), self.side);
        Departures::count(OnItsWay { ring, side });
        Ok(done)
    }

    fn deserialize<'de, D: Deserializer<'de>>(side: Side, from: D) -> Result<Self, D::Error> {
        let queue = Queue::deserialize(from)?;
        if !Holders::are_in(queue.ring()) {
            return Err(de::Error::custom("this queue cannot be split"));
        }
        let slot = Holders::new(queue.ring(), side).arrive();
        Ok(End::counted(queue, side, slot))
    }
}

/// A serialised handle.
struct OnItsWay {
    ring: Ring,
    side: Side,
}

impl Counted for OnItsWay {
    fn depart(&self) {
        Holders::new(&self.ring, self.side).depart();
    }

    fn take_back(&self) {
        if Holders::new(&self.ring, self.side).leave(None) {
            self.ring.close();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver(self.0.clone())
    }
}

impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize(Side::Senders, deserializer).map(Sender)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize(Side::Receivers, deserializer).map(Receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::PutReason;

    /// As one that is killed when it has struck itself out and not closed the queue yet.
    fn leave<T>(end: End<T>) {
        let place = Place::from_bits(end.place.load(SeqCst));
        assert!(end.holders(end.side).leave(place.slot));
        std::mem::forget(end);
    }

    #[test]
    fn one_killed_between_leaving_and_closing_closes() {
        let long = Duration::from_secs(30);
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        leave(sender.0);
        assert_eq!(receiver.get_timeout(long), Err(GetError::Closed));

        let (sender, receiver) = Queue::bounded(1).unwrap().split();
        sender.put(1).unwrap();
        leave(receiver.0);
        let reason = sender.put_timeout(2, long).unwrap_err().reason;
        assert_eq!(reason, PutReason::Closed);
    }

    /// Asks until it is told something else than `no`.
    fn ask<R: PartialEq>(no: &R, ask: impl Fn() -> R) -> R {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let told = ask();
            if told != *no || Instant::now() > end {
                return told;
            }
        }
    }

    #[test]
    fn who_never_waits_long_learns_it_too() {
        // All at a time: each looks after a quarter of a second.
        let short = LOOK / 5;
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        leave(sender.0);
        let (full, absent) = Queue::bounded(1).unwrap().split();
        full.put(String::new()).unwrap();
        leave(absent.0);
        let (small, absent) = Queue::builder().capacity(256).build().unwrap().split();
        leave(absent.0);
        let get = || ask(&Err(GetError::Empty), || receiver.get_timeout(short));
        let put = |sender: &Sender<String>, len| {
            let put = || sender.put_timeout("x".repeat(len), short);
            ask(&Err(PutReason::Full), || {
                put().map_err(|error| error.reason)
            })
        };
        std::thread::scope(|scope| {
            let puts = [
                scope.spawn(|| put(&full, 1)),
                scope.spawn(|| put(&small, 1000)),
            ];
            assert_eq!(get(), Err(GetError::Closed));
            for put in puts {
                assert_eq!(put.join().unwrap(), Err(PutReason::Closed));
            }
        });
        let closed = small.try_put("x".repeat(1000)).unwrap_err().reason;
        assert_eq!(closed, PutReason::Closed);
    }

    #[test]
    fn bytes_that_are_opened_twice_were_on_their_way_once() {
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let sent = crate::codec::encode(&sender).unwrap();
        for _ in 0..2 {
            crate::codec::decode::<Sender<u32>>(&sent).unwrap();
        }
        drop(sender);
        assert_eq!(receiver.get_timeout(2 * LOOK), Err(GetError::Closed));
    }

    #[test]
    fn a_queue_without_room_for_the_counts_is_refused() {
        let queue: Queue<u32> = Queue::builder().slots(0).build().unwrap();
        let sent = crate::codec::encode(&queue).unwrap();
        let error = crate::codec::decode::<Sender<u32>>(&sent).unwrap_err();
        assert!(error.to_string().contains("cannot be split"), "{error}");
    }

    #[test]
    fn one_that_is_on_its_way_counts() {
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let sent = crate::codec::encode(&sender).unwrap();
        drop(sender);
        assert_eq!(receiver.get_timeout(2 * LOOK), Err(GetError::Empty));
        let sender: Sender<u32> = crate::codec::decode(&sent).unwrap();
        sender.put(1).unwrap();
        assert_eq!(receiver.get(), Ok(1));
    }
}
