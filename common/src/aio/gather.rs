//! `asyncio.gather` as tasks of their own: children that outlive a sibling's failure, and whose
//! panics and cancellations are values.
//!
//! ```text
//!   gather(a, b, c)      spawns three tasks at once
//!     first error     -> is the result at once; the others run on by themselves
//!     dropped earlier -> all three are cancelled
//! ```
//!
//! To copy: aio/gather.rs, panic.rs.

use crate::panic::{self, Panic};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use thiserror::Error;
use tokio::task::{AbortHandle, JoinSet};

/// Why a child gave no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChildError<E> {
    /// It returned this error.
    #[error("{0}")]
    Failed(E),
    /// It panicked.
    #[error("the coroutine {0}")]
    Panicked(Panic),
    /// It was cancelled, by its [`AbortHandle`] or because its runtime was shut down.
    #[error("the coroutine was cancelled")]
    Cancelled,
}

/// Runs the coroutines at the same time and returns their values in the order given.
///
/// They are spawned at once, before the first await of what is returned. The first error is the
/// result as soon as it happens, and the siblings go on by themselves, as in `asyncio`. (If they
/// should be dropped instead, `futures::future::try_join_all` does that, without spawning.)
/// Dropping the [`Gather`] before it is done cancels every child.
///
/// # Errors
///
/// The [`ChildError`] of the child that failed first.
///
/// # Panics
///
/// Outside a tokio runtime, as `tokio::spawn`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use common::aio::{ChildError, gather};
///
/// let squares = gather((1..4).map(|x| async move { Ok::<_, String>(x * x) })).await;
/// assert_eq!(squares, Ok(vec![1, 4, 9]));
///
/// let halves = gather([8, 7, 6].map(|x| async move {
///     if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
/// }));
/// assert_eq!(halves.await, Err(ChildError::Failed("7 is odd".to_owned())));
/// # });
/// ```
pub fn gather<I, T, E>(coroutines: I) -> Gather<T, E>
where
    I: IntoIterator<Item: Future<Output = Result<T, E>> + Send + 'static>,
    T: Send + 'static,
    E: Send + 'static,
{
    Gather(Children::spawn(coroutines))
}

/// Runs the coroutines at the same time, waits for all of them, and returns how each one ended, in
/// the order given: `asyncio.gather(..., return_exceptions=True)`.
///
/// They are spawned at once. Dropping the [`GatherSettled`] before it is done cancels every child.
/// (If no child can panic or be cancelled, `futures::future::join_all` does as well.)
///
/// # Panics
///
/// Outside a tokio runtime, as `tokio::spawn`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use common::aio::{ChildError, gather_settled};
///
/// let ends = gather_settled([8, 7].map(|x| async move {
///     if x % 2 == 0 { Ok(x / 2) } else { Err("odd") }
/// }));
/// assert_eq!(ends.await, [Ok(4), Err(ChildError::Failed("odd"))]);
/// # });
/// ```
#[doc(alias = "return_exceptions")]
pub fn gather_settled<I, T, E>(coroutines: I) -> GatherSettled<T, E>
where
    I: IntoIterator<Item: Future<Output = Result<T, E>> + Send + 'static>,
    T: Send + 'static,
    E: Send + 'static,
{
    GatherSettled(Children::spawn(coroutines))
}

/// What [`gather`] returns. Dropping it cancels the children, unless one has failed already.
#[derive(Debug)]
#[must_use = "dropping it cancels the children; await it"]
pub struct Gather<T, E>(Children<T, E>);

/// What [`gather_settled`] returns. Dropping it cancels the children.
#[derive(Debug)]
#[must_use = "dropping it cancels the children; await it"]
pub struct GatherSettled<T, E>(Children<T, E>);

impl<T, E> Gather<T, E> {
    /// A handle for each child, in order: `abort()` cancels that child alone, which ends the
    /// gather with [`ChildError::Cancelled`]. Aborting a child that is done changes nothing.
    #[must_use]
    pub fn abort_handles(&self) -> &[AbortHandle] {
        &self.0.handles
    }
}

