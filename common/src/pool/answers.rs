//! A worker's answers to a chunk: gathered while its items run, and sent.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::{Cell, ClaimId, OUTBOX, Outbox, now_nanos};
use super::error::Fault;
use super::port::{LARGE, Port, Taken};
use nix::time::{ClockId, clock_gettime};
use std::any::Any;
use std::time::{Duration, Instant};

/// What the pool's initializer returned in this worker.
pub(crate) struct State {
    pub(crate) value: Box<dyn Any>,
    pub(crate) type_name: String,
}

impl Default for State {
    fn default() -> Self {
        State {
            value: Box::new(()),
            type_name: "()".into(),
        }
    }
}

/// The answers of one chunk after the other.
///
/// For each item there is a [`begin`](Self::begin) and an [`end`](Self::end): with the quickest of
/// tasks these are most of the work, so what is needed for each is inlined, and the rest is not.
pub(crate) struct Answers<'p> {
    port: &'p Port,
    state: State,
    outbox: Option<Outbox<'p>>,
    id: ClaimId,
    cell: Option<&'p Cell>,
    /// Items in the chunk.
    count: usize,
    /// The item that runs.
    current: usize,
    /// The first item whose result is not sent yet.
    first: usize,
    /// Encoded results of the items from `first` to before `current`.
    results: Vec<u8>,
    /// Where the result of the current item begins.
    mark: usize,
    since: Instant,
    since_coarse: Duration,
}

/// Results wait no longer than about this for those of the rest of the chunk.
const HURRY: Duration = Duration::from_millis(2);
/// Nor for more bytes than this, so that the next one has room in the outbox.
const FULL: usize = OUTBOX * 3 / 4;
/// After so many items there is a look at the clock: with quick tasks even that is much.
const LOOK: usize = 8;

impl<'p> Answers<'p> {
    pub(super) fn new(port: &'p Port, state: State) -> Self {
        Answers {
            port,
            state,
            outbox: port.claims.outbox(port.index),
            id: ClaimId(0),
            cell: None,
            count: 0,
            current: 0,
            first: 0,
            results: Vec::new(),
            mark: 0,
            since: Instant::now(),
            since_coarse: Duration::ZERO,
        }
    }

    /// A chunk begins.
    pub(super) fn open(&mut self, taken: &Taken) {
        (self.id, self.count) = (taken.id, taken.count());
        self.cell = self.port.claims.cell(taken.id);
        (self.current, self.first) = (0, 0);
        self.restart();
    }

    /// It has ended; a fault is that of all items that have not been answered.
    pub(super) fn close(&mut self, ran: Result<(), Fault>) {
        if let Err(fault) = ran {
            self.last_one();
            self.fault(self.count, &fault);
        }
        if self.results.capacity() > LARGE {
            self.results = Vec::new();
        }
    }

    /// Item `index` of the chunk begins: where its encoded result is appended, and the state that
    /// the worker keeps.
    #[inline]
    pub(super) fn begin(&mut self, index: usize) -> (&mut Vec<u8>, &mut State) {
        self.current = index;
        self.mark = self.results.len();
        if index > 0
            && let Some(cell) = self.cell
        {
            let since = if self.port.timed { now_nanos() } else { 0 };
            cell.begin_item(index, since);
        }
        (&mut self.results, &mut self.state)
    }

    /// The item has ended; on a fault whatever was appended is dropped.
    #[inline]
    pub(super) fn end(&mut self, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.done(),
            Err(fault) => self.failed(&fault),
        }
    }

    #[inline]
    fn done(&mut self) {
        let next = self.current + 1;
        if next == self.count {
            return self.done_last(next);
        }
        let (count, result) = (next - self.first, &self.results[self.mark..]);
        let kept = self
            .outbox
            .is_some_and(|outbox| outbox.add(count, self.mark, result));
        super::step("item: kept");
        // What is not in the outbox must not wait: it would be lost with this process.
        let full = !kept || self.results.len() > FULL;
        if full || (next.is_multiple_of(LOOK) && self.is_time()) {
            self.send_some(next);
        }
    }

    #[inline(never)]
    fn done_last(&mut self, next: usize) {
        self.last_one();
        self.send(next);
    }

    #[inline(never)]
    fn is_time(&self) -> bool {
        coarse().saturating_sub(self.since_coarse) > HURRY
    }

    #[inline(never)]
    fn send_some(&mut self, next: usize) {
        self.send(next);
        self.restart();
    }

    #[cold]
    fn failed(&mut self, fault: &Fault) {
        self.results.truncate(self.mark);
        if self.current > self.first {
            self.send(self.current);
        }
        let last = self.current + 1 == self.count;
        if last {
            self.last_one();
        }
        self.fault(1, fault);
        if !last {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.results.clear();
        self.since = Instant::now();
        if self.count > 1 {
            self.since_coarse = coarse();
            if let Some(outbox) = &self.outbox {
                outbox.clear(self.id, self.first);
            }
        }
    }

    /// Sends the results of the items before `next`.
    fn send(&mut self, next: usize) {
        let nanos = self.nanos();
        let count = next - self.first;
        let sent = self
            .port
            .send_done(self.id, self.first, count, nanos, &self.results);
        go_on(sent);
        self.first = next;
    }

    /// Sends why `count` items from `self.first` on have no result.
    fn fault(&mut self, count: usize, fault: &Fault) {
        let sent = self
            .port
            .send_fault(self.id, self.first, count, self.nanos(), fault);
        go_on(sent);
        self.first += count;
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The next message is the chunk's last.
    fn last_one(&self) {
        while !self.port.finish(self.id) {
            // The deadline was quicker: the parent has begun to kill this process.
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// A worker that cannot answer ends; the parent tells who waits, and replaces it.
fn go_on(sent: Result<(), crate::ring::PutError>) {
    match sent {
        Ok(()) => {}
        // The pool is terminated: nobody waits for the answer.
        Err(crate::ring::PutError::Closed) => std::process::exit(0),
        Err(error) => {
            eprintln!("a worker ends because its results cannot be sent: {error}");
            std::process::exit(1)
        }
    }
}

/// A clock that is read in a few nanoseconds and goes in steps of a few milliseconds.
fn coarse() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from)
}
