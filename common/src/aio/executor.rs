//! From async code to a pool of processes: `loop.run_in_executor(pool, f, args)`.
//!
//! To copy: aio/executor.rs, the folder pool/ and what its mod.rs names.

use crate::function::Function;
use crate::pool::{AsyncResult, Pool, PoolError, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

/// Runs `f(args)`, which computes or blocks, in a process of this program's own pool, without
/// holding up the async code that awaits it. Python's `run_in_executor(ProcessPoolExecutor(), ..)`.
///
/// The pool has as many workers as there are usable CPUs; it is started at the first call and lives
/// as long as the program. With a pool of one's own: [`run_in`].
///
/// Nothing happens before the first poll. Dropping the future cancels the task: if it runs, its
/// worker is killed and replaced.
///
/// # Errors
///
/// [`TaskError`]; [`TaskError::NoWorkers`] also if the pool cannot be started.
///
/// ```
/// use common::aio::run_in_pool;
///
/// # futures::executor::block_on(async {
/// let factors = run_in_pool(|n: u64| (2..n).filter(|x| n % x == 0).count(), (5_040,)).await?;
/// assert_eq!(factors, 58);
/// # Ok::<(), common::pool::TaskError>(())
/// # }).unwrap();
/// ```
#[doc(alias = "run_in_executor")]
pub async fn run_in_pool<F, A, R>(f: F, args: A) -> Result<R, TaskError>
where
    F: Function<A, Output = R>,
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    let pool = programs_pool().map_err(|error| TaskError::NoWorkers {
        reason: error.to_string(),
    })?;
    run_in(pool, f, args).await
}

/// As [`run_in_pool`], in a pool of one's own.
///
/// # Errors
///
/// [`TaskError`].
///
/// ```
/// use common::{aio, pool::Pool};
///
/// let pool = Pool::new(1)?;
/// let sum = futures::executor::block_on(aio::run_in(&pool, |a: u32, b: u32| a + b, (1, 2)))?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn run_in<F, A, R>(pool: &Pool, f: F, args: A) -> Result<R, TaskError>
where
    F: Function<A, Output = R>,
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    CancelOnDrop(pool.apply_async(f, args)).await
}

/// Never dropped; its workers end with the program in any case.
fn programs_pool() -> Result<&'static Pool, PoolError> {
    static POOL: Mutex<Option<&'static Pool>> = Mutex::new(None);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match *pool {
        Some(pool) => Ok(pool),
        None => Ok(pool.insert(Box::leak(Box::new(Pool::builder().build()?)))),
    }
}

struct CancelOnDrop<R>(AsyncResult<R>);

impl<R> Future for CancelOnDrop<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<R> Drop for CancelOnDrop<R> {
    fn drop(&mut self) {
        // Of no consequence where it is done already.
        self.0.cancel();
    }
}
