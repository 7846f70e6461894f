//! Handles on results to come.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::collect::this_thread;
use super::engine::Engine;
use super::error::TaskError;
use super::job::{Callback, CallbackOf, Job};
use super::lock;
use super::waiter::{Completions, Waiter};
use crate::deadline::Deadline;
use crate::panic;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// The result to come of [`Pool::apply_async`](super::Pool::apply_async) and its siblings;
/// Python's `AsyncResult`.
///
/// It is also a `Future`, under any executor. Dropping it changes nothing: the tasks run, and
/// their results are forgotten.
///
/// ```
/// # let pool = common::pool::Pool::new(1)?;
/// let result = pool.apply_async(|| 6 * 7, ());
/// assert_eq!(futures::executor::block_on(result)?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it forgets the result; the tasks run all the same"]
pub struct AsyncResult<R> {
    engine: Arc<Engine>,
    job: Arc<Job>,
    decode: fn(&Job) -> Result<R, TaskError>,
}

impl<R> AsyncResult<R> {
    pub(super) fn new(
        engine: Arc<Engine>,
        job: Arc<Job>,
        decode: fn(&Job) -> Result<R, TaskError>,
    ) -> Self {
        AsyncResult {
            engine,
            job,
            decode,
        }
    }

    /// Waits for the result. May be called again.
    ///
    /// # Errors
    ///
    /// [`TaskError`]: why there is none; of a `map` that of the first item that has one.
    pub fn get(&self) -> Result<R, TaskError> {
        self.wait();
        (self.decode)(&self.job)
    }

    /// As [`get`](Self::get), for at most `timeout`; `None` if there is no result then.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let pool = common::pool::Pool::new(1)?;
    /// let slow = pool.apply_async(|| std::thread::sleep(Duration::MAX), ());
    /// assert_eq!(slow.get_timeout(Duration::from_millis(5)), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Option<Result<R, TaskError>> {
        self.wait_timeout(timeout).then(|| (self.decode)(&self.job))
    }

    /// Waits until there is a result or an error.
    pub fn wait(&self) {
        self.wait_until(Deadline::Never);
    }

    /// As [`wait`](Self::wait), for at most `timeout`; whether there is one.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        let job = &self.job;
        wait_job(&self.engine, job, deadline, || job.is_finished())
    }

    /// Whether there is a result or an error.
    #[doc(alias = "ready")]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    /// Whether there is a result (`true`) or an error (`false`); `None` while there is neither.
    #[doc(alias = "successful")]
    #[must_use]
    pub fn is_successful(&self) -> Option<bool> {
        self.is_ready().then(|| !self.job.has_failed())
    }

    /// How many of its tasks have been answered so far.
    #[must_use]
    pub fn progress(&self) -> usize {
        if self.engine.has_answers() {
            self.engine.drain();
        }
        self.job.answered()
    }

    /// Cancels it: what has not begun never will, what runs is killed, and the worker replaced.
    /// `get` gives [`TaskError::Cancelled`] then. False if there is a result or an error already.
    ///
    /// ```
    /// # use common::pool::TaskError;
    /// # let pool = common::pool::Pool::new(1)?;
    /// let slow = pool.apply_async(|| std::thread::sleep(std::time::Duration::MAX), ());
    /// assert!(slow.cancel());
    /// assert_eq!(slow.get(), Err(TaskError::Cancelled));
    /// assert_eq!(pool.apply(|| 1, ())?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        if self.engine.has_answers() {
            self.engine.drain();
        }
        self.engine.end_job(&self.job, TaskError::Cancelled, true)
    }
}

