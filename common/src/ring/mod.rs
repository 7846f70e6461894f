//! A ring of messages in shared memory: many producers, many consumers, any processes.
//!
//! ```text
//!   producers                       shared memory                        consumers
//!   put lock -> copy the payload -> [ .. | msg | msg | msg | .. ] <- copy out <- get lock
//!               one store to tail ------------------^     ^--------- one store to head
//! ```
//!
//! **Crash safety.** A message is in the ring once one store to the tail has been done, and out
//! of it once one store to the head has: a process that is killed leaves all of a message or
//! nothing. The two locks are robust, and nothing but these stores has to be repaired.
//!
//! **Memory.** Only as much of the capacity is used as what waits in the ring needs; see
//! `memory.rs`.
//!
//! **Waiting.** Nobody sleeps holding a lock; two exceptions. A producer that has to take more
//! memory into use waits for the get lock, with the put lock in its hands: usually as long as it
//! takes to copy a message, and until its deadline if a consumer is stopped there or reads in
//! place. (The others could put nothing either but what is shorter and fits the memory in use.)
//! And a message longer than the ring goes through it in fragments, and its producer holds the put
//! lock until it is through, its consumer the get lock. If the producer gives up half-way or dies,
//! it or the next one puts a pad, which is no continuation, and the consumer drops what it has. If
//! the consumer gives up (its deadline, and no new bytes for `PATIENCE`; or nobody holds the put
//! lock any more), it tells so through the tail, and the producer starts over: no message is lost.
//!
//! Sleepers look again every `SLICE` in case who should have woken them was killed just then.
//!
//! **Trust.** Every word that is read from the memory is checked before it is used.
//!
//! To copy: ring/, sync/robust.rs, sync/signal.rs, shm/, departures.rs, futex.rs,
//! deadline.rs.

#![allow(unsafe_code)] // Copies in and out of the shared memory, at checked places.

mod batch;
mod claims;
mod error;
mod fragments;
mod get;
mod layout;
mod memory;
mod put;
mod watch;

pub use batch::Batch;
pub use error::{Broken, GetError, PutError};
pub(crate) use watch::End;

use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::{AtomicU32, AtomicU64, Segment, ShmError};
use crate::sync::Signal;
use error::Stop;
use layout::{CLOSED, Header, LARGEST, MAGIC, Place, SMALLEST, UNIT, WORDS};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// How long the consumer of a message longer than the ring waits, beyond its own deadline, for
/// its next bytes.
const PATIENCE: Duration = Duration::from_millis(50);

/// A handle on a ring. Cloning it or sending it to another process gives another handle.
#[derive(Debug, Clone)]
pub struct Ring(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    segment: Segment,
    header: NonNull<Header>,
    data: NonNull<u8>,
    /// Before the data, in bytes.
    data_offset: usize,
    capacity: usize,
    max_items: u32,
    claims: usize,
    /// Kicks that this handle has reported.
    kicks: AtomicU32,
    lock_spin: Spin,
    news_spin: Spin,
    room_spin: Spin,
    /// Since waiting for a consumer before a large message was last in vain.
    vain_waits: AtomicU32,
    /// The length of the last frame that this handle put or got, in bytes.
    last_len: AtomicU32,
    getters: watch::Watch,
    putters: watch::Watch,
}

// SAFETY: the pointers lead into the mapping that `segment` keeps; it belongs to the process, and
// what is behind them is atomic or guarded by the mutexes.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// How a ring is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingConfig {
    /// Bytes for messages and their frames (8 bytes each, rounded up to 16); rounded up to a
    /// power of two. The memory is committed as it is first used.
    pub capacity: usize,
    /// At most so many messages at a time; `None` is no bound besides the bytes.
    pub max_items: Option<u32>,
    /// Slots for [`Ring::get_claiming`].
    pub claims: usize,
}

impl Default for RingConfig {
    /// 64 MiB, or a quarter of `/dev/shm` where that is less.
    fn default() -> Self {
        let shm = nix::sys::statvfs::statvfs("/dev/shm");
        let quarter = shm.map_or(u64::MAX, |fs| fs.blocks() * fs.fragment_size() / 4);
        let quarter = usize::try_from(quarter).unwrap_or(usize::MAX);
        RingConfig {
            capacity: quarter.clamp(1 << 16, 64 << 20),
            max_items: None,
            claims: 0,
        }
    }
}

/// What is in a ring, for a person to read: the parts are not of exactly one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStats {
    /// Messages waiting.
    pub messages: usize,
    /// Bytes they take, frames included.
    pub bytes: usize,
    /// Bytes there is room for.
    pub capacity: usize,
    /// The most bytes that were ever seen waiting.
    pub high_water: usize,
    /// Whether it has been closed.
    pub closed: bool,
}

