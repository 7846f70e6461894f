//! Memory that several processes see.
//!
//! ```text
//!   owner (created it)                 /dev/shm                    another process
//!   Segment --------------> mp-<namespace>-<pid>-<start>-<random> <------ Segment
//!     drop: unlinks the name once nobody needs it                   drop: unmaps, no more
//! ```
//!
//! A [`Segment`] is a handle; it is serialised as its name, so it can be handed to any process.
//! It stands on the crate `shared_memory` and covers what that leaves open:
//!
//! * **Who unlinks.** Only the process that created a segment, never a forked child that drops
//!   its copy. The owner's last handle unlinks the name unless others still hold the segment or a
//!   serialised handle is still on its way; then it happens later, at the latest when the owner
//!   ends. (So an owner may hand its only handle over and forget it.)
//! * **What a killed owner leaves** is swept by the next process that creates a segment: the
//!   name says whose it is.
//! * **A full `/dev/shm`.** Memory is reserved before it is touched, and only as much as is used
//!   ([`Segment::reserve`]): too little of it is an error and never SIGBUS.
//! * Segments are mode 0600, and `Send` and `Sync`.
//!
//! To copy: shm/, departures.rs.

#![allow(unsafe_code)] // References and copies into the mapping, all bounds-checked here.

mod error;
mod mapping;
mod name;
mod registry;

pub use error::ShmError;
use mapping::{HEADER, Mapping, create, hold_stdio, unlink};
pub(crate) use name::Owner;
/// The words in it. The ring names them by this path, so that its tests can put others in their
/// place (`common/ring-model`).
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::departures::{Counted, Departures};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What may live in memory that other processes write: every bit pattern is valid, and it is
/// changed through `&self` only (atomics, or cells whose lock says who may look).
///
/// # Safety
///
/// The implementor promises the above.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer is valid whatever its bits.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}

/// A handle on a piece of memory that several processes see.
///
/// Cloning it gives another handle on the same memory; so does sending it to another process.
/// Dropping the last handle of the process that created it removes the name (see the module).
///
/// ```
/// use common::shm::Segment;
///
/// let ours = Segment::create(4096)?;
/// ours.write(0, b"hello")?;
///
/// let theirs = Segment::open(ours.name())?; // in any process
/// let mut bytes = [0; 5];
/// theirs.read(0, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), common::shm::ShmError>(())
/// ```
#[doc(alias = "SharedMemory")]
#[derive(Clone)]
pub struct Segment(ManuallyDrop<Arc<Mapping>>);

impl Segment {
    /// The bytes of a page that come before the user's.
    pub(crate) const HEADER: usize = HEADER;

    /// Makes a segment of `bytes` bytes, all zero. Its memory is not there yet: see
    /// [`Segment::reserve`]. Sweeps what killed owners have left first.
    ///
    /// # Errors
    ///
    /// [`ShmError::Size`] for no bytes or too many, [`ShmError::NoSpace`] where not even the
    /// header has room, [`ShmError::Os`] (too many open files, say).
    pub fn create(bytes: usize) -> Result<Segment, ShmError> {
        // isize is what a pointer's offset can be.
        let total = bytes
            .checked_add(HEADER)
            .filter(|total| bytes > 0 && isize::try_from(*total).is_ok())
            .ok_or(ShmError::Size {
                bytes: bytes as u64,
            })?;
        registry::sweep();
        let owner = Owner::current();
        registry::create(|| {
            let _held = hold_stdio();
            let (memory, name) = create(total, || owner.name())?;
            Mapping::created(memory, name, bytes)
        })
    }

    /// Opens a segment by its [`name`](Segment::name). In a process that has it open already this
    /// is another handle on the same mapping.
    ///
    /// # Errors
    ///
    /// [`ShmError::NotFound`] if there is none (any more), [`ShmError::Invalid`] if it is none of
    /// this library's, [`ShmError::Os`] if it is another user's.
    pub fn open(name: &str) -> Result<Segment, ShmError> {
        match registry::find(name) {
            Some(segment) => Ok(segment),
            None => Mapping::open(name).map(registry::add),
        }
    }

