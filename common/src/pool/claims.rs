//! The claims table: who has which task, in memory that outlives any worker.
//!
//! ```text
//!            parent            worker, under the ring's get lock
//!   FREE -----------> QUEUED ------------------> TAKEN
//!                        |                         | worker begins
//!                        | parent cancels          v            parent gives up
//!                        v                      RUNNING -----------------------> DOOMED
//!                    CANCELLED                     | worker has the result      (then kills)
//!                                                  v
//!                                               SENDING ---> (message read by the parent) FREE
//! ```
//!
//! Every task in the ring or in a worker's hands has a cell, whose word says in one atomic value
//! which task (a generation), in what state, with which worker. So a change of state and a change
//! of hands are one step, and what a dead worker had is what the words name it for. Killing a
//! task is exact: a task that was made DOOMED is never answered, one that was not is never hit.
//!
//! Each worker also has an outbox, where the results of a chunk's items lie until they are sent:
//! should it die meanwhile, the parent finds those that were done.
//!
//! To copy: the folder pool/ and what its mod.rs names.

#![allow(unsafe_code)] // Says that a struct of atomics may live in shared memory.

use crate::shm::{Segment, Shared, ShmError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Free = 0,
    Queued = 1,
    Taken = 2,
    Running = 3,
    Sending = 4,
    Doomed = 5,
    Cancelled = 6,
}

impl Stage {
    fn of(byte: u8) -> Self {
        use Stage::*;
        [Free, Queued, Taken, Running, Sending, Doomed]
            .into_iter()
            .find(|&stage| stage as u8 == byte)
            .unwrap_or(Cancelled)
    }

    /// Whether a worker has it.
    pub(super) fn is_held(self) -> bool {
        matches!(
            self,
            Stage::Taken | Stage::Running | Stage::Sending | Stage::Doomed
        )
    }
}

/// Names a task while it has a cell: the cell's number below, a generation above. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClaimId(pub(crate) u64);

impl ClaimId {
    pub(super) fn new(cell: usize, generation: u32) -> Self {
        ClaimId(u64::from(generation) << 32 | cell as u64)
    }

    pub(super) fn cell(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u64 {
        self.0 >> 32
    }
}

/// What a cell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    fn new(id: ClaimId, stage: Stage, worker: usize) -> Self {
        Word(id.generation() << 32 | (worker as u64 & 0xffff) << 8 | stage as u64)
    }

    pub(super) fn stage(self) -> Stage {
        Stage::of(self.0 as u8)
    }

    pub(super) fn worker(self) -> usize {
        (self.0 >> 8 & 0xffff) as usize
    }

    pub(super) fn is_for(self, id: ClaimId) -> bool {
        self.0 >> 32 == id.generation()
    }
}

/// A task's place in the table.
#[repr(C, align(64))]
pub(super) struct Cell {
    word: AtomicU64,
    /// Which item of the chunk runs.
    item: AtomicU64,
    /// Since when, in nanoseconds of the monotonic clock; 0 if nobody asks.
    since: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Shared for Cell {}

/// The head of a worker's outbox.
#[repr(C, align(64))]
struct Tray {
    id: AtomicU64,
    /// Number of its first item in the chunk.
    first: AtomicU64,
    /// How many items above, how many bytes below: one store makes an item be there.
    filled: AtomicU64,
    /// Set when the worker's initializer is through.
    ready: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Shared for Tray {}

/// Bytes of results an outbox holds.
pub(super) const OUTBOX: usize = 16 << 10;
const CELL: usize = size_of::<Cell>();
const TRAY: usize = size_of::<Tray>();

/// One process's handle on the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    segment: Segment,
    cells: usize,
    workers: usize,
}

impl Claims {
    pub(super) fn create(cells: usize, workers: usize) -> Result<Self, ShmError> {
        let bytes = cells * CELL + workers * (TRAY + OUTBOX);
        let segment = Segment::create(bytes)?;
        segment.reserve(bytes)?;
        Ok(Claims {
            segment,
            cells,
            workers,
        })
    }

