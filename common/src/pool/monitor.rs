//! The thread that watches the workers: their deaths, their deadlines, their replacement.
//!
//! When a worker has died: first everything it sent is taken from the result ring; what the
//! claims table then still says it has was lost with it. What it had finished and not sent lies
//! in its outbox; the one task that ran is answered with the error (or tried again, if that was
//! asked for); what it had taken and not begun goes back to the others.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::{Stage, now_nanos};
use super::deadlock::Sleepers;
use super::dispatch::{Core, Fate, Phase};
use super::engine::Engine;
use super::error::{TaskError, TaskId, ending};
use super::job::Finished;
use super::stats::Event;
use super::{lock, wait_for};
use crate::deadline::Deadline;
use crate::process::{Process, wait};
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first and the longest pause between two attempts to start a worker.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// So many workers in a row that die before they are ready mean that none ever will be, where none
/// is.
const UNREADY: u32 = 3;
/// Beyond its deadline a task whose answer is being sent has this long.
const SENDING: Duration = Duration::from_secs(1);
/// How often a message that may be lost is looked after.
const SUSPECT: Duration = Duration::from_millis(20);

/// What the monitor remembers.
struct Watch {
    /// When the next worker may be started.
    retry_at: Option<Instant>,
    pause: Duration,
    /// Workers in a row that died before they were ready.
    unready: u32,
    /// Workers that do not count: they had begun when all that waited was given up, and say nothing
    /// of what has been submitted since.
    discounted: Vec<u32>,
    /// Nobody waits, so nobody is started until there is a task again.
    given_up: bool,
    /// The last worker that died, if a message may have been lost with it.
    suspect: Option<Dead>,
    sleepers: Sleepers,
    feeder: bool,
}

#[derive(Clone, Copy)]
struct Dead {
    worker: usize,
    pid: u32,
    status: Option<ExitStatus>,
}

impl Engine {
    /// The monitor's thread.
    pub(super) fn watch(self: &Arc<Self>) {
        let mut watch = Watch {
            retry_at: None,
            pause: RETRY.0,
            unready: 0,
            discounted: Vec::new(),
            given_up: false,
            suspect: None,
            sleepers: Sleepers::default(),
            feeder: false,
        };
        while !self.is_over() {
            let processes = lock(&self.crew).processes();
            let ended = self.wait_for_ends(&processes, &watch);
            self.alarm_heard();
            if self.is_over() {
                return;
            }
            for at in ended {
                let (worker, process) = &processes[at];
                self.mourn(*worker, process, &mut watch);
            }
            drop(processes);
            self.start_feeder(&mut watch);
            self.enforce_deadlines();
            self.end_deadlocks(&mut watch.sleepers);
            self.look_for_lost(&mut watch);
            self.replace(&mut watch);
        }
    }

    /// Sleeps until a worker ends, somebody calls or something is due. The positions of those
    /// that have ended.
    fn wait_for_ends(&self, processes: &[(usize, Arc<Process<()>>)], watch: &Watch) -> Vec<usize> {
        let mut items: Vec<&dyn AsFd> = vec![&self.alarm_end];
        items.extend(processes.iter().map(|(_, process)| &**process as &dyn AsFd));
        match wait(&items, self.next_look(watch)) {
            Ok(ready) => ready.iter().filter_map(|at| at.checked_sub(1)).collect(),
            // No memory or no descriptors for poll(2): ask each in turn.
            Err(_) => {
                std::thread::sleep(RETRY.0);
                let ended = |at: &usize| !processes[*at].1.is_alive();
                (0..processes.len()).filter(ended).collect()
            }
        }
    }

    fn next_look(&self, watch: &Watch) -> Option<Duration> {
        let deadline = match self.settings.task_timeout {
            Some(timeout) if self.unfinished() > 0 => Some(self.next_deadline(timeout)),
            _ => None,
        };
        let retry = watch
            .retry_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        let suspect = watch.suspect.map(|_| SUSPECT);
        let sleepers = self.next_look_for_deadlocks(&watch.sleepers);
        [deadline, retry, suspect, sleepers]
            .into_iter()
            .flatten()
            .min()
    }

