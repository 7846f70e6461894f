//! A pool of workers in a manager.
//!
//! ```text
//!   any process              |   manager's process              |   workers
//!   apply(f, args) --------> |   pool.apply_async(f, args) ---> |   f(args)
//!   waits                    |   runs others' calls meanwhile   |
//!          <---------------- |   <----------------------------- |   result
//! ```
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::typed_proxy;
use super::{CallError, CallFuture, Item, Manager, Proxy};
use crate::deadline::Deadline;
use crate::function::{Function, instance};
use crate::pool::{AsyncResult, Pool, TaskError};
use serde::{Deserialize, Serialize};

/// Python's `manager.Pool()`: a [`Pool`] that any process gives tasks to.
///
/// Its workers belong to the manager. A task that takes long does not hold up the manager, and
/// one that kills its worker fails alone: of the two results that each function here gives, the
/// outer one is the manager's, the inner one the task's. A task that was sent runs also if who
/// sent it has died since. When the last proxy is gone, the pool is terminated.
///
/// For what else a [`Pool`] can do there is [`Hosted::proxy`](super::Hosted::proxy):
/// `pool.proxy().call(|pool: &mut Pool| pool.workers(), ())`. Only do not wait in there, because
/// the manager waits with it. A worker that waits for another task of its own pool may wait for
/// ever, as in Python: all the workers may be doing that.
///
/// ```
/// use common::manager::{Manager, PoolProxy};
/// use common::process::Process;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// fn client(pool: PoolProxy) -> Vec<u64> {
///     pool.map(square, 0..4).unwrap().unwrap()
/// }
///
/// let manager = Manager::new()?;
/// let pool = manager.pool(2)?;
/// assert_eq!(pool.apply(square, (5,))??, 25);
/// assert_eq!(Process::spawn(client, (pool.clone(),))?.join()?, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolProxy(Proxy<Pool>);

typed_proxy!(PoolProxy<> of Pool);

impl Manager {
    /// Starts a pool of `workers` processes in the manager. One with other settings is hosted as
    /// any value is:
    ///
    /// ```
    /// use common::manager::{Hosted, Manager, PoolProxy};
    /// use common::pool::Pool;
    ///
    /// let manager = Manager::new()?;
    /// let pool = || Pool::builder().workers(1).retries(2).build().unwrap();
    /// let pool = PoolProxy::from_proxy(manager.host_with(pool, ())?);
    /// assert_eq!(pool.apply(|a: i32, b: i32| a + b, (1, 2))??, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError::Server`] with the reason if the pool cannot be started (no workers, no
    /// memory), and else as any call.
    pub fn pool(&self, workers: usize) -> Result<PoolProxy, CallError> {
        let start = |workers: usize| match Pool::new(workers) {
            Ok(pool) => pool,
            // A panic is how one says that there is no value: the caller is told.
            Err(error) => panic!("{error}"),
        };
        self.host_with(start, (workers,)).map(PoolProxy)
    }
}

impl PoolProxy {
    /// Runs `f(args)` in a worker and waits for what it returns.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the manager cannot be reached (it ended, for instance);
    /// [`CallError::WouldBlock`] in a function that the manager runs. Inside, [`TaskError`]: why
    /// there is no result.
    pub fn apply<F, A, R>(&self, f: F, args: A) -> Result<Result<R, TaskError>, CallError>
    where
        F: Function<A, Output = R>,
        A: Item,
        R: Item,
    {
        let deadline = self.0.deadline();
        self.begin(f, args, deadline).wait_until(deadline)
    }

    /// As [`apply`](PoolProxy::apply) without waiting. The future can also be
    /// [waited](CallFuture::wait_timeout) for, for at most some time.
    ///
    /// ```
    /// use common::manager::{CallError, Manager};
    /// use std::time::Duration;
    ///
    /// let manager = Manager::new()?;
    /// let pool = manager.pool(2)?;
    /// let sums: Vec<_> = (0..10).map(|i| pool.apply_async(|i: u32| i + 1, (i,))).collect();
    /// for (i, sum) in sums.into_iter().enumerate() {
    ///     assert_eq!(sum.wait()??, i as u32 + 1);
    /// }
    /// let slow = pool.apply_async(|| std::thread::sleep(Duration::MAX), ());
    /// let late = slow.wait_timeout(Duration::from_millis(5));
    /// assert!(matches!(late, Err(CallError::Timeout { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn apply_async<F, A, R>(&self, f: F, args: A) -> CallFuture<Result<R, TaskError>>
    where
        F: Function<A, Output = R>,
        A: Item,
        R: Item,
    {
        self.begin(f, args, self.0.deadline())
    }

    fn begin<F, A, R>(&self, f: F, args: A, deadline: Deadline) -> CallFuture<Result<R, TaskError>>
    where
        F: Function<A, Output = R>,
        A: Item,
        R: Item,
    {
        // The type stands for the function, here and there.
        let _ = f;
        let apply = |pool: &mut Pool, args: A| -> AsyncResult<R> {
            pool.apply_async(instance::<F>(), args)
        };
        self.0.call_later(apply, (args,), deadline)
    }

    /// Runs `f(item)` for each item, in chunks, in the workers, and waits for all the results;
    /// they are in the order of the items. Python's `starmap` as well, with tuples for items:
    /// `pool.map(|(a, b): (u32, u32)| a.pow(b), [(2, 3), (3, 2)])`.
    ///
    /// # Errors
    ///
    /// As [`apply`](PoolProxy::apply); of several items that failed the first one's error.
    pub fn map<F, A, R>(
        &self,
        f: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Result<Vec<R>, TaskError>, CallError>
    where
        F: Function<(A,), Output = R>,
        A: Item,
        R: Item,
    {
        let deadline = self.0.deadline();
        self.begin_map(f, items, deadline).wait_until(deadline)
    }

    /// As [`map`](PoolProxy::map) without waiting.
    pub fn map_async<F, A, R>(
        &self,
        f: F,
        items: impl IntoIterator<Item = A>,
    ) -> CallFuture<Result<Vec<R>, TaskError>>
    where
        F: Function<(A,), Output = R>,
        A: Item,
        R: Item,
    {
        self.begin_map(f, items, self.0.deadline())
    }

    fn begin_map<F, A, R>(
        &self,
        f: F,
        items: impl IntoIterator<Item = A>,
        deadline: Deadline,
    ) -> CallFuture<Result<Vec<R>, TaskError>>
    where
        F: Function<(A,), Output = R>,
        A: Item,
        R: Item,
    {
        let _ = f;
        let map = |pool: &mut Pool, items: Vec<A>| -> AsyncResult<Vec<R>> {
            pool.map_async(instance::<F>(), items)
        };
        let items: Vec<A> = items.into_iter().collect();
        self.0.call_later(map, (items,), deadline)
    }
}