    pub(super) fn unlink(&self) {
        // Gone already is as good.
        let _ = self.segment.unlink();
    }

    fn at(&self, index: usize) -> Option<&Cell> {
        (index < self.cells)
            .then(|| self.segment.at::<Cell>(index * CELL).ok())
            .flatten()
    }

    fn tray_at(&self, worker: usize) -> usize {
        self.cells * CELL + worker * (TRAY + OUTBOX)
    }

    fn tray(&self, worker: usize) -> Option<&Tray> {
        (worker < self.workers)
            .then(|| self.segment.at::<Tray>(self.tray_at(worker)).ok())
            .flatten()
    }

    pub(super) fn word(&self, cell: usize) -> Word {
        Word(self.at(cell).map_or(0, |cell| cell.word.load(SeqCst)))
    }

    /// Changes the stage in one step; false if the cell says something else than `from`.
    pub(super) fn step(&self, id: ClaimId, worker: usize, from: Stage, to: Stage) -> bool {
        // Nobody holds what is queued.
        let holder = if from == Stage::Queued { 0 } else { worker };
        let before = Word::new(id, from, holder).0;
        let after = Word::new(id, to, worker).0;
        self.at(id.cell()).is_some_and(|cell| {
            cell.word
                .compare_exchange(before, after, SeqCst, SeqCst)
                .is_ok()
        })
    }

    /// Parent: the cell is this task's from now on.
    pub(super) fn queue(&self, id: ClaimId) {
        if let Some(cell) = self.at(id.cell()) {
            cell.item.store(0, Relaxed);
            cell.since.store(0, Relaxed);
            cell.word.store(Word::new(id, Stage::Queued, 0).0, SeqCst);
        }
    }

    /// Parent: the task has been dealt with.
    pub(super) fn free(&self, id: ClaimId) {
        if let Some(cell) = self.at(id.cell()) {
            cell.word.store(Word::new(id, Stage::Free, 0).0, SeqCst);
        }
    }

    /// Worker: the cell of the task that it has.
    pub(super) fn cell(&self, id: ClaimId) -> Option<&Cell> {
        self.at(id.cell())
    }

    /// Which item runs and since when (0: not known).
    pub(super) fn progress(&self, cell: usize) -> (usize, u64) {
        self.at(cell).map_or((0, 0), |cell| {
            let item = cell.item.load(Acquire);
            (
                usize::try_from(item).unwrap_or(usize::MAX),
                cell.since.load(Acquire),
            )
        })
    }

    /// Worker: its outbox.
    pub(super) fn outbox(&self, worker: usize) -> Option<Outbox<'_>> {
        self.tray(worker).map(|tray| Outbox {
            tray,
            segment: &self.segment,
            place: self.tray_at(worker) + TRAY,
        })
    }

    /// Parent: what a dead worker had done of task `id` and not sent: the first item's number,
    /// how many, and their results behind the count.
    pub(super) fn salvage(&self, worker: usize, id: ClaimId) -> Option<(usize, usize, Vec<u8>)> {
        let tray = self.tray(worker)?;
        let filled = tray.filled.load(SeqCst);
        let (count, len) = (filled >> 32, (filled & 0xffff_ffff) as usize);
        if tray.id.load(SeqCst) != id.0 || count == 0 || len > OUTBOX {
            return None;
        }
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.resize(8 + len, 0);
        let place = self.tray_at(worker) + TRAY;
        self.segment.read(place, &mut bytes[8..]).ok()?;
        let first = usize::try_from(tray.first.load(SeqCst)).ok()?;
        Some((first, usize::try_from(count).ok()?, bytes))
    }

    pub(super) fn set_ready(&self, worker: usize, ready: bool) {
        if let Some(tray) = self.tray(worker) {
            tray.ready.store(u64::from(ready), SeqCst);
        }
    }

    pub(super) fn is_ready(&self, worker: usize) -> bool {
        self.tray(worker)
            .is_some_and(|tray| tray.ready.load(SeqCst) == 1)
    }
}

