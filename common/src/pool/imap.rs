//! `imap` and `imap_unordered`: results one by one, from an input that is drawn as needed.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::Pool;
use super::chunking::Chunking;
use super::collect::this_thread;
use super::engine::Engine;
use super::error::TaskError;
use super::job::Job;
use super::map::Plan;
use super::message::{Items, entry_bytes};
use super::result::wait_job;
use super::spares::Buffer;
use super::waiter::{Completions, Waiter};
use crate::codec::EncodeError;
use crate::deadline::Deadline;
use crate::function::Function;
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

impl Pool {
    /// Runs `f` on each item and gives the results in order, each as soon as it and those before
    /// it are there.
    ///
    /// The input is drawn lazily: at most a window of twice as many chunks as there are workers
    /// is ahead of what was taken, so an endless input works in bounded memory. A chunk is one
    /// item unless [`chunk_size`](IMap::chunk_size) says otherwise. The window is filled first: an
    /// input that has to wait for its items holds up results that are there, and is better off
    /// with a small [`window`](IMap::window). An item that fails is an
    /// error in its place; the next ones follow. Where the pool has ended that is told once, behind
    /// what was drawn before, as the last.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// let squares: Result<Vec<u64>, _> = pool.imap(|x: u64| x * x, 0..).take(4).collect();
    /// assert_eq!(squares?, [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<F, A, R, I>(&self, f: F, items: I) -> IMap<I::IntoIter, R>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        IMap {
            feed: self.feed(f, items),
            jobs: VecDeque::new(),
        }
    }

    /// As [`imap`](Self::imap), but gives the results in the order in which they come. It is also
    /// a `Stream`.
    ///
    /// ```
    /// # let pool = common::pool::Pool::new(2)?;
    /// let squares = pool.imap_unordered(|x: u64| x * x, 0..4);
    /// assert_eq!(squares.sum::<Result<u64, _>>()?, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap_unordered<F, A, R, I>(&self, f: F, items: I) -> IMapUnordered<I::IntoIter, R>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        IMapUnordered {
            feed: self.feed(f, items),
            jobs: HashMap::new(),
            next: 0,
            completions: Arc::new(Completions::default()),
        }
    }

    fn feed<F, A, R, I>(&self, f: F, items: I) -> Feed<I::IntoIter, R>
    where
        F: Function<(A,), Output = R>,
        I: IntoIterator<Item = A>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let plan = Plan::of::<F, (A,)>(f);
        let refused = self.engine.check_open().err();
        let (entry, refused) = match plan.entry {
            Ok(entry) => (entry_bytes(entry), refused),
            Err(error) => ([0; 16], Some(TaskError::Function(error))),
        };
        Feed {
            engine: self.engine.clone(),
            name: plan.name,
            entry,
            push: |items, item| items.push(&(item,)),
            source: Some(items.into_iter()),
            refused,
            unfit: None,
            panic: None,
            chunk: 1,
            window: 2 * self.workers(),
            drawn: 0,
            ready: VecDeque::new(),
            results: PhantomData,
        }
    }
}

/// What both kinds have in common: drawing and submitting.
struct Feed<I: Iterator, R> {
    engine: Arc<Engine>,
    name: &'static str,
    entry: [u8; 16],
    push: fn(&mut Items, I::Item) -> Result<(), EncodeError>,
    source: Option<I>,
    /// Why nothing can be submitted; told once.
    refused: Option<TaskError>,
    /// Why the item behind those submitted last cannot be.
    unfit: Option<EncodeError>,
    /// What the input panicked with; passed on after what came before.
    panic: Option<Box<dyn Any + Send>>,
    chunk: usize,
    /// In chunks.
    window: usize,
    drawn: usize,
    /// Results of the last chunk that came.
    ready: VecDeque<Result<R, TaskError>>,
    results: PhantomData<fn() -> R>,
}

