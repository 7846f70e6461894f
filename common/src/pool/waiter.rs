//! Who waits for jobs to finish, and how they are told which have.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::job::CallbackOf;
use super::lock;
use crate::panic;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread::Thread;

/// Somebody to be told when a job has finished.
pub(super) enum Waiter {
    Thread(Thread),
    Task(Waker),
    /// Gets the job's number.
    Queue(Arc<Completions>, usize),
}

impl Waiter {
    pub(super) fn wake(self) {
        match self {
            Waiter::Thread(thread) => thread.unpark(),
            Waiter::Task(waker) => {
                // Foreign code. If it panics that has been printed; others are to be told as well.
                let _ = panic::catch(|| waker.wake());
            }
            Waiter::Queue(queue, number) => queue.push(number),
        }
    }

    pub(super) fn is_task(&self) -> bool {
        matches!(self, Waiter::Task(_))
    }
}

/// What is to be called when jobs have finished, in that order, by the pool's own thread.
#[derive(Default)]
pub(super) struct Callbacks {
    waiting: VecDeque<CallbackOf>,
    running: bool,
    /// That thread has ended.
    over: bool,
}

impl Callbacks {
    /// Adds some; gives them back if nobody would call them.
    pub(super) fn add(&mut self, new: Vec<CallbackOf>) -> Vec<CallbackOf> {
        if self.over {
            return new;
        }
        self.waiting.extend(new);
        Vec::new()
    }

    /// The next, for the thread that calls them. Where there is none, and it was the `last` time
    /// that this thread asks, none will be taken.
    pub(super) fn next(&mut self, last: bool) -> Option<CallbackOf> {
        let next = self.waiting.pop_front();
        self.running = next.is_some();
        self.over |= last && next.is_none();
        next
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether all have been called and have returned.
    pub(super) fn is_idle(&self) -> bool {
        !self.running && self.waiting.is_empty()
    }
}

/// The numbers of finished jobs, in the order in which they finished.
#[derive(Default)]
pub(super) struct Completions {
    numbers: Mutex<VecDeque<usize>>,
    waiter: Mutex<Option<Waiter>>,
    some: AtomicBool,
}

impl std::fmt::Debug for Completions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Completions")
    }
}

impl Completions {
    pub(super) fn push(&self, number: usize) {
        let mut numbers = lock(&self.numbers);
        numbers.push_back(number);
        self.some.store(true, Release);
        drop(numbers);
        // With no lock held: a waker is foreign code. It may drop its task, and that the results,
        // which cancels the jobs that are left, which come here.
        let waiter = lock(&self.waiter).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    pub(super) fn pop(&self) -> Option<usize> {
        let mut numbers = lock(&self.numbers);
        let number = numbers.pop_front();
        self.some.store(!numbers.is_empty(), Release);
        number
    }

    pub(super) fn has_some(&self) -> bool {
        self.some.load(Acquire)
    }

    pub(super) fn clear_waiter(&self) {
        self.change_waiter(None);
    }

    pub(super) fn set_waiter(&self, waiter: Waiter) {
        self.change_waiter(Some(waiter));
    }

    fn change_waiter(&self, waiter: Option<Waiter>) {
        let old = std::mem::replace(&mut *lock(&self.waiter), waiter);
        // To drop a waker may be to drop its task, so no lock is held here either.
        drop(old);
    }
}

#[cfg(test)]
mod tests;
