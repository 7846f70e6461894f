//! What a pool tells of itself: figures when asked, and events as they happen.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::engine::Engine;
use super::error::TaskId;
use super::lock;
use std::process::ExitStatus;
use std::time::Duration;

/// What a pool is doing. Made by [`Pool::stats`](super::Pool::stats).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStats {
    /// Its workers, in the order of their numbers.
    pub workers: Vec<WorkerStats>,
    /// Tasks that no worker has taken yet.
    pub queued: usize,
    /// Tasks that workers have in their hands.
    pub running: usize,
}

/// What one worker, and those it replaced, did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStats {
    /// Its process id; `None` while there is none.
    pub pid: Option<u32>,
    /// Tasks answered.
    pub tasks: u64,
    /// Time spent on them.
    pub busy: Duration,
    /// How often it was replaced.
    pub restarts: u32,
    /// The most memory that the present process ever held, in bytes; `None` if it cannot be read.
    pub peak_rss: Option<u64>,
}

/// Something that happened in a pool. See
/// [`PoolBuilder::on_event`](super::PoolBuilder::on_event).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A worker process was started.
    WorkerStarted {
        /// Its process id.
        pid: u32,
    },
    /// A worker process has ended, for whatever reason.
    WorkerEnded {
        /// Its process id.
        pid: u32,
        /// How; `None` if that could not be learnt.
        status: Option<ExitStatus>,
        /// The tasks that died with it.
        lost: Vec<TaskId>,
    },
    /// A worker has begun a chunk of tasks.
    TaskStarted {
        /// The worker's process id.
        pid: u32,
        /// The first of them.
        task: TaskId,
        /// How many there are.
        tasks: usize,
    },
    /// A worker has answered tasks.
    TaskEnded {
        /// The worker's process id.
        pid: u32,
        /// The first of them.
        task: TaskId,
        /// How many there are.
        tasks: usize,
        /// Whether they have results.
        ok: bool,
        /// How long they took together; zero if their worker died before it could tell.
        took: Duration,
    },
}

/// Called with each event.
pub(super) type Hook = Box<dyn Fn(&Event) + Send + Sync>;

/// What one worker and its predecessors did.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) tasks: u64,
    pub(super) busy: Duration,
}

impl Engine {
    pub(super) fn stats(&self) -> PoolStats {
        if self.has_answers() {
            self.drain();
        }
        let core = lock(&self.core);
        let mut stats = PoolStats {
            workers: Vec::with_capacity(core.tallies.len()),
            queued: core.backlog_tasks(),
            running: 0,
        };
        for flight in core.flights.iter().flatten() {
            let left = flight.len() - flight.done;
            match self.claims.word(flight.id.cell()).stage().is_held() {
                true => stats.running += left,
                false => stats.queued += left,
            }
        }
        let crew = lock(&self.crew);
        for (worker, tally) in core.tallies.iter().enumerate() {
            let pid = Some(crew.pid(worker)).filter(|&pid| pid != 0);
            stats.workers.push(WorkerStats {
                pid,
                tasks: tally.tasks,
                busy: tally.busy,
                restarts: crew.restarts(worker),
                peak_rss: pid.and_then(peak_rss),
            });
        }
        stats
    }
}

/// The high-water mark of a process's memory (proc(5)).
fn peak_rss(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