impl<I: Iterator, R: DeserializeOwned> Feed<I, R> {
    /// The next chunk, submitted, and how many items it has.
    fn draw(&mut self) -> Option<Arc<Job>> {
        if !self.engine.is_owner() {
            let owner = self.engine.owner;
            self.refused.get_or_insert(TaskError::NotOwner { owner });
        } else if self.engine.is_over() {
            self.refused.get_or_insert(TaskError::Closed);
        }
        let mut items = Items::new(Buffer::default(), self.drawn);
        while items.len() < self.chunk && self.unfit.is_none() {
            let source = self.source.as_mut()?;
            // The input is dropped if it panics, so its state does not matter.
            match catch_unwind(AssertUnwindSafe(|| source.next())) {
                Ok(Some(item)) => self.unfit = (self.push)(&mut items, item).err(),
                Ok(None) => {
                    self.source = None;
                    if items.len() == 0 {
                        return None;
                    }
                    break;
                }
                // The chunk that was being gathered goes with it, as in Python.
                Err(panic) => {
                    self.source = None;
                    self.panic = Some(panic);
                    return None;
                }
            }
        }
        if let Some(error) = self.refused.clone() {
            self.source = None;
            self.unfit = None;
            return Some(Job::failed(self.name, error));
        }
        if items.len() == 0 {
            self.drawn += 1;
            let error = self.unfit.take().map(TaskError::Encode);
            return error.map(|error| Job::failed(self.name, error));
        }
        let first = self.drawn == 0;
        self.drawn += items.len();
        let chunking = Chunking::fixed(items.len());
        let job = Job::new(self.name, self.entry, chunking, true, Buffer::default());
        // The next item may be long in coming. Later on, who ceases to lead sees to it.
        self.engine.open_job(!first);
        self.engine.submit_whole(&job, items);
        Some(job)
    }

    fn take(&mut self, job: &Job) {
        self.ready = job.each::<R>();
    }

    /// After the last result: the input's panic, if it had one.
    fn end(&mut self) -> Option<Result<R, TaskError>> {
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
        None
    }
}

/// The results in order. Made by [`Pool::imap`]. Dropping it cancels what no worker has begun.
#[must_use = "it is lazy: nothing is sent before the first result is asked for"]
pub struct IMap<I: Iterator, R> {
    feed: Feed<I, R>,
    jobs: VecDeque<Arc<Job>>,
}

impl<I: Iterator, R: DeserializeOwned> IMap<I, R> {
    /// Items that travel together; 1 by default. More are quicker for short tasks. To be set
    /// before the first result is asked for.
    #[doc(alias = "chunksize")]
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.feed.chunk = items.max(1);
        self
    }

    /// Chunks that are drawn ahead of the results taken; twice the number of workers by default.
    pub fn window(mut self, chunks: usize) -> Self {
        self.feed.window = chunks.max(1);
        self
    }

    /// The next result, waiting at most `timeout` for it: `None` if it is not there then. The
    /// inner `None` is the end.
    ///
    /// # Errors
    ///
    /// The [`TaskError`] of that item; those behind it still come.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Option<Result<R, TaskError>>> {
        self.next_until(Deadline::after(timeout))
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Option<Result<R, TaskError>>> {
        loop {
            if let Some(result) = self.feed.ready.pop_front() {
                return Some(Some(result));
            }
            while self.jobs.len() < self.feed.window {
                match self.feed.draw() {
                    Some(job) => self.jobs.push_back(job),
                    None => break,
                }
            }
            let Some(job) = self.jobs.front() else {
                return Some(self.feed.end());
            };
            let engine = &self.feed.engine;
            if !wait_job(engine, job, deadline, || job.is_finished()) {
                return None;
            }
            let job = job.clone();
            self.jobs.pop_front();
            self.feed.take(&job);
        }
    }
}

impl<I: Iterator, R: DeserializeOwned> Iterator for IMap<I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Without a deadline it ends with a result or the end.
        self.next_until(Deadline::Never).flatten()
    }
}