impl<T, E> GatherSettled<T, E> {
    /// A handle for each child, in order: `abort()` cancels that child alone, whose place then
    /// holds [`ChildError::Cancelled`]. Aborting a child that is done changes nothing.
    #[must_use]
    pub fn abort_handles(&self) -> &[AbortHandle] {
        &self.0.handles
    }
}

impl<T: 'static, E: 'static> Future for Gather<T, E> {
    type Output = Result<Vec<T>, ChildError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let children = &mut self.0;
        while let Some(joined) = ready!(children.tasks.poll_join_next(cx)) {
            match joined {
                Ok((place, Ok(value))) => children.ends[place] = Some(Ok(value)),
                Ok((_, Err(error))) => return children.give_up(error),
                // Its panics are caught within; what is left is a child that was cancelled.
                Err(_) => return children.give_up(ChildError::Cancelled),
            }
        }
        Poll::Ready(children.take_ends().collect())
    }
}

impl<T: 'static, E: 'static> Future for GatherSettled<T, E> {
    type Output = Vec<Result<T, ChildError<E>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let children = &mut self.0;
        while let Some(joined) = ready!(children.tasks.poll_join_next(cx)) {
            // A child that was cancelled names no place: its place stays empty.
            if let Ok((place, end)) = joined {
                children.ends[place] = Some(end);
            }
        }
        Poll::Ready(children.take_ends().collect())
    }
}

// Neither is ever pinned in place: the tasks live in the runtime's own boxes.
impl<T, E> Unpin for Gather<T, E> {}
impl<T, E> Unpin for GatherSettled<T, E> {}

#[derive(Debug)]
struct Children<T, E> {
    tasks: JoinSet<(usize, Result<T, ChildError<E>>)>,
    handles: Vec<AbortHandle>,
    ends: Vec<Option<Result<T, ChildError<E>>>>,
}

impl<T: Send + 'static, E: Send + 'static> Children<T, E> {
    fn spawn<I>(coroutines: I) -> Self
    where
        I: IntoIterator<Item: Future<Output = Result<T, E>> + Send + 'static>,
    {
        let mut tasks = JoinSet::new();
        let handles: Vec<_> = coroutines
            .into_iter()
            .enumerate()
            .map(|(place, coroutine)| tasks.spawn(async move { (place, settle(coroutine).await) }))
            .collect();
        let ends = handles.iter().map(|_| None).collect();
        Children {
            tasks,
            handles,
            ends,
        }
    }
}

impl<T: 'static, E: 'static> Children<T, E> {
    /// Lets the siblings go on by themselves.
    fn give_up(&mut self, error: ChildError<E>) -> Poll<Result<Vec<T>, ChildError<E>>> {
        self.tasks.detach_all();
        Poll::Ready(Err(error))
    }

    fn take_ends(&mut self) -> impl Iterator<Item = Result<T, ChildError<E>>> {
        std::mem::take(&mut self.ends)
            .into_iter()
            .map(|end| end.unwrap_or(Err(ChildError::Cancelled)))
    }
}

/// Runs a coroutine; its error or panic becomes a [`ChildError`].
pub(super) async fn settle<T, E>(
    coroutine: impl Future<Output = Result<T, E>>,
) -> Result<T, ChildError<E>> {
    match catch(coroutine).await {
        Ok(end) => end.map_err(ChildError::Failed),
        Err(panic) => Err(ChildError::Panicked(panic)),
    }
}

/// Runs a coroutine; a panic in it, or in its destructors, is printed as usual and becomes an
/// error. ([`panic::catch`] for coroutines: it has to be in force during each poll.)
pub(super) async fn catch<F: Future>(coroutine: F) -> Result<F::Output, Panic> {
    let mut coroutine = pin!(Some(coroutine));
    poll_fn(|cx| {
        let end = panic::catch(|| match coroutine.as_mut().as_pin_mut() {
            Some(running) => running.poll(cx),
            None => Poll::Pending,
        });
        let end = match end {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        Poll::Ready(panic::catch(|| coroutine.set(None)).and(end))
    })
    .await
}
