//! The part of the data that is in use, and copies in and out of it.
//!
//! A ring begins to use its memory from the front, and more of it only when what is in it does
//! not fit: while its consumers keep up, a ring of 64 MiB lives in the first quarter of a MiB,
//! which stays in the caches and is all that was ever committed. How much is in use (the limit, a
//! power of two) changes only under both locks, so either lock holds it still.

use super::get::Getter;
use super::layout::{Place, SMALLEST, UNIT};
use super::put::Putter;
use super::{Inner, PATIENCE, Stop};
use crate::deadline::Deadline;
use crate::futex::cores;
use crate::shm::ShmError;
use std::ptr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// So much of a ring is in use at first.
pub(super) const START: usize = 256 << 10;
/// From this size on a message's copy takes longer than handing it over: it pays to wait for a
/// consumer that is at work rather than to use more memory than the caches hold.
const LARGE: usize = 64 << 10;
/// A consumer that only copies a message lets its lock go sooner than this.
const SOON: Duration = Duration::from_millis(1);
/// No longer is waited for a consumer that makes room, however busily it does so.
const MOST: Duration = Duration::from_millis(5);
/// How many large messages there is to be room for at least.
const FEW: usize = 4;
/// Waiting in vain for a consumer is not tried again for so many times.
const TRY_AGAIN: u32 = 3;

/// The memory in use, as long as one of the locks is held.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    ring: &'a Inner,
    limit: usize,
}

impl Inner {
    /// The memory in use. The caller holds a lock.
    pub(super) fn memory(&self) -> Result<Memory<'_>, Stop> {
        let limit = usize::try_from(self.header().limit.load(Relaxed)).unwrap_or(0);
        if !limit.is_power_of_two() || limit < SMALLEST || limit > self.capacity {
            return Err(self.broken("it uses more memory than it has"));
        }
        Ok(Memory { ring: self, limit })
    }
}

