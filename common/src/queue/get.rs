//! Getting values.

use super::{GetError, GetManyError, Queue, with_batch, with_buffer};
use crate::codec;
use crate::deadline::Deadline;
use crate::ring;
use serde::de::DeserializeOwned;
use std::time::Duration;

impl<T: DeserializeOwned> Queue<T> {
    /// Gets the oldest value. Blocks while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError::Closed`] once the queue is closed and drained.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Never)
    }

    /// Gets the oldest value if there is one.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`], and [`GetError::Empty`].
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Now)
    }

    /// Gets the oldest value. Blocks while there is none, at most for `timeout`; only a message
    /// longer than the whole queue that has begun to come may take longer to come to its end.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`], and [`GetError::Empty`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Gets the oldest value, waiting for one until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_timeout`].
    pub fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        with_buffer(|buffer| {
            patiently(|| self.ring.get(buffer, deadline))?;
            Ok(codec::decode(buffer)?)
        })
    }

    /// Gets up to `most` values that are there under one lock; blocks while there is none.
    ///
    /// # Errors
    ///
    /// [`GetManyError`], for the reasons of [`Queue::get`], with the values that were got although
    /// another was none of the queue's type.
    pub fn get_many(&self, most: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_until(most, Deadline::Never)
    }

    /// As [`Queue::get_many`], blocking at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_many`], and [`GetError::Empty`].
    pub fn get_many_timeout(
        &self,
        most: usize,
        timeout: Duration,
    ) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_until(most, Deadline::after(timeout))
    }

    fn get_many_until(&self, most: usize, deadline: Deadline) -> Result<Vec<T>, GetManyError<T>> {
        with_batch(|batch| {
            let (mut got, mut bad) = (Vec::new(), None);
            if let Err(reason) = patiently(|| self.ring.get_many(batch, most, deadline)) {
                return Err(GetManyError { got, reason });
            }
            got.reserve(batch.len());
            for bytes in batch.iter() {
                match codec::decode(bytes) {
                    Ok(value) => got.push(value),
                    // The others are out of the queue as well.
                    Err(error) => bad = bad.or(Some(error)),
                }
            }
            match bad {
                None => Ok(got),
                Some(error) => Err(GetManyError {
                    got,
                    reason: error.into(),
                }),
            }
        })
    }

    /// The values as they come, until the queue is closed and drained. Blocks while there is
    /// none. An error ends it, after it has been given; but one message that is none of the queue's
    /// type does not.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::new()?;
    /// queue.put_many([1, 2, 3])?;
    /// queue.close();
    /// let sum: Result<i32, _> = queue.iter().sum();
    /// assert_eq!(sum?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<T, GetError>> + use<'_, T> {
        until_the_end(|| self.get())
    }
}

/// What `get` gives until it is closed; any error but that of a single message is the last.
pub(super) fn until_the_end<T>(
    mut get: impl FnMut() -> Result<T, GetError>,
) -> impl Iterator<Item = Result<T, GetError>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match get() {
            Err(GetError::Closed) => None,
            other => {
                ended = matches!(&other, Err(error) if !matches!(error, GetError::Decode(_)));
                Some(other)
            }
        }
    })
}

/// Asks again after a kick, which is not meant for queues.
pub(super) fn patiently<R>(
    mut get: impl FnMut() -> Result<R, ring::GetError>,
) -> Result<R, GetError> {
    loop {
        match get() {
            Err(ring::GetError::Interrupted) => {}
            other => return Ok(other?),
        }
    }
}