impl<I: Iterator, R> fmt::Debug for IMap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMap")
            .field("function", &self.feed.name)
            .field("drawn", &self.feed.drawn)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator, R> Drop for IMap<I, R> {
    fn drop(&mut self) {
        for job in &self.jobs {
            self.feed.engine.end_job(job, TaskError::Cancelled, false);
        }
    }
}

/// The results as they come. Made by [`Pool::imap_unordered`]. Dropping it cancels what no worker
/// has begun.
#[must_use = "it is lazy: nothing is sent before the first result is asked for"]
pub struct IMapUnordered<I: Iterator, R> {
    feed: Feed<I, R>,
    jobs: HashMap<usize, Arc<Job>>,
    next: usize,
    completions: Arc<Completions>,
}

impl<I: Iterator, R: DeserializeOwned> IMapUnordered<I, R> {
    /// As [`IMap::chunk_size`].
    #[doc(alias = "chunksize")]
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.feed.chunk = items.max(1);
        self
    }

    /// As [`IMap::window`].
    pub fn window(mut self, chunks: usize) -> Self {
        self.feed.window = chunks.max(1);
        self
    }

    /// As [`IMap::next_timeout`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Option<Result<R, TaskError>>> {
        self.next_until(Deadline::after(timeout))
    }

    fn next_until(&mut self, deadline: Deadline) -> Option<Option<Result<R, TaskError>>> {
        loop {
            if let Some(result) = self.advance() {
                return Some(result);
            }
            self.completions.set_waiter(this_thread());
            let completions = self.completions.clone();
            let came = self.feed.engine.wait(deadline, || completions.has_some());
            self.completions.clear_waiter();
            if !came {
                return None;
            }
        }
    }

    /// Draws what may be drawn; a result that is there, or the end; `None` if it is to wait.
    fn advance(&mut self) -> Option<Option<Result<R, TaskError>>> {
        loop {
            if let Some(result) = self.feed.ready.pop_front() {
                return Some(Some(result));
            }
            while self.jobs.len() < self.feed.window {
                let Some(job) = self.feed.draw() else { break };
                let number = self.next;
                self.next += 1;
                let waiter = Waiter::Queue(self.completions.clone(), number);
                if let Some(now) = job.watch(waiter) {
                    now.wake();
                }
                self.jobs.insert(number, job);
            }
            if self.jobs.is_empty() {
                return Some(self.feed.end());
            }
            let number = self.completions.pop()?;
            if let Some(job) = self.jobs.remove(&number) {
                self.feed.take(&job);
            }
        }
    }
}

impl<I: Iterator, R: DeserializeOwned> Iterator for IMapUnordered<I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(Deadline::Never).flatten()
    }
}

// Nothing in it is ever pinned.
impl<I: Iterator, R> Unpin for IMapUnordered<I, R> {}

/// Draws from the input when it is polled.
impl<I: Iterator, R: DeserializeOwned> Stream for IMapUnordered<I, R> {
    type Item = Result<R, TaskError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.feed.engine.has_answers();
        if let Some(result) = this.advance() {
            return Poll::Ready(result);
        }
        let waiter = Waiter::Task(context.waker().clone());
        this.completions.set_waiter(waiter);
        // It may have come before the waker was there.
        if let Some(result) = this.advance() {
            return Poll::Ready(result);
        }
        let completions = &this.completions;
        this.feed.engine.help(context, || completions.has_some());
        Poll::Pending
    }
}

impl<I: Iterator, R> fmt::Debug for IMapUnordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IMapUnordered")
            .field("function", &self.feed.name)
            .field("drawn", &self.feed.drawn)
            .finish_non_exhaustive()
    }
}

impl<I: Iterator, R> Drop for IMapUnordered<I, R> {
    fn drop(&mut self) {
        for job in self.jobs.values() {
            self.feed.engine.end_job(job, TaskError::Cancelled, false);
        }
    }
}
