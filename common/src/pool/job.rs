//! What was asked for in one call, and the answers as they come in.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::chunking::Chunking;
use super::error::{TaskError, TaskId};
use super::lock;
use super::spares::Buffer;
use super::stats::Event;
use super::waiter::{Completions, Waiter};
use crate::codec;
use crate::ring::Batch;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;

/// One call of `apply`, `map` and so on, until its last answer. It does not know its types: the
/// answers are decoded by who gets them.
pub(crate) struct Job {
    pub(super) function: &'static str,
    /// The encoded entry of the chunk function.
    pub(super) entry: [u8; 16],
    pub(super) chunking: Chunking,
    /// Whether its tasks have numbers.
    many: bool,
    finished: AtomicBool,
    failed: AtomicBool,
    /// Whether something is counted for the arguments of any of its tasks.
    counted: AtomicBool,
    answers: Mutex<Answers>,
    /// There once it has finished, under no lock: to decode them is to run the user's code.
    results: OnceLock<Results>,
}

/// What has come in.
#[derive(Default)]
pub(super) struct Answers {
    /// Tasks that were submitted; the last has been if `sealed`.
    expected: usize,
    sealed: bool,
    answered: usize,
    results: Results,
    errors: Vec<(usize, TaskError)>,
    /// Overrides everything else.
    verdict: Option<TaskError>,
    waiters: Vec<Waiter>,
    callbacks: Vec<Callback>,
}

/// Encoded results.
#[derive(Default)]
struct Results {
    /// In the order in which they came.
    parts: Vec<Part>,
    /// Where the small parts are.
    small: Buffer,
}

/// An encoded `Vec` of results.
struct Part {
    first: usize,
    count: usize,
    place: Place,
}

enum Place {
    Small(Range<usize>),
    Large(Vec<u8>),
    /// A whole message, as it came, behind so many bytes.
    Message(Batch, usize),
}

/// Runs on the pool's own thread when the job has finished.
pub(super) type Callback = Box<dyn FnOnce(&Job) + Send>;

/// One with its job.
pub(super) type CallbackOf = (Callback, Arc<Job>);

/// What has to be done for finished jobs once no lock is held.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) jobs: usize,
    pub(super) waiters: Vec<Waiter>,
    pub(super) callbacks: Vec<CallbackOf>,
    pub(super) events: Vec<Event>,
}

/// Parts up to this size are kept together.
const SMALL: usize = 16 << 10;

impl Job {
    /// `small` is where its small results will lie.
    pub(super) fn new(
        function: &'static str,
        entry: [u8; 16],
        chunking: Chunking,
        many: bool,
        small: Buffer,
    ) -> Arc<Self> {
        Arc::new(Job {
            function,
            entry,
            chunking,
            many,
            finished: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            answers: Mutex::new(Answers {
                results: Results {
                    parts: Vec::new(),
                    small,
                },
                ..Answers::default()
            }),
            results: OnceLock::new(),
        })
    }

    /// A job that failed before it began.
    pub(super) fn failed(function: &'static str, error: TaskError) -> Arc<Self> {
        let chunking = Chunking::single();
        let job = Job::new(function, [0; 16], chunking, false, Buffer::default());
        lock(&job.answers).verdict = Some(error);
        job.failed.store(true, Relaxed);
        job.finished.store(true, Release);
        job
    }

