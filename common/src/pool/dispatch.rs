//! What waits, what is under way, and the step from the one to the other.
//!
//! ```text
//!   submit -> backlog (no bound) -> pump cuts chunks -> cell + task ring (bounded) -> workers
//!                  ^                                       |
//!                  +--- what a dead worker had not begun --+
//! ```
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::{ClaimId, Stage};
use super::engine::{Engine, Long};
use super::error::TaskError;
use super::job::{Finished, Job};
use super::lock;
use super::message::{HEADER, ItemDepartures, Items, TaskHeader};
use super::stats::Tally;
use crate::deadline::Deadline;
use crate::ring::{Batch, PutError};
use std::collections::VecDeque;
use std::sync::Arc;

/// Tasks that have not been given out.
struct Pending {
    job: Arc<Job>,
    items: Arc<Items>,
    from: usize,
    to: usize,
    /// How often a worker has died with the first of them.
    lost: u32,
    departures: ItemDepartures,
}

/// A chunk that is in the ring or with a worker.
pub(super) struct Flight {
    pub(super) id: ClaimId,
    pub(super) job: Arc<Job>,
    pub(super) items: Arc<Items>,
    pub(super) from: usize,
    pub(super) to: usize,
    /// How many of its tasks have been answered, from the first on.
    pub(super) done: usize,
    /// How often a worker has died with the first of them.
    pub(super) lost: u32,
    /// Why its worker was killed, if it was because of this chunk.
    pub(super) fate: Option<Fate>,
    /// Away while it has a cell.
    departures: ItemDepartures,
}

/// Why the pool kills a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    TimedOut,
    /// It waits for a lock that nobody can release.
    Deadlocked,
    Abandoned,
}

