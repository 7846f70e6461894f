//! The memory between one client process and the server: two lanes, one each way.
//!
//! ```text
//!   client process        |      memory file       |        server
//!   Producer ------------ | ----> requests ------> | ---> Consumer
//!   Consumer <----------- | <---- replies <------- | ---- Producer
//!                         |  asleep flags, one each|
//! ```
//!
//! A lane is a stream of bytes with one producer and one consumer, so that it needs no lock that
//! somebody could die with: bytes first, then one store commits them. A message longer than the
//! lane passes through it in parts. Each client has a channel of its own, so that one gone mad
//! spoils its own only; positions read from the memory are checked before use.
//!
//! It is a memory file (memfd_create(2)) sent over the socket: it has no name that could stay
//! behind, and it is sealed, so that nobody can shrink it under the other's feet (SIGBUS).
//!
//! To copy: channel.rs, message.rs, departures.rs.

#![allow(unsafe_code)] // Maps the file; copies in and out of it.

use super::message::Header;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes on their way, at most, in each direction.
pub(super) const CAPACITY: usize = 256 * 1024;

const PAGE: usize = 4096;
const LENGTH: usize = PAGE + 2 * CAPACITY;

/// The first page. Each word has a cache line of its own, and its neighbour, which processors
/// like to fetch with it.
#[repr(C)]
struct Head {
    asleep: [Line<AtomicU32>; 2],
    /// Of each lane: how many bytes were ever put in, and taken out.
    positions: [[Line<AtomicU64>; 2]; 2],
}

#[repr(C, align(128))]
struct Line<T>(T);

/// Who of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What was read from the memory cannot be: the other side is broken, or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Corrupt;

/// One process's mapping of a channel.
pub(super) struct Channel {
    base: NonNull<u8>,
    side: Side,
}

// SAFETY: the mapping belongs to the process, not to a thread; it is used through atomics, and
// through copies whose places the one producer and the one consumer of a lane agree on.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// The server's side of a new one, and the file that makes the client's.
    pub(super) fn create() -> Result<(Arc<Channel>, OwnedFd), Errno> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"common-manager", flags)?;
        nix::unistd::ftruncate(&file, LENGTH as libc::off_t)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((Arc::new(Channel::map(file.as_fd(), Side::Server)?), file))
    }

    /// The client's side.
    pub(super) fn open(file: BorrowedFd<'_>) -> Result<Arc<Channel>, Errno> {
        let length = nix::sys::stat::fstat(file)?.st_size;
        if length != LENGTH as libc::off_t {
            return Err(Errno::EPROTO);
        }
        Ok(Arc::new(Channel::map(file, Side::Client)?))
    }

    fn map(file: BorrowedFd<'_>, side: Side) -> Result<Channel, Errno> {
        let length = NonZeroUsize::new(LENGTH).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nobody's memory.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, 0)? };
        let base = base.cast();
        Ok(Channel { base, side })
    }

    pub(super) fn producer(self: &Arc<Self>) -> Producer {
        Producer {
            lane: self.side as usize,
            put: 0,
            taken: 0,
            channel: self.clone(),
        }
    }

    pub(super) fn consumer(self: &Arc<Self>) -> Consumer {
        Consumer {
            lane: self.side.other() as usize,
            put: 0,
            taken: 0,
            partial: Vec::new(),
            channel: self.clone(),
        }
    }

    fn head(&self) -> &Head {
        const { assert!(size_of::<Head>() <= PAGE) };
        // SAFETY: the mapping is longer than a head, page-aligned, lives as long as `self`, and
        // holds atomics only, which are valid whatever the other side writes.
        unsafe { self.base.cast::<Head>().as_ref() }
    }

    /// Says that this side is about to sleep on the socket: from now on the other side sends it a
    /// byte for whatever it does. The caller must look once more before it sleeps.
    pub(super) fn going_to_sleep(&self) {
        self.head().asleep[self.side as usize]
            .0
            .store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn is_awake(&self) {
        self.head().asleep[self.side as usize]
            .0
            .store(0, Ordering::Relaxed);
    }

    /// Whether the other side sleeps, so that a byte must be sent; true once for each sleep. To be
    /// asked after something was put in or taken out.
    #[inline]
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = &self.head().asleep[self.side.other() as usize].0;
        asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::Relaxed) != 0
    }

    fn positions(&self, lane: usize) -> (&AtomicU64, &AtomicU64) {
        let [put, taken] = &self.head().positions[lane];
        (&put.0, &taken.0)
    }

    fn data(&self, lane: usize) -> *mut u8 {
        // SAFETY: inside the mapping: there are two lanes.
        unsafe { self.base.as_ptr().add(PAGE + lane * CAPACITY) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: mapped with this length in `map`; nothing borrows from it any more.
        let _ = unsafe { munmap(self.base.cast::<c_void>(), LENGTH) };
    }
}