impl Memory<'_> {
    /// In units.
    pub(super) fn units(self) -> u32 {
        (self.limit / UNIT) as u32
    }

    /// In bytes.
    pub(super) fn limit(self) -> usize {
        self.limit
    }

    /// Where a position is in the data, in bytes.
    pub(super) fn index(self, position: u32) -> usize {
        (position as usize * UNIT) & (self.limit - 1)
    }

    /// Copies into the ring from byte `at` on (any number; it is taken modulo the limit).
    pub(super) fn copy_in(self, at: usize, bytes: &[u8]) {
        let at = at & (self.limit - 1);
        let (first, second) = bytes.split_at(bytes.len().min(self.limit - at));
        // SAFETY: both parts lie inside the data: the first ends at the limit at the latest, and
        // the callers have checked that the whole is no longer than that. The memory is reserved,
        // and the put lock keeps other writers out.
        unsafe {
            let data = self.ring.data.as_ptr();
            ptr::copy_nonoverlapping(first.as_ptr(), data.add(at), first.len());
            if !second.is_empty() {
                ptr::copy_nonoverlapping(second.as_ptr(), data, second.len());
            }
        }
    }

    /// Appends `len` bytes of the ring from byte `at` on to `out`.
    pub(super) fn copy_out(self, at: usize, len: usize, out: &mut Vec<u8>) {
        let at = at & (self.limit - 1);
        let first = len.min(self.limit - at);
        out.reserve(len);
        // SAFETY: `out` has room for `len` more bytes, and both parts lie inside the data (the
        // callers have checked that `len` is at most the limit). Should a process that has gone
        // mad write there now, the bytes are garbage, which the decoder refuses.
        unsafe {
            let (data, end) = (self.ring.data.as_ptr(), out.as_mut_ptr().add(out.len()));
            ptr::copy_nonoverlapping(data.add(at), end, first);
            if first < len {
                ptr::copy_nonoverlapping(data, end.add(first), len - first);
            }
            out.set_len(out.len() + len);
        }
    }

    /// The bytes from byte `at` on where they lie, if they are in one piece.
    pub(super) fn in_place(self, at: usize, len: usize) -> Option<*const [u8]> {
        let at = at & (self.limit - 1);
        // SAFETY: `at` is inside the data.
        let start = unsafe { self.ring.data.as_ptr().add(at) };
        (at + len <= self.limit).then(|| ptr::slice_from_raw_parts(start.cast_const(), len))
    }

    /// The header of the frame at a position, which the caller has reserved.
    pub(super) fn frame_bits(self, position: u32) -> u64 {
        // SAFETY: positions count in units, so the eight bytes are aligned and inside the data.
        unsafe {
            let place = self.ring.data.as_ptr().add(self.index(position));
            place.cast::<u64>().read_volatile()
        }
    }

    /// Writes the header of the frame at a position, which the caller has reserved, under the put
    /// lock.
    pub(super) fn set_frame_bits(self, position: u32, bits: u64) {
        // SAFETY: as in `frame_bits`.
        unsafe {
            let place = self.ring.data.as_ptr().add(self.index(position));
            place.cast::<u64>().write_volatile(bits);
        }
    }

    /// Makes sure that there is memory behind `bytes` bytes from `position` on.
    #[inline]
    pub(super) fn reserve(self, position: u32, bytes: usize) -> Result<(), ShmError> {
        let end = (self.index(position) + bytes).min(self.limit);
        self.ring.segment.reserve(self.ring.data_offset + end)
    }

    /// Twice the memory. The positions whose place changes are copied there, and nothing where
    /// they were is lost: until the limit is stored the ring is as it was.
    fn double(self, from: Place, to: Place) -> Result<Self, ShmError> {
        let block = self.units();
        let mut position = from.position();
        while position != to.position() {
            let rest = to.position().wrapping_sub(position);
            let units = rest.min(block - position % block);
            if position & block != 0 {
                self.copy_up(self.index(position), units as usize * UNIT)?;
            }
            position = position.wrapping_add(units);
        }
        let limit = self.limit * 2;
        self.ring.header().limit.store(limit as u64, SeqCst);
        Ok(Memory { limit, ..self })
    }

    fn copy_up(self, at: usize, bytes: usize) -> Result<(), ShmError> {
        let end = self.limit + at + bytes;
        self.ring.segment.reserve(self.ring.data_offset + end)?;
        // SAFETY: both ranges lie inside the data (the limit is at most half the capacity, and
        // `at + bytes` at most the limit), are reserved, and do not overlap; the caller holds
        // both locks.
        unsafe {
            let data = self.ring.data.as_ptr();
            ptr::copy_nonoverlapping(data.add(at), data.add(self.limit + at), bytes);
        }
        Ok(())
    }
}

impl<'a> Putter<'a> {
    /// Takes more memory into use, for a frame of `units` that does not fit what is in use. For a
    /// large one it may be that a consumer makes room instead. Says whether there is room now.
    #[cold]
    pub(super) fn enlarge(&mut self, units: u32, deadline: Deadline) -> Result<bool, Stop> {
        let ring = self.ring;
        let bytes = units as usize * UNIT;
        if bytes >= LARGE && self.memory.limit >= FEW * bytes && self.room_soon(units) {
            return Ok(true);
        }
        let least = match bytes >= LARGE {
            true => FEW * bytes,
            false => 0,
        };
        let _getter = self.lock_get(deadline)?;
        self.look()?;
        while self.memory.limit < ring.capacity
            && (self.memory.limit < least || !self.fits_memory(units))
        {
            self.memory = self.memory.double(self.head, self.next)?;
        }
        Ok(self.fits_memory(units))
    }

