//! Taking results out of the ring: who does it, and what becomes of them.
//!
//! Whoever waits for an answer takes the results itself, so that a hot `apply` needs no other
//! thread. One at a time leads: it sleeps on the ring and hands on what comes, to whomever it
//! belongs. Others that wait follow: they are woken by their own answer, or to lead when the
//! leader leaves. When nobody waits and there is something to come the collector leads, a thread
//! that also runs the callbacks; it steps back for anybody who waits.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::ClaimId;
use super::dispatch::{Core, Flight};
use super::engine::Engine;
use super::error::{Fault, TaskError};
use super::job::Finished;
use super::message::{COUNT, HEADER, Kind, ResultHeader};
use super::stats::Event;
use super::waiter::Waiter;
use super::{lock, wait_for};
use crate::codec;
use crate::deadline::Deadline;
use crate::panic;
use crate::ring::{Batch, GetError};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Condvar, Mutex};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

/// Who takes the results.
#[derive(Default)]
pub(super) struct Lead {
    state: Mutex<LeadState>,
    /// The collector sleeps here.
    work: Condvar,
    /// Whether the leader may be waiting for more than one result.
    pub(super) patient: AtomicBool,
}

#[derive(Default)]
struct LeadState {
    leader: Option<ThreadId>,
    collector_leads: bool,
    followers: Vec<Thread>,
    /// Whether the collector sleeps until it is called.
    dormant: bool,
    /// Somebody waits who cannot lead.
    hurry: bool,
}

/// How long the collector gives others to lead before it does.
const GRACE: Duration = Duration::from_millis(1);
/// Followers look again this often, in case a wake-up went astray.
const SLICE: Duration = Duration::from_millis(100);
/// The leader sleeps for no more results than this.
const PATIENCE: u32 = 64;
/// Results taken under one lock.
const TOGETHER: usize = 256;
/// A result of this size is kept in the buffer it came in.
const LARGE: usize = 64 << 10;

impl Lead {
    /// Has the collector look whether there is something to do.
    pub(super) fn look(&self) {
        let state = lock(&self.state);
        if state.dormant {
            self.work.notify_one();
        }
    }

    /// Has the collector lead if nobody does: whoever will wait may not do so yet.
    pub(super) fn find(&self) {
        let state = lock(&self.state);
        if state.leader.is_none() && state.dormant {
            self.work.notify_one();
        }
    }

    /// The same for somebody who waits and cannot lead: a future, say.
    pub(super) fn hurry(&self) {
        let mut state = lock(&self.state);
        state.hurry = true;
        if state.leader.is_none() {
            self.work.notify_one();
        }
    }

    pub(super) fn wake_followers(&self) {
        let state = lock(&self.state);
        state.followers.iter().for_each(Thread::unpark);
    }

    /// Whether another thread than this one leads.
    pub(super) fn is_someone_elses(&self) -> bool {
        let leader = lock(&self.state).leader;
        leader.is_some_and(|leader| leader != thread::current().id())
    }

    /// Makes this thread the leader, or else a follower.
    fn enter(&self, kick: impl FnOnce()) -> bool {
        let mut state = lock(&self.state);
        let me = thread::current();
        if state.leader.is_none() {
            state.leader = Some(me.id());
            state.followers.retain(|other| other.id() != me.id());
            return true;
        }
        if !state.followers.iter().any(|other| other.id() == me.id()) {
            state.followers.push(me);
        }
        if state.collector_leads {
            kick();
        }
        false
    }

    fn enter_free(&self) -> bool {
        let mut state = lock(&self.state);
        let free = state.leader.is_none();
        if free {
            state.leader = Some(thread::current().id());
        }
        free
    }

