//! The put end.

use super::batch::Batch;
use super::layout::{FRAME, Frame, Kind, Patience, Place, UNIT, units};
use super::memory::{self, Memory};
use super::{Inner, PutError, Ring, Stop};
use crate::deadline::Deadline;
use crate::sync::RobustGuard;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// With so many units in the ring nobody is patient.
const MUCH: u32 = ((64 << 10) / UNIT) as u32;

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
            return Ok(self.0.put_fragments(parts, len, deadline, &|| false)?);
        }
        loop {
            let mut putter = self.0.lock_put(deadline)?;
            if putter.room(needed, deadline)? {
                putter.write(Kind::Whole, parts, len)?;
                match putter.commit(needed, 1) {
                    // A consumer gave up what another producer had left: it moved no place.
                    Err(Stop::Rejected) => continue,
                    committed => committed?,
                }
                drop(putter);
                self.0.announce(1);
                return Ok(());
            }
            drop(putter);
            self.0.wait_for_room(needed, deadline)?;
        }
    }

    /// As [`Ring::put`], and calls `look` each `time` while it waits, if not more often, and before
    /// it gives up; if `look` says so (it has closed the ring, say) it tries once more. A long
    /// message that is on its way goes on meanwhile: to begin it anew each time it might never
    /// come to its end.
    pub(crate) fn put_looking(
        &self,
        message: &[u8],
        deadline: Deadline,
        time: Duration,
        look: &dyn Fn() -> bool,
    ) -> Result<(), PutError> {
        let look_on = || {
            look();
            false
        };
        let (ring, parts, len) = (&self.0, [message], message.len());
        loop {
            let put = match self.can_hold(len) {
                true => self.put(&parts, Deadline::after(deadline.at_most(time))),
                false => ring
                    .put_fragments(&parts, len, deadline, &look_on)
                    .map_err(PutError::from),
            };
            match put {
                Err(PutError::Full) if look() || !deadline.passed() => {}
                put => return put,
            }
        }
    }

    /// Puts the messages of `batch` from number `from` on, many under one lock. Returns how many
    /// it has put, which are all if there is no error.
    ///
    /// # Errors
    ///
    /// [`PutError`], why the next one was not put.
    pub fn put_many(
        &self,
        batch: &Batch,
        from: usize,
        deadline: Deadline,
    ) -> (usize, Result<(), PutError>) {
        let mut next = from;
        while next < batch.len() {
            match self.0.put_some(batch, next) {
                Ok(0) => match self.wait_or_put(batch.message(next), deadline) {
                    Ok(true) => next += 1,
                    // There may be room all the time, and the others in the way of its memory.
                    Ok(false) if deadline.passed() => return (next - from, Err(PutError::Full)),
                    Ok(false) => {}
                    Err(error) => return (next - from, Err(error)),
                },
                Ok(put) => {
                    next += put;
                    self.0.announce(u32::try_from(put).unwrap_or(u32::MAX));
                }
                Err(Stop::Deadline) if !deadline.passed() => {}
                Err(Stop::Rejected) => {}
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
pub(super) struct Putter<'a> {
    pub(super) ring: &'a Inner,
    pub(super) tail: Place,
    /// Written and not committed yet.
    pub(super) next: Place,
    /// As last seen.
    pub(super) head: Place,
    pub(super) memory: Memory<'a>,
    _guard: RobustGuard<'a>,
}

impl Inner {
    pub(super) fn lock_put(&self, deadline: Deadline) -> Result<Putter<'_>, Stop> {
        let side = &self.header().put.0;
        // What the dead one wrote and did not commit is not in the ring; but it may have been in
        // the middle of a long message.
        let mut abandoned = false;
        let guard = side
            .mutex
            .lock(deadline, &self.lock_spin, || abandoned = true)
            .map_err(|error| Stop::lock(error, self.segment.name()))?;
        super::step("put: locked");
        let tail = Place(self.header().tail.0.load(Relaxed));
        if tail.closed() {
            return Err(Stop::Closed);
        }
        let mut putter = Putter {
            ring: self,
            tail,
            next: tail.advance(0, 0),
            head: Place(side.head.load(Relaxed)),
            memory: self.memory()?,
            _guard: guard,
        };
        if abandoned {
            putter.abandon()?;
        }
        Ok(putter)
    }

    fn wait_for_room(&self, needed: u32, deadline: Deadline) -> Result<(), Stop> {
        self.wait(&self.header().room.0, &self.room_spin, deadline, || {
            // Nobody may be patient now: either this sees who sleeps, or that sees who waits here.
            self.header().news.0.signal.notify(1);
            self.fits(needed, 1) || self.tail().closed()
        })
    }

    /// After a commit: wakes who waits for messages, unless it is content to sleep on.
    #[inline]
    fn announce(&self, messages: u32) {
        let news = &self.header().news.0;
        let patience = Patience(news.patience.load(SeqCst));
        if patience == Patience::NONE || !self.may_wait(patience) {
            news.signal.notify(messages);
        }
    }

    /// Whether one who is patient may sleep on.
    #[cold]
    pub(super) fn may_wait(&self, patience: Patience) -> bool {
        let (head, tail) = (self.head(), self.tail());
        // Much to copy is better copied while others work.
        patience.is_left(tail) && tail.units_since(head) < MUCH
    }

    /// Puts as many of the messages as there is room for.
    fn put_some(&self, batch: &Batch, from: usize) -> Result<usize, Stop> {
        let mut putter = self.lock_put(Deadline::Now)?;
        let to = putter.room_for(batch, from)?;
        if to > from {
            putter.write_frames(batch.frames(from, to))?;
            let count = u32::try_from(to - from).unwrap_or(u32::MAX);
            putter.commit(batch.units(from, to), count)?;
        }
        Ok(to - from)
    }
}

impl Putter<'_> {
    /// Whether there is room for one more message of `units`, taking more memory into use if it
    /// must. Looks at the true head only if it must.
    #[inline]
    fn room(&mut self, units: u32, deadline: Deadline) -> Result<bool, Stop> {
        if self.fits(units, 1) {
            self.come_round(units);
            return Ok(true);
        }
        self.look()?;
        if !self.ring.fits_between(self.head, self.next, units, 1) {
            return Ok(false);
        }
        Ok(self.fits_memory(units) || self.enlarge(units, deadline)?)
    }

    /// Up to which message of the batch, beginning with `from`, there is room, taking more memory
    /// into use if it must and may.
    fn room_for(&mut self, batch: &Batch, from: usize) -> Result<usize, Stop> {
        let messages = |to: usize| u32::try_from(to - from).unwrap_or(u32::MAX);
        let all = batch.units(from, batch.len());
        if self.fits(all, messages(batch.len())) {
            self.come_round(all);
            return Ok(batch.len());
        }
        self.look()?;
        let to = batch.most(from, |to| {
            let units = batch.units(from, to);
            self.ring
                .fits_between(self.head, self.next, units, messages(to))
        });
        let units = batch.units(from, to);
        let enough = self.fits_memory(units)
            || match self.enlarge(units, Deadline::Now) {
                // The others are in the way of more memory; what fits can go.
                Err(Stop::Deadline) => false,
                other => other?,
            };
        Ok(match enough {
            true => to,
            false => batch.most(from, |to| self.fits(batch.units(from, to), messages(to))),
        })
    }

    /// Whether there is room in the memory in use, as far as seen.
    fn fits(&self, units: u32, messages: u32) -> bool {
        let (most, waiting) = (self.ring.max_items, self.next.messages_since(self.head));
        self.fits_memory(units)
            && (most == 0 || u64::from(waiting) + u64::from(messages) <= u64::from(most))
    }

    /// Where the memory in use comes to its end it may be too much by now.
    #[inline]
    fn come_round(&mut self, units: u32) {
        let position = self.next.position() & (self.memory.units() - 1);
        if position < units && self.memory.limit() > memory::START {
            self.shrink(units);
        }
    }

    /// Looks at the true head.
    pub(super) fn look(&mut self) -> Result<(), Stop> {
        let ring = self.ring;
        self.head = ring.head();
        ring.header().put.0.head.store(self.head.0, Relaxed);
        let used = self.next.units_since(self.head);
        if used > self.memory.units() {
            return Err(ring.broken("there is more in it than it can hold"));
        }
        ring.seen_waiting(used);
        Ok(())
    }

    /// Writes a frame behind what has been written; nobody sees it yet.
    pub(super) fn write(&mut self, kind: Kind, parts: &[&[u8]], len: usize) -> Result<(), Stop> {
        self.reserve(FRAME + len)?;
        let (position, memory) = (self.next.position(), self.memory);
        memory.set_frame_bits(position, Frame { kind, len }.to_bits());
        super::step("put: frame begun");
        let mut at = memory.index(position) + FRAME;
        for part in parts {
            memory.copy_in(at, part);
            at += part.len();
        }
        super::step("put: payload written");
        Ok(())
    }

    /// Writes frames as they are; nobody sees them yet.
    fn write_frames(&mut self, frames: &[u8]) -> Result<(), Stop> {
        self.reserve(frames.len())?;
        let at = self.memory.index(self.next.position());
        self.memory.copy_in(at, frames);
        super::step("put: payload written");
        Ok(())
    }

    /// The one store that puts what has been written into the ring.
    #[inline]
    pub(super) fn commit(&mut self, units: u32, messages: u32) -> Result<(), Stop> {
        self.next = self.next.advance(units, messages);
        let tail = &self.ring.header().tail.0;
        match tail.compare_exchange(self.tail.0, self.next.0, SeqCst, SeqCst) {
            Ok(_) => {
                let len = self.next.units_since(self.tail).saturating_mul(UNIT as u32);
                self.ring.last_len.store(len, Relaxed);
                self.tail = self.next;
                super::step("put: committed");
                Ok(())
            }
            Err(now) => Err(self.refused(Place(now))),
        }
    }

    /// Somebody else changed the tail: closed it, or gave up a long message.
    #[cold]
    pub(super) fn refused(&mut self, now: Place) -> Stop {
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
}
