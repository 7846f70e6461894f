//! Heap in place of shared memory. What has not been reserved is not initialised, so that Miri
//! finds who reads it.

#![allow(unsafe_code)] // The heap by hand.

#[path = "../../src/shm/error.rs"]
mod error;
#[cfg(not(miri))]
mod words;

pub use error::ShmError;
#[cfg(miri)]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(miri))]
pub(crate) use words::{AtomicU32, AtomicU64};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::sync::{Arc, Mutex, PoisonError};

/// As in `common`.
///
/// # Safety
///
/// Every bit pattern is valid, and it is changed through `&self` only.
pub(crate) unsafe trait Shared {}

// SAFETY: an atomic integer is valid whatever its bits.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}

/// A piece of memory that all processes of the model see.
#[derive(Debug, Clone)]
pub struct Segment(Arc<Heap>);

#[derive(Debug)]
struct Heap {
    start: *mut u8,
    layout: Layout,
    /// So many bytes are there, all zero at first.
    reserved: Mutex<usize>,
}

// SAFETY: the memory belongs to no thread, and only `Shared` references to it are given out.
unsafe impl Send for Heap {}
// SAFETY: as above; how much is reserved is behind a lock.
unsafe impl Sync for Heap {}

impl Segment {
    pub(crate) const HEADER: usize = 128;

    pub(crate) fn create(bytes: usize) -> Result<Segment, ShmError> {
        let size = ShmError::Size {
            bytes: bytes as u64,
        };
        let layout = Layout::from_size_align(bytes.max(1), 128).map_err(|_| size)?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        let reserved = Mutex::new(0);
        Ok(Segment(Arc::new(Heap {
            start,
            layout,
            reserved,
        })))
    }

    pub(crate) fn name(&self) -> &str {
        "model"
    }

    pub(crate) fn len(&self) -> usize {
        self.0.layout.size()
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.0.start
    }

    pub(crate) fn reserve(&self, end: usize) -> Result<(), ShmError> {
        assert!(end <= self.len(), "reserved beyond the end");
        let mut reserved = self
            .0
            .reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if end > *reserved {
            // SAFETY: the range lies inside the memory, and nobody has used it yet: whoever will
            // reserves it first.
            unsafe { self.start().add(*reserved).write_bytes(0, end - *reserved) };
            *reserved = end;
        }
        Ok(())
    }

    pub(crate) fn at<T: Shared>(&self, offset: usize) -> Result<&T, ShmError> {
        self.reserve(offset + size_of::<T>())?;
        // SAFETY: `reserve` has checked that it lies inside the memory.
        let place = unsafe { self.start().add(offset) }.cast::<T>();
        assert!(place.is_aligned());
        // SAFETY: inside, aligned, initialised, and valid whatever its bits.
        Ok(unsafe { &*place })
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: from `alloc` with this layout; the last handle is gone.
        unsafe { dealloc(self.start, self.layout) };
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("the model's processes share a heap"))
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("the model's processes share a heap"))
    }
}
