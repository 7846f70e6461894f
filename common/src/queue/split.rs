//! A queue's two ends, counted: when the last one of either kind has gone the queue is closed.

use super::get::until_the_end;
use super::holders::{Holders, Side, Slot};
use super::{GetError, PutError, Queue};
use crate::deadline::Deadline;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::process;
use std::time::Duration;

/// How often one who waits looks whether the others are alive.
const LOOK: Duration = Duration::from_millis(250);

/// Puts into a queue that closes when the last sender, of all processes, is dropped or killed.
///
/// Cloning and sending it makes one more. A forked child's copy counts from its first use on.
/// (One that was serialised for a process that never opened it counts for ever.)
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
    #[must_use]
    pub fn split(self) -> (Sender<T>, Receiver<T>) {
        let sender = End::enter(self.clone(), Side::Senders);
        (Sender(sender), Receiver(End::enter(self, Side::Receivers)))
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
        let slot = self.0.adopt();
        let look = || self.0.close_if_alone(Side::Receivers);
        let result = self.0.queue.put_looking(value, deadline, LOOK, &look);
        self.0.abandon(slot);
        result
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
        let slot = self.0.adopt();
        let result = loop {
            let soon = Deadline::after(deadline.at_most(LOOK));
            match self.0.queue.get_until(soon) {
                Err(GetError::Empty) if !deadline.passed() => {
                    self.0.close_if_alone(Side::Senders);
                }
                other => break other,
            }
        };
        self.0.abandon(slot);
        result
    }

    /// The values as they come, until there is no sender any more. Blocks while there is none. An
    /// error ends it, after it has been given.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> + use<'_, T> {
        until_the_end(|| self.get())
    }
}

/// A counted handle.
#[derive(Debug)]
struct End<T> {
    queue: Queue<T>,
    side: Side,
    slot: Slot,
    /// The process that was counted.
    pid: u32,
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
            slot,
            pid: process::id(),
        }
    }

    fn holders(&self, side: Side) -> Holders<'_> {
        Holders::new(self.queue.ring(), side)
    }

    /// A forked child was not counted when it was made: it is, for one call.
    fn adopt(&self) -> Option<Slot> {
        (self.pid != process::id()).then(|| self.holders(self.side).enter())
    }

    fn abandon(&self, slot: Option<Slot>) {
        if slot.is_some_and(|slot| self.holders(self.side).leave(slot)) {
            self.queue.close();
        }
    }

    fn close_if_alone(&self, others: Side) {
        if self.holders(others).bury() {
            self.queue.close();
        }
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        // A forked child's copy was never counted.
        if self.pid == process::id() && self.holders(self.side).leave(self.slot) {
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
        self.holders(self.side).depart();
        Ok(done)
    }

    fn deserialize<'de, D: Deserializer<'de>>(side: Side, from: D) -> Result<Self, D::Error> {
        let queue = Queue::deserialize(from)?;
        let slot = Holders::new(queue.ring(), side).arrive();
        Ok(End::counted(queue, side, slot))
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

    #[test]
    fn one_killed_between_leaving_and_closing_closes() {
        let long = Duration::from_secs(30);
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        assert!(sender.0.holders(Side::Senders).leave(sender.0.slot));
        std::mem::forget(sender);
        assert_eq!(receiver.get_timeout(long), Err(GetError::Closed));

        let (sender, receiver) = Queue::bounded(1).unwrap().split();
        sender.put(1).unwrap();
        assert!(receiver.0.holders(Side::Receivers).leave(receiver.0.slot));
        std::mem::forget(receiver);
        let reason = sender.put_timeout(2, long).unwrap_err().reason;
        assert_eq!(reason, crate::queue::PutReason::Closed);
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
