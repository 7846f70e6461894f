//! Where everything is in the segment, and the two words that say what is in the ring.
//!
//! ```text
//!   header | put side | tail | get side | head | signals | words | claims | data (a power of two)
//! ```
//!
//! What the put side and the get side change are on different cache lines (two each: processors
//! fetch them in pairs), so that a put and a get do not disturb each other.

use crate::shm::{AtomicU32, AtomicU64, Shared};
use crate::sync::{RobustMutex, Signal};

/// Frames begin at multiples of this; positions count in it.
pub(super) const UNIT: usize = 16;
/// A frame is eight bytes and the message.
pub(super) const FRAME: usize = 8;
/// The last byte is the layout's version.
pub(super) const MAGIC: u64 = 0x6d70_2d72_696e_6702;
pub(super) const SMALLEST: usize = 256;
/// So that a frame's length always fits 32 bits.
pub(super) const LARGEST: usize = 1 << 32;
/// How many words a ring keeps for its user.
pub(super) const WORDS: usize = 8;

#[repr(C, align(128))]
pub(super) struct Line<T>(pub(super) T);

#[repr(C)]
pub(super) struct Header {
    pub(super) magic: AtomicU64,
    pub(super) capacity: AtomicU64,
    /// 0 is no bound.
    pub(super) max_items: AtomicU32,
    pub(super) claims: AtomicU32,
    /// Bytes of the data that are in use; changes under both locks only.
    pub(super) limit: AtomicU64,
    pub(super) put: Line<PutSide>,
    pub(super) tail: Line<AtomicU64>,
    pub(super) get: Line<GetSide>,
    pub(super) head: Line<AtomicU64>,
    pub(super) news: Line<News>,
    /// Who waits for room.
    pub(super) room: Line<Signal>,
    pub(super) high_water: Line<AtomicU64>,
    pub(super) words: Line<[AtomicU64; WORDS]>,
    /// For what stands on the ring.
    pub(super) user: Line<Signal>,
}

// SAFETY: atomics, and mutexes that check themselves; valid whatever their bits.
unsafe impl Shared for Header {}

/// What those who wait for messages are told by.
#[repr(C)]
pub(super) struct News {
    pub(super) signal: Signal,
    /// Only waiters look at it.
    pub(super) kicks: AtomicU32,
    /// Up to which count of messages they need not be woken; 0 is no such count, see [`Patience`].
    pub(super) patience: AtomicU32,
}

/// Belongs to who holds the mutex.
#[repr(C)]
pub(super) struct PutSide {
    pub(super) mutex: RobustMutex,
    /// The head as last seen: while that leaves room the get side's line is not touched.
    pub(super) head: AtomicU64,
}

/// Belongs to who holds the mutex.
#[repr(C)]
pub(super) struct GetSide {
    pub(super) mutex: RobustMutex,
    /// The tail as last seen.
    pub(super) tail: AtomicU64,
    /// One more than the claim that is being made, and the head as long as it is not made.
    pub(super) claimant: AtomicU64,
    pub(super) claim_head: AtomicU64,
    /// What the claim was before.
    pub(super) claim_before: AtomicU64,
    /// Long messages of which nobody will have the whole, and nobody has been told yet.
    pub(super) dropped: AtomicU64,
}

/// The bytes before the data: the header and the claims, so that the data begin on a page.
pub(super) fn data_offset(claims: usize, page_offset: usize) -> usize {
    (page_offset + size_of::<Header>() + claims * size_of::<AtomicU64>()).next_multiple_of(4096)
        - page_offset
}

/// A place in the ring and the messages up to there, in one word that one store changes.
///
/// Bits 0-31: position in units, modulo 2^32. Bits 32-61: messages, modulo 2^30. Bit 62: the
/// reader of a long message has given it up. Bit 63: closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) u64);

const COUNT: u64 = (1 << 30) - 1;
pub(super) const REJECTED: u64 = 1 << 62;
pub(super) const CLOSED: u64 = 1 << 63;

