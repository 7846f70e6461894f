//! The put end.

use super::layout::{FRAME, Frame, Kind, Place, UNIT, units};
use super::{Inner, PutError, Ring, Stop};
use crate::deadline::Deadline;
use crate::sync::RobustGuard;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// A ring that is empty is used again from its beginning once this many bytes were passed:
/// memory that is in the caches is many times faster than all of a large ring in turn.
const WINDOW: usize = 256 << 10;
/// How often it is looked whether it is empty, in bytes.
const LOOK: usize = 64 << 10;
/// A longer message than the ring goes through it in pieces of at most this many bytes.
const FRAGMENT: usize = 1 << 20;

/// Messages one after the other in one buffer, for [`Ring::put_many`] and [`Ring::get_many`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Batch {
    /// How many messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all messages; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a message that `write` appends to the buffer. If it fails nothing is added.
    ///
    /// # Errors
    ///
    /// What `write` returns.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let written = write(&mut self.bytes);
        match written {
            Ok(()) => self.ends.push(self.bytes.len().max(start)),
            Err(_) => self.bytes.truncate(start),
        }
        written
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        &self.bytes[start..self.ends[index]]
    }
}

impl Ring {
    /// Puts one message, given in parts. Blocks while there is no room for it.
    ///
    /// # Errors
    ///
    /// [`PutError`]; then nothing has been put.
    pub fn put(&self, parts: &[&[u8]], deadline: Deadline) -> Result<(), PutError> {
        let len = parts.iter().map(|part| part.len()).sum();
        let needed = units(len);
        if needed > self.0.units() {
            return Ok(self.0.put_fragments(parts, len, deadline)?);
        }
        loop {
            let mut putter = self.0.lock_put(deadline)?;
            if putter.room(needed, 1)? {
                putter.rewind(needed);
                putter.write(Kind::Whole, parts, len)?;
                putter.commit(needed, 1)?;
                drop(putter);
                self.0.announce(1);
                return Ok(());
            }
            drop(putter);
            self.0.wait_for_room(needed, deadline)?;
        }
    }

    /// Puts the messages of `batch` from number `from` on, many under one lock. Returns how many
    /// it has put, which are all if there is no error.
    pub fn put_many(
        &self,
        batch: &Batch,
        from: usize,
        deadline: Deadline,
    ) -> (usize, Result<(), PutError>) {
        let mut next = from;
        while next < batch.len() {
            match self.0.put_some(batch, next) {
                Ok(0) => {
                    let waited = self.wait_or_put(batch.get(next), deadline);
                    match waited {
                        Ok(put) => next += usize::from(put),
                        Err(error) => return (next - from, Err(error)),
                    }
                }
                Ok(put) => {
                    next += put;
                    self.0.announce(u32::try_from(put).unwrap_or(u32::MAX));
                }
                Err(Stop::Deadline) if !deadline.passed() => {}
                Err(stop) => return (next - from, Err(stop.into())),
            }
        }
        (next - from, Ok(()))
    }

    /// Waits for room for a message, or puts it if it is longer than the ring; says if it did.
    fn wait_or_put(&self, message: &[u8], deadline: Deadline) -> Result<bool, PutError> {
        let needed = units(message.len());
        if needed > self.0.units() {
            return self.put(&[message], deadline).map(|()| true);
        }
        Ok(self.0.wait_for_room(needed, deadline).map(|()| false)?)
    }
}

/// The put end while its lock is held.
struct Putter<'a> {
    ring: &'a Inner,
    tail: Place,
    /// Written and not committed yet.
    next: Place,
    head: Place,
    _guard: RobustGuard<'a>,
}

