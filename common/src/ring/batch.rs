//! Several messages in one buffer, framed as they are in the ring: they go in and out in one copy.

use super::layout::{FRAME, Frame, Kind, UNIT};

/// Messages one after the other in one buffer, for [`Ring::put_many`](super::Ring::put_many) and
/// [`Ring::get_many`](super::Ring::get_many).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Frames; each begins at a multiple of a unit.
    pub(super) bytes: Vec<u8>,
    /// Where each message ends.
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

    /// How much memory it has for messages, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
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
        let before = self.bytes.len();
        let start = self.begin_message();
        match write(&mut self.bytes) {
            Ok(()) => {
                // `write` has the whole buffer: it may have shortened it.
                let end = self.bytes.len().max(start);
                self.bytes.resize(end, 0);
                self.end_message(start);
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(before);
                Err(error)
            }
        }
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.message(index))
    }

    pub(super) fn message(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index) + FRAME..self.ends[index]]
    }

    /// Units that the frames from `from` to before `to` take.
    pub(super) fn units(&self, from: usize, to: usize) -> u32 {
        let units = (self.start(to) - self.start(from)) / UNIT;
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    /// The bytes of the frames from `from` to before `to`, which is more.
    pub(super) fn frames(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.start(from)..self.ends[to - 1]]
    }

    /// The largest `to` for which the frames from `from` on fit.
    pub(super) fn most(&self, from: usize, fits: impl Fn(usize) -> bool) -> usize {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = high - (high - low) / 2;
            match fits(middle) {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        low
    }

    /// Makes the next frame begin; gives the place of its message.
    pub(super) fn begin_message(&mut self) -> usize {
        let start = self.begin_frame() + FRAME;
        self.bytes.extend_from_slice(&[0; FRAME]);
        start
    }

    /// Makes what is behind `start` a message.
    pub(super) fn end_message(&mut self, start: usize) {
        let end = self.bytes.len();
        let (kind, len) = (Kind::Whole, end - start);
        let bits = Frame { kind, len }.to_bits();
        self.bytes[start - FRAME..start].copy_from_slice(&bits.to_ne_bytes());
        self.ends.push(end);
    }

    /// Fills the last unit up; gives the place of the next frame.
    pub(super) fn begin_frame(&mut self) -> usize {
        // A message whose writing panicked may have left something.
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        let start = self.bytes.len().next_multiple_of(UNIT);
        // A constant number of bytes is a store, not a call.
        self.bytes.extend_from_slice(&[0; UNIT]);
        self.bytes.truncate(start);
        start
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1].next_multiple_of(UNIT),
        }
    }
}
