//! Many values of one length, one after the other.

use crate::codec::{self, DecodeError, EncodeError};
use crate::deadline::Deadline;
use crate::shm::{Segment, ShmError};
use crate::sync::{Mutex, MutexError, MutexGuard};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;
use thiserror::Error;

/// An array of fixed length that processes read and write, element by element or by ranges.
///
/// Its elements are of a type all of whose values take the same number of bytes: numbers, and
/// tuples, arrays and structs of them. Each call holds the lock; [`Array::lock`] holds it for
/// several. A process killed in the middle of writing a range leaves a part of it written: the next
/// one who locks it [is told](ArrayGuard::holder_died).
///
/// ```
/// use common::shared::Array;
///
/// let squares = Array::new(&[0, 1, 4, 9])?;
/// squares.set(0, 100)?;
/// assert_eq!(squares.get(0)?, 100);
/// assert_eq!(squares.read(1..4)?, [1, 4, 9]);
/// # Ok::<(), common::shared::ArrayError>(())
/// ```
#[doc(alias = "RawArray")]
#[derive(Serialize, Deserialize)]
#[serde(bound = "", try_from = "Parts")]
pub struct Array<T> {
    segment: Segment,
    lock: Mutex<()>,
    len: usize,
    /// Bytes of an element.
    stride: usize,
    _elements: PhantomData<fn() -> T>,
}

/// An array as it comes from another process, which may claim anything.
#[derive(Deserialize)]
struct Parts {
    segment: Segment,
    lock: Mutex<()>,
    len: usize,
    stride: usize,
}

impl<T> TryFrom<Parts> for Array<T> {
    type Error = ShmError;

    fn try_from(parts: Parts) -> Result<Self, ShmError> {
        let Parts {
            segment,
            lock,
            len,
            stride,
        } = parts;
        if room(len, stride) > segment.len() {
            return Err(ShmError::Invalid {
                name: segment.name().into(),
                reason: format!("it is too short for {len} elements of {stride} bytes"),
            });
        }
        Ok(Array {
            segment,
            lock,
            len,
            stride,
            _elements: PhantomData,
        })
    }
}

/// The bytes of a segment for so many elements. Those of no bytes take one, so that there cannot
/// be more of them than the segment is long.
fn room(len: usize, stride: usize) -> usize {
    stride.max(1).saturating_mul(len)
}

/// The array, held; let go when dropped. A fork of the holder has a copy of this and not the lock:
/// there its calls are [`MutexError::Locked`].
#[must_use = "the array is let go when the guard is dropped"]
pub struct ArrayGuard<'a, T> {
    array: &'a Array<T>,
    guard: MutexGuard<'a, ()>,
}

