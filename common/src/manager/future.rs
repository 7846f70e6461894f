//! A call on its way, as a future.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::connection::Connection;
use super::error::CallError;
use super::message::Message;
use super::objects;
use super::proxy::decode_reply;
use crate::deadline::Deadline;
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A call that has been sent. Await it under any executor, or [`wait`](CallFuture::wait) for it.
///
/// Many may be in flight; a manager runs those of one process in the order of their making.
/// Dropping it does not take the call back: only its result is lost. But what does not fit in the
/// channel is sent while this process waits for something from the manager, or shuts it down; a
/// process that ends before loses it. In a fork of the process that made the call it gives an
/// error.
#[must_use = "the call is made, but whether it succeeds is only known by awaiting it"]
pub struct CallFuture<R>(State<R>);

enum State<R> {
    /// Known already.
    Done(Option<Result<R, CallError>>),
    Sent(Sent),
}

struct Sent {
    connection: Arc<Connection>,
    number: u64,
    taken: bool,
}

impl<R> CallFuture<R> {
    pub(super) fn done(result: Result<R, CallError>) -> Self {
        CallFuture(State::Done(Some(result)))
    }

    /// Sends the message, if there is one.
    pub(super) fn of(connection: Arc<Connection>, message: Result<Message, CallError>) -> Self {
        let message = match message {
            Ok(message) => message,
            Err(error) => return CallFuture::done(Err(error)),
        };
        CallFuture(State::Sent(Sent {
            number: connection.send(message),
            connection,
            taken: false,
        }))
    }
}

impl<R: DeserializeOwned> CallFuture<R> {
    /// Waits for the result without an executor.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](super::Proxy::call).
    ///
    /// # Panics
    ///
    /// If it was polled before until it was ready.
    pub fn wait(self) -> Result<R, CallError> {
        self.wait_until(Deadline::Never)
    }

    /// As [`wait`](CallFuture::wait), for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call_timeout`](super::Proxy::call_timeout).
    ///
    /// # Panics
    ///
    /// As [`wait`](CallFuture::wait).
    pub fn wait_timeout(self, timeout: Duration) -> Result<R, CallError> {
        self.wait_until(Deadline::after(timeout))
    }

    pub(super) fn wait_until(mut self, deadline: Deadline) -> Result<R, CallError> {
        match &mut self.0 {
            State::Done(result) => take(result),
            State::Sent(sent) => {
                sent.check_owner()?;
                // Nobody would ever answer it again.
                assert!(!sent.taken, "{TAKEN}");
                let reply = sent.connection.wait(sent.number, deadline);
                sent.taken = reply.is_ok();
                decode_reply(&sent.connection, reply?, deadline)
            }
        }
    }
}

impl<R: DeserializeOwned + Unpin> Future for CallFuture<R> {
    type Output = Result<R, CallError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Done(result) => Poll::Ready(take(result)),
            State::Sent(sent) => sent.poll(context),
        }
    }
}

const TAKEN: &str = "a call was polled or waited for after it was ready";

fn take<R>(result: &mut Option<R>) -> R {
    match result.take() {
        Some(result) => result,
        None => panic!("{TAKEN}"),
    }
}

impl Sent {
    /// The answer goes to the process that made the call; a fork of it must not take it. And the
    /// manager, where another of its threads made the call, would wait for itself.
    fn check_owner(&self) -> Result<(), CallError> {
        if objects::serves(&self.connection.endpoint.id) {
            return Err(CallError::WouldBlock);
        }
        match self.connection.is_ours() {
            true => Ok(()),
            false => Err(CallError::Disconnected {
                manager: self.connection.endpoint.name.clone(),
                reason: "the call was made by the process that this one was forked from".into(),
            }),
        }
    }

    fn poll<R: DeserializeOwned>(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<R, CallError>> {
        assert!(!self.taken, "{TAKEN}");
        if let Err(error) = self.check_owner() {
            return Poll::Ready(Err(error));
        }
        let reply = ready!(self.connection.poll(self.number, context.waker()));
        self.taken = true;
        let decode = |reply| decode_reply(&self.connection, reply, Deadline::Never);
        Poll::Ready(reply.and_then(decode))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.connection.is_ours() {
            return;
        }
        if !self.taken {
            self.connection.abandon(self.number);
        }
    }
}

impl<R> fmt::Debug for CallFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.0 {
            State::Done(_) => "done",
            State::Sent(sent) if sent.taken => "taken",
            State::Sent(_) => "sent",
        };
        f.debug_struct("CallFuture").field("state", &state).finish()
    }
}
