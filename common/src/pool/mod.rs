//! A pool of worker processes that takes tasks; Python's `multiprocessing.Pool`.
//!
//! ```text
//!   this process                 |  shared memory       |  worker processes
//!   apply, map, ... -> backlog  -|->  task ring  -------|->  take: claim + get, one step
//!                                |    claims table  <---|->  run f(args) on each item
//!   whoever waits   <- answers  <|--  result ring  <----|--  send the results
//!   monitor: pidfds, deadlines, replacements             |
//!   collector: results nobody waits for, callbacks       |
//! ```
//!
//! Workers take tasks when they are free, so load balances itself. When a worker dies the claims
//! table says exactly what it had: that one task fails with [`TaskError::WorkerDied`] (or is tried
//! again: [`PoolBuilder::retries`]), nothing else notices, and the worker is replaced.
//!
//! A pool that is dropped is terminated: its workers are killed, and what has not been answered
//! is cancelled. [`Pool::finish`] lets it end what it has.
//!
//! Nothing of this can be used from a worker: a task that wants a pool makes its own. Tasks that are
//! coroutines (`async fn`) go to [a pool of coroutines](crate::aio::pool).
//!
//! To copy: the folder pool/, the folder process/, ring/, sync/robust.rs, sync/signal.rs, shm/,
//! departures.rs, futex.rs, deadline.rs, reactor.rs, function.rs, image.rs, panic.rs, codec.rs.

mod answers;
mod builder;
mod chunk;
mod chunking;
mod claims;
mod collect;
mod crew;
mod deadlock;
mod dispatch;
mod ending;
mod engine;
mod error;
mod imap;
mod job;
mod map;
mod message;
mod monitor;
mod port;
mod result;
mod spares;
mod stats;
mod waiter;
mod worker;

pub use builder::PoolBuilder;
pub use error::{PoolError, TaskError, TaskId};
pub use imap::{IMap, IMapUnordered};
pub use result::{AsCompleted, AsyncResult, as_completed, wait_all, wait_any};
pub use stats::{Event, PoolStats, WorkerStats};

pub(crate) use builder::Settings;