    /// How long until the first task that runs now may be over its time.
    fn next_deadline(&self, timeout: Duration) -> Duration {
        let core = lock(&self.core);
        let now = now_nanos();
        let left = |cell: usize| {
            let since = self.claims.progress(cell).1;
            match since {
                0 => timeout,
                _ => timeout.saturating_sub(Duration::from_nanos(now.saturating_sub(since))),
            }
        };
        let held = (0..core.flights.len()).filter(|&cell| core.flights[cell].is_some());
        let first = held.map(left).min().unwrap_or(timeout);
        // Tasks that begin meanwhile have at least the whole time before them.
        first.clamp(
            Duration::from_millis(1),
            timeout.max(Duration::from_millis(1)),
        )
    }

    /// Kills the tasks that are over their time.
    fn enforce_deadlines(&self) {
        let Some(timeout) = self.settings.task_timeout else {
            return;
        };
        let mut core = lock(&self.core);
        let now = now_nanos();
        let mut untaken = false;
        for cell in 0..core.flights.len() {
            let Some(flight) = core.flights[cell].as_mut() else {
                continue;
            };
            let (_, since) = self.claims.progress(cell);
            let age = Duration::from_nanos(now.saturating_sub(since));
            let word = self.claims.word(cell);
            if since == 0 || age < timeout || !word.is_for(flight.id) {
                continue;
            }
            match word.stage() {
                Stage::Running => {
                    self.doom(&mut core, cell, Fate::TimedOut);
                }
                // It is done, but whoever sends the answer does not get on (stopped, perhaps).
                Stage::Sending if age > timeout + SENDING && flight.fate.is_none() => {
                    flight.fate = Some(Fate::TimedOut);
                    lock(&self.crew).kill(word.worker());
                }
                Stage::Sending => untaken = true,
                _ => {}
            }
        }
        drop(core);
        if untaken {
            // There may be no room for it: who is to take the answers may still draw the items.
            self.lead.hurry();
        }
    }

    /// Deals with the end of a worker.
    fn mourn(&self, worker: usize, process: &Arc<Process<()>>, watch: &mut Watch) {
        // What it had sent comes first. Whoever else takes results meanwhile hands them on before
        // giving up the inbox.
        self.drain();
        let dead = Dead {
            worker,
            pid: process.pid(),
            status: process.exit_status(),
        };
        let mut finished = Finished::default();
        let mut lost = Vec::new();
        {
            let mut core = lock(&self.core);
            for cell in 0..core.flights.len() {
                self.resolve(&mut core, cell, dead, &mut lost, &mut finished);
            }
            self.pump(&mut core, &mut finished);
        }
        let (pid, status) = (dead.pid, dead.status);
        self.emit(&mut finished, || Event::WorkerEnded { pid, status, lost });
        drop(lock(&self.crew).remove(worker));
        self.conclude(finished);
        // It may have died on its way to a task for which therefore nobody else was woken.
        self.tasks.kick();
        // Who takes the results may be counting on one of its.
        self.results.kick();
        if self.claims.is_ready(worker) {
            watch.unready = 0;
            watch.pause = RETRY.0;
        } else {
            // One that could be told why says so and exits well.
            if !status.is_some_and(|status| status.success()) {
                let how = ending(status);
                let reason = format!("worker {pid} died before it was ready to work: {how}");
                lock(&self.core).unready = Some(reason);
            }
            match watch.discounted.iter().position(|&other| other == pid) {
                Some(at) => drop(watch.discounted.swap_remove(at)),
                None => watch.unready += 1,
            }
            watch.retry_at = Some(Instant::now() + watch.pause);
            watch.pause = (watch.pause * 2).min(RETRY.1);
        }
        watch.suspect = Some(dead);
    }