impl Place {
    pub(super) fn position(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(super) fn rejected(self) -> bool {
        self.0 & REJECTED != 0
    }

    /// So many units and messages further on, without the flags.
    pub(super) fn advance(self, units: u32, messages: u32) -> Place {
        let position = self.position().wrapping_add(units);
        let count = (self.0 >> 32).wrapping_add(messages.into()) & COUNT;
        Place(count << 32 | u64::from(position))
    }

    /// Units from `earlier` to here.
    pub(super) fn units_since(self, earlier: Place) -> u32 {
        self.position().wrapping_sub(earlier.position())
    }

    /// Messages from `earlier` to here.
    pub(super) fn messages_since(self, earlier: Place) -> u32 {
        ((self.0 >> 32).wrapping_sub(earlier.0 >> 32) & COUNT) as u32
    }
}

/// A count of messages to which waiters want to sleep, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience(pub(super) u32);

impl Patience {
    pub(super) const NONE: Patience = Patience(0);
    /// The most messages ahead.
    const MOST: u32 = 1 << 10;

    /// Until `messages` more than there have been up to `from`.
    pub(super) fn until(from: Place, messages: u32) -> Patience {
        let count = from.advance(0, messages.min(Patience::MOST)).0 >> 32;
        Patience(count as u32 | 1 << 31)
    }

    /// Whether `tail` is not there yet. A word that says nothing sensible is no patience.
    pub(super) fn is_left(self, tail: Place) -> bool {
        let until = Place(u64::from(self.0) << 32);
        self != Patience::NONE && (1..=Patience::MOST).contains(&until.messages_since(tail))
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole = 1,
    First = 2,
    Middle = 3,
    Last = 4,
    Pad = 5,
}

/// The first eight bytes of a frame: length, kind, and a mark that random bytes do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Bytes after the eight.
    pub(super) len: usize,
}

const MARK: u64 = 0x5f_a3c9 << 40;

impl Frame {
    pub(super) fn to_bits(self) -> u64 {
        MARK | (self.kind as u64) << 32 | self.len as u64
    }

    pub(super) fn from_bits(bits: u64) -> Option<Frame> {
        let kind = match bits >> 32 & 0xff {
            1 => Kind::Whole,
            2 => Kind::First,
            3 => Kind::Middle,
            4 => Kind::Last,
            5 => Kind::Pad,
            _ => return None,
        };
        let len = (bits & 0xffff_ffff) as usize;
        (bits & !0xff_ffff_ffff == MARK).then_some(Frame { kind, len })
    }

    pub(super) fn units(self) -> u32 {
        units(self.len)
    }
}

/// Units that a frame with `len` bytes takes; saturates, which is more than any ring has.
pub(super) fn units(len: usize) -> u32 {
    u32::try_from(len.saturating_add(FRAME).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_keep_their_parts_apart(start: u64, units: u32, messages in 0..1u32 << 30) {
            let start = Place(start & !(REJECTED | CLOSED));
            let end = start.advance(units, messages);
            prop_assert_eq!(end.units_since(start), units);
            prop_assert_eq!(end.messages_since(start), messages);
            prop_assert!(!end.closed() && !end.rejected());
        }

        #[test]
        fn patience_ends_at_its_count(start: u64, messages in 1..1u32 << 10, come in 0..1u32 << 11) {
            let start = Place(start & !(REJECTED | CLOSED));
            let patience = Patience::until(start, messages);
            let left = patience.is_left(start.advance(come, come));
            prop_assert_eq!(left, come < messages);
            prop_assert!(!Patience::NONE.is_left(start));
        }

        #[test]
        fn frames_come_back(len in 0..u32::MAX, bits: u64) {
            for kind in [Kind::Whole, Kind::First, Kind::Middle, Kind::Last, Kind::Pad] {
                let frame = Frame { kind, len: len as usize };
                prop_assert_eq!(Frame::from_bits(frame.to_bits()), Some(frame));
            }
            prop_assert!(Frame::from_bits(bits).is_none_or(|frame| frame.to_bits() == bits));
        }
    }
}
