//! Queues in async code, under any executor.

use super::{GetError, PutError, PutReason, Queue};
use crate::ring::End;
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

impl<T: DeserializeOwned> Queue<T> {
    /// As [`Queue::get`], without blocking the thread. A message is taken only in the moment in
    /// which the future is ready: if it is dropped before, none is lost.
    ///
    /// ```
    /// use common::queue::Queue;
    /// let queue = Queue::new()?;
    /// queue.put(5)?;
    /// let five = futures::executor::block_on(queue.get_async())?;
    /// assert_eq!(five, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_async(&self) -> GetFuture<'_, T> {
        GetFuture {
            queue: self,
            watch: Watched::new(self, End::Get),
        }
    }

    /// The values as they come, until the queue is closed and drained: [`Queue::iter`] for async
    /// code.
    pub fn stream(&self) -> GetStream<'_, T> {
        GetStream {
            next: self.get_async(),
            ended: false,
        }
    }
}

impl<T: Serialize> Queue<T> {
    /// As [`Queue::put`], without blocking the thread. If the future is dropped before it is
    /// ready nothing was put. A value longer than the whole queue is refused as
    /// [`PutReason::Full`]: it can only be put by a thread that stays with it.
    pub fn put_async(&self, value: T) -> PutFuture<'_, T> {
        PutFuture {
            queue: self,
            value: Some(value),
            watch: Watched::new(self, End::Put),
        }
    }
}

/// [`Queue::get_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct GetFuture<'a, T> {
    queue: &'a Queue<T>,
    watch: Watched<'a, T>,
}

/// [`Queue::put_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct PutFuture<'a, T> {
    queue: &'a Queue<T>,
    value: Option<T>,
    watch: Watched<'a, T>,
}

/// [`Queue::stream`].
#[must_use = "streams do nothing unless polled"]
pub struct GetStream<'a, T> {
    next: GetFuture<'a, T>,
    ended: bool,
}

impl<T: DeserializeOwned> Future for GetFuture<'_, T> {
    type Output = Result<T, GetError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.watch.done();
        match self.queue.try_get() {
            Err(GetError::Empty) => {
                self.watch.again(context);
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }
}

// The value is moved out whole and never pinned in place.
impl<T> Unpin for PutFuture<'_, T> {}

impl<T: Serialize> Future for PutFuture<'_, T> {
    type Output = Result<(), PutError<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.watch.done();
        let Some(value) = self.value.take() else {
            return Poll::Pending; // Polled after it was ready.
        };
        match self.queue.try_put(value) {
            Err(error) if error.reason == PutReason::Full && self.queue.can_hold(&error.value) => {
                self.value = Some(error.value);
                self.watch.again(context);
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }
}

impl<T: DeserializeOwned> Stream for GetStream<'_, T> {
    type Item = Result<T, GetError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.next).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(GetError::Closed)) => Poll::Ready(None),
            Poll::Ready(item) => {
                self.ended = matches!(&item, Err(error) if !matches!(error, GetError::Decode(_)));
                Poll::Ready(Some(item))
            }
        }
    }
}

/// A future's entry with the ring's waiter, taken back when it is dropped.
struct Watched<'a, T> {
    queue: &'a Queue<T>,
    end: End,
    number: Option<u64>,
}

impl<'a, T> Watched<'a, T> {
    fn new(queue: &'a Queue<T>, end: End) -> Self {
        Watched {
            queue,
            end,
            number: None,
        }
    }

    fn again(&mut self, context: &mut Context<'_>) {
        self.number = Some(self.queue.ring().watch(self.end, context.waker()));
    }

    /// The last entry is used up, or of no use any more.
    fn done(&mut self) {
        if let Some(number) = self.number.take() {
            self.queue.ring().forget(self.end, number);
        }
    }
}

impl<T> Drop for Watched<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.queue.ring().unwatch(self.end, number);
        }
    }
}