impl Inner {
    fn lock_put(&self, deadline: Deadline) -> Result<Putter<'_>, Stop> {
        let side = &self.header().put.0;
        // Nothing to repair: what the dead one wrote and did not commit is not in the ring.
        let guard = side
            .mutex
            .lock(deadline, &self.lock_spin, || ())
            .map_err(|error| Stop::lock(error, self.segment.name()))?;
        super::step("put: locked");
        let tail = Place(self.header().tail.0.load(Relaxed));
        if tail.closed() {
            return Err(Stop::Closed);
        }
        Ok(Putter {
            ring: self,
            tail,
            next: tail.advance(0, 0),
            head: Place(side.head.load(Relaxed)),
            _guard: guard,
        })
    }

    fn wait_for_room(&self, needed: u32, deadline: Deadline) -> Result<(), Stop> {
        self.wait(&self.header().room.0, &self.room_spin, deadline, || {
            self.fits(needed, 1) || self.tail().closed()
        })
    }

    /// After a commit: wakes who waits for messages.
    #[inline]
    fn announce(&self, messages: u32) {
        self.header().news.0.0.notify(messages);
    }

    /// Puts as many of the messages as there is room for.
    fn put_some(&self, batch: &Batch, from: usize) -> Result<usize, Stop> {
        let mut putter = self.lock_put(Deadline::Now)?;
        let mut put = 0;
        while from + put < batch.len() {
            let message = batch.get(from + put);
            let needed = units(message.len());
            if needed > self.units() || !putter.room(needed, 1)? {
                break;
            }
            if put == 0 {
                putter.rewind(needed);
            }
            putter.write(Kind::Whole, &[message], message.len())?;
            putter.next = putter.next.advance(needed, 1);
            put += 1;
        }
        if put > 0 {
            putter.commit(0, 0)?;
        }
        Ok(put)
    }

    /// Sends a message that is longer than the ring through it, holding the lock all the while.
    fn put_fragments(&self, parts: &[&[u8]], len: usize, deadline: Deadline) -> Result<(), Stop> {
        if deadline == Deadline::Now {
            return Err(Stop::Deadline);
        }
        let mut putter = self.lock_put(deadline)?;
        loop {
            match putter.stream(parts, len, deadline) {
                // The consumer had to give up: once more from the start.
                Err(Stop::Rejected) => {}
                other => return other,
            }
        }
    }
}