/// An array could not be made, read or written.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum ArrayError {
    /// It is not that long.
    #[error("{start}..{end} is not inside an array of {len} elements")]
    OutOfRange {
        /// The first element asked for.
        start: usize,
        /// One behind the last.
        end: usize,
        /// The array's length.
        len: usize,
    },
    /// The elements do not all take the same number of bytes.
    #[error(
        "an element of {bytes} bytes does not fit an array whose elements have {stride}: those of \
         different lengths go into a `Value<Vec<_>>`"
    )]
    Uneven {
        /// The element's length.
        bytes: usize,
        /// What the others have.
        stride: usize,
    },
    /// The lock was not to be had.
    #[error(transparent)]
    Lock(#[from] MutexError),
    /// There is no shared memory for it.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// An element does not let itself be turned into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The bytes are no element: some process has overwritten them.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Serialize + DeserializeOwned> Array<T> {
    /// An array with these elements.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Uneven`], [`ArrayError::Memory`], [`ArrayError::Encode`].
    pub fn new(elements: &[T]) -> Result<Self, ArrayError> {
        let stride = match elements.first() {
            Some(first) => codec::encode(first)?.len(),
            None => 0,
        };
        let bytes = room(elements.len(), stride).max(1);
        let array = Array {
            segment: Segment::create(bytes)?,
            lock: Mutex::with_capacity((), 0)?,
            len: elements.len(),
            stride,
            _elements: PhantomData,
        };
        array.write(0, elements)?;
        Ok(array)
    }

    /// An array of `len` default elements (zeroes, of numbers).
    ///
    /// # Errors
    ///
    /// As [`Array::new`].
    pub fn zeroed(len: usize) -> Result<Self, ArrayError>
    where
        T: Default + Clone,
    {
        Self::new(&vec![T::default(); len])
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of one element.
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn get(&self, index: usize) -> Result<T, ArrayError> {
        self.lock_untold()?.get(index)
    }

    /// Replaces one element.
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn set(&self, index: usize, element: T) -> Result<(), ArrayError> {
        self.write(index, &[element])
    }

    /// Changes one element while nobody else can look.
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn update<R>(
        &self,
        index: usize,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, ArrayError> {
        let guard = self.lock_untold()?;
        let mut element = guard.get(index)?;
        let result = change(&mut element);
        guard.write(index, &[element])?;
        Ok(result)
    }

    /// Copies of a range of elements.
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn read(&self, range: Range<usize>) -> Result<Vec<T>, ArrayError> {
        self.lock_untold()?.read(range)
    }

    /// Replaces the elements from `start` on.
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn write(&self, start: usize, elements: &[T]) -> Result<(), ArrayError> {
        self.lock_untold()?.write(start, elements)
    }

    /// Holds the array, for several steps at once. Blocks until nobody else does.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Lock`].
    #[doc(alias = "get_lock")]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, ArrayError> {
        Ok(self.held(self.lock.lock()?))
    }

    /// As [`Array::lock`], at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Array::lock`]; too late is [`MutexError::Locked`].
    ///
    /// ```
    /// use common::shared::{Array, ArrayError};
    /// use common::sync::MutexError;
    /// use std::time::Duration;
    ///
    /// let array = Array::new(&[1, 2])?;
    /// let _held = array.lock()?;
    /// let hasty = || array.lock_timeout(Duration::from_millis(10)).map(drop);
    /// let late = std::thread::scope(|scope| scope.spawn(hasty).join().unwrap());
    /// assert_eq!(late, Err(ArrayError::Lock(MutexError::Locked)));
    /// # Ok::<(), ArrayError>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ArrayGuard<'_, T>, ArrayError> {
        Ok(self.held(self.lock.lock_timeout(timeout)?))
    }

    /// For a single step, which cannot say that a holder died: the next one who locks is told.
    fn lock_untold(&self) -> Result<ArrayGuard<'_, T>, ArrayError> {
        Ok(self.held(self.lock.lock_untold(Deadline::Never)?))
    }

    fn held<'a>(&'a self, guard: MutexGuard<'a, ()>) -> ArrayGuard<'a, T> {
        ArrayGuard { array: self, guard }
    }

    fn place(&self, range: &Range<usize>) -> Result<Range<usize>, ArrayError> {
        let (start, end) = (range.start, range.end);
        if start > end || end > self.len {
            let len = self.len;
            return Err(ArrayError::OutOfRange { start, end, len });
        }
        // Before anybody allocates as much for a copy: what is there fits the machine.
        self.segment.reserve(room(end, self.stride))?;
        Ok(start * self.stride..end * self.stride)
    }
}

impl<T: Serialize + DeserializeOwned> ArrayGuard<'_, T> {
    /// Whether one who held the array died with it and this is the first guard since: what it wrote
    /// last may be there in part.
    #[must_use]
    pub fn holder_died(&self) -> bool {
        self.guard.holder_died()
    }

    /// As [`Array::get`].
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn get(&self, index: usize) -> Result<T, ArrayError> {
        let mut one = self.read(index..index.saturating_add(1))?;
        one.pop().ok_or(ArrayError::OutOfRange {
            start: index,
            end: index,
            len: self.array.len,
        })
    }

    /// As [`Array::read`].
    ///
    /// # Errors
    ///
    /// [`ArrayError`].
    pub fn read(&self, range: Range<usize>) -> Result<Vec<T>, ArrayError> {
        self.guard.check_held()?;
        let place = self.array.place(&range)?;
        let mut bytes = vec![0; place.len()];
        if self.array.stride == 0 {
            return range.map(|_| Ok(codec::decode(&[])?)).collect();
        }
        self.array.segment.read(place.start, &mut bytes)?;
        let elements = bytes.chunks(self.array.stride);
        elements
            .map(|element| Ok(codec::decode(element)?))
            .collect()
    }

    /// As [`Array::write`].
    ///
    /// # Errors
    ///
    /// [`ArrayError`]; then nothing was written.
    pub fn write(&self, start: usize, elements: &[T]) -> Result<(), ArrayError> {
        self.guard.check_held()?;
        let place = self
            .array
            .place(&(start..start.saturating_add(elements.len())))?;
        let (mut bytes, stride) = (Vec::with_capacity(place.len()), self.array.stride);
        for element in elements {
            let before = bytes.len();
            codec::encode_into(element, &mut bytes)?;
            let length = bytes.len() - before;
            if length != stride {
                let bytes = length;
                return Err(ArrayError::Uneven { bytes, stride });
            }
        }
        Ok(self.array.segment.write(place.start, &bytes)?)
    }
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Array {
            segment: self.segment.clone(),
            lock: self.lock.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("of", &std::any::type_name::<T>())
            .field("len", &self.len)
            .finish()
    }
}

impl<T> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayGuard")
            .field("array", self.array)
            .finish_non_exhaustive()
    }
}
