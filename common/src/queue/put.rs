//! Putting values.

use super::{PutError, PutManyError, PutReason, Queue, with_batch, with_buffer};
use crate::codec;
use crate::deadline::Deadline;
use crate::departures::Departures;
use crate::ring::{self, Batch};
use serde::Serialize;
use std::time::Duration;

impl<T: Serialize> Queue<T> {
    /// Puts a value. Blocks while the queue is full.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the value: the queue is closed, the value cannot be serialised, or
    /// `/dev/shm` is full.
    pub fn put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::Never)
    }

    /// Puts a value if there is room for it at once. A message that is longer than the whole
    /// queue never finds room at once.
    ///
    /// # Errors
    ///
    /// As [`Queue::put`], and [`PutReason::Full`].
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, value: T) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::Now)
    }

    /// Puts a value. Blocks while the queue is full, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put`], and [`PutReason::Full`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(value, Deadline::after(timeout))
    }

    /// Puts a value, waiting for room until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put_timeout`].
    pub fn put_until(&self, value: T, deadline: Deadline) -> Result<(), PutError<T>> {
        self.send(&value, deadline)
            .map_err(|reason| PutError { value, reason })
    }

    /// As [`Queue::put_until`], looking about as [`Ring::put_looking`].
    pub(super) fn put_looking(
        &self,
        value: T,
        deadline: Deadline,
        time: Duration,
        look: &dyn Fn() -> bool,
    ) -> Result<(), PutError<T>> {
        let put = |bytes: &[u8]| self.ring.put_looking(bytes, deadline, time, look);
        with_buffer(|buffer| encode_and(&value, buffer, put))
            .map_err(|reason| PutError { value, reason })
    }

    fn send(&self, value: &T, deadline: Deadline) -> Result<(), PutReason> {
        let put = |bytes: &[u8]| self.ring.put(&[bytes], deadline);
        with_buffer(|buffer| encode_and(value, buffer, put))
    }

    /// Puts several values, many under one lock: several times faster than one by one. Blocks
    /// while the queue is full; others may put between them.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::new()?;
    /// queue.put_many(0..100)?;
    /// assert_eq!(queue.get_many(1000)?, (0..100).collect::<Vec<_>>());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutManyError`], with the values that were not put.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> Result<(), PutManyError<T>> {
        self.put_many_until(values, Deadline::Never)
    }

    /// As [`Queue::put_many`], at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put_many`], and [`PutReason::Full`].
    pub fn put_many_timeout(
        &self,
        values: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> Result<(), PutManyError<T>> {
        self.put_many_until(values, Deadline::after(timeout))
    }

    fn put_many_until(
        &self,
        values: impl IntoIterator<Item = T>,
        deadline: Deadline,
    ) -> Result<(), PutManyError<T>> {
        let mut values: Vec<T> = values.into_iter().collect();
        let (put, result) = self.send_many(&values, deadline);
        result.map_err(|reason| PutManyError {
            put,
            rest: values.split_off(put),
            reason,
        })
    }

    fn send_many(&self, values: &[T], deadline: Deadline) -> (usize, Result<(), PutReason>) {
        let mut put = 0;
        let mut departures = Vec::new();
        with_batch(|batch| {
            while put < values.len() {
                batch.clear();
                let encoded = fill(batch, &values[put..], &mut departures);
                let (sent, result) = self.ring.put_many(batch, 0, deadline);
                put += sent;
                for (message, departures) in departures.drain(..) {
                    if message < sent {
                        departures.sent();
                    }
                }
                match (result, encoded) {
                    (Err(error), _) => return (put, Err(error.into())),
                    (Ok(()), Err(error)) => return (put, Err(error)),
                    (Ok(()), Ok(())) => {}
                }
            }
            (put, Ok(()))
        })
    }
}

/// Encodes a value and puts the bytes. What counts as on its way from then on does not if that
/// fails.
fn encode_and<T: Serialize>(
    value: &T,
    buffer: &mut Vec<u8>,
    put: impl FnOnce(&[u8]) -> Result<(), ring::PutError>,
) -> Result<(), PutReason> {
    let (encoded, departures) = Departures::of(|| codec::encode_into(value, buffer));
    encoded?;
    put(buffer)?;
    departures.sent();
    Ok(())
}

/// A batch is put once it has so many bytes: under the lock nobody else can put.
const BATCH: usize = 64 << 10;

/// Encodes values up to a batch's size. On an error those before it are in the batch. What counts
/// as on its way from then on is told with the message's number, where there is any.
fn fill<T: Serialize>(
    batch: &mut Batch,
    values: &[T],
    departures: &mut Vec<(usize, Departures)>,
) -> Result<(), PutReason> {
    let mut size = 0;
    for value in values {
        let encode = |out: &mut Vec<u8>| {
            codec::encode_into(value, out)?;
            size = out.len();
            Ok::<(), codec::EncodeError>(())
        };
        let (pushed, its) = Departures::of(|| batch.push_with(encode));
        pushed?;
        if !its.is_empty() {
            departures.push((batch.len() - 1, its));
        }
        if size >= BATCH {
            break;
        }
    }
    Ok(())
}
