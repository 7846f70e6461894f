//! An `async fn` as something that can be sent: several calls of it, run at the same time.
//!
//! What travels is always a chunk: the arguments of one call or of many. A chunk comes back whole,
//! with the end of each of its calls in its place.
//!
//! To copy: aio/pool/coroutine.rs, aio/gather.rs, function.rs, image.rs, panic.rs, codec.rs.

use crate::aio::gather::catch;
use crate::codec::{self, DecodeError, EncodeError};
use crate::function::{self, BadEntry, Entry, EntryRef, Failure, Function, Signature};
use crate::panic::{self, Panic};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// An `async fn` of zero to eight arguments that can be sent: a fn item, or a closure that captures
/// nothing and returns a future. `A` is the tuple of its arguments.
///
/// Implemented for every such `Fn`; there is nothing to implement by hand.
pub trait AsyncFunction<A>:
    Function<A, Output: Future<Output = Self::Value> + Send + 'static>
{
    /// What its future gives.
    type Value;
}

impl<F, A> AsyncFunction<A> for F
where
    F: Function<A, Output: Future + Send + 'static>,
{
    type Value = <F::Output as Future>::Output;
}

/// How one call ended, as the worker tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CallError {
    Panicked(Panic),
    TimedOut,
    Result(EncodeError),
}

/// The signature of a chunk's entry: encoded arguments in, a future of the encoded ends out.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Chunk(fn(&[u8], Option<Duration>) -> Result<Running, DecodeError>);

/// A chunk that runs; it gives the encoded ends.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Vec<u8>, EncodeError>> + Send>>;

impl Signature for Chunk {
    const MAGIC: u64 = 0xa_510;
}

impl Chunk {
    /// Where the entry is that runs chunks of `f`.
    ///
    /// # Errors
    ///
    /// As [`EntryRef::of`].
    pub(super) fn entry<F, A>(_f: F) -> Result<EntryRef, BadEntry>
    where
        F: AsyncFunction<A, Value: Serialize + Send + 'static>,
        A: DeserializeOwned + Send + 'static,
    {
        EntryRef::of(ChunkOf::<F, A>::ENTRY)
    }

    /// Decodes the arguments of its calls, which runs the user's code. Nothing else runs before
    /// the first poll.
    ///
    /// # Errors
    ///
    /// [`Failure::Arguments`], [`Failure::Panicked`].
    pub(super) fn start(self, args: &[u8], timeout: Option<Duration>) -> Result<Running, Failure> {
        panic::catch(|| (self.0)(args, timeout))
            .map_err(Failure::Panicked)?
            .map_err(Failure::Arguments)
    }
}

struct ChunkOf<F, A>(PhantomData<(F, A)>);

impl<F, A> ChunkOf<F, A>
where
    F: AsyncFunction<A, Value: Serialize + Send + 'static>,
    A: DeserializeOwned + Send + 'static,
{
    const ENTRY: &'static Entry<Chunk> = &Entry::new::<(F, A, F::Value)>(Chunk(|args, timeout| {
        let calls: Vec<A> = codec::decode_vec(args)?;
        Ok(Box::pin(async move {
            encode_ends(run_calls::<F, A>(calls, timeout).await)
        }))
    }));
}

async fn run_calls<F, A>(
    calls: Vec<A>,
    timeout: Option<Duration>,
) -> Vec<Result<F::Value, CallError>>
where
    F: AsyncFunction<A>,
{
    let mut ends = Vec::with_capacity(calls.len());
    let mut running = FuturesUnordered::new();
    for (place, args) in calls.into_iter().enumerate() {
        let mut call = Box::pin(run_call::<F, A>(args, timeout));
        // Many never wait: those need no place among the waiting.
        let end = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        if end.is_pending() {
            running.push(async move { (place, call.await) });
        }
        ends.push(end);
    }
    while let Some((place, end)) = running.next().await {
        ends[place] = Poll::Ready(end);
    }
    // All are ready by now.
    ends.into_iter()
        .map(|end| match end {
            Poll::Ready(end) => end,
            Poll::Pending => Err(CallError::TimedOut),
        })
        .collect()
}

async fn run_call<F, A>(args: A, timeout: Option<Duration>) -> Result<F::Value, CallError>
where
    F: AsyncFunction<A>,
{
    // The function itself may panic as well, before there is a future.
    let call = async move { function::instance::<F>().call(args).await };
    match timeout {
        None => catch(call).await.map_err(CallError::Panicked),
        // Caught around it: what is too late is dropped there, and may panic then.
        Some(limit) => catch(tokio::time::timeout(limit, call))
            .await
            .map_err(CallError::Panicked)?
            .map_err(|_| CallError::TimedOut),
    }
}

/// One value that does not serialise, or panics when it is to, or when it is dropped, must not
/// take the others of its chunk with it.
fn encode_ends<R: Serialize>(mut ends: Vec<Result<R, CallError>>) -> Result<Vec<u8>, EncodeError> {
    let all = match panic::catch(|| codec::encode(&ends)) {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) | Err(_) => {
            ends = ends.into_iter().map(encodable).collect();
            codec::encode(&ends)
        }
    };
    for end in ends {
        // It has been sent, and the panic printed.
        let _ = panic::catch(|| drop(end));
    }
    all
}

/// The end itself, if it can be encoded; else why not.
fn encodable<R: Serialize>(end: Result<R, CallError>) -> Result<R, CallError> {
    let error = match panic::catch(|| codec::encode(&end)) {
        Ok(Ok(_)) => return end,
        Ok(Err(error)) => CallError::Result(error),
        Err(panic) => CallError::Panicked(panic),
    };
    let _ = panic::catch(|| drop(end));
    Err(error)
}
