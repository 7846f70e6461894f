//! The pool's side: one tokio task that hands chunks to workers and answers for them.
//!
//! It is the only one that changes the pool's state, and it never blocks: everything that happens
//! comes to it as an [`Event`].
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::error::Lost;
use super::host::host;
use super::slot::Slot;
use super::wire::ToWorker;
use super::worker::Orders;
use crate::departures::Departures;
use crate::function::{EntryRef, Failure};
use crate::pool;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// A chunk on its way.
pub(super) struct Task {
    pub(super) id: u64,
    pub(super) entry: EntryRef,
    pub(super) args: Vec<u8>,
    /// What is counted for them; away while a worker has them.
    pub(super) departures: Departures,
    /// How many coroutines it holds.
    pub(super) calls: usize,
    /// How many more workers it may lose.
    pub(super) retries: u32,
    pub(super) end: oneshot::Sender<Result<Vec<u8>, Lost>>,
    /// Its share of what may be under way in the pool, once it has it; given back when it goes.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// What happens to a pool.
pub(super) enum Event {
    Run(Task),
    /// Nobody waits for this task any more.
    Cancel(u64),
    /// End at once.
    Terminate,
    /// Something about the worker in this place; of no interest if it is not this generation's.
    Slot {
        slot: usize,
        generation: u64,
        what: FromSlot,
    },
}

/// What happens to a worker.
pub(super) enum FromSlot {
    /// It can be talked to; its process id.
    Connected(mpsc::UnboundedSender<Vec<u8>>, u32),
    Taken(u64),
    Done(u64, Result<Vec<u8>, Failure>),
    /// Nothing more will come from it. If its process is still there after so long, it is of no
    /// use.
    Silent {
        grace: Duration,
    },
    /// It is there no more.
    Ended(Ending),
}

/// How a worker ended.
pub(super) struct Ending {
    pub(super) status: Option<ExitStatus>,
    pub(super) reason: String,
}

/// What the builder was told.
pub(super) struct Settings {
    pub(super) workers: usize,
    pub(super) threads: usize,
    pub(super) in_flight: usize,
    pub(super) task_timeout: Option<Duration>,
    pub(super) hard_timeout: Option<Duration>,
}

/// A chunk that a worker has.
struct Sent {
    task: Task,
    slot: usize,
    /// How many were sent before, to any worker.
    number: u64,
    /// How many this worker was sent, with this one.
    place: u64,
    overdue: bool,
}

pub(super) struct Driver {
    pub(super) settings: Settings,
    pub(super) address: String,
    pub(super) key: u128,
    pub(super) hosts: Arc<pool::Pool>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    waiting: VecDeque<Task>,
    sent: HashMap<u64, Sent>,
    slots: Vec<Slot>,
    /// When each chunk that is with a worker has to be back, and its id; by its number, which is the
    /// order of time as well, since all have the same.
    deadlines: BTreeMap<u64, (Instant, u64)>,
    /// How many chunks were sent.
    number: u64,
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        address: String,
        key: u128,
        hosts: Arc<pool::Pool>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Driver {
            slots: (0..settings.workers).map(|_| Slot::default()).collect(),
            settings,
            address,
            key,
            hosts,
            events,
            waiting: VecDeque::new(),
            sent: HashMap::new(),
            deadlines: BTreeMap::new(),
            number: 0,
        }
    }

    /// Runs the pool until it is told to terminate.
    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        (0..self.slots.len()).for_each(|slot| self.start(slot));
        let mut batch = Vec::new();
        loop {
            let deadline = self.deadlines.first_key_value().map(|(_, first)| first.0);
            tokio::select! {
                _ = events.recv_many(&mut batch, 256) => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
            for event in batch.drain(..) {
                if matches!(event, Event::Terminate) {
                    // Whoever still waits learns it from their `end` being dropped.
                    return;
                }
                self.handle(event);
            }
            self.enforce_deadlines();
            self.hand_out();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Run(task) => self.waiting.push_back(task),
            Event::Cancel(id) => self.cancel(id),
            Event::Terminate => {}
            Event::Slot {
                slot,
                generation,
                what,
            } => {
                if self
                    .slots
                    .get(slot)
                    .is_some_and(|s| s.generation == generation)
                {
                    self.handle_slot(slot, what);
                }
            }
        }
    }

    fn handle_slot(&mut self, at: usize, what: FromSlot) {
        let slot = &mut self.slots[at];
        match what {
            FromSlot::Connected(outbox, pid) => {
                slot.pid = Some(pid);
                slot.outbox = Some(outbox);
            }
            FromSlot::Taken(count) => slot.taken = count,
            FromSlot::Done(id, end) => self.done(at, id, end),
            FromSlot::Silent { grace } => {
                slot.silent = true;
                slot.outbox = None;
                slot.kill_after(grace);
            }
            FromSlot::Ended(ending) => slot.ended = Some(ending),
        }
        if let Some(ending) = self.slots[at].take_end() {
            self.bury(at, &ending);
        }
    }

    fn done(&mut self, slot: usize, id: u64, end: Result<Vec<u8>, Failure>) {
        // A worker may answer only for what it has.
        if self.sent.get(&id).is_none_or(|sent| sent.slot != slot) {
            return;
        }
        if let Some(Sent { task, .. }) = self.take_back(id) {
            self.slots[slot].in_flight -= task.calls;
            // If nobody waits any more, that is their business.
            let _ = task.end.send(end.map_err(Lost::Failed));
        }
    }

