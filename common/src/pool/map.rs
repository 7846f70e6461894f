//! `map` and its siblings: one function, many items, results in order.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::chunk::Chunk;
use super::chunking::Chunking;
use super::engine::Engine;
use super::error::TaskError;
use super::job::Job;
use super::message::{Items, entry_bytes};
use super::result::wait_job;
use super::{AsyncResult, Pool, lock};
use crate::deadline::Deadline;
use crate::function::{BadEntry, EntryRef, Function};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::sync::Arc;
use std::time::Duration;

/// Items are handed over in lots of this many bytes or items.
const LOT_BYTES: usize = 256 << 10;
const LOT_ITEMS: usize = 16 << 10;
/// The first lot is small: the sooner the workers have something to do.
const FIRST_LOT: usize = 64;

impl Pool {
    /// Runs `f` on each item and waits for all; the results are in the items' order.
    ///
    /// Items travel in chunks of at most `ceil(n / (4 * workers))`, Python's rule, and of as many
    /// as take a few milliseconds: slow ones travel alone. [`map_chunked`](Self::map_chunked)
    /// fixes the size. To wait for a limited time, use [`map_async`](Self::map_async) and
    /// [`AsyncResult::get_timeout`](super::AsyncResult::get_timeout). An item that has to wait for
    /// what comes of those before it may wait for ever, unless [`imap`](Self::imap) takes it.
    ///
    /// # Errors
    ///
    /// The error of the first item that has one, after all are done, as in Python.
    /// [`try_map`](Self::try_map) stops at the first.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// assert_eq!(pool.map(|x: i64| x * x, 0..4)?, [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<F, A, R, I>(&self, f: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.finish_map(self.spread(Plan::of::<F, (A,)>(f), alone(items), true)?)
    }

    /// As [`map`](Self::map), with chunks of `size` items (the last may be smaller).
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    #[doc(alias = "chunksize")]
    pub fn map_chunked<F, A, R, I>(&self, f: F, items: I, size: usize) -> Result<Vec<R>, TaskError>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.finish_map(self.spread(Plan::of::<F, (A,)>(f).chunks(size), alone(items), true)?)
    }

    /// As [`map`](Self::map) without waiting.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// let squares = pool.map_async(|x: i64| x * x, 0..4);
    /// assert_eq!(squares.get()?, [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_async<F, A, R, I>(&self, f: F, items: I) -> AsyncResult<Vec<R>>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.async_map(Plan::of::<F, (A,)>(f), alone(items))
    }

    /// As [`map_async`](Self::map_async), with chunks of `size` items.
    pub fn map_async_chunked<F, A, R, I>(&self, f: F, items: I, size: usize) -> AsyncResult<Vec<R>>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.async_map(Plan::of::<F, (A,)>(f).chunks(size), alone(items))
    }

    /// As [`map`](Self::map) for a function of several arguments: each item is a tuple of them.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// assert_eq!(pool.starmap(u32::pow, [(2, 3), (3, 2)])?, [8, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn starmap<F, A, R, I>(&self, f: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.finish_map(self.spread(Plan::of(f), items, true)?)
    }

    /// As [`starmap`](Self::starmap), with chunks of `size` items.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    pub fn starmap_chunked<F, A, R, I>(
        &self,
        f: F,
        items: I,
        size: usize,
    ) -> Result<Vec<R>, TaskError>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.finish_map(self.spread(Plan::of(f).chunks(size), items, true)?)
    }

    /// As [`starmap`](Self::starmap) without waiting.
    pub fn starmap_async<F, A, R, I>(&self, f: F, items: I) -> AsyncResult<Vec<R>>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.async_map(Plan::of(f), items)
    }

    /// As [`starmap_async`](Self::starmap_async), with chunks of `size` items.
    pub fn starmap_async_chunked<F, A, R, I>(
        &self,
        f: F,
        items: I,
        size: usize,
    ) -> AsyncResult<Vec<R>>
    where
        F: Function<A, Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.async_map(Plan::of(f).chunks(size), items)
    }

    /// As [`map`](Self::map), for a function that also takes the state that the pool's
    /// [`initializer`](super::PoolBuilder::initializer) made in the worker, and may change it.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map); [`TaskError::State`] if the initializer makes another type.
    ///
    /// ```
    /// use common::pool::Pool;
    ///
    /// fn count(calls: &mut u32, _item: u8) -> u32 {
    ///     *calls += 1;
    ///     *calls
    /// }
    ///
    /// let pool = Pool::builder().workers(1).initializer(|| 0u32, ()).build()?;
    /// assert_eq!(pool.map_with(count, 0..3)?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_with<F, S, A, R, I>(&self, f: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
        S: 'static,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.finish_map(self.spread(Plan::with_state(f), alone(items), true)?)
    }

    /// As [`map`](Self::map), but the first error ends it: the other items are cancelled, those
    /// that run are killed with their workers.
    ///
    /// # Errors
    ///
    /// The error that came first.
    ///
    /// ```
    /// # use common::pool::TaskError;
    /// # let pool = common::pool::Pool::new(2)?;
    /// fn check(n: u64) {
    ///     assert!(n > 0, "n is {n}");
    ///     std::thread::sleep(std::time::Duration::from_secs(n));
    /// }
    /// let error = pool.try_map(check, [3600, 0, 3600]).unwrap_err();
    /// assert!(matches!(error, TaskError::Panicked { message, .. } if message == "n is 0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_map<F, A, R, I>(&self, f: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let job = self.spread(Plan::of::<F, (A,)>(f).hasty(), alone(items), true)?;
        wait_job(&self.engine, &job, Deadline::Never, || {
            job.is_finished() || job.has_failed()
        });
        let first = job.earliest_error();
        self.engine.end_job(&job, TaskError::Cancelled, true);
        match first {
            Some(error) => Err(error),
            None => job.all(),
        }
    }

    fn finish_map<R: DeserializeOwned>(&self, job: Arc<Job>) -> Result<Vec<R>, TaskError> {
        self.wait_job(&job);
        job.all()
    }

    fn async_map<I, R>(&self, plan: Plan, items: I) -> AsyncResult<Vec<R>>
    where
        I: IntoIterator<Item: Serialize>,
        R: DeserializeOwned,
    {
        let name = plan.name;
        let job = self
            .spread(plan, items, false)
            .unwrap_or_else(|error| Job::failed(name, error));
        AsyncResult::new(self.engine.clone(), job, Job::all::<R>)
    }

    /// Submits all tuples of arguments as one job. If the iterator panics the job is cancelled.
    fn spread<I: IntoIterator<Item: Serialize>>(
        &self,
        plan: Plan,
        items: I,
        leading: bool,
    ) -> Result<Arc<Job>, TaskError> {
        self.engine.check_open()?;
        let entry = plan.entry.map_err(TaskError::Function)?;
        let chunking = match plan.size {
            Some(size) => Chunking::fixed(size),
            None => Chunking::adaptive(self.workers()),
        };
        let spares = &self.engine.spares;
        let job = Job::new(plan.name, entry_bytes(entry), chunking, true, spares.take());
        self.engine.open_job(leading);
        let unfinished = Unsealed {
            engine: &self.engine,
            job: &job,
        };
        let mut lot = Items::new(spares.take(), 0);
        for item in items {
            if let Err(error) = lot.push(&item) {
                self.engine.end_job(&job, TaskError::Encode(error), false);
            } else if is_full(&lot, job.chunking.size()) {
                let next = Items::new(spares.take(), lot.base + lot.len());
                self.engine.submit(&job, std::mem::replace(&mut lot, next));
                self.engine.make_way(&job, leading);
            }
            // The input may be endless.
            if job.is_finished() || plan.hasty && job.has_failed() {
                break;
            }
        }
        if lot.len() > 0 {
            self.engine.submit(&job, lot);
        }
        self.engine.seal(&job);
        std::mem::forget(unfinished);
        Ok(job)
    }
}

