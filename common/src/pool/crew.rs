//! The worker processes: starting, killing, replacing.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::engine::Engine;
use super::job::Finished;
use super::lock;
use super::port::Port;
use super::stats::Event;
use super::worker::{Orders, Runner, work};
use crate::process::{Builder, Process, SpawnError, StartMethod};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The worker processes of a pool.
pub(super) struct Crew {
    members: Vec<Member>,
}

#[derive(Default)]
struct Member {
    process: Option<Arc<Process<()>>>,
    /// Processes started in this place so far.
    started: u32,
}

/// Starts a process that works; one such function for each kind of [`Runner`].
pub(super) type Launch = fn(Builder, Orders) -> Result<Process<()>, SpawnError>;

pub(super) fn launch<T: Runner>(
    builder: Builder,
    orders: Orders,
) -> Result<Process<()>, SpawnError> {
    builder.spawn(work::<T>, (orders,))
}

impl Crew {
    pub(super) fn new(workers: usize) -> Self {
        Crew {
            members: (0..workers).map(|_| Member::default()).collect(),
        }
    }

    /// The process id of a worker; 0 if there is none.
    pub(super) fn pid(&self, worker: usize) -> u32 {
        self.process(worker).map_or(0, |process| process.pid())
    }

    pub(super) fn restarts(&self, worker: usize) -> u32 {
        self.members
            .get(worker)
            .map_or(0, |member| member.started.saturating_sub(1))
    }

    fn process(&self, worker: usize) -> Option<&Arc<Process<()>>> {
        self.members.get(worker)?.process.as_ref()
    }

    pub(super) fn kill(&self, worker: usize) {
        if let Some(process) = self.process(worker) {
            // It may have ended by itself meanwhile.
            let _ = process.kill();
        }
    }

    /// Those that have a process, with their numbers.
    pub(super) fn processes(&self) -> Vec<(usize, Arc<Process<()>>)> {
        let members = self.members.iter().enumerate();
        members
            .filter_map(|(worker, member)| Some((worker, member.process.clone()?)))
            .collect()
    }

    /// The numbers of those that have none.
    pub(super) fn vacancies(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members
            .filter(|(_, member)| member.process.is_none())
            .map(|(worker, _)| worker)
            .collect()
    }

    /// The worker's process has ended and been dealt with.
    pub(super) fn remove(&mut self, worker: usize) -> Option<Arc<Process<()>>> {
        self.members.get_mut(worker)?.process.take()
    }

    fn add(&mut self, worker: usize, process: Process<()>) {
        if let Some(member) = self.members.get_mut(worker) {
            member.process = Some(Arc::new(process));
            member.started += 1;
        }
    }
}

impl Engine {
    /// Starts the process of one worker.
    pub(super) fn start_worker(&self, worker: usize) -> Result<(), SpawnError> {
        self.claims.set_ready(worker, false);
        let method = self.settings.start_method;
        // Under the lock: it may have taken a task before it is entered here, and who wants to
        // kill it then must find it.
        let mut crew = lock(&self.crew);
        let process = match self.launch(worker, method) {
            // A pool has threads once it runs, so a worker can be forked only to begin with.
            Err(SpawnError::Threads { .. }) => self.launch(worker, StartMethod::Spawn)?,
            other => other?,
        };
        let pid = process.pid();
        crew.add(worker, process);
        drop(crew);
        let mut finished = Finished::default();
        self.emit(&mut finished, || Event::WorkerStarted { pid });
        self.conclude(finished);
        Ok(())
    }

    fn launch(&self, worker: usize, method: StartMethod) -> Result<Process<()>, SpawnError> {
        let settings = &self.settings;
        let mut builder = Process::builder()
            .name(format!("{}-{}", settings.name, worker + 1))
            .daemon(true)
            .start_method(method);
        if let Some(bytes) = settings.memory_limit {
            builder = builder.address_space(bytes);
        }
        let orders = Orders {
            port: Port {
                tasks: self.tasks.clone(),
                results: self.results.clone(),
                claims: self.claims.clone(),
                index: worker,
                observed: self.hook.is_some(),
                timed: settings.task_timeout.is_some(),
            },
            limits: settings.limits,
            nice: settings.nice,
            cpus: settings.cpus.clone(),
            initializer: settings.initializer.clone(),
        };
        let departures = settings.departures.again();
        let process = (settings.launch)(builder, orders)?;
        departures.sent();
        Ok(process)
    }

    /// Kills all workers and waits for their end.
    pub(super) fn kill_workers(&self) {
        let processes = lock(&self.crew).processes();
        for (_, process) in &processes {
            let _ = process.kill();
        }
        self.bury(processes, Instant::now());
    }

    /// Waits for the workers, which have been told to end; kills those that do not until then.
    pub(super) fn dismiss_workers(&self, patience: Duration) {
        let processes = lock(&self.crew).processes();
        self.bury(processes, Instant::now() + patience);
    }

    fn bury(&self, processes: Vec<(usize, Arc<Process<()>>)>, until: Instant) {
        for (worker, process) in processes {
            let left = until.saturating_duration_since(Instant::now());
            if process.join_timeout(left).is_none() {
                let _ = process.kill();
            }
            // Dropping the handle waits, and the kernel takes no time over SIGKILL.
            drop(process);
            // Dropping it waits for its end: not with the lock held.
            let last = lock(&self.crew).remove(worker);
            drop(last);
        }
    }
}
