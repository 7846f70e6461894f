//! A pool of processes each of which keeps many coroutines going at once, for work that computes
//! and waits. (Python: `aiomultiprocess`.)
//!
//! ```text
//!   this process                            |   worker processes
//!   pool.apply(f, args).await               |
//!     entry of f, encoded args              |
//!        |                                  |
//!        v                                  |
//!   driver: waiting -> most room  -- Run -----> tokio runtime, up to `in_flight` coroutines
//!     one tokio task, on this   <- Taken ---    before anything of it is started
//!     library's own thread      <- Done  ---    values, errors, panics
//! ```
//!
//! The pool can be used from any executor: its futures are woken by the driver, and none of them
//! blocks its thread; starting the pool and dropping it do, while processes start and end. Its
//! workers are those of a [`crate::pool::Pool`], each of which has one task: to run
//! coroutines. So how they are started, limited, watched and replaced is that pool's business
//! ([`Builder::hosts`]).
//!
//! A worker that dies takes with it only what it had taken: each coroutine is told
//! ([`TaskError::WorkerDied`]), or run again by another worker, if [`Builder::retries`] allows.
//! What it had been sent but not taken has not run, and simply goes to another worker.
//!
//! A worker costs little: with nothing to do it holds about 0.3 MB of memory of its own, with
//! 1,000 coroutines that sleep about 0.9 MB (measured, 64-bit Linux, release build); what else `ps`
//! shows, some 3 MB, is the program's code, which all of them share.
//!
//! There are two limits of time. [`Builder::task_timeout`] cancels the coroutine at an await,
//! inside its worker. A coroutine that blocks its worker's loop cannot be cancelled:
//! [`Builder::hard_timeout`] kills its worker.
//!
//! To copy: the folder aio/pool/, aio/gather.rs, reactor.rs, the folder pool/ and what its mod.rs
//! names.

mod builder;
mod calls;
mod coroutine;
mod driver;
mod error;
mod host;
mod slot;
mod wire;
mod worker;

pub use crate::pool::{PoolError, TaskError, TaskId};
pub use builder::Builder;
pub use coroutine::AsyncFunction;

use calls::Client;
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;

/// Worker processes that run coroutines.
///
/// Dropping it kills the workers; coroutines that had not ended give [`TaskError::Cancelled`]. To
/// let them end, [`finish`](Self::finish) it.
///
/// ```
/// use common::aio::pool::Pool;
/// use std::time::Duration;
///
/// async fn square(x: u64) -> u64 {
///     tokio::time::sleep(Duration::from_millis(10)).await;
///     x * x
/// }
///
/// // Any executor will do.
/// futures::executor::block_on(async {
///     let pool = Pool::new(2)?;
///     assert_eq!(pool.apply(square, (7,)).await?, 49);
///     assert_eq!(pool.map(square, 0..5).await?, [0, 1, 4, 9, 16]);
///     pool.finish().await;
///     Ok::<(), Box<dyn std::error::Error>>(())
/// }).unwrap();
/// ```
#[derive(Debug)]
pub struct Pool {
    client: Client,
}

