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
use std::panic::{AssertUnwindSafe, catch_unwind};
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
        let waker = waker.clone();
        let mut waiting = self.0.watch_of(end).lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.wakers.push((number, waker));
        let mine = waiting.pid == std::process::id();
        match waiting.thread.as_ref().filter(|_| mine) {
            Some(thread) => thread.unpark(),
            None => {
                // Without a thread they try again at once: slow, and not stuck.
                if !waiting.start(Arc::clone(&self.0), end) {
                    wake(waiting);
                }
            }
        }
        number
    }

    /// Forgets a waker, whose future is trying for itself now.
    pub(crate) fn forget(&self, end: End, number: u64) {
        let _waker = self.0.watch_of(end).lock().take(number);
    }

    /// Forgets a waker whose future is given up. If it has been woken already, what it was woken
    /// for goes to others.
    pub(crate) fn unwatch(&self, end: End, number: u64) {
        let waker = self.0.watch_of(end).lock().take(number);
        if waker.is_none() {
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
    /// Says whether a thread is to be had.
    fn start(&mut self, inner: Arc<Inner>, end: End) -> bool {
        let thread = thread::Builder::new()
            .name("ring waiter".into())
            .stack_size(64 << 10)
            .spawn(move || inner.watch_for(end));
        self.pid = std::process::id();
        self.thread = thread.ok().map(|handle| handle.thread().clone());
        self.thread.is_some()
    }

    /// Takes a waker out. It is dropped without the lock: it may drop a future that wants it.
    fn take(&mut self, number: u64) -> Option<Waker> {
        let index = self.wakers.iter().position(|(other, _)| *other == number)?;
        Some(self.wakers.remove(index).1)
    }
}

/// Wakes them without the lock, for what they do may want it; says how many there were.
fn wake(mut waiting: MutexGuard<'_, Waiting>) -> usize {
    let wakers = std::mem::take(&mut waiting.wakers);
    drop(waiting);
    let count = wakers.len();
    for (_, waker) in wakers {
        // Foreign code. If it panics that has been printed; others are to be woken as well.
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
    count
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
            let tries = self.worth_a_try(end) || self.head() != seen;
            if tries && wake(self.watch_of(end).lock()) == 0 {
                // What woke this thread may have been meant for one message and one sleeper.
                signal.notify(1);
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
