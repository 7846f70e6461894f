//! Queues between processes.
//!
//! ```text
//!   producers (any processes)       shared memory        consumers (any processes)
//!   queue.put(value) -- encode --> [ ring of messages ] -- decode --> queue.get()
//! ```
//!
//! There is no thread behind a queue and nothing is in flight: when `put` returns, the message is
//! in the queue, and the process that put it may end. (Python's `Queue` has a feeder thread that
//! must be waited for; that a sender with 100 kB of unread messages cannot be joined is its
//! best known trap.)
//!
//! * **Order**: each producer's messages come in the order it put them; no order between
//!   producers.
//! * **Bounds**: a queue holds as many bytes as its capacity says (64 MiB, or a quarter of
//!   `/dev/shm` where that is less), and at most as many items as [`Queue::bounded`] says. When
//!   it is full, `put` waits. A single message may be longer than the whole queue.
//! * **Ends**: a queue does not know who is going to put. It ends when somebody calls
//!   [`Queue::close`]: puts fail and give the value back, gets drain what is there and then fail.
//!   Dropping handles does not close it. Who wants that splits it: [`Queue::split`] gives a
//!   [`Sender`] and a [`Receiver`], and the last one of either kind that is dropped, or killed,
//!   closes.
//! * **Deaths**: a process killed in the middle of a put or a get leaves the queue whole; at most
//!   the message in its hands is lost. [`JoinableQueue::join`] says how many such were lost.
//! * **Lifetime**: the queue's memory belongs to the process that made it. Other processes keep
//!   what they have opened, but nobody can open it any more once that process has ended.
//!
//! To copy: queue/, ring/, sync/robust.rs, sync/signal.rs, shm/, departures.rs, futex.rs,
//! deadline.rs, codec.rs.

mod bytes;
mod error;
mod future;
mod get;
mod holders;
mod joinable;
mod put;
mod split;

pub use crate::ring::RingStats as QueueStats;
pub use error::{GetError, GetManyError, PutError, PutManyError, PutReason, TooManyDone};
pub use future::{GetFuture, GetStream, PutFuture};
pub use joinable::{JoinableQueue, TaskGuard};
pub use split::{Receiver, Sender};

use crate::ring::{Batch, Ring, RingConfig};
use crate::shm::ShmError;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::type_name;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::thread::LocalKey;

/// A queue of values between any processes, for many producers and many consumers.
///
/// Cloning it gives another handle on the same queue. So does sending it: as an argument of a
/// process, through another queue, inside a struct. `Queue<[u8]>` takes bytes as they are.
///
/// ```
/// use common::queue::Queue;
///
/// let queue = Queue::new()?;
/// queue.put("Hello!".to_string())?; // in any process
/// assert_eq!(queue.get()?, "Hello!"); // in any other
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "SimpleQueue")]
pub struct Queue<T: ?Sized> {
    ring: Ring,
    _values: PhantomData<fn(&T) -> Box<T>>,
}

/// How a queue is made: [`Queue::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `build` is called"]
pub struct QueueBuilder {
    config: RingConfig,
}

impl Default for QueueBuilder {
    fn default() -> Self {
        let config = RingConfig {
            claims: holders::TABLES,
            ..RingConfig::default()
        };
        QueueBuilder { config }
    }
}

impl QueueBuilder {
    /// At most so many messages at a time; 0 is no such bound.
    pub fn items(mut self, items: u32) -> Self {
        self.config.max_items = Some(items).filter(|items| *items > 0);
        self
    }

    /// Room for messages in bytes, rounded up to a power of two. A message takes its own length
    /// and 8 bytes, rounded up to a multiple of 16. The memory is committed as it is first used.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.config.capacity = bytes;
        self
    }

    pub(crate) fn slots(mut self, slots: usize) -> Self {
        self.config.claims = slots;
        self
    }

    /// Makes the queue.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no room in `/dev/shm`, not even for an empty queue, or the
    /// capacity is over 4 GiB, or too many files are open.
    pub fn build<T: ?Sized>(self) -> Result<Queue<T>, ShmError> {
        Ring::create(self.config).map(Queue::over)
    }
}

