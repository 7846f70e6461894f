//! What goes through the two rings: tasks to the workers, results back.
//!
//! A task message is a chunk: a header and as many encoded argument tuples as it says. Its last
//! word is their number, so that word and tuples together are an encoded `Vec` of tuples. A
//! result message is the same the other way round.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::spares::Buffer;
use crate::codec::{self, EncodeError};
use crate::departures::Departures;
use crate::function::EntryRef;
use serde::Serialize;
use std::collections::VecDeque;

/// Bytes of either header.
pub(super) const HEADER: usize = 40;
/// Where in either header the number of items is; from here on it reads as a `Vec`.
pub(super) const COUNT: usize = HEADER - 8;

/// The head of a task message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskHeader {
    /// The claim that this task is taken by.
    pub(crate) id: u64,
    /// The encoded [`EntryRef`] of the chunk's function.
    pub(crate) entry: [u8; 16],
    pub(crate) count: u64,
}

impl TaskHeader {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.entry);
        bytes[COUNT..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        Some(TaskHeader {
            id: word(header, 0),
            entry: header[8..24].try_into().ok()?,
            count: word(header, COUNT),
        })
    }
}

/// An entry as it stands in a header.
pub(super) fn entry_bytes(entry: EntryRef) -> [u8; 16] {
    // Two integers of eight bytes; the test below holds that.
    let bytes = codec::encode(&entry).unwrap_or_default();
    bytes.try_into().unwrap_or_default()
}

/// The id at the beginning of a message; 0, which no task has, if there is none.
pub(super) fn id_of(message: &[u8]) -> u64 {
    match message.get(..8) {
        Some(bytes) => word(bytes, 0),
        None => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// What a result message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Results of `count` items from `first` on.
    Done = 1,
    /// The item `first` gave none; an encoded `Fault` follows.
    Failed = 2,
    /// The chunk is begun; sent only if somebody observes the pool.
    Started = 3,
    /// The worker could not be made ready; a text follows.
    Unready = 4,
}

/// The head of a result message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResultHeader {
    pub(crate) id: u64,
    pub(crate) worker: u32,
    pub(crate) kind: Kind,
    /// What the items took.
    pub(crate) nanos: u64,
    /// Number of the first item in its chunk.
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl ResultHeader {
    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let about = u64::from(self.worker) | (self.kind as u64) << 32;
        let mut bytes = [0; HEADER];
        let words = [self.id, about, self.nanos, self.first, self.count];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` if it is no header: a worker may have gone mad.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let about = word(header, 8);
        let kind = match about >> 32 {
            1 => Kind::Done,
            2 => Kind::Failed,
            3 => Kind::Started,
            4 => Kind::Unready,
            _ => return None,
        };
        Some(ResultHeader {
            id: word(header, 0),
            worker: about as u32,
            kind,
            nanos: word(header, 16),
            first: word(header, 24),
            count: word(header, COUNT),
        })
    }
}

/// Encoded argument tuples, one after the other; chunks are cut out of it.
#[derive(Debug)]
pub(crate) struct Items {
    bytes: Buffer,
    ends: Ends,
    len: usize,
    /// The number of the first in its job.
    pub(super) base: usize,
    departures: ItemDepartures,
}

/// What is counted for some items, with their places; in order. Most count nothing.
pub(super) type ItemDepartures = VecDeque<(usize, Departures)>;

/// Where each tuple ends.
#[derive(Debug)]
enum Ends {
    /// All are so long.
    Even(usize),
    At(Vec<usize>),
}

impl Items {
    /// One tuple alone.
    pub(super) fn single(args: &impl Serialize) -> Result<Self, EncodeError> {
        let mut items = Items::new(Buffer::default(), 0);
        items.push(args)?;
        Ok(items)
    }

    /// None yet, in an empty buffer; the first pushed will be number `base`.
    pub(super) fn new(bytes: Buffer, base: usize) -> Self {
        Items {
            bytes,
            ends: Ends::Even(0),
            len: 0,
            base,
            departures: ItemDepartures::new(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, args: &impl Serialize) -> Result<(), EncodeError> {
        let start = self.bytes.len();
        let (encoded, departures) = Departures::of(|| codec::encode_into(args, &mut self.bytes));
        encoded?;
        if !departures.is_empty() {
            self.note(departures);
        }
        let size = self.bytes.len() - start;
        if self.len == 0 {
            self.ends = Ends::Even(size);
        } else if !matches!(self.ends, Ends::Even(each) if each == size) {
            self.push_end();
        }
        self.len += 1;
        Ok(())
    }

    #[cold]
    fn note(&mut self, departures: Departures) {
        self.departures.push_back((self.len, departures));
    }

    #[inline(never)]
    fn push_end(&mut self) {
        if let Ends::Even(each) = self.ends {
            self.ends = Ends::At((1..=self.len).map(|count| count * each).collect());
        }
        if let Ends::At(ends) = &mut self.ends {
            ends.push(self.bytes.len());
        }
    }

    /// What is counted for them; from now on that is not taken back with the items.
    pub(super) fn take_departures(&mut self) -> ItemDepartures {
        std::mem::take(&mut self.departures)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of items `from..to`.
    pub(super) fn range(&self, from: usize, to: usize) -> &[u8] {
        let end = |count: usize| match &self.ends {
            _ if count == 0 => 0,
            Ends::Even(each) => count * each,
            Ends::At(ends) => ends[count - 1],
        };
        &self.bytes[end(from)..end(to)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Task;

    #[test]
    fn headers_round_trip_and_garbage_is_refused() {
        let entry = Task::entry(|x: u8| x).unwrap();
        let task = TaskHeader {
            id: 9,
            entry: entry_bytes(entry),
            count: 3,
        };
        assert_eq!(TaskHeader::of(&task.to_bytes()), Some(task));
        assert_eq!(codec::decode::<EntryRef>(&task.entry).unwrap(), entry);
        let result = ResultHeader {
            id: 1,
            worker: 2,
            kind: Kind::Failed,
            nanos: 3,
            first: 4,
            count: 5,
        };
        assert_eq!(ResultHeader::of(&result.to_bytes()), Some(result));
        assert_eq!(ResultHeader::of(&[0xff; HEADER]), None);
        assert_eq!(ResultHeader::of(&[1; HEADER - 1]), None);
    }

    #[test]
    fn items_behind_their_count_are_a_vec() {
        let texts = ["a", "b", "bcd", "", "a"];
        let mut items = Items::new(Buffer::default(), 0);
        for text in texts {
            items.push(&(text,)).unwrap();
        }
        for (from, to) in [(0, 1), (0, 2), (1, 4), (2, 5), (4, 5), (0, 5)] {
            let mut bytes = ((to - from) as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(items.range(from, to));
            let read: Vec<(String,)> = codec::decode(&bytes).unwrap();
            let read: Vec<&str> = read.iter().map(|(text,)| text.as_str()).collect();
            assert_eq!(read, texts[from..to]);
        }
    }
}