impl Ring {
    /// Makes a ring in a segment of its own.
    ///
    /// # Errors
    ///
    /// As [`Segment::create`].
    pub fn create(config: RingConfig) -> Result<Ring, ShmError> {
        let capacity = config.capacity.max(SMALLEST);
        let capacity = Some(capacity)
            .filter(|capacity| *capacity <= LARGEST)
            .ok_or(ShmError::Size {
                bytes: config.capacity as u64,
            })?
            .next_power_of_two();
        let claims = u32::try_from(config.claims).map_err(|_| ShmError::Size {
            bytes: config.claims as u64,
        })?;
        let offset = layout::data_offset(config.claims, Segment::HEADER);
        let segment = Segment::create(offset + capacity)?;
        segment.reserve(offset)?;
        let header = segment.at::<Header>(0)?;
        let broken = |_| ShmError::Size { bytes: 0 };
        header.put.0.mutex.init().map_err(broken)?;
        header.get.0.mutex.init().map_err(broken)?;
        header.capacity.store(capacity as u64, Relaxed);
        let limit = capacity.min(memory::START);
        header.limit.store(limit as u64, Relaxed);
        let max_items = config.max_items.unwrap_or(0);
        header.max_items.store(max_items, Relaxed);
        header.claims.store(claims, Relaxed);
        header.magic.store(MAGIC, SeqCst);
        Ring::attach(segment)
    }

    /// Takes a segment for a ring.
    ///
    /// # Errors
    ///
    /// [`ShmError::Invalid`] if it is none of this version of this library.
    pub fn attach(segment: Segment) -> Result<Ring, ShmError> {
        let invalid = |reason: &str| ShmError::Invalid {
            name: segment.name().into(),
            reason: reason.into(),
        };
        if segment.len() < size_of::<Header>() {
            return Err(invalid("it is too small for a ring"));
        }
        let header = segment.at::<Header>(0)?;
        if header.magic.load(SeqCst) != MAGIC {
            return Err(invalid("it is no ring of this version of the library"));
        }
        let capacity = usize::try_from(header.capacity.load(Relaxed)).unwrap_or(usize::MAX);
        let claims = header.claims.load(Relaxed) as usize;
        let data_offset = layout::data_offset(claims, Segment::HEADER);
        let sized = (SMALLEST..=LARGEST).contains(&capacity)
            && capacity.is_power_of_two()
            && data_offset.checked_add(capacity) == Some(segment.len());
        if !sized {
            return Err(invalid("its size does not fit its header"));
        }
        segment.reserve(data_offset)?;
        // SAFETY: the data begin inside the segment, as was just checked.
        let data = unsafe { segment.start().add(data_offset) };
        let inner = Inner {
            header: NonNull::from(header),
            data: NonNull::new(data).ok_or_else(|| invalid("it is mapped at address zero"))?,
            data_offset,
            capacity,
            max_items: header.max_items.load(Relaxed),
            claims,
            kicks: AtomicU32::new(header.news.0.kicks.load(SeqCst)),
            lock_spin: Spin::new(),
            news_spin: Spin::new(),
            room_spin: Spin::new(),
            vain_waits: AtomicU32::new(0),
            last_len: AtomicU32::new(0),
            getters: watch::Watch::default(),
            putters: watch::Watch::default(),
            segment,
        };
        Ok(Ring(Arc::new(inner)))
    }

