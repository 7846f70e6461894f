//! How a pool ends: at once, or when it has done what it was given.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::dispatch::Phase;
use super::engine::Engine;
use super::error::{PoolError, TaskError};
use super::lock;
use crate::deadline::Deadline;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long a worker that is told to end may take over its exit handlers.
const PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// Starts the pool's threads, once the workers are there.
    pub(super) fn start_threads(self: &Arc<Self>) -> Result<(), PoolError> {
        let start = |name: &str, run: fn(&Arc<Engine>)| {
            let engine = self.clone();
            let thread = thread::Builder::new().name(name.into());
            let thread = thread.spawn(move || run(&engine));
            thread.map_err(PoolError::Thread)
        };
        let monitor = start("pool-monitor", |engine| engine.watch())?;
        lock(&self.threads).push(monitor);
        let collector = start("pool-collector", |engine| engine.collect())?;
        lock(&self.threads).push(collector);
        Ok(())
    }

    pub(super) fn terminate(&self) {
        if !self.is_owner() {
            // A copy in a forked child: the pool is the parent's.
            return;
        }
        lock(&self.core).phase = Phase::Ended;
        self.tasks.close();
        self.end_all(&TaskError::Cancelled);
        self.kill_workers();
        self.wind_up();
        // The monitor may just have started one when it was told to end.
        self.kill_workers();
        self.end_all(&TaskError::Cancelled);
        // Whoever still has a result keeps what is left of the pool, but not the arguments.
        lock(&self.core).forget_departures();
    }

    /// Whether it has ended before `deadline`.
    pub(super) fn join(&self, deadline: Deadline) -> Result<bool, PoolError> {
        if !self.is_owner() {
            // A copy must not close the ring, which it shares with the pool.
            return Err(PoolError::NotOwner { owner: self.owner });
        }
        if lock(&self.core).phase == Phase::Open {
            return Err(PoolError::Open);
        }
        // The thread that calls the callbacks is waited for in the end, so they have to return
        // within the deadline too. One that joins the pool itself cannot wait for itself.
        let own = self.is_own_thread();
        let called = || own || self.is_over() || lock(&self.callbacks).is_idle();
        loop {
            if !self.wait(deadline, || self.unfinished() == 0 && called()) {
                return Ok(false);
            }
            if self.end_if_done() {
                break;
            }
        }
        // The workers leave when they find the ring closed.
        self.tasks.close();
        self.dismiss_workers(deadline.at_most(PATIENCE));
        self.wind_up();
        self.kill_workers();
        Ok(true)
    }

    /// Whether this is one of the pool's own threads, in a callback.
    pub(super) fn is_own_thread(&self) -> bool {
        let me = thread::current().id();
        let threads = lock(&self.threads);
        threads.iter().any(|thread| thread.thread().id() == me)
    }

    /// Takes no more tasks, not even of an `imap` that still draws, unless there are some again;
    /// false if there are. Jobs are counted before their tasks are admitted, and that happens
    /// under this lock: a job is seen here, or refused.
    fn end_if_done(&self) -> bool {
        let mut core = lock(&self.core);
        let done = self.unfinished() == 0;
        if done {
            core.phase = Phase::Ended;
        }
        done
    }

    /// Ends the threads, this one excepted, and removes the names from `/dev/shm`.
    fn wind_up(&self) {
        self.stop_threads();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != thread::current().id() {
                // Its panic has been printed.
                let _ = thread.join();
            }
        }
        for ring in [&self.tasks, &self.results] {
            // Gone already is as good.
            let _ = ring.segment().unlink();
        }
        self.claims.unlink();
    }
}