    /// The get lock as well, which a consumer may have in its hands for as long as it waits for
    /// the rest of a message whose producer gave it up while there was no room to say so.
    fn lock_get(&mut self, deadline: Deadline) -> Result<Getter<'a>, Stop> {
        let (mut time, mut told) = (SOON, false);
        loop {
            match self.ring.lock_get(Deadline::after(deadline.at_most(time))) {
                Err(Stop::Deadline) if !(told && deadline.passed()) => {}
                other => return other,
            }
            if self.ring.tail().closed() {
                return Err(Stop::Closed);
            }
            // Again and again: it may have had something to read until now.
            told = self.dismiss()?;
            if !told && deadline.passed() {
                return Err(Stop::Deadline);
            }
            time = (2 * time).min(PATIENCE);
        }
    }

    /// Tells a consumer that waits for the rest of a message that it does not come. Says whether
    /// there may be such a one: it has read all that there is.
    fn dismiss(&mut self) -> Result<bool, Stop> {
        // What is written here and not committed must not be yet.
        let alone = self.next == self.tail.advance(0, 0)
            && self.ring.head().position() == self.next.position();
        if alone {
            self.abandon()?;
        }
        Ok(alone)
    }

    /// Goes back to little memory if the ring is empty. Called where the memory in use has come
    /// to its end.
    #[cold]
    pub(super) fn shrink(&mut self, units: u32) {
        let bytes = units as usize * UNIT;
        let enough = match bytes >= LARGE {
            true => FEW * bytes,
            false => START,
        };
        let enough = enough.max(START).next_power_of_two();
        if enough >= self.memory.limit {
            return;
        }
        if bytes >= LARGE {
            let all = self.memory.units();
            self.room_soon(all);
        }
        self.shrink_to(enough);
    }

    /// Uses the first `limit` bytes of the memory only, if the ring is empty. Says whether it does.
    fn shrink_to(&mut self, limit: usize) -> bool {
        let ring = self.ring;
        if ring.head().position() != self.next.position() {
            return false;
        }
        let side = &ring.header().get.0;
        let Some(_guard) = side.mutex.try_lock(|| ring.recover_get()) else {
            return false;
        };
        let is_empty =
            ring.head().position() == self.next.position() && self.next == self.tail.advance(0, 0);
        if is_empty {
            ring.header().limit.store(limit as u64, SeqCst);
            self.memory.limit = limit;
        }
        is_empty
    }

    /// Makes sure that there is memory for `bytes` bytes behind what has been written. Where the
    /// machine has no more of it, an empty ring goes back to what it has used before.
    #[inline]
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), ShmError> {
        let position = self.next.position();
        match self.memory.reserve(position, bytes) {
            Err(error) => self.reserve_in_front(bytes, error),
            reserved => reserved,
        }
    }

    #[cold]
    fn reserve_in_front(&mut self, bytes: usize, error: ShmError) -> Result<(), ShmError> {
        let enough = bytes.next_multiple_of(UNIT).max(START).next_power_of_two();
        match enough < self.memory.limit && self.shrink_to(enough) {
            true => self.memory.reserve(self.next.position(), bytes),
            false => Err(error),
        }
    }

    /// Waits for a consumer that is at work to make room, as long as it is and for [`MOST`].
    fn room_soon(&mut self, units: u32) -> bool {
        let ring = self.ring;
        let vain = ring.vain_waits.load(Relaxed);
        if cores() < 2 || !vain.is_multiple_of(TRY_AGAIN) {
            ring.vain_waits.store(vain.wrapping_add(1), Relaxed);
            return false;
        }
        let start = Instant::now();
        let mut moved = start;
        loop {
            super::step("put: waiting for a consumer");
            let now = ring.head();
            if now != self.head {
                (self.head, moved) = (now, Instant::now());
            }
            if self.fits_memory(units) {
                ring.vain_waits.store(0, Relaxed);
                return true;
            }
            // What copying a message of a MiB takes when both are slow.
            if moved.elapsed() > Duration::from_micros(200) || start.elapsed() > MOST {
                ring.vain_waits.store(1, Relaxed);
                return false;
            }
            for _ in 0..64 {
                std::hint::spin_loop();
            }
        }
    }

    /// Whether so much more fits the memory in use.
    pub(super) fn fits_memory(&self, units: u32) -> bool {
        let used = self.next.units_since(self.head);
        u64::from(used) + u64::from(units) <= u64::from(self.memory.units())
    }
}