    /// Deals with one chunk that a dead worker may have had.
    fn resolve(
        &self,
        core: &mut Core,
        cell: usize,
        dead: Dead,
        lost: &mut Vec<TaskId>,
        finished: &mut Finished,
    ) {
        let word = self.claims.word(cell);
        let Some(flight) = &core.flights[cell] else {
            return;
        };
        if !word.is_for(flight.id) || !word.stage().is_held() || word.worker() != dead.worker {
            return;
        }
        self.salvage(core, cell, dead, finished);
        let Some(mut flight) = core.leave(cell, self) else {
            return;
        };
        let item = self.claims.progress(cell).0.min(flight.len());
        let begun = word.stage() != Stage::Taken;
        // A chunk that begins is read as a whole.
        flight.recall(begun);
        let done = flight.done;
        // Earlier deaths were those of a task that has been answered since.
        let times = if done == 0 { flight.lost } else { 0 };
        // From `done` to before `next` is gone with it.
        let next = if begun && item >= done {
            item + 1
        } else {
            done
        };
        let next = next.min(flight.len());
        if next == done || flight.fate == Some(Fate::Abandoned) {
            return core.put_back(flight, done, times);
        }
        lost.extend((done..next).map(|item| flight.job.task(flight.index(item))));
        if flight.fate.is_none() && times < self.settings.retries {
            return core.put_back(flight, done, times + 1);
        }
        let error = |task| match (flight.fate, self.settings.task_timeout) {
            (Some(Fate::TimedOut), Some(after)) => TaskError::TimedOut { after, task },
            (Some(Fate::Deadlocked), _) => TaskError::Deadlocked {
                pid: dead.pid,
                task,
            },
            _ => TaskError::WorkerDied {
                pid: dead.pid,
                status: dead.status,
                task,
            },
        };
        let tasks = flight.index(done)..flight.index(next);
        flight.job.fail(tasks, error, finished);
        core.put_back(flight, next, 0);
    }

    /// Answers what a dead worker had done of a chunk and not sent.
    fn salvage(&self, core: &mut Core, cell: usize, dead: Dead, finished: &mut Finished) {
        let Some(flight) = core.flights[cell].as_mut() else {
            return;
        };
        let Some((first, count, bytes)) = self.claims.salvage(dead.worker, flight.id) else {
            return;
        };
        if first != flight.done || count > flight.len() - first {
            return;
        }
        let index = flight.index(first);
        flight.job.done(index, count, &bytes, finished);
        flight.done += count;
        if let Some(tally) = core.tallies.get_mut(dead.worker) {
            tally.tasks += count as u64;
        }
        self.emit(finished, || Event::TaskEnded {
            pid: dead.pid,
            task: flight.job.task(index),
            tasks: count,
            ok: true,
            took: Duration::ZERO,
        });
    }

    /// A worker that died while it received a message longer than the ring took it along, without
    /// having claimed it. Where the ring is empty and nobody is receiving, what is said to be in
    /// it is not.
    fn look_for_lost(&self, watch: &mut Watch) {
        let Some(dead) = watch.suspect else {
            return;
        };
        let mut finished = Finished::default();
        {
            let mut core = lock(&self.core);
            let idle = !core.feeding
                && self.tasks.claim(0, Deadline::Now).is_ok()
                && self.tasks.stats().bytes == 0;
            if !idle {
                return;
            }
            for cell in 0..core.flights.len() {
                let queued = self.claims.word(cell).stage() == Stage::Queued;
                if !queued || core.flights[cell].is_none() {
                    continue;
                }
                let Some(mut flight) = core.leave(cell, self) else {
                    continue;
                };
                flight.recall(false);
                let times = flight.lost + 1;
                if times <= self.settings.retries {
                    core.put_back(flight, 0, times);
                    continue;
                }
                let error = |task| TaskError::WorkerDied {
                    pid: dead.pid,
                    status: dead.status,
                    task,
                };
                let tasks = flight.index(0)..flight.index(flight.len());
                flight.job.fail(tasks, error, &mut finished);
                flight.job.chunking.close();
            }
            self.pump(&mut core, &mut finished);
        }
        watch.suspect = None;
        self.conclude(finished);
    }

