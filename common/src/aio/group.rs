//! `asyncio.TaskGroup`: coroutines that belong together, none of which outlives the group, and
//! all of whose errors are told.
//!
//! ```text
//!   TaskGroup::run(async |group| {     the body, and the members it spawns
//!       group.spawn(a());
//!       group.spawn(b());              first error, in a member or in the body:
//!       c().await                        the group closes, everything else is cancelled,
//!   }).await                             and the result holds every error there was
//! ```
//!
//! tokio's `JoinSet` is the tool where the caller looks at each end himself; what it leaves to him
//! is this module: closing, cancelling the body with the members, and collecting the errors.
//!
//! To copy: aio/group.rs, aio/gather.rs, panic.rs.

use super::gather::{ChildError, catch, settle};
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use thiserror::Error;
use tokio::task::{AbortHandle, JoinSet};

/// A group of coroutines that succeed or fail together. Its clones are the same group: give them
/// to members that spawn further members.
#[derive(Debug)]
pub struct TaskGroup<E> {
    shared: Arc<Shared<E>>,
}

/// Everything that went wrong in a group, in the order in which it did. Never empty.
#[doc(alias = "ExceptionGroup")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupError<E> {
    /// The errors and panics; members that were only cancelled are not among them.
    pub errors: Vec<ChildError<E>>,
}

/// The group takes no more members: something in it failed, or it has finished. Holds the
/// coroutine, which was not started.
#[derive(Error)]
#[error("the task group has failed or finished and takes no more members")]
pub struct GroupClosed<F>(pub F);

/// The member gave no value: it was cancelled, or it failed (and the group has its error).
#[derive(Clone, Copy, PartialEq, Eq, Error)]
#[error("the member of the task group was cancelled or failed")]
pub struct MemberLost;

/// One coroutine of a group: a future of its value. Dropping it changes nothing.
#[derive(Debug)]
pub struct Member<T> {
    value: oneshot::Receiver<T>,
    task: AbortHandle,
}