    /// A chunk that no worker has any more.
    fn take_back(&mut self, id: u64) -> Option<Sent> {
        let sent = self.sent.remove(&id)?;
        self.deadlines.remove(&sent.number);
        Some(sent)
    }

    fn cancel(&mut self, id: u64) {
        // What still waits is left out when its turn comes.
        if let Some(sent) = self.sent.get(&id) {
            self.slots[sent.slot].send(&ToWorker::Cancel { id }, &[]);
        }
    }

    /// Gives what waits to the workers that have most room.
    fn hand_out(&mut self) {
        while let Some(task) = self.waiting.front() {
            if task.end.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            let Some(slot) = self.roomiest(task.calls) else {
                return self.start_missing();
            };
            if let Some(task) = self.waiting.pop_front() {
                self.send(task, slot);
            }
        }
    }

    fn roomiest(&self, calls: usize) -> Option<usize> {
        let room = |slot: &Slot| self.settings.in_flight.saturating_sub(slot.in_flight);
        (0..self.slots.len())
            .filter(|&at| self.slots[at].outbox.is_some() && room(&self.slots[at]) >= calls)
            .max_by_key(|&at| room(&self.slots[at]))
    }

    fn send(&mut self, mut task: Task, at: usize) {
        task.departures.away();
        let slot = &mut self.slots[at];
        let head = ToWorker::Run {
            id: task.id,
            entry: task.entry,
            timeout: self.settings.task_timeout,
        };
        slot.send(&head, &task.args);
        slot.sent += 1;
        slot.in_flight += task.calls;
        self.number += 1;
        let limit = self.settings.hard_timeout;
        // A time too long for the clock is for ever.
        if let Some(deadline) = limit.and_then(|limit| Instant::now().checked_add(limit)) {
            self.deadlines.insert(self.number, (deadline, task.id));
        }
        let sent = Sent {
            slot: at,
            number: self.number,
            place: slot.sent,
            overdue: false,
            task,
        };
        self.sent.insert(sent.task.id, sent);
    }

    /// Kills the workers of chunks that should be back: their loop is blocked, or the coroutine's
    /// own timeout would have ended it.
    fn enforce_deadlines(&mut self) {
        while let Some(first) = self.deadlines.first_entry() {
            let (deadline, id) = *first.get();
            if deadline > Instant::now() {
                return;
            }
            first.remove();
            if let Some(sent) = self.sent.get_mut(&id) {
                sent.overdue = true;
                self.slots[sent.slot].kill_after(Duration::ZERO);
            }
        }
    }

    /// Answers for what a dead worker had, and puts another in its place.
    fn bury(&mut self, at: usize, ending: &Ending) {
        let dead = self.slots[at].replace();
        let Some(pid) = dead.pid else {
            return self.give_up_if_none_starts(&ending.reason);
        };
        let mut lost: Vec<u64> = self
            .sent
            .values()
            .filter(|sent| sent.slot == at)
            .map(|sent| sent.task.id)
            .collect();
        lost.sort_unstable();
        for id in lost.into_iter().rev() {
            if let Some(sent) = self.take_back(id) {
                self.answer_for(sent, dead.taken, pid, ending.status);
            }
        }
        self.start(at);
    }

    fn answer_for(&mut self, sent: Sent, taken: u64, pid: u32, status: Option<ExitStatus>) {
        let mut task = sent.task;
        if sent.place > taken {
            // It has not even been started: to whoever waits nothing has happened.
            task.departures.back();
            return self.waiting.push_front(task);
        }
        let error = match self.settings.hard_timeout.filter(|_| sent.overdue) {
            Some(after) => Lost::TimedOut { after },
            None if task.retries > 0 => {
                task.retries -= 1;
                task.departures = task.departures.again();
                return self.waiting.push_front(task);
            }
            None => Lost::Died { pid, status },
        };
        let _ = task.end.send(Err(error));
    }

    /// Workers that could not be started are tried again when there is work for them.
    fn start_missing(&mut self) {
        // In no hurry while others work. While others are being started nobody knows whether one
        // will; only when that is known of all is a task given up, or all are tried anew for it.
        let none = self.slots.iter().all(Slot::is_vacant);
        let some = self.slots.iter().any(|slot| slot.outbox.is_some());
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.is_vacant() && (none || some && slot.has_rested()) {
                self.start(at);
            }
        }
    }

    fn give_up_if_none_starts(&mut self, reason: &str) {
        if self.slots.iter().all(Slot::is_vacant) {
            for task in self.waiting.drain(..) {
                let _ = task.end.send(Err(Lost::NoWorkers {
                    reason: reason.to_owned(),
                }));
            }
        }
    }

    fn start(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let (kill, killed) = oneshot::channel();
        slot.host = Some(kill);
        let orders = Orders {
            address: self.address.clone(),
            key: self.key,
            slot: at as u64,
            generation: slot.generation,
            threads: self.settings.threads,
        };
        let hosts = Arc::clone(&self.hosts);
        tokio::spawn(host(orders, hosts, killed, self.events.clone()));
    }
}

#[cfg(test)]
mod tests;
