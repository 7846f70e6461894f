//! A forked worker that waits for a lock which nobody can ever release.
//!
//! A fork copies the locks as they are, but not the threads that would release them. The usual
//! case: the pool is made while a `LazyLock` is, and a task touches that. In its process the lock
//! is for ever being made.
//!
//! Linux tells (proc(5), `/proc/pid/syscall`). A process of one thread that sleeps in futex(2) on
//! a word of its own memory, without a time limit, can be woken by no one: the word belongs to no
//! other process, and no thread is there to change it. That is seen twice before it is believed.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::dispatch::Fate;
use super::engine::Engine;
use super::lock;
use crate::process::StartMethod;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

/// How often there is a look, and so how far two looks are apart that must say the same.
const LOOK: Duration = Duration::from_millis(500);

/// What the last look has seen.
#[derive(Default)]
pub(super) struct Sleepers {
    seen: Vec<Sleeper>,
    next: Option<Instant>,
}

#[derive(PartialEq, Eq)]
struct Sleeper {
    worker: usize,
    pid: u32,
    /// The system call, its arguments, the stack pointer and the program counter.
    call: String,
}

impl Engine {
    /// How long until there should be a look, if there is anything to look for.
    pub(super) fn next_look_for_deadlocks(&self, sleepers: &Sleepers) -> Option<Duration> {
        let forks = self.settings.start_method == StartMethod::Fork;
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        forks.then(|| sleepers.next.map_or(LOOK, left))
    }

    /// Kills the workers that wait for ever.
    pub(super) fn end_deadlocks(&self, sleepers: &mut Sleepers) {
        match self.next_look_for_deadlocks(sleepers) {
            Some(Duration::ZERO) => {}
            None => return,
            Some(left) => {
                sleepers.next.get_or_insert(Instant::now() + left);
                return;
            }
        }
        sleepers.next = Some(Instant::now() + LOOK);
        let before = std::mem::take(&mut sleepers.seen);
        for (worker, process) in lock(&self.crew).processes() {
            let pid = process.pid();
            if let Some(call) = endless_wait(pid) {
                sleepers.seen.push(Sleeper { worker, pid, call });
            }
        }
        for sleeper in sleepers.seen.iter().filter(|now| before.contains(now)) {
            self.doom_all(sleeper.worker, Fate::Deadlocked);
        }
    }
}

/// The system call that the process is in, if it can never return from it.
fn endless_wait(pid: u32) -> Option<String> {
    const PRIVATE: u64 = libc::FUTEX_PRIVATE_FLAG as u64;
    const WAITS: [u64; 2] = [
        libc::FUTEX_WAIT as u64 | PRIVATE,
        libc::FUTEX_WAIT_BITSET as u64 | PRIVATE,
    ];
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, from the third field on.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let asleep = fields.next() == Some("S");
    let alone = fields.nth(16) == Some("1");
    let call = read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let mut words = call.split_whitespace();
    let futex = words.next()?.parse::<libc::c_long>() == Ok(libc::SYS_futex);
    let mut argument = |nth| u64::from_str_radix(words.nth(nth)?.trim_start_matches("0x"), 16).ok();
    let (operation, time_limit) = (argument(1)?, argument(1)?);
    let endless = asleep && alone && futex && WAITS.contains(&operation) && time_limit == 0;
    endless.then_some(call)
}