    /// This thread waits no longer. Whether there is something `unfinished` is asked under the lock:
    /// who adds a job looks for a leader then, and must not find one that has just seen none.
    fn leave(&self, led: bool, unfinished: impl FnOnce() -> bool) {
        let mut state = lock(&self.state);
        if led {
            state.leader = None;
            state.collector_leads = false;
            if let Some(next) = state.followers.first() {
                next.unpark();
            } else if state.dormant && unfinished() {
                self.work.notify_one();
            }
        } else {
            let me = thread::current().id();
            state.followers.retain(|other| other.id() != me);
            // It may have been woken to lead.
            if state.leader.is_none() {
                match state.followers.first() {
                    Some(next) => next.unpark(),
                    None if state.dormant => self.work.notify_one(),
                    None => {}
                }
            }
        }
    }

    fn has_followers(&self) -> bool {
        !lock(&self.state).followers.is_empty()
    }
}

impl Engine {
    /// Waits until `done`, taking results meanwhile; false if the deadline came first. Whatever
    /// makes `done` true must be followed by a wake-up of this thread: register it as a waiter.
    pub(super) fn wait(&self, deadline: Deadline, done: impl Fn() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if !self.has_answers() {
                return done();
            }
            if deadline.passed() {
                // Without waiting, what is there is taken all the same.
                self.drain();
                return done();
            }
            if self.lead.enter(|| self.results.kick()) {
                self.lead_until(deadline, || done() || self.is_over());
                self.lead.leave(true, || self.unfinished() > 0);
            } else {
                if !done() {
                    thread::park_timeout(deadline.at_most(SLICE));
                }
                self.lead.leave(false, || self.unfinished() > 0);
            }
            if self.is_over() && !done() {
                // The pool is being ended by another thread, which answers everything.
                thread::park_timeout(deadline.at_most(Duration::from_millis(1)));
            }
        }
    }

    /// Leads if nobody else does; whether it is `done`.
    pub(super) fn lead_alone(&self, deadline: Deadline, done: impl Fn() -> bool) -> bool {
        if !self.has_answers() {
            return done();
        }
        if deadline.passed() {
            self.drain();
            return done();
        }
        if !self.lead.enter_free() {
            return false;
        }
        self.lead_until(deadline, || done() || self.is_over());
        self.lead.leave(true, || self.unfinished() > 0);
        done()
    }

    fn lead_until(&self, deadline: Deadline, done: impl Fn() -> bool) {
        while !done() {
            let patience = self.patience();
            let waited = self.results.wait_readable(patience, deadline, &done);
            self.lead.patient.store(false, SeqCst);
            match waited {
                // Somebody may have something that should not wait for others' results.
                Ok(()) | Err(GetError::Interrupted) => self.drain(),
                Err(GetError::Empty) => return,
                Err(GetError::Closed) => {
                    thread::sleep(Duration::from_millis(1));
                    return;
                }
                Err(error) => return self.lost_memory(&error),
            }
        }
    }

    /// For how many results the leader may sleep: until workers may run out of tasks, or a job may
    /// be finished. Each wake-up takes a core from a worker.
    fn patience(&self) -> u32 {
        // Who submits another job after this is seen tells the leader.
        self.lead.patient.store(true, SeqCst);
        // Of several jobs each may be the next to finish; and events are told at once.
        let one = self.outstanding.load(SeqCst) == 1 && self.hook.is_none();
        // Each chunk that is under way sends one message at least, or its worker dies, of which
        // the leader is told as well.
        let spare = match (one, lock(&self.core).under_way()) {
            (false, _) => 1,
            (true, (chunks, true)) => chunks.saturating_sub(self.settings.workers),
            (true, (chunks, false)) => chunks,
        };
        if spare <= 1 {
            self.lead.patient.store(false, SeqCst);
        }
        u32::try_from(spare).unwrap_or(u32::MAX).min(PATIENCE)
    }

    /// Takes what is in the result ring and hands it on. Never waits for a worker, but for the
    /// rest of a long result for a moment.
    pub(super) fn drain(&self) {
        loop {
            let mut inbox = lock(&self.inbox);
            inbox.clear();
            let got = self.results.get_many(&mut inbox, TOGETHER, Deadline::Now);
            let finished = got.map(|_| self.accept_all(&mut inbox));
            drop(inbox);
            match finished {
                Ok(finished) => self.conclude(finished),
                Err(GetError::Interrupted) => {}
                Err(GetError::Empty | GetError::Closed) => return,
                Err(error) => return self.lost_memory(&error),
            }
        }
    }

    fn accept_all(&self, inbox: &mut Batch) -> Finished {
        let mut finished = Finished::default();
        {
            let mut core = lock(&self.core);
            let only = inbox.iter().next().filter(|_| inbox.len() == 1);
            if only.is_some_and(|message| message.len() > LARGE) {
                self.accept_large(&mut core, std::mem::take(inbox), &mut finished);
            } else {
                for message in inbox.iter() {
                    self.accept(&mut core, message, &mut finished);
                }
                if inbox.iter().map(<[u8]>::len).sum::<usize>() > super::port::LARGE {
                    *inbox = Batch::default();
                }
            }
            self.pump(&mut core, &mut finished);
        }
        finished
    }

    /// The chunk that a message answers, if it is one that waits for that.
    fn flight<'c>(&self, core: &'c mut Core, header: &ResultHeader) -> Option<&'c mut Flight> {
        let id = ClaimId(header.id);
        let flight = core.flights.get_mut(id.cell())?.as_mut()?;
        (flight.id == id).then_some(flight)
    }

    fn accept_large(&self, core: &mut Core, message: Batch, finished: &mut Finished) {
        let header = message.iter().next().and_then(ResultHeader::of);
        let Some(header) = header else { return };
        if header.kind != Kind::Done {
            let bytes = message.iter().next().unwrap_or_default();
            return self.accept(core, bytes, finished);
        }
        let Some((job, first, count)) = self.check(core, &header, finished) else {
            return;
        };
        job.done_in(first, count, message, COUNT, finished);
        self.advance(core, &header, finished);
    }

    fn accept(&self, core: &mut Core, message: &[u8], finished: &mut Finished) {
        let Some(header) = ResultHeader::of(message) else {
            return;
        };
        match header.kind {
            Kind::Unready => {
                let reason = String::from_utf8_lossy(&message[HEADER..]).into_owned();
                core.unready = Some(reason);
            }
            Kind::Started => {
                let Some(flight) = self.flight(core, &header) else {
                    return;
                };
                let task = flight.job.task(flight.index(0));
                let tasks = flight.len();
                let pid = lock(&self.crew).pid(header.worker as usize);
                self.emit(finished, || Event::TaskStarted { pid, task, tasks });
            }
            Kind::Done | Kind::Failed => {
                let Some((job, first, count)) = self.check(core, &header, finished) else {
                    return;
                };
                if header.kind == Kind::Done {
                    job.done(first, count, &message[COUNT..], finished);
                } else {
                    let fault = codec::decode::<Fault>(&message[HEADER..]);
                    let error = |task| match &fault {
                        Ok(fault) => fault.clone().into_error(task),
                        Err(error) => TaskError::Decode(error.clone()),
                    };
                    job.fail(first..first + count, error, finished);
                }
                self.advance(core, &header, finished);
            }
        }
    }

    /// Which tasks of which job a message answers. One that answers others than the next ones of
    /// its chunk comes from a worker gone mad: then the chunk has failed.
    fn check(
        &self,
        core: &mut Core,
        header: &ResultHeader,
        finished: &mut Finished,
    ) -> Option<(std::sync::Arc<super::job::Job>, usize, usize)> {
        let flight = self.flight(core, header)?;
        let left = (flight.len() - flight.done) as u64;
        if header.first == flight.done as u64 && (1..=left).contains(&header.count) {
            let first = flight.index(flight.done);
            return Some((flight.job.clone(), first, header.count as usize));
        }
        let flight = core.leave(ClaimId(header.id).cell(), self)?;
        let reason = || TaskError::Memory {
            reason: "a worker answered what it was not asked".into(),
        };
        let tasks = flight.index(flight.done)..flight.index(flight.len());
        flight.job.chunking.close();
        flight.job.fail(tasks, |_| reason(), finished);
        None
    }

    /// Books what a message has answered.
    fn advance(&self, core: &mut Core, header: &ResultHeader, finished: &mut Finished) {
        let count = header.count as usize;
        let worker = header.worker as usize;
        if let Some(tally) = core.tallies.get_mut(worker) {
            tally.tasks += header.count;
            tally.busy += Duration::from_nanos(header.nanos);
        }
        let Some(flight) = self.flight(core, header) else {
            return;
        };
        flight.job.chunking.measure(count, header.nanos);
        flight.done += count;
        let all = flight.done == flight.len();
        if self.hook.is_some() {
            let task = flight.job.task(flight.index(header.first as usize));
            let ok = header.kind == Kind::Done;
            let pid = lock(&self.crew).pid(worker);
            let took = Duration::from_nanos(header.nanos);
            self.emit(finished, || Event::TaskEnded {
                pid,
                task,
                tasks: count,
                ok,
                took,
            });
        }
        if all {
            let cell = ClaimId(header.id).cell();
            if let Some(flight) = core.leave(cell, self) {
                flight.job.chunking.close();
            }
        }
    }

    /// The rings cannot be used any more: everybody who waits is told.
    fn lost_memory(&self, error: &GetError) {
        let reason = error.to_string();
        self.end_all(&TaskError::Memory { reason });
    }

    /// Ends every unfinished job that has tasks here.
    pub(super) fn end_all(&self, error: &TaskError) {
        let mut finished = Finished::default();
        {
            let mut core = lock(&self.core);
            for job in core.jobs() {
                job.end(error.clone(), &mut finished);
            }
            self.abandon(&mut core, None);
            core.clear_backlog();
        }
        self.conclude(finished);
    }

    /// The collector's thread.
    pub(super) fn collect(&self) {
        while !self.is_over() {
            self.run_callbacks(false);
            let mut state = lock(&self.lead.state);
            let idle = state.leader.is_some() || self.unfinished() == 0;
            if idle && !lock(&self.callbacks).any_waits() && !self.is_over() {
                state.dormant = true;
                state = wait_for(&self.lead.work, state, None);
                state.dormant = false;
                drop(state);
                continue;
            }
            if lock(&self.callbacks).any_waits() {
                continue;
            }
            if !std::mem::take(&mut state.hurry) {
                state = wait_for(&self.lead.work, state, Some(GRACE));
            }
            if state.leader.is_none() && self.unfinished() > 0 {
                state.leader = Some(thread::current().id());
                state.collector_leads = true;
                drop(state);
                self.lead_until(Deadline::Never, || {
                    self.unfinished() == 0
                        || self.is_over()
                        || self.lead.has_followers()
                        || lock(&self.callbacks).any_waits()
                });
                self.lead.leave(true, || false);
            }
        }
        self.run_callbacks(true);
    }

    fn run_callbacks(&self, last: bool) {
        let mut any = false;
        loop {
            let next = lock(&self.callbacks).next(last);
            let Some((callback, job)) = next else {
                break;
            };
            any = true;
            // A panic has been printed; the pool's thread goes on.
            let _ = panic::catch(|| callback(&job));
        }
        // Who joins the pool waits for this as well.
        if any && !lock(&self.core).is_open() {
            self.lead.wake_followers();
            if self.lead.is_someone_elses() {
                self.results.kick();
            }
        }
    }
}

/// A waiter for the thread that calls.
pub(super) fn this_thread() -> Waiter {
    Waiter::Thread(thread::current())
}