/// The end of a lane where bytes go in.
pub(super) struct Producer {
    channel: Arc<Channel>,
    lane: usize,
    put: u64,
    taken: u64,
}

impl Producer {
    /// Puts in as many of the bytes as there is room for, and says how many those were.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        if self.room(bytes.len())? == 0 {
            return Ok(0);
        }
        let count = bytes.len().min(CAPACITY - (self.put - self.taken) as usize);
        let at = (self.put % CAPACITY as u64) as usize;
        let first = count.min(CAPACITY - at);
        let data = self.channel.data(self.lane);
        // SAFETY: `at + first` and `count - first` are at most the lane's capacity, and `bytes`
        // is private memory of at least `count` bytes. The consumer does not look at these bytes
        // before they are committed; one that does gets garbage, which it checks.
        unsafe {
            data.add(at).copy_from_nonoverlapping(bytes.as_ptr(), first);
            data.copy_from_nonoverlapping(bytes.as_ptr().add(first), count - first);
        }
        self.put += count as u64;
        let (put, _) = self.channel.positions(self.lane);
        put.store(self.put, Ordering::Release);
        Ok(count)
    }

    /// Whether anything can be put in.
    pub(super) fn has_room(&mut self) -> Result<bool, Corrupt> {
        Ok(self.room(1)? > 0)
    }

    fn room(&mut self, wanted: usize) -> Result<usize, Corrupt> {
        let room = CAPACITY - (self.put - self.taken) as usize;
        if room >= wanted {
            return Ok(room);
        }
        let (_, taken) = self.channel.positions(self.lane);
        let taken = taken.load(Ordering::Acquire);
        if taken < self.taken || taken > self.put {
            return Err(Corrupt);
        }
        self.taken = taken;
        Ok(CAPACITY - (self.put - taken) as usize)
    }
}

/// The end of a lane where messages come out.
pub(super) struct Consumer {
    channel: Arc<Channel>,
    lane: usize,
    put: u64,
    taken: u64,
    /// The message that has arrived so far.
    partial: Vec<u8>,
}

/// Memory for a message grows as it arrives, never on the strength of what its header claims.
const STEP: usize = 1 << 20;

