//! Sleeping until another process changes a word of shared memory.
//!
//! ```text
//!   process A                 shared memory                process B
//!   wait(word, 7)  ---------> [ word: 7 ] <--------- word = 8; wake(word, 1)
//!   asleep in the kernel  <=============================== woken
//! ```
//!
//! A sleep and a wake cost about 30 us; an answer that is already on its way comes in less than
//! one. So `Spin` looks for a while before its caller sleeps, seldom where that does not pay (more
//! runnable processes than cores, or nothing to do), and never on one core.
//!
//! The futexes of the crate `atomic-wait` are private to one process, hence these.
//!
//! To copy: futex.rs.

#![allow(unsafe_code)] // Two system calls that nix does not wrap.

use std::hint;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Sleeps while `*word == expected`, until a [`wake`], or until `timeout` is over. It may return
/// early for no reason: the caller looks again.
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// use std::time::Duration;
/// let word = AtomicU32::new(7);
/// common::futex::wait(&word, 8, None); // it is not 8: returns at once
/// common::futex::wait(&word, 7, Some(Duration::from_millis(1)));
/// ```
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let limit: *const libc::timespec = limit.as_ref().map_or(std::ptr::null(), |limit| limit);
    // SAFETY: `word` is a live aligned u32 and `limit` null or a live timespec, both borrowed
    // until the call returns; FUTEX_WAIT writes to neither.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            limit,
        );
    }
}

/// Wakes up to `count` sleepers of any process; returns how many it woke. May be called from a
/// signal handler.
///
/// ```
/// let word = std::sync::atomic::AtomicU32::new(0);
/// assert_eq!(common::futex::wake(&word, u32::MAX), 0);
/// ```
pub fn wake(word: &AtomicU32, count: u32) -> u32 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: `word` is a live aligned u32; FUTEX_WAKE uses its address only.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    woken.try_into().unwrap_or(0)
}

/// Whether one kind of wait is worth spinning for, learnt from how the last ones went.
#[derive(Debug)]
pub(crate) struct Spin {
    /// Waits that slept since spinning last paid.
    misses: AtomicU32,
}

/// About what a sleep and a wake cost. Who spins as long as that before it sleeps never does worse
/// than twice the best, and sees whom it has just woken come to life and answer.
const LONGEST: Duration = Duration::from_micros(50);
/// After so many waits in vain in a row there is no more spinning ...
const ENOUGH: u32 = 2;
/// ... but for one wait in so many, to see whether it would pay again.
const RETRY: u32 = 8;
/// Pauses between two looks: a look takes the cache line away from the core that writes it.
const PAUSES: u32 = 12;
/// Looks in quicker succession at first, before a clock is read.
const FIRST: u32 = 16;

impl Spin {
    pub(crate) const fn new() -> Self {
        Spin {
            misses: AtomicU32::new(0),
        }
    }

    /// Looks until `ready` or the time is up; says whether it was ready.
    pub(crate) fn until(&self, ready: impl FnMut() -> bool) -> bool {
        self.until_within(1, ready)
    }

    /// As [`Spin::until`], up to `times` as long: what is waited for takes longer.
    pub(crate) fn until_within(&self, times: u32, mut ready: impl FnMut() -> bool) -> bool {
        let misses = self.misses.load(Ordering::Relaxed);
        let spins = cores() > 1 && (misses < ENOUGH || misses.is_multiple_of(RETRY));
        if spins && spin(LONGEST * times, &mut ready) {
            if misses != 0 {
                self.misses.store(0, Ordering::Relaxed);
            }
            return true;
        }
        self.misses.store(misses.wrapping_add(1), Ordering::Relaxed);
        ready()
    }
}

fn spin(most: Duration, ready: &mut impl FnMut() -> bool) -> bool {
    for _ in 0..FIRST {
        pause(PAUSES / 4);
        if ready() {
            return true;
        }
    }
    let start = Instant::now();
    while start.elapsed() < most {
        pause(PAUSES);
        if ready() {
            return true;
        }
    }
    false
}

fn pause(times: u32) {
    for _ in 0..times {
        hint::spin_loop();
    }
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    // `available_parallelism` counts the affinity mask and the cgroup's quota.
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;

    #[test]
    fn a_sleeper_is_woken() {
        let word = Arc::new(AtomicU32::new(0));
        let sleeper = {
            let word = Arc::clone(&word);
            std::thread::spawn(move || {
                while word.load(Ordering::SeqCst) == 0 {
                    wait(&word, 0, None);
                }
            })
        };
        word.store(1, Ordering::SeqCst);
        while !sleeper.is_finished() {
            wake(&word, 1);
        }
        sleeper.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_timeout() {
        let start = Instant::now();
        wait(&AtomicU32::new(3), 3, Some(Duration::from_millis(20)));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn spinning_in_vain_is_given_up() {
        let spin = Spin::new();
        let looks = || {
            let looks = Cell::new(0);
            assert!(!spin.until(|| {
                looks.set(looks.get() + 1);
                false
            }));
            looks.get()
        };
        let first = looks();
        assert!(cores() < 2 || first > 1);
        looks();
        assert_eq!(looks(), 1);
        assert!(spin.until(|| true));
    }
}