/// A caller that waits anyway encodes no more than this ahead of the workers.
const AHEAD: usize = 8 << 20;

impl Engine {
    /// Takes the results that are there, and more until less waits if the caller `waits` anyway.
    fn make_way(&self, job: &Arc<Job>, waits: bool) {
        self.drain();
        let enough = || job.is_finished() || lock(&self.core).backlog_bytes <= AHEAD;
        while waits && !enough() {
            self.wait(Deadline::after(Duration::from_millis(2)), enough);
        }
    }
}

/// What a `map` runs.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) entry: Result<EntryRef, BadEntry>,
    size: Option<usize>,
    /// Whether the first error ends it.
    hasty: bool,
}

impl Plan {
    /// `f` on each tuple of arguments.
    pub(super) fn of<F, A>(f: F) -> Self
    where
        F: Function<A, Output: Serialize + 'static>,
        A: DeserializeOwned + 'static,
    {
        Plan {
            name: type_name::<F>(),
            entry: Chunk::entry::<F, A>(f),
            size: None,
            hasty: false,
        }
    }

    /// `f` on the worker's state and each item.
    fn with_state<F, S, A, R>(f: F) -> Self
    where
        F: Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
        S: 'static,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        Plan {
            name: type_name::<F>(),
            entry: Chunk::entry_with::<F, S, A, R>(f),
            size: None,
            hasty: false,
        }
    }

    fn chunks(mut self, size: usize) -> Self {
        self.size = Some(size.max(1));
        self
    }

    fn hasty(mut self) -> Self {
        self.hasty = true;
        self
    }
}

/// The tuples of arguments of a function of one.
fn alone<A>(items: impl IntoIterator<Item = A>) -> impl Iterator<Item = (A,)> {
    items.into_iter().map(|item| (item,))
}

#[inline]
fn is_full(lot: &Items, size: Option<usize>) -> bool {
    // Chunks are not cut across lots.
    if size.is_some_and(|size| !lot.len().is_multiple_of(size)) {
        return false;
    }
    let first = lot.base == 0 && lot.len() >= FIRST_LOT;
    first || lot.len() >= LOT_ITEMS || lot.size() >= LOT_BYTES
}

/// Cancels a job whose last item was never submitted.
struct Unsealed<'a> {
    engine: &'a Engine,
    job: &'a Arc<Job>,
}

impl Drop for Unsealed<'_> {
    fn drop(&mut self) {
        self.engine.end_job(self.job, TaskError::Cancelled, false);
    }
}