impl Queue<()> {
    /// How large a queue is and how many items it takes. Called as `Queue::builder()`; of what the
    /// queue is, [`build`](QueueBuilder::build) learns from where it goes.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue: Queue<u64> = Queue::builder().items(100).capacity(1 << 20).build()?;
    /// # Ok::<(), common::shm::ShmError>(())
    /// ```
    pub fn builder() -> QueueBuilder {
        QueueBuilder::default()
    }
}

impl<T: ?Sized> Queue<T> {
    /// A queue bounded by its bytes alone: 64 MiB, or a quarter of `/dev/shm` where that is less.
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    pub fn new() -> Result<Self, ShmError> {
        QueueBuilder::default().build()
    }

    /// A queue that holds at most `items` messages (Python's `maxsize`); 0 is no such bound.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.is_full());
    /// let error = queue.try_put(2).unwrap_err();
    /// assert_eq!(error.value, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`QueueBuilder::build`].
    #[doc(alias = "maxsize")]
    pub fn bounded(items: u32) -> Result<Self, ShmError> {
        QueueBuilder::default().items(items).build()
    }

    fn over(ring: Ring) -> Self {
        Queue {
            ring,
            _values: PhantomData,
        }
    }

    /// How many messages wait. Others may put and get meanwhile.
    #[doc(alias = "qsize")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no message waits.
    #[doc(alias = "empty")]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether even a short message would have to wait for room.
    #[doc(alias = "full")]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ring.is_full(0)
    }

    /// Ends the queue for every holder: puts fail and give the value back, gets drain what is
    /// there and then fail. Does nothing the second time.
    pub fn close(&self) {
        self.ring.close();
    }

    /// Whether somebody closed it. There may still be messages to get.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }

    /// How full it is and was, for a person to read.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        self.ring.stats()
    }

    /// The ring below, for what stands on queues.
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }
}

impl<T: ?Sized> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue::over(self.ring.clone())
    }
}

impl<T: ?Sized> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("of", &type_name::<T>())
            .field("name", &self.ring.name())
            .field("len", &self.len())
            .finish()
    }
}

impl<T: ?Sized> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (type_name::<T>(), &self.ring).serialize(serializer)
    }
}

impl<'de, T: ?Sized> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (put, ring) = <(String, Ring)>::deserialize(deserializer)?;
        let got = type_name::<T>();
        if put != got {
            return Err(de::Error::custom(format!(
                "this is a queue of `{put}`, and one of `{got}` is wanted"
            )));
        }
        Ok(Queue::over(ring))
    }
}

/// A buffer that is used again: a fresh one for a large message costs as much as copying it.
fn with_buffer<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    with_kept(&BUFFER, Vec::clear, Vec::capacity, f)
}

/// The same for several messages.
fn with_batch<R>(f: impl FnOnce(&mut Batch) -> R) -> R {
    thread_local! {
        static BATCH: RefCell<Batch> = RefCell::default();
    }
    with_kept(&BATCH, Batch::clear, Batch::capacity, f)
}

fn with_kept<B: Default, R>(
    place: &'static LocalKey<RefCell<B>>,
    clear: impl FnOnce(&mut B),
    capacity: impl FnOnce(&B) -> usize,
    f: impl FnOnce(&mut B) -> R,
) -> R {
    /// In bytes.
    const KEPT: usize = 16 << 20;
    // Taken out: encoding a value may put to another queue.
    let mut buffer = place.try_with(RefCell::take).unwrap_or_default();
    clear(&mut buffer);
    let result = f(&mut buffer);
    if capacity(&buffer) <= KEPT {
        let _ = place.try_with(|kept| kept.replace(buffer));
    }
    result
}
