//! One structure in a segment of its own.

#![allow(unsafe_code)] // A pointer that was checked when it was made.

use crate::shm::{Segment, Shared, ShmError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// A structure that can be in a segment of its own.
pub(crate) trait Kind: Shared {
    /// Told apart from every other kind's.
    const MAGIC: u64;
}

/// The structure, and behind it as many bytes as were asked for.
pub(crate) struct Object<S> {
    segment: Segment,
    place: NonNull<S>,
}

// SAFETY: the pointer leads into the mapping that `segment` keeps; what is there is `Shared`,
// which is changed through `&self` by any process at any time.
unsafe impl<S: Kind> Send for Object<S> {}
// SAFETY: as above.
unsafe impl<S: Kind> Sync for Object<S> {}

/// The magic number has a cache line pair of its own.
const OFFSET: usize = 128;

impl<S: Kind> Object<S> {
    /// Where the bytes behind the structure begin in the segment.
    pub(crate) const BYTES: usize = OFFSET + size_of::<S>().next_multiple_of(128);

    /// Makes one; all its bytes are zero before `init`.
    pub(crate) fn create(bytes: usize, init: impl FnOnce(&S)) -> Result<Self, ShmError> {
        // More than there can be is an error there.
        let segment = Segment::create(Self::BYTES.saturating_add(bytes))?;
        init(segment.at::<S>(OFFSET)?);
        segment.at::<AtomicU64>(0)?.store(S::MAGIC, SeqCst);
        Self::attach(segment)
    }

    fn attach(segment: Segment) -> Result<Self, ShmError> {
        let place = NonNull::from(segment.at::<S>(OFFSET)?);
        if segment.at::<AtomicU64>(0)?.load(SeqCst) != S::MAGIC {
            return Err(ShmError::Invalid {
                name: segment.name().into(),
                reason: format!("it is no {}", std::any::type_name::<S>()),
            });
        }
        Ok(Object { segment, place })
    }

    pub(crate) fn get(&self) -> &S {
        // SAFETY: made from a reference to the same place; `segment` keeps it mapped.
        unsafe { self.place.as_ref() }
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl<S> fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.segment.name())
    }
}

impl<S> Clone for Object<S> {
    fn clone(&self) -> Self {
        Object {
            segment: self.segment.clone(),
            place: self.place,
        }
    }
}

impl<S> Serialize for Object<S> {
    fn serialize<W: Serializer>(&self, serializer: W) -> Result<W::Ok, W::Error> {
        self.segment.serialize(serializer)
    }
}

impl<'de, S: Kind> Deserialize<'de> for Object<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let segment = Segment::deserialize(deserializer)?;
        Object::attach(segment).map_err(de::Error::custom)
    }
}