    #[inline]
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Acquire)
    }

    /// Whether some task has failed.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    pub(super) fn is_counted(&self) -> bool {
        self.counted.load(Relaxed)
    }

    /// Something is counted for the arguments of one of its tasks.
    pub(super) fn count(&self) {
        self.counted.store(true, Relaxed);
    }

    pub(super) fn task(&self, index: usize) -> TaskId {
        TaskId {
            function: self.function.to_owned(),
            index: self.many.then_some(index),
        }
    }

    /// So many more tasks are on their way.
    pub(super) fn expect(&self, more: usize) {
        lock(&self.answers).expected += more;
    }

    /// So many tasks and no more are on their way.
    pub(super) fn expect_all(&self, tasks: usize) {
        let mut answers = lock(&self.answers);
        answers.expected = tasks;
        answers.sealed = true;
    }

    /// No more tasks will come.
    pub(super) fn seal(self: &Arc<Self>, finished: &mut Finished) {
        let mut answers = lock(&self.answers);
        answers.sealed = true;
        self.settle(&mut answers, finished);
    }

    /// Results of `count` tasks from `first` on: an encoded `Vec`.
    pub(super) fn done(
        self: &Arc<Self>,
        first: usize,
        count: usize,
        bytes: &[u8],
        finished: &mut Finished,
    ) {
        let mut answers = lock(&self.answers);
        let place = if bytes.len() > SMALL {
            Place::Large(bytes.to_vec())
        } else {
            let small = &mut answers.results.small;
            let start = small.len();
            small.extend_from_slice(bytes);
            Place::Small(start..small.len())
        };
        self.add(&mut answers, first, count, place, finished);
    }

    /// The same, in a message of its own from byte `from` on.
    pub(super) fn done_in(
        self: &Arc<Self>,
        first: usize,
        count: usize,
        message: Batch,
        from: usize,
        finished: &mut Finished,
    ) {
        let place = Place::Message(message, from);
        self.add(&mut lock(&self.answers), first, count, place, finished);
    }

    fn add(
        self: &Arc<Self>,
        answers: &mut Answers,
        first: usize,
        count: usize,
        place: Place,
        finished: &mut Finished,
    ) {
        if self.is_finished() {
            return;
        }
        answers.results.parts.push(Part {
            first,
            count,
            place,
        });
        answers.answered += count;
        self.settle(answers, finished);
    }

    /// The tasks have failed, each with what `error` says.
    pub(super) fn fail(
        self: &Arc<Self>,
        tasks: Range<usize>,
        error: impl Fn(TaskId) -> TaskError,
        finished: &mut Finished,
    ) {
        let mut answers = lock(&self.answers);
        if self.is_finished() || tasks.is_empty() {
            return;
        }
        answers.answered += tasks.len();
        for index in tasks {
            answers.errors.push((index, error(self.task(index))));
        }
        self.failed.store(true, Release);
        self.settle(&mut answers, finished);
    }

    /// Ends all of it with one error; false if it had ended already.
    pub(super) fn end(self: &Arc<Self>, error: TaskError, finished: &mut Finished) -> bool {
        let mut answers = lock(&self.answers);
        if self.is_finished() {
            return false;
        }
        answers.verdict = Some(error);
        answers.results = Results::default();
        self.failed.store(true, Release);
        self.finish(&mut answers, finished);
        true
    }

    fn settle(self: &Arc<Self>, answers: &mut Answers, finished: &mut Finished) {
        if answers.sealed && answers.answered >= answers.expected && !self.is_finished() {
            self.finish(answers, finished);
        } else if self.has_failed() && !self.is_finished() {
            // Who wants to stop at the first error looks at it now.
            for waiter in &answers.waiters {
                if let Waiter::Thread(thread) = waiter {
                    finished.waiters.push(Waiter::Thread(thread.clone()));
                }
            }
        }
    }

    fn finish(self: &Arc<Self>, answers: &mut Answers, finished: &mut Finished) {
        // Nobody has asked for them before, and a job finishes once.
        let _ = self.results.set(std::mem::take(&mut answers.results));
        self.finished.store(true, Release);
        finished.jobs += 1;
        finished.waiters.append(&mut answers.waiters);
        let callbacks = answers.callbacks.drain(..);
        finished
            .callbacks
            .extend(callbacks.map(|callback| (callback, self.clone())));
    }

    /// Has `waiter` woken when the job has finished; gives it back if it has already.
    pub(super) fn watch(&self, mut waiter: Waiter) -> Option<Waiter> {
        let mut answers = lock(&self.answers);
        if self.is_finished() {
            return Some(waiter);
        }
        // A job has one future, and that has one waker at a time. The one before is dropped after
        // the lock is released.
        let before = answers.waiters.iter_mut().find(|before| before.is_task());
        match before.filter(|_| waiter.is_task()) {
            Some(before) => mem::swap(before, &mut waiter),
            None => answers.waiters.push(waiter),
        }
        None
    }

    /// Forgets a thread that waits no longer.
    pub(super) fn unwatch(&self, thread: &Thread) {
        lock(&self.answers)
            .waiters
            .retain(|waiter| !matches!(waiter, Waiter::Thread(other) if other.id() == thread.id()));
    }

    /// Forgets those that wait to be told of it with others.
    pub(super) fn unwatch_for(&self, completions: &Arc<Completions>) {
        lock(&self.answers).waiters.retain(
            |waiter| !matches!(waiter, Waiter::Queue(other, _) if Arc::ptr_eq(other, completions)),
        );
    }

    /// Has `callback` called when the job has finished; gives it back if it has already.
    pub(super) fn call_back(&self, callback: Callback) -> Option<Callback> {
        let mut answers = lock(&self.answers);
        if self.is_finished() {
            return Some(callback);
        }
        answers.callbacks.push(callback);
        None
    }

    /// How many tasks have been answered so far.
    pub(super) fn answered(&self) -> usize {
        lock(&self.answers).answered
    }

    /// The results of a finished job; none of one that has failed.
    fn results(&self) -> &Results {
        self.results.get_or_init(Results::default)
    }

    /// The one result of a finished job.
    pub(super) fn one<R: DeserializeOwned>(&self) -> Result<R, TaskError> {
        self.first_error()?;
        let results = self.results();
        let bytes = results.parts.first().map(|part| results.bytes(part));
        // Behind the length of the vector.
        let bytes = bytes.and_then(|bytes| bytes.get(8..)).unwrap_or_default();
        codec::decode(bytes).map_err(TaskError::Decode)
    }

    /// All results of a finished job in order, or the error of the first task that has one.
    pub(super) fn all<R: DeserializeOwned>(&self) -> Result<Vec<R>, TaskError> {
        self.first_error()?;
        let results = self.results();
        let parts = results.in_order();
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.count).sum());
        for part in parts {
            results.decode_onto::<R>(part, &mut all)?;
        }
        Ok(all)
    }

    /// The error of the first task that has one.
    fn first_error(&self) -> Result<(), TaskError> {
        let answers = lock(&self.answers);
        let first = answers.errors.iter().min_by_key(|(index, _)| *index);
        match answers.verdict.as_ref().or(first.map(|(_, error)| error)) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The error that came first.
    pub(super) fn earliest_error(&self) -> Option<TaskError> {
        let answers = lock(&self.answers);
        let first = answers.errors.first().map(|(_, error)| error);
        answers.verdict.as_ref().or(first).cloned()
    }

    /// What came of each task of a finished job, in order.
    pub(super) fn each<R: DeserializeOwned>(&self) -> VecDeque<Result<R, TaskError>> {
        let (tasks, mut errors) = {
            let answers = lock(&self.answers);
            if let Some(error) = &answers.verdict {
                let tasks = answers.expected.max(1);
                return (0..tasks).map(|_| Err(error.clone())).collect();
            }
            (answers.expected, answers.errors.clone())
        };
        errors.sort_by_key(|(index, _)| *index);
        let mut errors = errors.into_iter().peekable();
        let mut all = VecDeque::with_capacity(tasks);
        let results = self.results();
        for part in results.in_order() {
            while let Some((_, error)) = errors.next_if(|(index, _)| *index < part.first) {
                all.push_back(Err(error));
            }
            match results.decode::<R>(part) {
                Ok(values) => all.extend(values.into_iter().map(Ok)),
                Err(error) => all.extend((0..part.count).map(|_| Err(error.clone()))),
            }
        }
        all.extend(errors.map(|(_, error)| Err(error)));
        all
    }
}