impl Flight {
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }

    /// The number in its job of item `item` of the chunk.
    pub(super) fn index(&self, item: usize) -> usize {
        self.items.base + self.from + item
    }

    /// No worker will read its message, or none but one that has `begun` it and is dead: what is
    /// counted for it is taken back unless it goes to the backlog again.
    pub(super) fn recall(&mut self, begun: bool) {
        for (_, departures) in &mut self.departures {
            match begun {
                true => *departures = departures.again(),
                false => departures.back(),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Finishes what it has.
    Closed,
    Ended,
}

/// What waits and what is under way.
pub(super) struct Core {
    pub(super) phase: Phase,
    backlog: VecDeque<Pending>,
    pub(super) flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    generation: u32,
    /// A long message is being put by the feeder: nothing overtakes it.
    pub(super) feeding: bool,
    scratch: Batch,
    scratch_ids: Vec<usize>,
    /// Bytes of arguments that wait.
    pub(super) backlog_bytes: usize,
    pub(super) tallies: Vec<Tally>,
    /// Why there is no worker, if there is none and none can be started.
    pub(super) stuck: Option<String>,
    /// What the last worker said that could not be made ready.
    pub(super) unready: Option<String>,
}

/// Messages gathered for one put.
const TOGETHER: usize = 64;
/// Longer ones are put from where they are.
const GATHERED: usize = 2 << 10;
/// How many jobs that wait for a measurement are passed over in search of one that does not.
const PASSED: usize = 64;

impl Core {
    pub(super) fn new(cells: usize, workers: usize) -> Self {
        Core {
            phase: Phase::Open,
            backlog: VecDeque::new(),
            flights: (0..cells).map(|_| None).collect(),
            free: (0..cells).rev().collect(),
            generation: 0,
            feeding: false,
            scratch: Batch::default(),
            scratch_ids: Vec::new(),
            backlog_bytes: 0,
            tallies: vec![Tally::default(); workers],
            stuck: None,
            unready: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether more tasks of a job that is under way may come. A closed pool finishes those.
    pub(super) fn admit(&self) -> Result<(), TaskError> {
        match self.phase {
            Phase::Ended => Err(TaskError::Closed),
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, job: Arc<Job>, mut items: Items) {
        let to = items.len();
        if to > 0 && !job.is_finished() {
            self.backlog_bytes += items.size();
            let departures = items.take_departures();
            if !departures.is_empty() {
                job.count();
            }
            self.backlog.push_back(Pending {
                job,
                items: Arc::new(items),
                from: 0,
                to,
                lost: 0,
                departures,
            });
        }
    }

    /// Puts what is left of a chunk, from item `done` on, to the front again.
    pub(super) fn put_back(&mut self, mut flight: Flight, done: usize, lost: u32) {
        let from = flight.from + done;
        flight.job.chunking.put_back(flight.to - from);
        if from < flight.to && !flight.job.is_finished() {
            self.backlog_bytes += flight.items.range(from, flight.to).len();
            flight.departures.retain(|(item, _)| *item >= from);
            self.backlog.push_front(Pending {
                job: flight.job,
                items: flight.items,
                from,
                to: flight.to,
                lost,
                departures: flight.departures,
            });
        }
    }

    /// Takes back what is counted for the tasks that wait of a job that has ended. They themselves
    /// are left out when their turn comes.
    pub(super) fn take_back(&mut self, job: &Arc<Job>) {
        if job.is_counted() {
            let waiting = self.backlog.iter_mut();
            let its = waiting.filter(|pending| Arc::ptr_eq(&pending.job, job));
            its.for_each(|pending| pending.departures.clear());
        }
    }

    /// Chunks that have begun are begun no more.
    pub(super) fn forget_departures(&mut self) {
        let under_way = self.flights.iter_mut().flatten();
        under_way.for_each(|flight| flight.departures.clear());
    }

    /// How many chunks the workers have or can take, and whether there is more for them.
    pub(super) fn under_way(&self) -> (usize, bool) {
        let chunks = self.flights.len() - self.free.len();
        (chunks, !self.backlog.is_empty())
    }

    pub(super) fn backlog_tasks(&self) -> usize {
        let waiting = self.backlog.iter();
        waiting
            .filter(|pending| !pending.job.is_finished())
            .map(|pending| pending.to - pending.from)
            .sum()
    }

    /// Every job that is not finished, as far as it has tasks here; some several times.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        let waiting = self.backlog.iter().map(|pending| pending.job.clone());
        let under_way = self.flights.iter().flatten();
        waiting
            .chain(under_way.map(|flight| flight.job.clone()))
            .collect()
    }

    /// Forgets everything that waits.
    pub(super) fn clear_backlog(&mut self) {
        self.backlog.clear();
        self.backlog_bytes = 0;
    }

    /// Cuts the next chunk; `None` if there is none or its message is longer than `room`.
    fn cut(&mut self, room: usize, long: usize) -> Option<Flight> {
        let (at, size) = self.find()?;
        let pending = &mut self.backlog[at];
        let to = pending.to.min(pending.from.saturating_add(size));
        let bytes = pending.items.range(pending.from, to).len() + HEADER;
        if self.free.is_empty() || (bytes > room && bytes <= long) {
            return None;
        }
        let counted = pending.departures.partition_point(|(item, _)| *item < to);
        let flight = Flight {
            id: ClaimId(0),
            job: pending.job.clone(),
            items: pending.items.clone(),
            from: pending.from,
            to,
            done: 0,
            lost: std::mem::take(&mut pending.lost),
            fate: None,
            departures: pending.departures.drain(..counted).collect(),
        };
        let waiting = &mut self.backlog_bytes;
        *waiting = waiting.saturating_sub(bytes - HEADER);
        pending.from = to;
        if pending.from == pending.to {
            self.backlog.remove(at);
        }
        flight.job.chunking.cut(flight.len());
        Some(flight)
    }

    /// The first task that may go now, and how many of its kind together.
    fn find(&mut self) -> Option<(usize, usize)> {
        let mut at = 0;
        while at < self.backlog.len().min(PASSED) {
            let job = &self.backlog[at].job;
            if job.is_finished() {
                if let Some(gone) = self.backlog.remove(at) {
                    let bytes = gone.items.range(gone.from, gone.to).len();
                    self.backlog_bytes = self.backlog_bytes.saturating_sub(bytes);
                }
                continue;
            }
            if let Some(size) = job.chunking.next() {
                return Some((at, size));
            }
            at += 1;
        }
        None
    }

    /// Gives a chunk a cell.
    fn board(&mut self, mut flight: Flight, engine: &Engine) -> (usize, [u8; HEADER]) {
        // `cut` has seen that there is one.
        let cell = self.free.pop().unwrap_or_default();
        self.generation = self.generation.wrapping_add(1).max(1);
        flight.id = ClaimId::new(cell, self.generation);
        engine.claims.queue(flight.id);
        let header = TaskHeader {
            id: flight.id.0,
            entry: flight.job.entry,
            count: flight.len() as u64,
        };
        for (_, departures) in &mut flight.departures {
            departures.away();
        }
        self.flights[cell] = Some(flight);
        (cell, header.to_bytes())
    }

    /// Ends a chunk's stay, for whatever reason.
    pub(super) fn leave(&mut self, cell: usize, engine: &Engine) -> Option<Flight> {
        let flight = self.flights.get_mut(cell)?.take()?;
        engine.claims.free(flight.id);
        self.free.push(cell);
        Some(flight)
    }
}

impl Engine {
    /// Gives out as much as there is room for. Never waits.
    pub(super) fn pump(&self, core: &mut Core, finished: &mut Finished) {
        if core.phase == Phase::Ended || core.feeding || core.backlog.is_empty() {
            return;
        }
        let ring = self.tasks.stats();
        let long = ring.capacity / 2;
        let mut room = ring.capacity.saturating_sub(ring.bytes);
        loop {
            let Some(flight) = core.cut(room.saturating_sub(64), long) else {
                break;
            };
            let bytes = flight.items.range(flight.from, flight.to).len();
            if bytes + HEADER > long {
                if self.flush(core, finished) {
                    self.hand_to_feeder(core, flight);
                } else {
                    core.put_back_unsent(flight);
                }
                return;
            }
            room = room.saturating_sub((bytes + HEADER + 24) & !15);
            let sent = if bytes > GATHERED {
                self.flush(core, finished) && self.put_alone(core, flight, finished)
            } else {
                self.gather(core, flight);
                core.scratch.len() < TOGETHER || self.flush(core, finished)
            };
            if !sent {
                return;
            }
        }
        self.flush(core, finished);
    }

    fn gather(&self, core: &mut Core, flight: Flight) {
        let (items, from, to) = (flight.items.clone(), flight.from, flight.to);
        let (cell, header) = core.board(flight, self);
        core.scratch_ids.push(cell);
        // Appending bytes cannot fail.
        let _ = core.scratch.push_with(|out| {
            out.extend_from_slice(&header);
            out.extend_from_slice(items.range(from, to));
            Ok::<(), ()>(())
        });
    }

    /// Puts what has been gathered; false if not all of it went.
    fn flush(&self, core: &mut Core, finished: &mut Finished) -> bool {
        if core.scratch.is_empty() {
            return true;
        }
        let (put, result) = self.tasks.put_many(&core.scratch, 0, Deadline::Now);
        core.scratch.clear();
        let cells = std::mem::take(&mut core.scratch_ids);
        for &cell in cells[put.min(cells.len())..].iter().rev() {
            self.unsent(core, cell, &result, finished);
        }
        core.scratch_ids = cells;
        core.scratch_ids.clear();
        result.is_ok()
    }

    fn put_alone(&self, core: &mut Core, flight: Flight, finished: &mut Finished) -> bool {
        let (items, from, to) = (flight.items.clone(), flight.from, flight.to);
        let (cell, header) = core.board(flight, self);
        let parts = [&header[..], items.range(from, to)];
        let result = self.tasks.put(&parts, Deadline::Now);
        if result.is_err() {
            self.unsent(core, cell, &result, finished);
        }
        result.is_ok()
    }

    fn unsent(
        &self,
        core: &mut Core,
        cell: usize,
        result: &Result<(), PutError>,
        finished: &mut Finished,
    ) {
        let Some(mut flight) = core.leave(cell, self) else {
            return;
        };
        flight.recall(false);
        match result {
            // No room after all: later.
            Ok(()) | Err(PutError::Full) => core.put_back_unsent(flight),
            Err(error) => {
                flight.job.chunking.close();
                let reason = error.to_string();
                let error = |_| TaskError::Memory {
                    reason: reason.clone(),
                };
                let tasks = flight.index(0)..flight.index(flight.len());
                flight.job.fail(tasks, error, finished);
            }
        }
    }

    fn hand_to_feeder(&self, core: &mut Core, flight: Flight) {
        let (items, from, to) = (flight.items.clone(), flight.from, flight.to);
        let (_, header) = core.board(flight, self);
        core.feeding = true;
        *lock(&self.feed) = Some(Long {
            header,
            items,
            from,
            to,
        });
        self.fed.notify_one();
        self.alarm();
    }

    /// Forgets what has not begun of the jobs that have ended, and kills what runs of `job`.
    pub(super) fn abandon(&self, core: &mut Core, job: Option<&Arc<Job>>) {
        for cell in 0..core.flights.len() {
            let Some(flight) = core.flights[cell].as_ref() else {
                continue;
            };
            if !flight.job.is_finished() {
                continue;
            }
            let kill = job.is_some_and(|job| Arc::ptr_eq(&flight.job, job));
            let (id, word) = (flight.id, self.claims.word(cell));
            if self.claims.step(id, 0, Stage::Queued, Stage::Cancelled)
                || self
                    .claims
                    .step(id, word.worker(), Stage::Taken, Stage::Cancelled)
            {
                if let Some(mut flight) = core.leave(cell, self) {
                    flight.recall(false);
                    flight.job.chunking.close();
                }
            } else if kill {
                self.doom(core, cell, Fate::Abandoned);
            }
        }
    }

    /// Kills a worker, for a reason that is that of the chunk it runs, if it runs one.
    pub(super) fn doom_all(&self, worker: usize, fate: Fate) {
        let mut core = lock(&self.core);
        for cell in 0..core.flights.len() {
            let word = self.claims.word(cell);
            if word.stage() == Stage::Running && word.worker() == worker {
                self.doom(&mut core, cell, fate);
            }
        }
        lock(&self.crew).kill(worker);
    }

    /// Ends a chunk that runs by killing its worker. Does nothing if its answer is on its way.
    pub(super) fn doom(&self, core: &mut Core, cell: usize, fate: Fate) -> bool {
        let word = self.claims.word(cell);
        let Some(flight) = core.flights[cell].as_mut() else {
            return false;
        };
        let worker = word.worker();
        let doomed = self
            .claims
            .step(flight.id, worker, Stage::Running, Stage::Doomed);
        if doomed {
            flight.fate = Some(fate);
            lock(&self.crew).kill(worker);
        }
        doomed
    }
}

impl Core {
    fn put_back_unsent(&mut self, flight: Flight) {
        let lost = flight.lost;
        self.put_back(flight, 0, lost);
    }
}