impl<R: 'static> AsyncResult<R> {
    /// Has `f` called with the result, on a thread of the pool, if there comes one. When the pool
    /// has ended and the result is there, `f` is called at once, on this thread.
    ///
    /// It may use the pool, wait for its results, and end it. There is one such thread, so until
    /// `f` has returned other callbacks wait, and so do other threads' futures of the pool.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(1)?;
    /// let (told, hear) = std::sync::mpsc::channel();
    /// let result = pool.apply_async(|| 5, ());
    /// result.on_success(move |five| told.send(five).unwrap());
    /// assert_eq!(hear.recv()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "callback")]
    pub fn on_success(&self, f: impl FnOnce(R) + Send + 'static) -> &Self {
        let decode = self.decode;
        self.call_back(Box::new(move |job| {
            if let Ok(result) = decode(job) {
                f(result);
            }
        }))
    }

    /// Has `f` called with the error, if there comes one: where and when, as in
    /// [`on_success`](Self::on_success).
    #[doc(alias = "error_callback")]
    pub fn on_error(&self, f: impl FnOnce(TaskError) + Send + 'static) -> &Self {
        let decode = self.decode;
        self.call_back(Box::new(move |job| {
            if let Err(error) = decode(job) {
                f(error);
            }
        }))
    }

    fn call_back(&self, callback: Callback) -> &Self {
        self.engine.has_answers();
        match self.job.call_back(callback) {
            None => self.engine.lead.hurry(),
            Some(late) => {
                let late = self.engine.call_soon(vec![(late, self.job.clone())]);
                // Who is to call it may be asleep until there are more results.
                if self.engine.lead.is_someone_elses() {
                    self.engine.results.kick();
                }
                self.engine.call_now(late);
            }
        }
        self
    }
}

impl<R> Future for AsyncResult<R> {
    type Output = Result<R, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.engine.has_answers();
        let waiter = Waiter::Task(context.waker().clone());
        match self.job.watch(waiter) {
            Some(_) => Poll::Ready((self.decode)(&self.job)),
            None => {
                let job = &self.job;
                self.engine.help(context, || job.is_finished());
                Poll::Pending
            }
        }
    }
}

impl<R> std::fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncResult")
            .field("function", &self.job.function)
            .field("ready", &self.job.is_finished())
            .finish_non_exhaustive()
    }
}

/// Waits for something about `job`, which wakes those who watch it.
pub(super) fn wait_job(
    engine: &Engine,
    job: &Arc<Job>,
    deadline: Deadline,
    done: impl Fn() -> bool,
) -> bool {
    if done() {
        return true;
    }
    // The leader looks for itself; a follower is woken by the job. Which it will be is not known
    // yet, but for the common case of nobody else about.
    if engine.lead_alone(deadline, &done) {
        return true;
    }
    if job.watch(this_thread()).is_some() {
        return true;
    }
    let waited = engine.wait(deadline, done);
    job.unwatch(&thread::current());
    waited
}

/// The results in the order in which they come, each with its position among `results`; Python's
/// `as_completed`.
///
/// ```
/// use std::time::Duration;
/// fn nap(millis: u64) -> u64 {
///     std::thread::sleep(Duration::from_millis(millis));
///     millis
/// }
/// let pool = common::pool::Pool::new(2)?;
/// let naps = [300, 1].map(|millis| pool.apply_async(nap, (millis,)));
/// let order = common::pool::as_completed(naps).map(|(position, _)| position);
/// assert_eq!(order.collect::<Vec<usize>>(), [1, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<R>(results: impl IntoIterator<Item = AsyncResult<R>>) -> AsCompleted<R> {
    let results: Vec<AsyncResult<R>> = results.into_iter().collect();
    let completions = Arc::new(Completions::default());
    watch_all(&results, &completions);
    AsCompleted {
        left: results.len(),
        results,
        completions,
    }
}

/// Made by [`as_completed`].
#[derive(Debug)]
#[must_use = "nothing is waited for before the first result is asked for"]
pub struct AsCompleted<R> {
    results: Vec<AsyncResult<R>>,
    completions: Arc<Completions>,
    left: usize,
}