impl Results {
    /// The parts in the order of their tasks.
    fn in_order(&self) -> Vec<&Part> {
        let mut parts: Vec<&Part> = self.parts.iter().collect();
        parts.sort_unstable_by_key(|part| part.first);
        parts
    }

    fn bytes<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match &part.place {
            Place::Small(range) => &self.small[range.clone()],
            Place::Large(bytes) => bytes,
            Place::Message(batch, from) => {
                let message = batch.iter().next().unwrap_or_default();
                message.get(*from..).unwrap_or_default()
            }
        }
    }

    fn decode<R: DeserializeOwned>(&self, part: &Part) -> Result<Vec<R>, TaskError> {
        let mut values = Vec::with_capacity(part.count);
        self.decode_onto(part, &mut values)?;
        Ok(values)
    }

    fn decode_onto<R: DeserializeOwned>(
        &self,
        part: &Part,
        all: &mut Vec<R>,
    ) -> Result<(), TaskError> {
        let (bytes, before) = (self.bytes(part), all.len());
        codec::decode_onto(bytes, all).map_err(TaskError::Decode)?;
        let found = all.len() - before;
        if found == part.count {
            return Ok(());
        }
        Err(TaskError::Memory {
            reason: format!("a worker sent {found} results and said {}", part.count),
        })
    }
}