use crate::deadline::Deadline;
use crate::function::Function;
use chunk::Chunk;
use chunking::Chunking;
use dispatch::Phase;
use engine::Engine;
use job::Job;
use message::{Items, entry_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use spares::Buffer;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A pool of worker processes; Python's `multiprocessing.Pool`.
///
/// Dropping it terminates it (see [`terminate`](Pool::terminate)); call
/// [`finish`](Pool::finish) to let it end what it has.
///
/// ```
/// use common::pool::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.apply(square, (5,))?, 25);
/// assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "ProcessPoolExecutor")]
pub struct Pool {
    engine: Arc<Engine>,
}

impl Pool {
    /// Starts a pool of `workers` processes. Does not wait until they are ready.
    ///
    /// # Errors
    ///
    /// [`PoolError`], for no workers as well; then none is left running.
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// Describes a pool before it is started.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    pub(crate) fn of(engine: Arc<Engine>) -> Pool {
        Pool { engine }
    }

    /// Runs `f(args)` in a worker and waits for what it returns. `args` is the tuple of its
    /// arguments. To wait for a limited time, use [`apply_async`](Self::apply_async) and
    /// [`AsyncResult::get_timeout`].
    ///
    /// # Errors
    ///
    /// [`TaskError`]: why there is no result. An error that `f` itself returns is a result.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(1)?;
    /// assert_eq!(pool.apply(|a: String, n: usize| a.repeat(n), ("ab".to_string(), 2))?, "abab");
    /// let parse = |text: String| text.parse::<u8>().map_err(|error| error.to_string());
    /// let own: Result<u8, String> = pool.apply(parse, ("x".to_string(),))?;
    /// assert!(own.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply<F, A, R>(&self, f: F, args: A) -> Result<R, TaskError>
    where
        F: Function<A, Output = R>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let job = self.submit_one(f, &args, true)?;
        drop(args);
        self.wait_job(&job);
        job.one()
    }

    /// As [`apply`](Pool::apply) without waiting: a handle on the result to come. What is wrong
    /// with the submission comes out of the handle as well.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(1)?;
    /// let sum = pool.apply_async(|a: u32, b: u32| a + b, (1, 2));
    /// assert_eq!(sum.get()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "submit")]
    pub fn apply_async<F, A, R>(&self, f: F, args: A) -> AsyncResult<R>
    where
        F: Function<A, Output = R>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let job = self
            .submit_one(f, &args, false)
            .unwrap_or_else(|error| Job::failed(std::any::type_name::<F>(), error));
        AsyncResult::new(self.engine.clone(), job, Job::one::<R>)
    }

    fn submit_one<F, A, R>(&self, f: F, args: &A, leading: bool) -> Result<Arc<Job>, TaskError>
    where
        F: Function<A, Output = R>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.engine.check_open()?;
        let entry = Chunk::entry::<F, A>(f).map_err(TaskError::Function)?;
        let items = Items::single(args).map_err(TaskError::Encode)?;
        let name = std::any::type_name::<F>();
        let entry = entry_bytes(entry);
        let job = Job::new(name, entry, Chunking::single(), false, Buffer::default());
        self.engine.open_job(leading);
        self.engine.submit_whole(&job, items);
        Ok(job)
    }

    fn wait_job(&self, job: &Arc<Job>) {
        result::wait_job(&self.engine, job, Deadline::Never, || job.is_finished());
    }

    /// How many workers it has.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.engine.settings.workers
    }

    /// What it is doing: for each worker its process id, tasks, time, restarts and memory.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// pool.map(|x: u8| x, 0..10)?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 10);
    /// assert_eq!(stats.queued, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.engine.stats()
    }

    /// Takes no more tasks; those it has are finished. Python's `close`.
    pub fn close(&self) {
        let mut core = lock(&self.engine.core);
        if core.phase == Phase::Open {
            core.phase = Phase::Closed;
        }
    }

    /// Ends it at once: the workers are killed, and what has not been answered is answered with
    /// [`TaskError::Cancelled`]. May be called from any thread and from a callback, and again.
    ///
    /// ```
    /// use common::pool::{Pool, TaskError};
    /// let pool = Pool::new(1)?;
    /// let never = pool.apply_async(|| std::thread::sleep(std::time::Duration::MAX), ());
    /// pool.terminate();
    /// assert_eq!(never.get(), Err(TaskError::Cancelled));
    /// assert_eq!(pool.apply(|| 1, ()), Err(TaskError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn terminate(&self) {
        self.engine.terminate();
    }

    /// Waits until a closed pool has finished its tasks, the callbacks have returned, and its workers
    /// have ended.
    ///
    /// # Errors
    ///
    /// [`PoolError::Open`] unless [`close`](Pool::close) or [`terminate`](Pool::terminate) was
    /// called; [`PoolError::NotOwner`] in a fork of the process that made the pool.
    pub fn join(&self) -> Result<(), PoolError> {
        self.engine.join(Deadline::Never).map(drop)
    }

    /// As [`join`](Pool::join), for at most `timeout`: false if tasks or callbacks were left then, and
    /// the pool is as it was. Workers that are slow to exit after their last task are killed in time.
    ///
    /// # Errors
    ///
    /// As [`join`](Pool::join).
    ///
    /// ```
    /// use std::time::Duration;
    /// # let pool = common::pool::Pool::new(1)?;
    /// let nap = pool.apply_async(|| std::thread::sleep(Duration::from_secs(60)), ());
    /// pool.close();
    /// assert!(!pool.join_timeout(Duration::from_millis(10))?);
    /// nap.cancel();
    /// assert!(pool.join_timeout(Duration::from_secs(30))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool, PoolError> {
        self.engine.join(Deadline::after(timeout))
    }

    /// Closes it and waits until everything it was given is done.
    ///
    /// # Errors
    ///
    /// As [`join`](Pool::join), but for [`PoolError::Open`].
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(1)?;
    /// let result = pool.apply_async(|| 7, ());
    /// pool.finish()?;
    /// assert!(result.is_ready());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "shutdown")]
    pub fn finish(self) -> Result<(), PoolError> {
        self.close();
        self.join()
    }
}

impl Default for Pool {
    /// As many workers as there are usable cores.
    ///
    /// # Panics
    ///
    /// If the workers cannot be started; [`Pool::builder`] gives an error instead.
    fn default() -> Self {
        match Pool::builder().build() {
            Ok(pool) => pool,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.engine.terminate();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.engine.settings.name)
            .field("workers", &self.engine.settings.workers)
            .finish_non_exhaustive()
    }
}

/// Where a test may kill the worker.
#[cfg(not(test))]
#[inline]
fn step(_: &'static str) {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests;

/// What these mutexes guard is changed in steps that do not panic, or is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, T> {
    match timeout {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            let waited = condvar.wait_timeout(guard, timeout);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