impl Putter<'_> {
    /// Whether there is room for so much more. Looks at the true head only if it must.
    #[inline]
    fn room(&mut self, units: u32, messages: u32) -> Result<bool, Stop> {
        let ring = self.ring;
        if ring.fits_between(self.head, self.next, units, messages) {
            return Ok(true);
        }
        self.head = ring.head();
        ring.header().put.0.head.store(self.head.0, Relaxed);
        let used = self.next.units_since(self.head);
        if used > ring.units() {
            return Err(ring.broken("there is more in it than it can hold"));
        }
        ring.seen_waiting(used);
        Ok(ring.fits_between(self.head, self.next, units, messages))
    }

    /// Writes a frame behind what has been written; nobody sees it yet.
    fn write(&mut self, kind: Kind, parts: &[&[u8]], len: usize) -> Result<(), Stop> {
        let (ring, position) = (self.ring, self.next.position());
        ring.reserve(position, FRAME + len)?;
        let mut at = ring.index(position);
        ring.copy_in(at, &Frame { kind, len }.to_bits().to_ne_bytes());
        super::step("put: frame begun");
        at += FRAME;
        for part in parts {
            ring.copy_in(at, part);
            at += part.len();
        }
        super::step("put: payload written");
        Ok(())
    }

    /// The one store that puts what has been written into the ring.
    #[inline]
    fn commit(&mut self, units: u32, messages: u32) -> Result<(), Stop> {
        self.next = self.next.advance(units, messages);
        let tail = &self.ring.header().tail.0;
        match tail.compare_exchange(self.tail.0, self.next.0, SeqCst, SeqCst) {
            Ok(_) => {
                self.tail = self.next;
                super::step("put: committed");
                Ok(())
            }
            Err(now) => Err(self.refused(Place(now))),
        }
    }

    /// Somebody else changed the tail: closed it, or gave up a long message.
    #[cold]
    fn refused(&mut self, now: Place) -> Stop {
        if now.closed() {
            return Stop::Closed;
        }
        if now.rejected() && now.advance(0, 0) == self.tail.advance(0, 0) {
            self.tail = now;
            self.next = now.advance(0, 0);
            return Stop::Rejected;
        }
        self.ring.broken("its tail moves without the lock")
    }

    /// Starts over at the beginning of the memory if the ring is empty and a good way through it.
    #[inline]
    fn rewind(&mut self, needed: u32) {
        let index = self.ring.index(self.next.position());
        let bytes = needed as usize * UNIT;
        if index >= WINDOW && index % LOOK < bytes {
            self.rewind_if_empty();
        }
    }

    /// A pad to the end of the memory, put and got in one go: both are ordinary steps, so a death
    /// in between leaves an ordinary ring.
    #[cold]
    fn rewind_if_empty(&mut self) {
        let ring = self.ring;
        if ring.head().position() != self.tail.position() {
            return;
        }
        let side = &ring.header().get.0;
        let Some(_guard) = side.mutex.try_lock(|| ring.recover_get()) else {
            return;
        };
        let head = ring.head();
        if head.position() != self.tail.position() || self.next != self.tail.advance(0, 0) {
            return;
        }
        let pad = ring.units() - (self.tail.position() & (ring.units() - 1));
        let len = pad as usize * UNIT - FRAME;
        let kind = Kind::Pad;
        // A frame begins at a multiple of its header, so the header is in one piece.
        let index = ring.index(self.tail.position());
        if ring.reserve(self.tail.position(), FRAME).is_err() {
            return;
        }
        ring.copy_in(index, &Frame { kind, len }.to_bits().to_ne_bytes());
        if self.commit(pad, 0).is_err() {
            return;
        }
        self.head = head.advance(pad, 0);
        side.tail.store(self.tail.0, Relaxed);
        ring.header().put.0.head.store(self.head.0, Relaxed);
        ring.header().head.0.store(self.head.0, SeqCst);
    }

    fn stream(&mut self, parts: &[&[u8]], len: usize, deadline: Deadline) -> Result<(), Stop> {
        let total = (len as u64).to_ne_bytes();
        let mut sent = 0;
        let most = FRAGMENT.min(self.ring.capacity / 4) - FRAME - total.len();
        while sent < len {
            let size = most.min(len - sent);
            let kind = match sent {
                0 => Kind::First,
                _ if sent + size == len => Kind::Last,
                _ => Kind::Middle,
            };
            let mut pieces: Vec<&[u8]> = Vec::with_capacity(parts.len() + 1);
            if kind == Kind::First {
                pieces.push(&total);
            }
            pieces.extend(range_of(parts, sent, size));
            let bytes = pieces.iter().map(|piece| piece.len()).sum();
            self.wait_holding(units(bytes), deadline)?;
            self.write(kind, &pieces, bytes)?;
            self.commit(units(bytes), u32::from(kind == Kind::Last))?;
            // All: among them is the one who waits for it with the get lock held.
            self.ring.header().news.0.0.notify(u32::MAX);
            sent += size;
        }
        Ok(())
    }

    /// Waits for room with the lock held: what is half in the ring must be finished first.
    fn wait_holding(&mut self, needed: u32, deadline: Deadline) -> Result<(), Stop> {
        while !self.room(needed, 1)? {
            let (ring, tail) = (self.ring, self.tail);
            let signal = &ring.header().room.0;
            ring.wait(signal, &ring.room_spin, deadline, || {
                ring.fits(needed, 1) || ring.tail() != tail
            })?;
            if ring.tail() != tail {
                return Err(self.refused(ring.tail()));
            }
        }
        Ok(())
    }
}

/// The parts of `parts` that cover `size` bytes from byte `from` on.
fn range_of<'a>(
    parts: &'a [&'a [u8]],
    from: usize,
    size: usize,
) -> impl Iterator<Item = &'a [u8]> + 'a {
    let mut start = 0;
    parts.iter().filter_map(move |part| {
        let (low, high) = (start, start + part.len());
        start = high;
        let (low, high) = (low.max(from), high.min(from + size));
        (low < high).then(|| &part[low + part.len() - start..high + part.len() - start])
    })
}
