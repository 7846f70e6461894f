//! Waiting for a ring in a future, under any executor.
//!
//! ```text
//!   future 1 --\                      one thread of this process
//!   future 2 ---> wakers of a ring <-- asleep in the ring's futex; wakes them all when there is
//!   future 3 --/                       something to try for, and ends when nobody is waiting
//! ```
//!
//! A futex cannot be polled, so a thread sleeps for all the futures of a ring's end; it exists
//! only while some wait. Being woken takes nothing out of the ring: each future then tries for
//! itself, so a future that is dropped loses no message.

use super::{Inner, Ring};
use crate::sync::{SLICE, Signal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};

/// Which end a future waits at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// For a message, or the ring's end.
    Get,
    /// For room, or the ring's end.
    Put,
}

/// The futures that wait at one end, in this process.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<(u64, Waker)>,
    last: u64,
    thread: Option<Thread>,
    /// The process whose thread it is: a forked child inherits the note, not the thread.
    pid: u32,
}

impl Ring {
    /// Wakes `waker` once there may be something to get, or room to put. Gives a number for
    /// [`Ring::unwatch`].
    pub(crate) fn watch(&self, end: End, waker: &Waker) -> u64 {
        let mut waiting = self.0.watch_of(end).lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.wakers.push((number, waker.clone()));
        let mine = waiting.pid == std::process::id();
        match waiting.thread.as_ref().filter(|_| mine) {
            Some(thread) => thread.unpark(),
            None => waiting.start(Arc::clone(&self.0), end),
        }
        number
    }

    /// Forgets a waker, whose future is trying for itself now.
    pub(crate) fn forget(&self, end: End, number: u64) {
        let mut waiting = self.0.watch_of(end).lock();
        waiting.wakers.retain(|(other, _)| *other != number);
    }

    /// Forgets a waker whose future is given up. If it has been woken already, what it was woken
    /// for goes to others.
    pub(crate) fn unwatch(&self, end: End, number: u64) {
        let mut waiting = self.0.watch_of(end).lock();
        let before = waiting.wakers.len();
        waiting.wakers.retain(|(other, _)| *other != number);
        if waiting.wakers.len() == before {
            drop(waiting);
            self.0.signal_of(end).notify(1);
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// If no thread can be had the futures are woken at once and try again: slow, and not stuck.
    fn start(&mut self, inner: Arc<Inner>, end: End) {
        let thread = thread::Builder::new()
            .name("ring waiter".into())
            .stack_size(64 << 10)
            .spawn(move || inner.watch_for(end));
        self.pid = std::process::id();
        match thread {
            Ok(handle) => self.thread = Some(handle.thread().clone()),
            Err(_) => self.wake(),
        }
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(|(_, waker)| waker.wake());
    }
}

impl Inner {
    fn watch_of(&self, end: End) -> &Watch {
        match end {
            End::Get => &self.getters,
            End::Put => &self.putters,
        }
    }

    fn signal_of(&self, end: End) -> &Signal {
        match end {
            End::Get => &self.header().news.0.signal,
            End::Put => &self.header().room.0,
        }
    }

    fn worth_a_try(&self, end: End) -> bool {
        let (head, tail) = (self.head(), self.tail());
        let waits = match end {
            End::Get => tail.position() == head.position(),
            // How much room each needs is its own affair.
            End::Put => !self.fits_between(head, tail, 1, 1),
        };
        !waits || tail.closed()
    }

    /// The thread: sleeps until there is something to try for, wakes the futures, and waits for
    /// the next ones. Ends when none have come for a while.
    fn watch_for(&self, end: End) {
        loop {
            let signal = self.signal_of(end);
            let ticket = signal.prepare();
            let seen = self.head();
            if !self.worth_a_try(end) {
                signal.sleep(ticket, SLICE);
            } else if end == End::Put && !self.tail().closed() {
                // There was room, and for some of them too little: until there is more.
                signal.sleep(ticket, SLICE / 50);
            }
            if self.worth_a_try(end) || self.head() != seen {
                self.watch_of(end).lock().wake();
            }
            if self.watch_of(end).lock().wakers.is_empty() {
                thread::park_timeout(SLICE);
                let mut waiting = self.watch_of(end).lock();
                if waiting.wakers.is_empty() {
                    waiting.thread = None;
                    return;
                }
            }
        }
    }
}