    /// The name, the same in every process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The size in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // There is no empty segment.
    pub fn len(&self) -> usize {
        self.0.size
    }

    /// Makes sure that the first `end` bytes are backed by memory, so that touching them cannot
    /// fail. Costs next to nothing where they are already.
    ///
    /// # Errors
    ///
    /// [`ShmError::NoSpace`] if `/dev/shm` is full; [`ShmError::Size`] if the segment is shorter.
    #[inline]
    pub fn reserve(&self, end: usize) -> Result<(), ShmError> {
        if end <= self.0.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.0.reserve_to(end)
    }

    /// Copies `bytes` into the segment.
    ///
    /// # Errors
    ///
    /// [`ShmError::Size`] if they do not fit, and as [`Segment::reserve`].
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), ShmError> {
        self.reserve(self.end(offset, bytes.len())?)?;
        // SAFETY: the range was checked and reserved. Other processes may write the same bytes:
        // then what they hold is a mixture, which is for the callers to order.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(offset), bytes.len()) }
        Ok(())
    }

    /// Copies bytes out of the segment.
    ///
    /// # Errors
    ///
    /// As [`Segment::write`].
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), ShmError> {
        self.reserve(self.end(offset, out.len())?)?;
        // SAFETY: as in `write`.
        unsafe { ptr::copy_nonoverlapping(self.start().add(offset), out.as_mut_ptr(), out.len()) }
        Ok(())
    }

    /// Removes the name now: whoever has the segment keeps it, nobody can open it any more.
    ///
    /// # Errors
    ///
    /// [`ShmError::NotFound`] if the name is gone already.
    pub fn unlink(&self) -> Result<(), ShmError> {
        registry::disown(self.name());
        unlink(self.name())
    }

    /// A reference to a `T` at `offset`, which the caller keeps aligned and clear of others.
    ///
    /// # Errors
    ///
    /// As [`Segment::reserve`]; [`ShmError::Invalid`] if it would not be aligned.
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> Result<&T, ShmError> {
        self.reserve(self.end(offset, size_of::<T>())?)?;
        // SAFETY: the range was checked to be inside the mapping.
        let place = unsafe { self.start().add(offset) }.cast::<T>();
        if !place.is_aligned() {
            return Err(ShmError::invalid(self.name(), "a misaligned structure"));
        }
        // SAFETY: in bounds, aligned, backed by memory, and valid whatever other processes write
        // (`Shared`); the mapping lives as long as `self`.
        Ok(unsafe { &*place })
    }

    /// Where the user's bytes begin: aligned to 128, `len()` bytes long.
    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        // SAFETY: every mapping is longer than its header, checked when it was made.
        unsafe { self.0.memory.as_ptr().add(HEADER) }
    }

    fn end(&self, offset: usize, len: usize) -> Result<usize, ShmError> {
        offset
            .checked_add(len)
            .filter(|end| *end <= self.0.size)
            .ok_or(ShmError::Size {
                bytes: (offset as u64).saturating_add(len as u64),
            })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the field is not used again: this is its owner's destructor.
        let handle = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(mapping) = Arc::into_inner(handle) {
            registry::remove(mapping);
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name())
            .field("len", &self.len())
            .finish()
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let serialised = self
            .name()
            .serialize(serializer)
            .map_err(ser::Error::custom)?;
        Departures::count(self.clone());
        Ok(serialised)
    }
}

impl Counted for Segment {
    fn depart(&self) {
        self.0.header().sent.fetch_add(1, Ordering::SeqCst);
    }

    fn take_back(&self) {
        self.0.header().sent.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let segment = Segment::open(&name).map_err(de::Error::custom)?;
        segment.0.header().arrive();
        Ok(segment)
    }
}

/// Removes the segments that dead processes have left, and those of this process that it gave
/// away and that nobody uses any more. Creating a segment does it too, as does the end of the
/// process; a program that waits long between may do it itself.
///
/// ```
/// common::shm::sweep();
/// ```
pub fn sweep() {
    registry::sweep();
}

#[cfg(test)]
mod tests;
