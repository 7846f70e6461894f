//! The callers' side: a call becomes a task for the driver, and its answer a value.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::coroutine::{AsyncFunction, CallError, Chunk};
use super::driver::{Event, Task};
use super::error::Lost;
use crate::codec::{self, DecodeError};
use crate::departures::Departures;
use crate::function::{EntryRef, Failure};
use crate::pool::{self, TaskError, TaskId};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What calls need of a pool. It does not keep the pool alive.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// One for each coroutine that may be under way.
    pub(super) permits: Arc<Semaphore>,
    pub(super) next_id: Arc<AtomicU64>,
    /// The library's own, whose tasks are polled whatever the callers do.
    pub(super) runtime: &'static Handle,
    /// Where the workers live.
    pub(super) hosts: Arc<pool::Pool>,
    pub(super) terms: Terms,
}

/// Calls of an iterator's items, chunk by chunk, not yet begun.
pub(super) struct Chunks<R> {
    chunks: BoxStream<'static, BoxFuture<'static, Ends<R>>>,
    /// How many may be under way.
    ahead: usize,
}

/// How each call of a chunk ended.
type Ends<R> = Vec<Result<R, TaskError>>;

impl<R: Send + 'static> Chunks<R> {
    /// The ends of each chunk, in the items' order.
    pub(super) fn in_order(self) -> impl Stream<Item = Ends<R>> + Send + use<R> {
        self.chunks.buffered(self.ahead)
    }

    /// The ends of each chunk, as they come.
    pub(super) fn unordered(self) -> impl Stream<Item = Ends<R>> + Send + use<R> {
        self.chunks.buffer_unordered(self.ahead)
    }
}

/// The part of the builder's settings that concerns calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) workers: usize,
    pub(super) in_flight: usize,
    pub(super) window: usize,
    pub(super) chunk_size: Option<usize>,
    pub(super) retries: u32,
    pub(super) task_timeout: Option<Duration>,
}

