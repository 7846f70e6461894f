//! Messages longer than the ring: put in pieces, with the put lock held all the while.

use super::layout::{FRAME, Kind, UNIT, units};
use super::put::Putter;
use super::{Inner, PutError, Ring, Stop};
use crate::deadline::Deadline;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A piece has at most this many bytes.
const FRAGMENT: usize = 1 << 20;
/// It is good to have so much memory in use, for pieces that are worth handing over.
const ROOM: u32 = (4 << 20) / UNIT as u32;

/// How often one who waits for the lock looks whether it is enough.
const LOOK: Duration = Duration::from_millis(50);

impl Ring {
    /// Puts a message longer than the ring, as [`Ring::put`], until it is `given_up`
    /// (by [`Ring::give_up`]): that is [`PutError::Full`], and nothing has been put.
    ///
    /// # Errors
    ///
    /// [`PutError`]; then nothing has been put.
    pub(crate) fn put_long(&self, message: &[u8], given_up: &AtomicBool) -> Result<(), PutError> {
        let enough = || given_up.load(SeqCst);
        let (ring, len) = (&self.0, message.len());
        Ok(ring.put_fragments(&[message], len, Deadline::Never, &enough)?)
    }

    /// Ends a [`Ring::put_long`] of this process.
    pub(crate) fn give_up(&self, given_up: &AtomicBool) {
        given_up.store(true, SeqCst);
        self.0.header().room.0.notify(u32::MAX);
    }
}

impl Inner {
    /// Sends a message that is longer than the ring through it, holding the lock all the while;
    /// until it is through, or `enough`, which is looked at twice a second at least.
    pub(super) fn put_fragments(
        &self,
        parts: &[&[u8]],
        len: usize,
        deadline: Deadline,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        if deadline == Deadline::Now {
            return Err(match self.tail().closed() {
                true => Stop::Closed,
                false => Stop::Deadline,
            });
        }
        while !enough() {
            match self.lock_put(Deadline::after(deadline.at_most(LOOK))) {
                Err(Stop::Deadline) if !deadline.passed() => {}
                locked => return locked?.send(parts, len, deadline, enough),
            }
        }
        Err(Stop::Deadline)
    }
}

impl Putter<'_> {
    /// Sends the message until it is through, or `enough`.
    fn send(
        &mut self,
        parts: &[&[u8]],
        len: usize,
        deadline: Deadline,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let room = ROOM.min(self.ring.units());
        if !self.fits_memory(room) {
            // With less memory it takes longer.
            let soon = Deadline::after(deadline.at_most(Duration::from_millis(1)));
            let _ = self.enlarge(room, soon);
        }
        loop {
            match self.stream(parts, len, deadline, enough) {
                // The consumer had to give up: once more from the start.
                Err(Stop::Rejected) => {}
                // A consumer learns these by itself.
                Err(stop @ (Stop::Closed | Stop::Broken(_))) => return Err(stop),
                Err(stop) => {
                    let _ = self.abandon();
                    return Err(stop);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Makes a consumer that waits for the rest of a message give it up: what comes is no
    /// continuation.
    pub(super) fn abandon(&mut self) -> Result<(), Stop> {
        self.look()?;
        // If there is no room the consumer has enough to read before it would wait.
        if self.fits_memory(1) {
            self.write(Kind::Pad, &[], 0)?;
            match self.commit(1, 0) {
                Err(Stop::Rejected) => {} // It has given up by itself.
                committed => committed?,
            }
            self.ring.header().news.0.signal.notify(u32::MAX);
        }
        Ok(())
    }

    fn stream(
        &mut self,
        parts: &[&[u8]],
        len: usize,
        deadline: Deadline,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let total = (len as u64).to_ne_bytes();
        let mut sent = 0;
        let most = FRAGMENT.min(self.memory.limit() / 4) - FRAME - total.len();
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
            self.wait_holding(units(bytes), deadline, enough)?;
            // And for the pad that takes it back if there is no memory for the next piece.
            self.reserve(units(bytes) as usize * UNIT + FRAME)?;
            self.write(kind, &pieces, bytes)?;
            self.commit(units(bytes), u32::from(kind == Kind::Last))?;
            // All: among them is the one who waits for it with the get lock held.
            self.ring.header().news.0.signal.notify(u32::MAX);
            sent += size;
        }
        Ok(())
    }

    /// Waits for room with the lock held: what is half in the ring must be finished first.
    fn wait_holding(
        &mut self,
        needed: u32,
        deadline: Deadline,
        enough: &dyn Fn() -> bool,
    ) -> Result<(), Stop> {
        let (ring, limit) = (self.ring, self.memory.units());
        loop {
            self.look()?;
            if self.fits_memory(needed) && ring.fits_between(self.head, self.next, 0, 1) {
                return Ok(());
            }
            let (tail, signal) = (self.tail, &ring.header().room.0);
            ring.wait(signal, &ring.room_spin, deadline, || {
                let used = u64::from(tail.units_since(ring.head()));
                let room = used + u64::from(needed) <= limit.into() && ring.fits(0, 1);
                room || ring.tail() != tail || enough()
            })?;
            if enough() {
                return Err(Stop::Deadline);
            }
            if ring.tail() != tail {
                return Err(self.refused(ring.tail()));
            }
        }
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
