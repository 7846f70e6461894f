//! A worker: a process that takes tasks, runs them and answers.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::chunk::{Chunk, Desk, State};
use super::claims::{Cell, ClaimId, OUTBOX, Outbox, now_nanos};
use super::error::Fault;
use super::port::{LARGE, Port, Taken};
use crate::codec;
use crate::deadline::Deadline;
use crate::function::{BadEntry, Entry, EntryRef, Failure, Function, Signature, instance};
use crate::panic;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// How a worker runs the tasks it takes. [`OneByOne`] is the plain way.
pub(crate) trait Runner: 'static {
    /// Takes tasks from `port` and answers them until the port is closed or `limits` say so.
    fn run(port: Port, limits: Limits, state: State);
}

/// What a worker is told when it is started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(super) port: Port,
    pub(super) limits: Limits,
    pub(super) nice: i32,
    pub(super) cpus: Vec<usize>,
    pub(super) initializer: Option<Initializer>,
}

/// When a worker leaves of its own accord, to be replaced by a new one.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// After so many tasks.
    pub(crate) tasks: Option<u64>,
    /// When it holds more bytes of memory than this after a task.
    pub(crate) resident: Option<u64>,
}

impl Limits {
    /// Whether a worker that has done `tasks` tasks is to leave.
    pub(crate) fn reached(&self, tasks: u64) -> bool {
        self.tasks.is_some_and(|most| tasks >= most)
            || self
                .resident
                .is_some_and(|most| resident().is_some_and(|now| now > most))
    }
}

/// What each worker runs first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Initializer {
    pub(super) entry: EntryRef,
    #[serde(with = "serde_bytes")]
    pub(super) args: Vec<u8>,
}

/// An initializer as an entry.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Init(fn(&[u8]) -> Result<State, Fault>);

impl Signature for Init {
    const MAGIC: u64 = u64::from_le_bytes(*b"poolinit");
}

struct InitOf<F, A>(PhantomData<(F, A)>);

impl<F, A> InitOf<F, A>
where
    F: Function<A, Output: 'static>,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<Init> = &Entry::new::<(Init, F, A, F::Output)>(Init(|args| {
        let args: A =
            codec::decode(args).map_err(|error| Fault::Failed(Failure::Arguments(error)))?;
        let value = panic::catch(|| instance::<F>().call(args))
            .map_err(|panic| Fault::Failed(Failure::Panicked(panic)))?;
        Ok(State {
            value: Box::new(value),
            type_name: std::any::type_name::<F::Output>().into(),
        })
    }));
}

impl Init {
    pub(super) fn entry<F, A>(_f: F) -> Result<EntryRef, BadEntry>
    where
        F: Function<A, Output: 'static>,
        A: DeserializeOwned + 'static,
    {
        EntryRef::of(InitOf::<F, A>::ENTRY)
    }
}

/// What a worker process runs.
pub(super) fn work<T: Runner>(orders: Orders) {
    let ready = set_up(&orders).and_then(|()| initialize(orders.initializer.as_ref()));
    match ready {
        Ok(state) => {
            orders.port.claims.set_ready(orders.port.index, true);
            T::run(orders.port, orders.limits, state);
        }
        Err(reason) => {
            let _ = orders.port.send_unready(&reason);
        }
    }
}

fn set_up(orders: &Orders) -> Result<(), String> {
    if orders.nice != 0 {
        // SAFETY: a plain system call about this process.
        #[allow(unsafe_code)]
        let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, orders.nice) } != 0;
        if failed {
            let error = std::io::Error::last_os_error();
            return Err(format!("nice {}: {error}", orders.nice));
        }
    }
    if !orders.cpus.is_empty() {
        let wrong = |error| format!("the CPU affinity {:?}: {error}", orders.cpus);
        let mut set = CpuSet::new();
        for &cpu in &orders.cpus {
            set.set(cpu).map_err(wrong)?;
        }
        sched_setaffinity(Pid::from_raw(0), &set).map_err(wrong)?;
    }
    Ok(())
}

fn initialize(initializer: Option<&Initializer>) -> Result<State, String> {
    let Some(initializer) = initializer else {
        return Ok(State::default());
    };
    let init: Init = initializer
        .entry
        .resolve()
        .map_err(|error| error.to_string())?;
    (init.0)(&initializer.args).map_err(|fault| match fault {
        Fault::Failed(failure) => format!("the initializer: {failure}"),
        Fault::State { .. } => "the initializer has a wrong state".into(),
    })
}

/// Runs one chunk after the other.
pub(crate) struct OneByOne;

impl Runner for OneByOne {
    fn run(port: Port, limits: Limits, state: State) {
        let mut desk = Answers::new(&port, state);
        let mut message = Vec::new();
        let mut tasks = 0;
        while !limits.reached(tasks) {
            // Closed, or broken: in both cases there is nothing left to do here.
            let Ok(taken) = port.take(&mut message, Deadline::Never) else {
                return;
            };
            if port.start(&taken) {
                desk.run(&taken, taken.items(&message));
                tasks += taken.header.count;
            }
        }
    }
}

/// Gathers the answers of a chunk and sends them.
struct Answers<'p> {
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
    /// Whether all of `results` is in the outbox.
    kept: bool,
    since: Instant,
    since_coarse: Duration,
}

/// Results wait no longer than about this for those of the rest of the chunk.
const HURRY: Duration = Duration::from_millis(2);

impl<'p> Answers<'p> {
    fn new(port: &'p Port, state: State) -> Self {
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
            kept: true,
            since: Instant::now(),
            since_coarse: Duration::ZERO,
        }
    }

    fn run(&mut self, taken: &Taken, items: &[u8]) {
        (self.id, self.count) = (taken.id, taken.count());
        self.cell = self.port.claims.cell(taken.id);
        (self.current, self.first) = (0, 0);
        self.restart();
        let ran = taken
            .function::<Chunk>()
            .and_then(|chunk| chunk.run(items, self));
        if let Err(fault) = ran {
            self.last_one();
            self.fault(self.count, &fault);
        }
        if self.results.capacity() > LARGE {
            self.results = Vec::new();
        }
    }

    fn restart(&mut self) {
        self.results.clear();
        self.kept = true;
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

    fn done(&mut self) {
        let next = self.current + 1;
        if next == self.count {
            self.last_one();
            return self.send(next);
        }
        let (count, result) = (next - self.first, &self.results[self.mark..]);
        self.kept = self.kept
            && self
                .outbox
                .is_some_and(|outbox| outbox.add(count, self.mark, result));
        super::step("item: kept");
        let full = !self.kept || self.results.len() > OUTBOX * 3 / 4;
        // For the quickest of tasks even a look at the clock is much.
        let look = next.is_multiple_of(8);
        if full || (look && coarse().saturating_sub(self.since_coarse) > HURRY) {
            self.send(next);
            self.restart();
        }
    }

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
}

impl Desk for Answers<'_> {
    fn begin(&mut self, index: usize) -> (&mut Vec<u8>, &mut State) {
        self.current = index;
        self.mark = self.results.len();
        if index > 0 {
            let since = if self.port.timed { now_nanos() } else { 0 };
            if let Some(cell) = self.cell {
                cell.begin_item(index, since);
            }
        }
        (&mut self.results, &mut self.state)
    }

    fn end(&mut self, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.done(),
            Err(fault) => self.failed(&fault),
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

/// Bytes of memory that this process holds (proc(5)).
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
