//! Bytes as they are, without a codec.

use super::get::patiently;
use super::{GetError, PutReason, Queue};
use crate::deadline::Deadline;
use crate::ring;

impl Queue<[u8]> {
    /// Puts bytes as they are. Blocks while the queue is full.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::<[u8]>::new()?;
    /// queue.put_bytes(b"raw")?;
    /// let mut buffer = Vec::new();
    /// queue.get_into(&mut buffer)?;
    /// assert_eq!(buffer, b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutReason`]; then nothing has been put.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(), PutReason> {
        self.put_bytes_until(bytes, Deadline::Never)
    }

    /// As [`Queue::put_bytes`], waiting for room until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::put_bytes`], and [`PutReason::Full`].
    pub fn put_bytes_until(&self, bytes: &[u8], deadline: Deadline) -> Result<(), PutReason> {
        Ok(self.ring.put(&[bytes], deadline)?)
    }

    /// Gets the oldest message into `buffer`, whose contents it replaces. Blocks while there is
    /// none.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`].
    pub fn get_into(&self, buffer: &mut Vec<u8>) -> Result<(), GetError> {
        self.get_into_until(buffer, Deadline::Never)
    }

    /// As [`Queue::get_into`], waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_timeout`].
    pub fn get_into_until(&self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        patiently(|| self.ring.get(buffer, deadline))
    }

    /// Shows the oldest message to `read` where it lies, without a copy if it is in one piece
    /// there, and takes it out afterwards. Nobody else can get meanwhile, and `read` must not use
    /// this queue. If `read` panics the message stays (one longer than the whole queue is lost).
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::<[u8]>::new()?;
    /// queue.put_bytes(&[1, 2, 3])?;
    /// let sum: u8 = queue.get_with(|bytes| bytes.iter().sum())?;
    /// assert_eq!(sum, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Queue::get`].
    pub fn get_with<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, GetError> {
        self.get_with_until(read, Deadline::Never)
    }

    /// As [`Queue::get_with`], waiting until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`Queue::get_timeout`].
    pub fn get_with_until<R>(
        &self,
        read: impl FnOnce(&[u8]) -> R,
        deadline: Deadline,
    ) -> Result<R, GetError> {
        // A `FnOnce` for a loop: after a kick it has not been called.
        let mut read = Some(read);
        loop {
            let result = self
                .ring
                .get_in_place(deadline, |bytes| read.take().map(|read| read(bytes)));
            match result {
                Ok(Some(result)) => return Ok(result),
                Ok(None) | Err(ring::GetError::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