    /// The segment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.segment.name()
    }

    /// The segment, for who wants to unlink it early.
    #[must_use]
    pub fn segment(&self) -> &Segment {
        &self.0.segment
    }

    /// Messages waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.waiting().0
    }

    /// Whether no message is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a message of `len` bytes would have to wait for room.
    #[must_use]
    pub fn is_full(&self, len: usize) -> bool {
        let units = layout::units(len).min(self.0.units());
        !self.0.fits(units, 1)
    }

    /// Whether a message of `len` bytes can be in it whole.
    pub(crate) fn can_hold(&self, len: usize) -> bool {
        layout::units(len) <= self.0.units()
    }

    /// What is in the ring, for a person.
    #[must_use]
    pub fn stats(&self) -> RingStats {
        let (messages, bytes) = self.0.waiting();
        let seen = self.0.header().high_water.0.load(Relaxed);
        RingStats {
            messages,
            bytes,
            capacity: self.0.capacity,
            high_water: usize::try_from(seen).unwrap_or(usize::MAX).max(bytes),
            closed: self.is_closed(),
        }
    }

    /// Closes it for every holder: puts fail, gets drain what is there and then fail. Never waits,
    /// and does nothing the second time.
    pub fn close(&self) {
        let header = self.0.header();
        header.tail.0.fetch_or(CLOSED, SeqCst);
        header.news.0.signal.wake(u32::MAX);
        header.room.0.wake(u32::MAX);
    }

    /// Whether it has been closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.tail().closed()
    }

    /// Makes the gets that wait now, and the next one of each handle that does not, return
    /// [`GetError::Interrupted`]. May be called from a signal handler.
    pub fn kick(&self) {
        let header = self.0.header();
        header.news.0.kicks.fetch_add(1, SeqCst);
        header.news.0.signal.wake(u32::MAX);
    }

    /// Words of shared memory, zero at first, for what stands on the ring.
    #[must_use]
    pub(crate) fn words(&self) -> &[AtomicU64; WORDS] {
        &self.0.header().words.0
    }

    /// The word in slot `slot` of the claims, for tables kept there.
    pub(crate) fn slot(&self, slot: usize) -> &AtomicU64 {
        self.0.slot(slot)
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.0.claims
    }

    /// Messages put so far, modulo 2^30.
    pub(crate) fn put_count(&self) -> u32 {
        self.0.tail().messages_since(Place(0))
    }

    /// Wakes those in [`Ring::wait_for_change`].
    pub(crate) fn announce_change(&self) {
        self.0.header().user.0.notify(u32::MAX);
    }

    /// Waits until `ready`, looking again after each [`Ring::announce_change`] and now and then.
    /// Says whether it was ready before the deadline.
    pub(crate) fn wait_for_change(&self, deadline: Deadline, ready: impl Fn() -> bool) -> bool {
        let inner = &self.0;
        let signal = &inner.header().user.0;
        ready()
            || inner
                .wait(signal, &inner.room_spin, deadline, ready)
                .is_ok()
    }
}

impl Inner {
    fn header(&self) -> &Header {
        // SAFETY: made from a reference to the same place in `attach`; `segment` keeps it mapped.
        unsafe { self.header.as_ref() }
    }

    fn tail(&self) -> Place {
        Place(self.header().tail.0.load(SeqCst))
    }

    fn head(&self) -> Place {
        Place(self.header().head.0.load(SeqCst))
    }

    /// The capacity in units.
    fn units(&self) -> u32 {
        (self.capacity / UNIT) as u32
    }

    fn broken(&self, reason: &str) -> Stop {
        Stop::Broken(Broken {
            name: self.segment.name().into(),
            reason: reason.into(),
        })
    }

    /// Messages and bytes between head and tail, no more than there can be.
    fn waiting(&self) -> (usize, usize) {
        // The head first: it cannot overtake the tail that is read after it.
        let head = self.head();
        let tail = self.tail();
        let units = tail.units_since(head).min(self.units());
        // Nor can there be more than may: others may have put and got between the two looks.
        let most = match self.max_items {
            0 => units,
            items => units.min(items),
        };
        let messages = tail.messages_since(head).min(most);
        (messages as usize, units as usize * UNIT)
    }

    fn fits(&self, units: u32, messages: u32) -> bool {
        let (head, tail) = (self.head(), self.tail());
        self.fits_between(head, tail, units, messages)
    }

    fn fits_between(&self, head: Place, tail: Place, units: u32, messages: u32) -> bool {
        let used = tail.units_since(head);
        let waiting = tail.messages_since(head);
        u64::from(used) + u64::from(units) <= u64::from(self.units())
            && (self.max_items == 0
                || u64::from(waiting) + u64::from(messages) <= u64::from(self.max_items))
    }

    /// How many times as long as usual it pays to spin: large messages take longer to copy.
    fn pace(&self) -> u32 {
        1 + (self.last_len.load(Relaxed) >> 16).min(16)
    }

    fn seen_waiting(&self, units: u32) {
        let (bytes, mark) = (u64::from(units) * UNIT as u64, &self.header().high_water.0);
        if bytes > mark.load(Relaxed) {
            mark.fetch_max(bytes, Relaxed);
        }
    }

    /// Spins and then sleeps until `ready`, at most until `deadline`.
    fn wait(
        &self,
        signal: &Signal,
        spin: &Spin,
        deadline: Deadline,
        ready: impl Fn() -> bool,
    ) -> Result<(), Stop> {
        match deadline != Deadline::Now && signal.wait_spinning(spin, self.pace(), deadline, ready)
        {
            true => Ok(()),
            false => Err(Stop::Deadline),
        }
    }
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.segment.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ring {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let segment = Segment::deserialize(deserializer)?;
        Ring::attach(segment).map_err(de::Error::custom)
    }
}

/// Where a test may kill the process.
#[cfg(not(test))]
#[inline]
fn step(_: &'static str) {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests;