impl Cell {
    /// The chunk begins. That its first item does the cell says already; were it said here, and
    /// the chunk cancelled meanwhile, it might be said of another chunk, which is further on.
    pub(super) fn begin(&self, since: u64) {
        self.since.store(since, Release);
    }

    /// Item `item` of the chunk begins.
    #[inline]
    pub(super) fn begin_item(&self, item: usize, since: u64) {
        if since != 0 {
            self.since.store(since, Release);
        }
        self.item.store(item as u64, Release);
    }
}

/// A worker's outbox, for the worker.
#[derive(Clone, Copy)]
pub(super) struct Outbox<'c> {
    tray: &'c Tray,
    segment: &'c Segment,
    /// Where in the segment its bytes begin.
    place: usize,
}

impl Outbox<'_> {
    /// What follows are results of task `id` from item `first` on.
    pub(super) fn clear(&self, id: ClaimId, first: usize) {
        self.tray.filled.store(0, SeqCst);
        self.tray.id.store(id.0, Relaxed);
        self.tray.first.store(first as u64, Relaxed);
    }

    /// Adds the result of one more item: now there are `count`, and this is `bytes` from byte `at`
    /// on. False if it does not fit.
    #[inline]
    pub(super) fn add(&self, count: usize, at: usize, bytes: &[u8]) -> bool {
        let end = at + bytes.len();
        if end > OUTBOX || self.segment.write(self.place + at, bytes).is_err() {
            return false;
        }
        let filled = (count as u64) << 32 | end as u64;
        self.tray.filled.store(filled, Release);
        true
    }
}

/// Nanoseconds of the monotonic clock, the same for all processes of the machine.
pub(super) fn now_nanos() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_taken_once_and_cancelled_exactly() {
        let claims = Claims::create(4, 2).unwrap();
        let id = ClaimId::new(3, 7);
        claims.queue(id);
        assert!(claims.step(id, 1, Stage::Queued, Stage::Taken));
        assert!(!claims.step(id, 0, Stage::Queued, Stage::Taken));
        assert!(!claims.step(id, 0, Stage::Queued, Stage::Cancelled));
        assert!(claims.step(id, 1, Stage::Taken, Stage::Running));
        let word = claims.word(3);
        assert!(word.is_for(id) && word.stage() == Stage::Running && word.worker() == 1);
        claims.free(id);
        assert!(!claims.step(id, 1, Stage::Running, Stage::Sending));
        assert!(!claims.step(ClaimId::new(9, 7), 0, Stage::Queued, Stage::Taken));
    }

    #[test]
    fn who_begins_what_was_cancelled_sets_nobody_back() {
        let claims = Claims::create(1, 2).unwrap();
        let (cancelled, next) = (ClaimId::new(0, 1), ClaimId::new(0, 2));
        claims.queue(cancelled);
        assert!(claims.step(cancelled, 0, Stage::Queued, Stage::Taken));
        assert!(claims.step(cancelled, 0, Stage::Taken, Stage::Cancelled));
        claims.queue(next);
        claims.cell(next).unwrap().begin_item(5, 0);
        claims.cell(cancelled).unwrap().begin(1);
        assert_eq!(claims.progress(0).0, 5);
    }

    #[test]
    fn the_outbox_keeps_what_was_done() {
        let claims = Claims::create(4, 2).unwrap();
        let id = ClaimId::new(0, 1);
        let outbox = claims.outbox(1).unwrap();
        outbox.clear(id, 5);
        assert_eq!(claims.salvage(1, id), None);
        assert!(outbox.add(1, 0, b"abc"));
        assert!(outbox.add(2, 3, b"d"));
        assert!(!outbox.add(3, 4, &[0; OUTBOX]));
        let mut bytes = 2u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"abcd");
        assert_eq!(claims.salvage(1, id), Some((5, 2, bytes)));
        assert_eq!(claims.salvage(1, ClaimId::new(0, 2)), None);
    }
}