impl Client {
    /// Runs `f` on each of `calls`, as one chunk; gives as many ends as there are calls. The first
    /// is number `base` of its `map`.
    pub(super) async fn run<F, A, R>(&self, f: F, calls: Vec<A>, base: Option<usize>) -> Ends<R>
    where
        F: AsyncFunction<A, Value = R>,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let task = |place| TaskId {
            function: std::any::type_name::<F>().to_owned(),
            index: base.map(|base| base + place),
        };
        let count = calls.len();
        match self.ends(f, calls).await {
            Ok(ends) => (0..)
                .zip(ends)
                .map(|(place, end): (usize, Result<R, CallError>)| {
                    end.map_err(|error| error.into_error(self.terms.task_timeout, task(place)))
                })
                .collect(),
            Err(whole) => (0..count)
                .map(|place| Err(whole.clone().into_error(task(place))))
                .collect(),
        }
    }

    async fn ends<F, A, R>(&self, f: F, calls: Vec<A>) -> Result<Vec<Result<R, CallError>>, Lost>
    where
        F: AsyncFunction<A, Value = R>,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let entry = Chunk::entry(f).map_err(Failure::Entry)?;
        let count = calls.len();
        let (args, departures) = Departures::of(|| codec::encode(&calls));
        let args = args.map_err(Failure::Result)?;
        drop(calls);
        let bytes = self.answer(entry, args, departures, count).await?;
        let ends: Vec<Result<R, CallError>> = codec::decode(&bytes).map_err(Failure::Arguments)?;
        match ends.len() == count {
            true => Ok(ends),
            false => Err(Lost::Failed(Failure::Arguments(DecodeError {
                type_name: std::any::type_name::<R>().into(),
                length: bytes.len(),
                reason: format!("{} results for {count} calls", ends.len()),
            }))),
        }
    }

    /// Sends a chunk off and waits for its answer; if this future is dropped meanwhile, the chunk
    /// is cancelled.
    async fn answer(
        &self,
        entry: EntryRef,
        args: Vec<u8>,
        departures: Departures,
        calls: usize,
    ) -> Result<Vec<u8>, Lost> {
        let (end, answer) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let task = Task {
            id,
            entry,
            args,
            departures,
            calls,
            retries: self.terms.retries,
            end,
            permit: None,
        };
        self.submit(task);
        let mut cancel = CancelOnDrop(Some((&self.events, id)));
        let answer = answer.await;
        cancel.0 = None;
        answer.unwrap_or(Err(Lost::Cancelled))
    }

    /// Gives a chunk to the driver, as soon as there is room for it.
    ///
    /// Who waits for room is a task of the library's own, not the caller's future: that may be
    /// kept unpolled, and the room that it was given would be lost to all others meanwhile.
    fn submit(&self, mut task: Task) {
        let permits = u32::try_from(task.calls).unwrap_or(u32::MAX);
        let mut room = Box::pin(Arc::clone(&self.permits).acquire_many_owned(permits));
        // If there is none, this takes the place in the queue: in the order of the calls.
        if let Some(permit) = (&mut room).now_or_never() {
            return task.enter(permit, &self.events);
        }
        let events = self.events.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                permit = room => task.enter(permit, &events),
                // Nobody waits for it any more.
                () = task.end.closed() => {}
            }
        });
    }

    /// Chunks of calls, to be polled together.
    pub(super) fn chunks<F, I, T, R>(&self, f: F, items: I, chunk: usize) -> Chunks<R>
    where
        F: AsyncFunction<(T,), Value = R>,
        I: Iterator<Item = T> + Send + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let client = self.clone();
        // A chunk that is not full is the last, whatever the iterator would give after its end.
        let mut items = items.fuse();
        let mut base = 0;
        let chunks = std::iter::from_fn(move || {
            let calls: Vec<(T,)> = items.by_ref().take(chunk).map(|item| (item,)).collect();
            let client = client.clone();
            if calls.is_empty() {
                return None;
            }
            let first = base;
            base += calls.len();
            Some(async move { client.run(f, calls, Some(first)).await }.boxed())
        });
        Chunks {
            chunks: stream::iter(chunks).boxed(),
            ahead: (self.terms.window / chunk).max(1),
        }
    }

    /// Python's rule, four chunks for each worker, but never more than a quarter of what a
    /// worker runs at the same time: a chunk comes back when its slowest call has ended, and
    /// only then makes room.
    pub(super) fn chunk_of(&self, items: usize) -> usize {
        let terms = &self.terms;
        terms
            .chunk_size
            .unwrap_or(items.div_ceil(terms.workers * 4).min(terms.in_flight / 4))
            .clamp(1, terms.in_flight)
    }

    /// Of an iterator whose length is not known.
    pub(super) fn chunk_of_stream(&self) -> usize {
        self.terms
            .chunk_size
            .unwrap_or(1)
            .clamp(1, self.terms.in_flight)
    }

    /// Waits until nothing is under way. The permits are given in the order in which they are asked
    /// for, to tasks that take them: who gets all of them is the only one.
    /// It keeps them, so that nothing that was asked for later begins.
    pub(super) async fn finish(&self) {
        let all = u32::try_from(self.terms.window).unwrap_or(u32::MAX);
        if let Ok(all) = self.permits.acquire_many(all).await {
            all.forget();
        }
    }

    /// Ends the workers, and waits until they have ended.
    pub(super) fn terminate(&self) {
        self.permits.close();
        // What is under way is answered for before the workers' deaths can be.
        let _ = self.events.send(Event::Terminate);
        self.hosts.terminate();
    }
}

impl Task {
    /// Goes to the driver, if the pool still takes any.
    fn enter(
        mut self,
        permit: Result<OwnedSemaphorePermit, AcquireError>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let refused = match permit {
            Ok(permit) => {
                self.permit = Some(permit);
                events.send(Event::Run(self)).map_err(|error| error.0)
            }
            Err(_) => Err(Event::Run(self)),
        };
        if let Err(Event::Run(task)) = refused {
            // If nobody waits any more, that is their business.
            let _ = task.end.send(Err(Lost::Closed));
        }
    }
}

struct CancelOnDrop<'a>(Option<(&'a mpsc::UnboundedSender<Event>, u64)>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((events, id)) = self.0 {
            // If the pool has gone, so has the task.
            let _ = events.send(Event::Cancel(id));
        }
    }
}
