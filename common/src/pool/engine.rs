//! The parent's side: everything that the handles and threads of one pool share.
//!
//! Locks, in the order in which they may be taken: inbox, core, then a job's answers or the crew.
//! (The lock of the spares is held for no other.) Nobody waits for a worker holding one; callbacks
//! and wake-ups happen with none held.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::Claims;
use super::collect::Lead;
use super::crew::Crew;
use super::dispatch::Core;
use super::error::{PoolError, TaskError};
use super::job::{Finished, Job};
use super::message::Items;
use super::spares::Spares;
use super::stats::{Event, Hook};
use super::waiter::{Callbacks, Waiter};
use super::{Settings, lock};
use crate::panic;
use crate::ring::{Batch, Ring, RingConfig};
use std::io::{PipeReader, PipeWriter, Write};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// What the handles and threads of one pool share.
pub(crate) struct Engine {
    pub(super) settings: Settings,
    /// The process that made the pool.
    pub(super) owner: u32,
    pub(super) tasks: Ring,
    pub(super) results: Ring,
    pub(super) claims: Claims,
    pub(super) core: Mutex<Core>,
    pub(super) spares: Arc<Spares>,
    /// Held while results are taken out of the ring and handed on.
    pub(super) inbox: Mutex<Batch>,
    pub(super) lead: Lead,
    pub(super) crew: Mutex<Crew>,
    /// Jobs that have not finished.
    pub(super) outstanding: AtomicUsize,
    pub(super) callbacks: Mutex<Callbacks>,
    /// Wakes the monitor; the flag says that there is a byte in the pipe.
    alarm: Mutex<PipeWriter>,
    alarmed: AtomicBool,
    pub(super) alarm_end: PipeReader,
    /// Set when the pool's threads are to end.
    pub(super) over: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    /// The long message that the feeder is to put.
    pub(super) feed: Mutex<Option<Long>>,
    pub(super) fed: Condvar,
    pub(super) hook: Option<Hook>,
}

