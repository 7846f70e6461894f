//! The pool as its users see it, and when things go wrong.
//!
//! Cases of Python's own tests have their numbers, from O-001 to O-033; O-032 is with the chunks.

mod calls;
mod deaths;
mod life;
mod limits;
mod nested;
mod parents;
mod results;

use common::pool::{Pool, TaskError, TaskId};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::Duration;

fn square(x: u64) -> u64 {
    x * x
}

fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

fn refuse_odd(x: u64) -> u64 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x
}

fn pool(workers: usize) -> Pool {
    Pool::new(workers).unwrap()
}

fn pids(pool: &Pool) -> Vec<Pid> {
    let workers = pool.stats().workers;
    let pids = workers.iter().filter_map(|worker| worker.pid);
    pids.map(|pid| Pid::from_raw(pid as i32)).collect()
}

fn died(error: &TaskError) -> (Option<i32>, Option<i32>, &TaskId) {
    match error {
        TaskError::WorkerDied { status, task, .. } => {
            let status = status.unwrap();
            (status.code(), status.signal(), task)
        }
        other => panic!("{other}"),
    }
}

/// Waits until workers have so many tasks in their hands.
fn wait_until_running(pool: &Pool, tasks: usize) {
    while pool.stats().running < tasks {
        sleep(Duration::from_millis(1));
    }
}