impl<R> AsCompleted<R> {
    /// The next result and its position, waiting at most `timeout` for it: `None` if it is not
    /// there then. The inner `None` is the end.
    ///
    /// # Errors
    ///
    /// The [`TaskError`] of that one; the others still come.
    pub fn next_timeout(
        &mut self,
        timeout: Duration,
    ) -> Option<Option<(usize, Result<R, TaskError>)>> {
        self.next_until(Deadline::after(timeout))
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Option<<Self as Iterator>::Item>> {
        if self.left == 0 {
            return Some(None);
        }
        wait_some(&self.results, &self.completions, deadline);
        let position = self.completions.pop()?;
        self.left -= 1;
        Some(Some((position, self.results[position].get())))
    }
}

impl<R> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(Deadline::Never)?
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Waits until one of `results` is there, at most `timeout` (`None`: for ever); its position.
/// `None` if the time was over, or there is nothing to wait for.
///
/// ```
/// # let pool = common::pool::Pool::new(1)?;
/// let results = [pool.apply_async(|| 1, ())];
/// assert_eq!(common::pool::wait_any(&results, None), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "FIRST_COMPLETED")]
pub fn wait_any<R>(results: &[AsyncResult<R>], timeout: Option<Duration>) -> Option<usize> {
    if results.is_empty() {
        return None;
    }
    let completions = Arc::new(Completions::default());
    watch_all(results, &completions);
    wait_some(results, &completions, Deadline::from(timeout));
    for result in results {
        result.job.unwatch_for(&completions);
    }
    completions.pop()
}

/// Waits until all of `results` are there, at most `timeout` (`None`: for ever); whether they
/// are.
///
/// ```
/// # let pool = common::pool::Pool::new(1)?;
/// let results = [1, 2].map(|n| pool.apply_async(|n: u8| n, (n,)));
/// assert!(common::pool::wait_all(&results, None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "ALL_COMPLETED")]
pub fn wait_all<R>(results: &[AsyncResult<R>], timeout: Option<Duration>) -> bool {
    let deadline = Deadline::from(timeout);
    results.iter().all(|result| result.wait_until(deadline))
}

fn watch_all<R>(results: &[AsyncResult<R>], completions: &Arc<Completions>) {
    for (position, result) in results.iter().enumerate() {
        let waiter = Waiter::Queue(completions.clone(), position);
        if let Some(now) = result.job.watch(waiter) {
            now.wake();
        }
    }
}

fn wait_some<R>(results: &[AsyncResult<R>], completions: &Completions, deadline: Deadline) {
    let Some(first) = results.first() else {
        return;
    };
    completions.set_waiter(this_thread());
    let engine = &first.engine;
    if results.iter().all(|one| Arc::ptr_eq(&one.engine, engine)) {
        engine.wait(deadline, || completions.has_some());
        return;
    }
    // Of several pools: each pool's own thread takes the results. That may be this one.
    for one in results {
        one.engine.has_answers();
        one.engine.lead.hurry();
    }
    let own = results.iter().find(|one| one.engine.is_own_thread());
    while !completions.has_some() && !deadline.passed() {
        let slice = deadline.at_most(Duration::from_millis(100));
        match own {
            Some(own) => {
                let engine = &own.engine;
                engine.wait(Deadline::after(slice), || completions.has_some());
            }
            None => thread::park_timeout(slice),
        }
        completions.set_waiter(this_thread());
    }
}

impl Engine {
    /// Has the results taken for a future that waits until `done`. A callback runs on the thread
    /// that does so: where it polls the future, they are taken here, a little at a time.
    pub(super) fn help(&self, context: &mut Context<'_>, done: impl Fn() -> bool) {
        if !self.is_own_thread() {
            return self.lead.hurry();
        }
        self.wait(Deadline::after(Duration::from_millis(1)), done);
        context.waker().wake_by_ref();
    }

    /// Has callbacks called soon, by the pool's thread. Gives them back where there is none: in a
    /// copy, and when the pool has ended.
    pub(super) fn call_soon(&self, callbacks: Vec<CallbackOf>) -> Vec<CallbackOf> {
        if !self.is_owner() {
            return callbacks;
        }
        let left = lock(&self.callbacks).add(callbacks);
        self.lead.look();
        left
    }

    /// Calls them here, with no lock held.
    pub(super) fn call_now(&self, callbacks: Vec<CallbackOf>) {
        for (callback, job) in callbacks {
            // A panic has been printed, as on the pool's thread.
            let _ = panic::catch(|| callback(&job));
        }
    }
}