/// A message too long to be put without waiting.
pub(super) struct Long {
    pub(super) header: [u8; super::message::HEADER],
    pub(super) items: Arc<Items>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Engine {
    pub(super) fn new(settings: Settings, hook: Option<Hook>) -> Result<Arc<Self>, PoolError> {
        let ring = |claims| {
            Ring::create(RingConfig {
                capacity: settings.queue_bytes,
                claims,
                ..RingConfig::default()
            })
        };
        let (alarm_end, alarm) = std::io::pipe().map_err(PoolError::Pipe)?;
        let cells = settings.cells;
        Ok(Arc::new(Engine {
            owner: std::process::id(),
            tasks: ring(1)?,
            results: ring(0)?,
            claims: Claims::create(cells, settings.workers)?,
            core: Mutex::new(Core::new(cells, settings.workers)),
            spares: Arc::new(Spares::default()),
            inbox: Mutex::new(Batch::default()),
            lead: Lead::default(),
            crew: Mutex::new(Crew::new(settings.workers)),
            outstanding: AtomicUsize::new(0),
            callbacks: Mutex::default(),
            alarm: Mutex::new(alarm),
            alarmed: AtomicBool::new(false),
            alarm_end,
            over: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            feed: Mutex::new(None),
            fed: Condvar::new(),
            settings,
            hook,
        }))
    }

    /// Whether this process made the pool, rather than a process that it was forked from: then this
    /// is a copy, which must leave alone what it shares with the pool.
    pub(super) fn is_owner(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Whether whoever waits here may be answered. In a copy nobody will be, so all jobs end.
    pub(super) fn has_answers(&self) -> bool {
        if self.is_owner() {
            return true;
        }
        let mut finished = Finished::default();
        {
            let mut core = lock(&self.core);
            for job in core.jobs() {
                job.end(TaskError::NotOwner { owner: self.owner }, &mut finished);
            }
            core.clear_backlog();
        }
        finished.waiters.into_iter().for_each(Waiter::wake);
        false
    }

    /// Whether the pool takes tasks from this process.
    pub(super) fn check_open(&self) -> Result<(), TaskError> {
        if !self.is_owner() {
            return Err(TaskError::NotOwner { owner: self.owner });
        }
        if lock(&self.core).is_open() {
            return Ok(());
        }
        Err(TaskError::Closed)
    }

    /// Counts a job that is about to be submitted. `leading` says that the caller waits for it
    /// at once, so that nobody else has to be woken to look after it.
    pub(super) fn open_job(&self, leading: bool) {
        let before = self.outstanding.fetch_add(1, SeqCst);
        if before > 0 && self.lead.patient.load(SeqCst) {
            self.results.kick();
        }
        if !leading {
            self.lead.find();
        }
        if before == 0 && self.settings.task_timeout.is_some() {
            self.alarm();
        }
    }

    /// Submits tasks of a job that has been opened; if that fails the whole job does.
    pub(super) fn submit(&self, job: &Arc<Job>, items: Items) {
        job.expect(items.len());
        self.append(job, items);
    }

    fn append(&self, job: &Arc<Job>, items: Items) {
        let mut finished = Finished::default();
        job.chunking.add(items.len());
        {
            let mut core = lock(&self.core);
            match core.admit() {
                Ok(()) => {
                    core.append(job.clone(), items);
                    self.pump(&mut core, &mut finished);
                    if core.stuck.is_some() {
                        // Perhaps a worker can be started now.
                        self.alarm();
                    }
                }
                Err(error) => {
                    job.end(error, &mut finished);
                }
            }
        }
        self.conclude(finished);
    }

    /// Submits all tasks of a job that has been opened.
    pub(super) fn submit_whole(&self, job: &Arc<Job>, items: Items) {
        job.expect_all(items.len());
        self.append(job, items);
    }

    /// No more tasks of the job will come.
    pub(super) fn seal(&self, job: &Arc<Job>) {
        let mut finished = Finished::default();
        job.seal(&mut finished);
        self.conclude(finished);
    }

    /// Ends a job with an error: what has not begun never will, what runs is killed if `kill`. In
    /// a copy the job alone ends, not the tasks.
    pub(super) fn end_job(&self, job: &Arc<Job>, error: TaskError, kill: bool) -> bool {
        let mut finished = Finished::default();
        let owner = self.is_owner();
        let ended = {
            let mut core = lock(&self.core);
            let ended = job.end(error, &mut finished);
            if ended && owner {
                self.abandon(&mut core, kill.then_some(job));
                core.take_back(job);
                self.pump(&mut core, &mut finished);
            }
            ended
        };
        if owner {
            self.conclude(finished);
        }
        ended
    }

    /// Does what has to be done for finished jobs, with no lock held.
    pub(super) fn conclude(&self, finished: Finished) {
        if let Some(hook) = &self.hook {
            for event in &finished.events {
                // A panic has been printed; the thread has more to do than to tell of it.
                let _ = panic::catch(|| hook(event));
            }
        }
        let late = match finished.callbacks.is_empty() {
            true => Vec::new(),
            false => self.call_soon(finished.callbacks),
        };
        finished.waiters.into_iter().for_each(Waiter::wake);
        if finished.jobs == 0 {
            return;
        }
        let before = self.outstanding.fetch_sub(finished.jobs, AcqRel);
        if before == finished.jobs {
            self.lead.wake_followers();
        }
        // Who leads may be asleep waiting for just this job, which another thread has finished.
        if self.lead.is_someone_elses() {
            self.results.kick();
        }
        self.call_now(late);
    }

    /// Wakes the monitor.
    pub(super) fn alarm(&self) {
        if !self.alarmed.swap(true, AcqRel) {
            // A pipe that is full wakes it as well.
            let _ = lock(&self.alarm).write(&[0]);
        }
    }

    /// The monitor has been woken.
    pub(super) fn alarm_heard(&self) {
        use std::io::Read;
        if self.alarmed.swap(false, AcqRel) {
            let _ = (&self.alarm_end).read(&mut [0; 1]);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }

    pub(super) fn unfinished(&self) -> usize {
        self.outstanding.load(Relaxed)
    }

    /// Tells of an event once no lock is held.
    pub(super) fn emit(&self, finished: &mut Finished, event: impl FnOnce() -> Event) {
        if self.hook.is_some() {
            finished.events.push(event());
        }
    }

    /// Makes all of the pool's threads end soon.
    pub(super) fn stop_threads(&self) {
        self.over.store(true, Release);
        self.alarm();
        // The feeder looks with the lock held: it sees the flag, or sleeps by now.
        drop(lock(&self.feed));
        self.fed.notify_all();
        self.results.kick();
        self.lead.look();
        self.lead.wake_followers();
    }
}
