//! What client and server say to each other.
//!
//! ```text
//!   length of the body: u64 | number: u64 | kind: u32 | grants: u32 | body
//! ```
//!
//! To copy: message.rs, departures.rs.

use crate::departures::Departures;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Call a function with one value: object, entry, arguments.
    Call = 1,
    /// Call a function with several values: count, objects, entry, arguments.
    Transaction = 2,
    /// Make a value: entry, arguments.
    Host = 3,
    /// I hold this object now: object, ticket (0: none). No reply.
    Claim = 4,
    /// A proxy of mine is on its way: object, ticket. No reply.
    Ticket = 5,
    /// So many of my holds on an object are over: object, count. No reply.
    Release = 6,
    /// Drop everything and end. No reply.
    Shutdown = 7,
    /// Whether an object is poisoned, and perhaps make it so no more: object, 0 or 1.
    Poison = 8,
    /// Call a function with one value that returns a future; the answer is what comes of that:
    /// object, entry, arguments.
    CallLater = 9,
    /// What the function returned, encoded; before it, the objects that it grants.
    Returned = 16,
    /// Why it did not return, an encoded `CallError`.
    Failed = 17,
}

impl Kind {
    pub(super) fn of(number: u32) -> Option<Kind> {
        use Kind::*;
        [
            Call,
            Transaction,
            Host,
            Claim,
            Ticket,
            Release,
            Shutdown,
            Poison,
            CallLater,
            Returned,
            Failed,
        ]
        .into_iter()
        .find(|&kind| kind as u32 == number)
    }
}

/// The fixed part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Which request; a reply has its request's.
    pub(super) number: u64,
    /// How many objects the body begins with.
    pub(super) grants: usize,
}

impl Header {
    pub(super) const LENGTH: usize = 24;

    /// The length in the header, if that is there.
    pub(super) fn body_length(bytes: &[u8]) -> Option<u64> {
        (bytes.len() >= Header::LENGTH)
            .then(|| bytes.first_chunk().copied().map(u64::from_le_bytes))
            .flatten()
    }

    /// Takes a whole message apart; `None` if it is none.
    pub(super) fn parse(message: &[u8]) -> Option<(Header, Body<'_>)> {
        let mut rest = Body(message.get(8..)?);
        let number = rest.number()?;
        let (kind, grants) = (rest.half()?, rest.half()?);
        let header = Header {
            kind: Kind::of(kind)?,
            number,
            grants: grants as usize,
        };
        Some((header, rest))
    }
}

/// What is left of a message's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn half(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// A message being written.
pub(super) struct Message {
    bytes: Vec<u8>,
    /// What is counted for its arguments: taken back if it is not sent.
    pub(super) departures: Departures,
}

impl Message {
    pub(super) fn new(kind: Kind, number: u64) -> Message {
        Message::in_buffer(Vec::with_capacity(128), kind, number)
    }

    /// In memory that was used before.
    pub(super) fn in_buffer(mut bytes: Vec<u8>, kind: Kind, number: u64) -> Message {
        bytes.clear();
        bytes.resize(8, 0);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        Message {
            bytes,
            departures: Departures::default(),
        }
    }

    pub(super) fn u64(self, number: u64) -> Message {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// For whoever appends to the body.
    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts the objects granted in front of the body.
    pub(super) fn grants(mut self, objects: &[u64]) -> Message {
        if objects.is_empty() {
            return self;
        }
        let count = objects.len() as u32;
        self.bytes[20..24].copy_from_slice(&count.to_le_bytes());
        let bytes = objects.iter().flat_map(|object| object.to_le_bytes());
        self.bytes.splice(Header::LENGTH..Header::LENGTH, bytes);
        self
    }

    /// Puts the number in, when it is known only after the body.
    pub(super) fn numbered(mut self, number: u64) -> Message {
        self.bytes[8..16].copy_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.bytes.len() - Header::LENGTH) as u64;
        self.bytes[..8].copy_from_slice(&length.to_le_bytes());
        self.bytes
    }
}