impl Consumer {
    /// Whether nothing has arrived since the last look. What arrived may be part of a message.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        let (put, _) = self.channel.positions(self.lane);
        put.load(Ordering::Acquire) == self.taken
    }

    /// The next message, header included, in `message`; false if it has not arrived whole yet.
    pub(super) fn next(&mut self, message: &mut Vec<u8>) -> Result<bool, Corrupt> {
        let mut moved = false;
        let complete = loop {
            let missing = match Header::body_length(&self.partial) {
                None => Header::LENGTH - self.partial.len(),
                Some(body) => Header::LENGTH
                    .checked_add(usize::try_from(body).map_err(|_| Corrupt)?)
                    .ok_or(Corrupt)?
                    .checked_sub(self.partial.len())
                    .ok_or(Corrupt)?,
            };
            if missing == 0 {
                break true;
            }
            let count = missing.min(self.arrived()?);
            if count == 0 {
                break false;
            }
            self.partial
                .try_reserve(count.max(missing.min(STEP)))
                .map_err(|_| Corrupt)?;
            self.take(count);
            moved = true;
        };
        if moved {
            let (_, taken) = self.channel.positions(self.lane);
            taken.store(self.taken, Ordering::Release);
        }
        if complete {
            message.clear();
            std::mem::swap(message, &mut self.partial);
        }
        Ok(complete)
    }

    fn arrived(&mut self) -> Result<usize, Corrupt> {
        if self.put == self.taken {
            let (put, _) = self.channel.positions(self.lane);
            let put = put.load(Ordering::Acquire);
            if put < self.taken || put - self.taken > CAPACITY as u64 {
                return Err(Corrupt);
            }
            self.put = put;
        }
        Ok((self.put - self.taken) as usize)
    }

    fn take(&mut self, count: usize) {
        let at = (self.taken % CAPACITY as u64) as usize;
        let first = count.min(CAPACITY - at);
        let data = self.channel.data(self.lane);
        let length = self.partial.len();
        // SAFETY: the two parts lie in the lane (`count` is at most its capacity, checked in
        // `arrived`); the vector has room for them (reserved by the caller), and they are
        // initialised by the copy. The producer may overwrite them meanwhile if it is broken:
        // what is copied is garbage then, and private from here on.
        unsafe {
            let out = self.partial.as_mut_ptr().add(length);
            out.copy_from_nonoverlapping(data.add(at), first);
            out.add(first).copy_from_nonoverlapping(data, count - first);
            self.partial.set_len(length + count);
        }
        self.taken += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::message::{Kind, Message};

    fn both() -> (Arc<Channel>, Arc<Channel>) {
        let (server, file) = Channel::create().unwrap();
        (Channel::open(file.as_fd()).unwrap(), server)
    }

    #[test]
    fn a_message_longer_than_the_lane_passes_in_parts() {
        let (client, server) = both();
        let (mut producer, mut consumer) = (client.producer(), server.consumer());
        let body: Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
        let message = Message::new(Kind::Call, 7).bytes(&body).finish();
        let (mut sent, mut out) = (0, Vec::new());
        while !consumer.next(&mut out).unwrap() {
            sent += producer.push(&message[sent..]).unwrap();
        }
        assert_eq!(out, message);
        assert!(consumer.is_empty());
    }

    #[test]
    fn many_messages_come_out_in_order() {
        let (client, server) = both();
        let (mut producer, mut consumer) = (server.producer(), client.consumer());
        let mut out = Vec::new();
        for id in 0..100_000u64 {
            let message = Message::new(Kind::Returned, id)
                .bytes(&vec![id as u8; id as usize % 99])
                .finish();
            assert_eq!(producer.push(&message).unwrap(), message.len());
            assert!(consumer.next(&mut out).unwrap());
            assert_eq!(out, message);
        }
    }

    #[test]
    fn impossible_positions_are_an_error() {
        let (client, server) = both();
        let (mut producer, mut consumer) = (client.producer(), server.consumer());
        let (put, taken) = client.positions(Side::Client as usize);
        assert_eq!(producer.push(&vec![0; CAPACITY]), Ok(CAPACITY));
        taken.store(CAPACITY as u64 + 1, Ordering::Relaxed);
        assert_eq!(producer.push(&[0]), Err(Corrupt));
        put.store(CAPACITY as u64 + 1, Ordering::Relaxed);
        assert_eq!(consumer.next(&mut Vec::new()), Err(Corrupt));
    }

    #[test]
    fn a_length_that_cannot_be_is_no_allocation() {
        let (client, server) = both();
        let (mut producer, mut consumer) = (client.producer(), server.consumer());
        producer.push(&[0xff; 100]).unwrap();
        assert_eq!(consumer.next(&mut Vec::new()), Err(Corrupt));
        let (mut producer, mut consumer) = (server.producer(), client.consumer());
        let mut header = vec![0; Header::LENGTH];
        header[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        producer.push(&header).unwrap();
        assert_eq!(consumer.next(&mut Vec::new()), Ok(false));
        assert!(consumer.partial.capacity() < 2 * STEP);
    }

    #[test]
    fn sleep_is_noticed_once() {
        let (client, server) = both();
        assert!(!client.must_wake());
        server.going_to_sleep();
        assert!(client.must_wake());
        assert!(!client.must_wake());
    }
}
