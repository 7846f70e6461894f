//! Futexes for one thread of the machine on which shuttle runs all threads of the model.

use crate::process::step;
use crate::shm::AtomicU32;
use shuttle::thread::{self, Thread};
use std::cell::RefCell;
use std::time::Duration;

thread_local! {
    static SLEEPERS: RefCell<Sleepers> = const { RefCell::new(Sleepers { last: 0, asleep: Vec::new() }) };
}

struct Sleepers {
    last: u64,
    asleep: Vec<Sleeper>,
}

struct Sleeper {
    number: u64,
    word: usize,
    thread: Thread,
}

/// Sleeps until woken: there is no time in the model.
pub(crate) fn wait(word: &AtomicU32, expected: u32, _: Option<Duration>) {
    step();
    // No step between the look and the sleep, as in the kernel.
    if word.peek() == expected {
        sleep(word.as_ptr() as usize);
        step();
    }
}

pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    step();
    wake_at(|place| place == word.as_ptr() as usize, count)
}

/// Sleeps until somebody calls [`wake_at`] for this place.
pub(crate) fn sleep(place: usize) {
    let number = SLEEPERS.with_borrow_mut(|sleepers| {
        sleepers.last += 1;
        let thread = thread::current();
        let (number, word) = (sleepers.last, place);
        let sleeper = Sleeper {
            number,
            word,
            thread,
        };
        sleepers.asleep.push(sleeper);
        number
    });
    let asleep = || SLEEPERS.with_borrow(|all| all.asleep.iter().any(|one| one.number == number));
    while asleep() {
        thread::park();
    }
}

pub(crate) fn wake_at(is_it: impl Fn(usize) -> bool, count: u32) -> u32 {
    let woken: Vec<Sleeper> = SLEEPERS.with_borrow_mut(|sleepers| {
        let mut left = count;
        let mut take = |one: &mut Sleeper| {
            let take = left > 0 && is_it(one.word);
            left -= u32::from(take);
            take
        };
        sleepers.asleep.extract_if(.., |one| take(one)).collect()
    });
    woken.iter().for_each(|one| one.thread.unpark());
    woken.len() as u32
}

/// Wakes everybody, whatever they wait for.
pub(crate) fn wake_all() {
    wake_at(|_| true, u32::MAX);
}

/// Begins anew.
pub(crate) fn forget() {
    SLEEPERS.with_borrow_mut(|sleepers| sleepers.asleep.clear());
}

/// There is no time to spin for.
#[derive(Debug)]
pub(crate) struct Spin;

impl Spin {
    pub(crate) const fn new() -> Self {
        Spin
    }

    pub(crate) fn until(&self, mut ready: impl FnMut() -> bool) -> bool {
        ready()
    }

    pub(crate) fn until_within(&self, _: u32, ready: impl FnMut() -> bool) -> bool {
        self.until(ready)
    }
}

pub(crate) fn cores() -> usize {
    1
}