impl<E: Send + 'static> TaskGroup<E> {
    /// Runs `body`, which spawns the members, and waits until it and all of them are done. Returns
    /// what the body returned.
    ///
    /// If the body or a member fails or panics, the group closes and the others are cancelled
    /// where they stand. Dropping what this returns cancels everything.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with every error there was. A panic in the body is one of them.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use common::aio::TaskGroup;
    ///
    /// let sum = TaskGroup::run(async |group| {
    ///     let square = async |x: u64| Ok::<_, String>(x * x);
    ///     let members = [1, 2, 3].map(|x| group.spawn(square(x)).unwrap());
    ///     let mut sum = 0;
    ///     for member in members {
    ///         sum += member.await.unwrap();
    ///     }
    ///     Ok(sum)
    /// });
    /// assert_eq!(sum.await, Ok(14));
    ///
    /// let failed = TaskGroup::run(async |group| {
    ///     group.spawn(async { Err::<(), _>("no luck") }).unwrap();
    ///     std::future::pending().await // cancelled by the member's error
    /// });
    /// let error: common::aio::GroupError<_> = Result::<(), _>::unwrap_err(failed.await);
    /// assert_eq!(error.to_string(), "a task group failed: no luck");
    /// # });
    /// ```
    pub async fn run<R>(
        body: impl AsyncFnOnce(TaskGroup<E>) -> Result<R, E>,
    ) -> Result<R, GroupError<E>> {
        let group = TaskGroup {
            shared: Arc::new(Shared::new()),
        };
        let _cancel = CancelOnDrop(&group.shared);
        let value = group.run_body(body).await;
        // Not in one loop with the body: the body has to be dropped before its cancelled members
        // are waited for, or they might wait for each other.
        poll_fn(|cx| group.shared.poll_finish(cx)).await;
        match (value, group.shared.take_errors()) {
            (Some(value), errors) if errors.is_empty() => Ok(value),
            (_, errors) => Err(GroupError { errors }),
        }
    }

    /// Adds a member and starts it at once.
    ///
    /// # Errors
    ///
    /// [`GroupClosed`], with the coroutine, once something in the group has failed or the group
    /// has finished.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as `tokio::spawn`.
    #[doc(alias = "create_task")]
    pub fn spawn<T, F>(&self, coroutine: F) -> Result<Member<T>, GroupClosed<F>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (give, value) = oneshot::channel();
        let (hand_over, handed_over) = oneshot::channel::<F>();
        let member = async move {
            match handed_over.await {
                // Whether anybody still wants the value is not the member's business.
                Ok(coroutine) => {
                    let member = async move { coroutine.await.map(|value| drop(give.send(value))) };
                    settle(member).await
                }
                // Never: it is handed over below.
                Err(_) => Ok(()),
            }
        };
        let mut members = self.shared.members();
        if members.closed {
            return Err(GroupClosed(coroutine));
        }
        let task = members.tasks.spawn(member);
        drop(members);
        // Only now, for a runtime that has been shut down drops what it is given, and the
        // coroutine's destructors may use the group.
        drop(hand_over.send(coroutine));
        self.shared.waker.wake();
        Ok(Member { value, task })
    }

    /// Runs the body until it is done or a member fails; `None` if anything failed.
    async fn run_body<R>(&self, body: impl AsyncFnOnce(TaskGroup<E>) -> Result<R, E>) -> Option<R> {
        let mut body = pin!(catch(body(self.clone())));
        poll_fn(|cx| {
            if let Poll::Ready(end) = body.as_mut().poll(cx) {
                let end = end.map_or_else(
                    |panic| Err(ChildError::Panicked(panic)),
                    |end| end.map_err(ChildError::Failed),
                );
                return Poll::Ready(end.map_err(|error| self.shared.fail(error)).ok());
            }
            match self.shared.poll_failed(cx) {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}

impl<E> Clone for TaskGroup<E> {
    fn clone(&self) -> Self {
        TaskGroup {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Member<T> {
    /// Cancels this member alone. That is no error of the group's.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether it has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Future for Member<T> {
    type Output = Result<T, MemberLost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.value).poll(cx).map_err(|_| MemberLost)
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task group failed")?;
        for (place, error) in self.errors.iter().enumerate() {
            write!(f, "{} {error}", if place == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for GroupError<E> {}

/// In words, whatever the coroutine is: it is what `main` and `unwrap` print.
impl<F> fmt::Debug for GroupClosed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for MemberLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug)]
struct Shared<E> {
    members: Mutex<Members<E>>,
    /// Wakes `run` when a member comes into a group that was empty when it last looked.
    waker: AtomicWaker,
}

#[derive(Debug)]
struct Members<E> {
    tasks: JoinSet<Result<(), ChildError<E>>>,
    errors: Vec<ChildError<E>>,
    closed: bool,
}

impl<E: 'static> Shared<E> {
    fn new() -> Self {
        Shared {
            members: Mutex::new(Members {
                tasks: JoinSet::new(),
                errors: Vec::new(),
                closed: false,
            }),
            waker: AtomicWaker::new(),
        }
    }

    /// Nothing panics while it is held, so that it is never poisoned with something half-done.
    fn members(&self) -> MutexGuard<'_, Members<E>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a member has failed by now. Members that end well leave the group open, even if it
    /// is empty meanwhile.
    fn poll_failed(&self, cx: &mut Context<'_>) -> bool {
        self.waker.register(cx.waker());
        let mut members = self.members();
        let _ = members.poll_empty(cx);
        members.closed
    }

    /// Ready when no member is left. In the same instant the group closes, so that no member can
    /// come in that nobody would wait for.
    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        let mut members = self.members();
        let empty = members.poll_empty(cx);
        members.closed |= empty.is_ready();
        empty
    }

    fn fail(&self, error: ChildError<E>) {
        self.members().fail(error);
    }

    fn take_errors(&self) -> Vec<ChildError<E>> {
        std::mem::take(&mut self.members().errors)
    }
}

impl<E: 'static> Members<E> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.tasks.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Err(error)))) => self.fail(error),
                // It ended well, or was cancelled: by its handle, or with all the others.
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn fail(&mut self, error: ChildError<E>) {
        self.errors.push(error);
        self.closed = true;
        self.tasks.abort_all();
    }
}

/// Cancels the members when `run` ends or is dropped. Members may hold clones of the group, so
/// that waiting for the last clone to go would wait for ever.
struct CancelOnDrop<'a, E: 'static>(&'a Shared<E>);

impl<E: 'static> Drop for CancelOnDrop<'_, E> {
    fn drop(&mut self) {
        let mut members = self.0.members();
        members.closed = true;
        let tasks = std::mem::take(&mut members.tasks);
        // Dropping tasks runs destructors, which may use the group.
        drop(members);
        drop(tasks);
    }
}