impl Pool {
    /// A pool of so many workers, with everything else as [`Builder`] has it by default. They are
    /// started at once; this does not wait for them.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if `workers` is zero, or there are no descriptors or threads to be had.
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// Describes a pool before it is made.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs `f(args)` in a worker; `args` is the tuple of its arguments.
    ///
    /// Nothing happens before the first poll. While as many coroutines are under way as the
    /// pool takes ([`Builder::window`]), it waits. Dropping the future cancels the coroutine.
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    pub fn apply<F, A, R>(
        &self,
        f: F,
        args: A,
    ) -> impl Future<Output = Result<R, TaskError>> + Send + use<F, A, R>
    where
        F: AsyncFunction<A, Value = R>,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let client = self.client.clone();
        async move {
            let mut ends = client.run(f, vec![args], None).await;
            ends.pop().unwrap_or(Err(TaskError::Closed))
        }
    }

    /// Runs `f(item)` for each item, in the workers, at the same time; gives the values in the
    /// items' order.
    ///
    /// Dropping the future cancels what has not ended.
    ///
    /// # Errors
    ///
    /// The [`TaskError`] of the first item, in order, that gave no value; all are waited for
    /// before, as in Python.
    pub fn map<F, I, T, R>(
        &self,
        f: F,
        items: I,
    ) -> impl Future<Output = Result<Vec<R>, TaskError>> + Send + use<F, I, T, R>
    where
        F: AsyncFunction<(T,), Value = R>,
        I: IntoIterator<Item = T>,
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let items: Vec<T> = items.into_iter().collect();
        let chunk = self.client.chunk_of(items.len());
        let ends = self.client.chunks(f, items.into_iter(), chunk).in_order();
        async move {
            let chunks: Vec<_> = ends.collect().await;
            chunks.into_iter().flatten().collect()
        }
    }

    /// Runs `f(item)` for each item, in the workers, and gives the values as they come.
    ///
    /// The iterator is drawn at most [`Builder::window`] items ahead, so that it may be endless.
    /// With a [`Builder::chunk_size`] greater than one, the values of a chunk come together.
    /// Dropping the stream cancels what has not ended.
    ///
    /// # Errors
    ///
    /// The stream gives a [`TaskError`] in place of the value of each item that has none, and goes
    /// on.
    ///
    /// ```
    /// use futures::TryStreamExt;
    ///
    /// async fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let pool = common::aio::pool::Pool::new(2)?;
    /// let squares = pool.imap_unordered(square, 0..4);
    /// let mut squares: Vec<u64> = futures::executor::block_on(squares.try_collect())?;
    /// squares.sort();
    /// assert_eq!(squares, [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap_unordered<F, I, R>(
        &self,
        f: F,
        items: I,
    ) -> impl Stream<Item = Result<R, TaskError>> + Send + use<F, I, R>
    where
        F: AsyncFunction<(I::Item,), Value = R>,
        I: IntoIterator<Item: Serialize + DeserializeOwned + Send + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let chunk = self.client.chunk_of_stream();
        let chunks = self.client.chunks(f, items.into_iter(), chunk);
        chunks.unordered().flat_map(stream::iter)
    }

    /// As [`imap_unordered`](Self::imap_unordered), but in the items' order.
    ///
    /// # Errors
    ///
    /// As [`imap_unordered`](Self::imap_unordered).
    pub fn imap<F, I, R>(
        &self,
        f: F,
        items: I,
    ) -> impl Stream<Item = Result<R, TaskError>> + Send + use<F, I, R>
    where
        F: AsyncFunction<(I::Item,), Value = R>,
        I: IntoIterator<Item: Serialize + DeserializeOwned + Send + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let chunk = self.client.chunk_of_stream();
        let chunks = self.client.chunks(f, items.into_iter(), chunk);
        chunks.in_order().flat_map(stream::iter)
    }

    /// Waits until the coroutines asked for so far have ended, and ends the workers. What is asked
    /// for meanwhile, by a future or stream that is still there, gives [`TaskError::Closed`]. None
    /// of them has to be polled meanwhile.
    pub async fn finish(self) {
        self.client.finish().await;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.client.terminate();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use testkit::isolated;

    async fn three() -> u8 {
        3
    }

    #[test]
    fn what_is_asked_for_while_the_pool_finishes_is_refused() {
        isolated(|| {
            let pool = Pool::new(1).unwrap();
            block_on(async {
                assert_eq!(pool.apply(three, ()).await, Ok(3));
                // As `Pool::finish`, between its two steps.
                pool.client.finish().await;
                let mut late = pin!(pool.apply(three, ()));
                let pending = poll_fn(|cx| Poll::Ready(late.as_mut().poll(cx).is_pending()));
                assert!(pending.await);
                drop(pool);
                assert_eq!(late.await, Err(TaskError::Closed));
            });
        });
    }
}
