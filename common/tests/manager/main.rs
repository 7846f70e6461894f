//! The manager: real processes, real SIGKILL.

mod calls;
mod faults;
mod lifetime;
mod limits;
mod pool;
mod remote;
mod shutdown;
mod threads;
mod typed;
mod unpolled;
mod waiting;

use common::manager::{Hosted, PoolProxy};
use common::pool::Pool;
use std::time::{Duration, Instant};

/// Waits for something that happens soon, but in another process; fails after ten seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Whether the process runs; one that has ended and is not reaped yet does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The process ids of a pool's workers.
fn workers(pool: &PoolProxy) -> Vec<u32> {
    let pids = |pool: &mut Pool| -> Vec<u32> {
        let workers = pool.stats().workers;
        workers.iter().filter_map(|worker| worker.pid).collect()
    };
    pool.proxy().call(pids, ()).unwrap()
}