    /// Starts what is missing. If that cannot be done and nobody is left, whoever waits is told.
    fn replace(&self, watch: &mut Watch) {
        let wanted = match lock(&self.core).phase {
            Phase::Open => true,
            Phase::Closed => self.unfinished() > 0,
            Phase::Ended => false,
        };
        let vacancies = lock(&self.crew).vacancies();
        if vacancies.is_empty() || !wanted {
            watch.retry_at = None;
            return;
        }
        let (ready, starting): (Vec<_>, Vec<_>) = lock(&self.crew)
            .processes()
            .into_iter()
            .partition(|(worker, _)| self.claims.is_ready(*worker));
        if watch.unready >= UNREADY && ready.is_empty() {
            let reason = lock(&self.core).unready.take();
            let reason = reason
                .unwrap_or_else(|| "the last workers died before they were ready to work".into());
            watch.discounted = starting.iter().map(|(_, process)| process.pid()).collect();
            watch.unready = 0;
            watch.pause = RETRY.0;
            watch.given_up = true;
            self.give_up(reason);
        }
        if watch.given_up && self.unfinished() == 0 {
            // The next submission calls.
            watch.retry_at = None;
            return;
        }
        watch.given_up = false;
        if watch.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        watch.retry_at = None;
        let alone = vacancies.len() == self.settings.workers;
        for (nth, worker) in vacancies.into_iter().enumerate() {
            match self.start_worker(worker) {
                Ok(()) => {}
                Err(error) => {
                    watch.retry_at = Some(Instant::now() + watch.pause);
                    watch.pause = (watch.pause * 2).min(RETRY.1);
                    if alone && nth == 0 {
                        self.give_up(error.to_string());
                    }
                    return;
                }
            }
        }
        lock(&self.core).stuck = None;
    }

    fn give_up(&self, reason: String) {
        lock(&self.core).stuck = Some(reason.clone());
        self.end_all(&TaskError::NoWorkers { reason });
    }

    fn start_feeder(self: &Arc<Self>, watch: &mut Watch) {
        if watch.feeder || lock(&self.feed).is_none() {
            return;
        }
        let engine = self.clone();
        let thread = std::thread::Builder::new().name("pool-feeder".into());
        match thread.spawn(move || engine.feed()) {
            Ok(thread) => {
                lock(&self.threads).push(thread);
                watch.feeder = true;
            }
            Err(error) => {
                lock(&self.feed).take();
                lock(&self.core).feeding = false;
                let reason = format!("a thread that sends long messages: {error}");
                self.end_all(&TaskError::Memory { reason });
            }
        }
    }

    /// The feeder's thread: puts messages that are longer than what fits at once.
    fn feed(&self) {
        loop {
            let mut long = lock(&self.feed);
            while long.is_none() && !self.is_over() {
                long = wait_for(&self.fed, long, None);
            }
            if self.is_over() {
                return;
            }
            let Some(message) = long.take() else { continue };
            drop(long);
            let items = message.items.range(message.from, message.to);
            let put = self.tasks.put(&[&message.header, items], Deadline::Never);
            let mut finished = Finished::default();
            {
                let mut core = lock(&self.core);
                core.feeding = false;
                if let Err(error) = &put {
                    let reason = error.to_string();
                    let cell = super::message::id_of(&message.header) & 0xffff_ffff;
                    if let Some(mut flight) = core.leave(cell as usize, self) {
                        flight.recall(false);
                        flight.job.chunking.close();
                        let tasks = flight.index(0)..flight.index(flight.len());
                        let error = |_| TaskError::Memory {
                            reason: reason.clone(),
                        };
                        flight.job.fail(tasks, error, &mut finished);
                    }
                }
                self.pump(&mut core, &mut finished);
            }
            self.conclude(finished);
        }
    }
}
