//! Calls whose answer takes a while: futures that the server's one thread polls between others'
//! requests.
//!
//! ```text
//!   server's thread                     |  any thread of the process
//!   begin, poll -> pending: kept        |
//!   sleeps, or runs others' functions   |  wake(): its name to the list, the event
//!   list -> poll -> ready: the answer   |
//! ```

use super::client::Holds;
use super::dispatch::{self, Outcome};
use crate::function::Failure;
use crate::manager::error::CallError;
use crate::manager::method::Later;
use crate::panic;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Which of the calls have something to say.
pub(super) struct Wakes {
    calls: Mutex<Vec<(u32, u64)>>,
    any: AtomicBool,
    /// Ends the server's sleep. Watched for edges, so that nobody has to read it.
    event: EventFd,
}

impl Wakes {
    pub(super) fn new() -> Result<Arc<Wakes>, Errno> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Arc::new(Wakes {
            calls: Mutex::default(),
            any: AtomicBool::new(false),
            event: EventFd::from_flags(flags)?,
        }))
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The calls that were woken since the last time: client and number.
    pub(super) fn take(&self) -> Vec<(u32, u64)> {
        match self.any() && self.any.swap(false, Ordering::AcqRel) {
            true => mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner)),
            false => Vec::new(),
        }
    }

    /// Ends the server's sleep, for none of its clients.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        self.waker_of(NOBODY, 0)
    }

    fn waker_of(self: &Arc<Self>, client: u32, number: u64) -> Waker {
        let wakes = self.clone();
        Waker::from(Arc::new(Call {
            wakes,
            client,
            number,
        }))
    }

    fn add(&self, client: u32, number: u64) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((client, number));
        drop(calls);
        if !self.any.swap(true, Ordering::AcqRel) {
            // Fails only if nobody has slept since 2^64 wakes.
            let _ = self.event.write(1);
        }
    }
}

/// Clients are numbered from 1.
const NOBODY: u32 = 0;

struct Call {
    wakes: Arc<Wakes>,
    client: u32,
    number: u64,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wakes.add(self.client, self.number);
    }
}

/// One client's calls that are not answered yet.
#[derive(Default)]
pub(super) struct Calls(HashMap<u64, (Later, Waker)>);

impl Calls {
    /// One more, to be [polled](Calls::poll) at once.
    pub(super) fn add(&mut self, number: u64, later: Later, client: u32, wakes: &Arc<Wakes>) {
        let waker = wakes.waker_of(client, number);
        self.0.insert(number, (later, waker));
    }

    /// Looks whether the answer has come.
    pub(super) fn poll(&mut self, number: u64, holds: &mut Holds) -> Outcome {
        let Some((later, waker)) = self.0.get_mut(&number) else {
            return Outcome::Nothing;
        };
        let mut context = Context::from_waker(waker);
        let polled = panic::catch(|| later.as_mut().poll(&mut context));
        let encoded = match polled {
            Ok(Poll::Pending) => return Outcome::Nothing,
            Ok(Poll::Ready(encode)) => Ok(encode),
            Err(panic) => Err(CallError::Server(Failure::Panicked(panic))),
        };
        let ended = self.0.remove(&number);
        // What the future still held is the user's as well.
        let _ = panic::catch(|| drop(ended));
        dispatch::answer(number, holds, |out| encoded.and_then(|encode| encode(out)))
    }
}
