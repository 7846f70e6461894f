//! A worker: a process that takes tasks, runs them and answers.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::answers::{Answers, State};
use super::chunk::Chunk;
use super::error::Fault;
use super::port::Port;
use crate::codec;
use crate::deadline::Deadline;
use crate::function::{BadEntry, Entry, EntryRef, Failure, Function, Signature, instance};
use crate::panic;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

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
        // Decoding runs the user's code, which may panic.
        let value = panic::catch(|| codec::decode(args).map(|args| instance::<F>().call(args)))
            .map_err(|panic| Fault::Failed(Failure::Panicked(panic)))?
            .map_err(|error| Fault::Failed(Failure::Arguments(error)))?;
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
        let mut answers = Answers::new(&port, state);
        let mut message = Vec::new();
        let mut tasks = 0;
        // Closed, or broken: in both cases there is nothing left to do here.
        while let Ok(taken) = port.take(&mut message, Deadline::Never) {
            if !port.start(&taken) {
                continue;
            }
            answers.open(&taken);
            let ran = taken
                .function::<Chunk>()
                .and_then(|chunk| chunk.run(taken.items(&message), &mut answers));
            answers.close(ran);
            tasks += taken.header.count;
            // Not before the first: the next worker could hold as much when it begins.
            if limits.reached(tasks) {
                return;
            }
        }
    }
}

/// Bytes of memory that this process holds (proc(5)).
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}
