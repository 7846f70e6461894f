//! Queues in async code, under any executor.

use super::{GetError, PutError, PutReason, Queue, with_buffer};
use crate::codec;
use crate::deadline::Deadline;
use crate::departures::Departures;
use crate::ring::{self, End, Ring};
use crate::shm::ShmError;
use futures::Stream;
use futures::channel::oneshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::thread;

impl<T: DeserializeOwned> Queue<T> {
    /// As [`Queue::get`], without blocking the thread. A message is taken only in the moment in
    /// which the future is ready: if it is dropped before, none is lost. (A message longer than
    /// the whole queue is taken in one poll, which lasts as long as its bytes come; if none come
    /// for 50 ms its producer starts over and the future waits again.)
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
    /// ready nothing was put.
    ///
    /// A value longer than the whole queue goes through it while somebody gets it, and a thread
    /// of its own stays with it until then. Dropping the future ends that: no consumer sees a
    /// part of the value. (If its last byte goes in that very moment, it was put.)
    ///
    /// ```
    /// use common::queue::Queue;
    /// use futures::executor::block_on;
    ///
    /// let queue = Queue::builder().capacity(1 << 10).build()?;
    /// let put = queue.put_async("x".repeat(100_000));
    /// let (put, got) = block_on(futures::future::join(put, queue.get_async()));
    /// put?;
    /// assert_eq!(got?.len(), 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_async(&self, value: T) -> PutFuture<'_, T> {
        PutFuture {
            queue: self,
            value: Some(value),
            encoded: None,
            watch: Watched::new(self, End::Put),
            long: None,
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
    /// The value, once it has been tried in vain. After the value, so that it counts until then.
    encoded: Option<Encoded>,
    watch: Watched<'a, T>,
    long: Option<Long>,
}

/// [`Queue::stream`].
#[must_use = "streams do nothing unless polled"]
pub struct GetStream<'a, T> {
    next: GetFuture<'a, T>,
    ended: bool,
}

impl<T> fmt::Debug for GetFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(f, "GetFuture", self.queue)
    }
}

impl<T> fmt::Debug for PutFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(f, "PutFuture", self.queue)
    }
}

impl<T> fmt::Debug for GetStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(f, "GetStream", self.next.queue)
    }
}

fn shown<T>(f: &mut fmt::Formatter<'_>, what: &str, queue: &Queue<T>) -> fmt::Result {
    f.debug_struct(what)
        .field("queue", queue)
        .finish_non_exhaustive()
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
        if self.long.is_some() {
            return self.poll_long(context);
        }
        self.watch.done();
        let this = &mut *self;
        let Some(value) = &this.value else {
            return Poll::Pending; // Polled after it was ready.
        };
        let put = put_or_keep(this.queue.ring(), value, &mut this.encoded);
        if put != Err(PutReason::Full) {
            return self.ready(put);
        }
        let ring = self.queue.ring();
        let is_long = |encoded: &mut Encoded| !ring.can_hold(encoded.bytes.len());
        match self.encoded.take_if(is_long) {
            Some(encoded) => {
                self.long = Some(Long::start(ring.clone(), encoded));
                self.poll_long(context)
            }
            None => {
                self.watch.again(context);
                Poll::Pending
            }
        }
    }
}

impl<T> PutFuture<'_, T> {
    fn ready(&mut self, put: Result<(), PutReason>) -> Poll<Result<(), PutError<T>>> {
        // Given back, it is not on its way any more, however long this future is kept.
        self.encoded = None;
        match (put, self.value.take()) {
            (Err(reason), Some(value)) => Poll::Ready(Err(PutError { value, reason })),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_long(&mut self, context: &mut Context<'_>) -> Poll<Result<(), PutError<T>>> {
        let Some(long) = &mut self.long else {
            return Poll::Pending;
        };
        let Poll::Ready(put) = Pin::new(&mut long.done).poll(context) else {
            return Poll::Pending;
        };
        self.long = None;
        // It says nothing only if it has panicked: nothing was put.
        self.ready(put.unwrap_or(Err(PutReason::Full)))
    }
}

/// A value's bytes, and what counts as on its way since they were made.
struct Encoded {
    bytes: Vec<u8>,
    departures: Departures,
}

/// Puts the value if there is room for it at once, and else keeps its bytes for the next time: to
/// encode it again would count again what is in it.
fn put_or_keep<T: Serialize>(
    ring: &Ring,
    value: &T,
    kept: &mut Option<Encoded>,
) -> Result<(), PutReason> {
    if let Some(encoded) = kept {
        ring.put(&[&encoded.bytes], Deadline::Now)?;
        mem::take(&mut encoded.departures).sent();
        return Ok(());
    }
    with_buffer(|buffer| {
        let (encoded, departures) = Departures::of(|| codec::encode_into(value, buffer));
        encoded?;
        let put = ring.put(&[buffer], Deadline::Now);
        match &put {
            Ok(()) => departures.sent(),
            Err(ring::PutError::Full) => {
                let bytes = buffer.clone();
                *kept = Some(Encoded { bytes, departures });
            }
            Err(_) => {}
        }
        Ok(put?)
    })
}

/// A value longer than the queue, and the thread that puts it. Dropping it ends the thread.
struct Long {
    ring: Ring,
    given_up: Arc<AtomicBool>,
    done: oneshot::Receiver<Result<(), PutReason>>,
}

impl Long {
    fn start(ring: Ring, encoded: Encoded) -> Long {
        let (tell, done) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let (its_ring, enough) = (ring.clone(), Arc::clone(&given_up));
        let put = move || {
            let Encoded { bytes, departures } = encoded;
            let put = its_ring.put_long(&bytes, &enough);
            // First, so that whoever hears of it finds the queue without this handle.
            drop(its_ring);
            match &put {
                Ok(()) => departures.sent(),
                Err(_) => drop(departures),
            }
            let _ = tell.send(put.map_err(PutReason::from));
        };
        let thread = thread::Builder::new().name("queue put".into()).spawn(put);
        let done = thread.map_or_else(|error| refused(&ring, &error), |_| done);
        Long {
            ring,
            given_up,
            done,
        }
    }
}

/// What is heard of a thread that could not be started.
fn refused(ring: &Ring, error: &io::Error) -> oneshot::Receiver<Result<(), PutReason>> {
    let (tell, done) = oneshot::channel();
    let reason = ShmError::Os {
        call: "starting a thread for a long message".into(),
        name: ring.name().into(),
        errno: error.raw_os_error().unwrap_or(libc::EAGAIN),
    };
    let _ = tell.send(Err(reason.into()));
    done
}

impl Drop for Long {
    fn drop(&mut self) {
        self.ring.give_up(&self.given_up);
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
