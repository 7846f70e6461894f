//! Everything that can be said about a pool before it is started.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::Pool;
use super::crew::{Launch, launch};
use super::engine::Engine;
use super::error::PoolError;
use super::stats::{Event, Hook};
use super::worker::{Init, Initializer, Limits, OneByOne};
use crate::codec;
use crate::departures::Departures;
use crate::function::Function;
use crate::process::{StartMethod, cpu_count};
use crate::ring::RingConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// What a pool is made by.
pub(crate) struct Settings {
    pub(crate) workers: usize,
    pub(crate) name: String,
    pub(crate) start_method: StartMethod,
    pub(crate) initializer: Option<Initializer>,
    /// What is counted for its arguments, which the pool keeps for the workers to come.
    pub(crate) departures: Departures,
    pub(crate) limits: Limits,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) nice: i32,
    pub(crate) cpus: Vec<usize>,
    pub(crate) queue_bytes: usize,
    /// How many chunks may be in the ring and with the workers at a time.
    pub(crate) cells: usize,
    pub(crate) launch: Launch,
}

/// Describes a pool, then starts it. Made by [`Pool::builder`].
///
/// ```
/// use common::pool::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::builder()
///     .workers(2)
///     .task_timeout(Duration::from_secs(60))
///     .max_tasks_per_worker(100)
///     .retries(1)
///     .build()?;
/// assert_eq!(pool.apply(|x: i32| x + 1, (1,))?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder starts nothing until `build` is called"]
pub struct PoolBuilder {
    settings: Settings,
    hook: Option<Hook>,
    error: Option<PoolError>,
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.settings.name)
            .field("workers", &self.settings.workers)
            .finish_non_exhaustive()
    }
}

impl Default for PoolBuilder {
    fn default() -> Self {
        let largest = RingConfig::default().capacity;
        PoolBuilder {
            settings: Settings {
                workers: cpu_count(),
                name: "PoolWorker".into(),
                start_method: StartMethod::default(),
                initializer: None,
                departures: Departures::default(),
                limits: Limits::default(),
                task_timeout: None,
                retries: 0,
                memory_limit: None,
                nice: 0,
                cpus: Vec::new(),
                queue_bytes: largest.min(16 << 20),
                cells: 1024,
                launch: launch::<OneByOne>,
            },
            hook: None,
            error: None,
        }
    }
}

/// As many as the claims table has numbers for.
const MOST_WORKERS: usize = 1 << 15;

impl PoolBuilder {
    /// How many worker processes; by default as many as there are usable cores.
    #[doc(alias = "processes")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// How the workers are started; [`StartMethod::Spawn`] by default. With `Fork` only the first
    /// ones are forked, if the process has one thread then; those that replace them are spawned.
    ///
    /// A forked worker has the statics, and the locks in them, as they were when it was started. If
    /// that was while a `LazyLock` made the pool, a task must not touch it: to the worker it is
    /// for ever being made. A worker that waits for such a lock is killed within about a second,
    /// its task answered with [`TaskError::Deadlocked`](super::TaskError::Deadlocked). (Where the
    /// system does not let a process look at its children's system calls that is not noticed;
    /// [`task_timeout`](Self::task_timeout) ends it everywhere.)
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.settings.start_method = method;
        self
    }

    /// Each worker runs `f(args)` first. What it returns is the worker's state, which
    /// [`Pool::map_with`] hands to the tasks.
    ///
    /// The pool keeps the arguments for the workers that come later: a queue's
    /// `Sender` among them counts until the pool and its results are dropped.
    ///
    /// If it panics the worker ends, and is replaced; after three such in a row, with no other
    /// worker at work, the tasks that wait are answered with
    /// [`TaskError::NoWorkers`](super::TaskError::NoWorkers).
    ///
    /// ```
    /// use common::pool::Pool;
    /// use std::collections::HashMap;
    ///
    /// fn dictionary(language: String) -> HashMap<String, String> {
    ///     HashMap::from([("one".to_string(), format!("one in {language}"))])
    /// }
    ///
    /// fn translate(words: &mut HashMap<String, String>, word: String) -> Option<String> {
    ///     words.get(&word).cloned()
    /// }
    ///
    /// let language = ("French".to_string(),);
    /// let pool = Pool::builder().workers(1).initializer(dictionary, language).build()?;
    /// let words = ["one", "two"].map(str::to_string);
    /// assert_eq!(pool.map_with(translate, words)?, [Some("one in French".to_string()), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "initargs")]
    pub fn initializer<F, A>(mut self, f: F, args: A) -> Self
    where
        F: Function<A, Output: 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let entry = Init::entry::<F, A>(f).map_err(PoolError::Function);
        let (args, departures) = Departures::of(|| codec::encode(&args));
        let args = args.map_err(PoolError::Initializer);
        self.settings.departures = departures;
        match entry.and_then(|entry| Ok((entry, args?))) {
            Ok((entry, args)) => self.settings.initializer = Some(Initializer { entry, args }),
            Err(error) => self.error = Some(error),
        }
        self
    }

    /// A worker leaves and is replaced after so many tasks: a cure for leaks. Python's
    /// `maxtasksperchild`.
    #[doc(alias = "maxtasksperchild")]
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.settings.limits.tasks = Some(tasks);
        self
    }

    /// A worker that holds more than so many bytes of memory (resident set) after a task leaves
    /// and is replaced.
    pub fn max_memory_per_worker(mut self, bytes: u64) -> Self {
        self.settings.limits.resident = Some(bytes);
        self
    }

    /// A task that runs longer is killed, with its worker, which is replaced:
    /// [`TaskError::TimedOut`](super::TaskError::TimedOut). The time in the queue does not count.
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.settings.task_timeout = Some(timeout);
        self
    }

    /// A task that was lost because its worker died is run again, so many times; by default it
    /// is not. Tasks that panic or time out are not run again.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// At most so many bytes of address space for each worker: an allocation beyond fails, Rust
    /// aborts, and the task ends with [`TaskError::WorkerDied`](super::TaskError::WorkerDied).
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = Some(bytes);
        self
    }

    /// The workers' niceness (setpriority(2)): 19 leaves the machine to everybody else.
    pub fn nice(mut self, nice: i32) -> Self {
        self.settings.nice = nice;
        self
    }

    /// The CPUs that the workers may run on; by default those of this process.
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.settings.cpus = cpus.into_iter().collect();
        self
    }

    /// What the workers are called, a number behind it; `ps` shows it. By default `PoolWorker`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The size of each of the two rings in shared memory; it is used as needed. Messages may be
    /// larger. By default 16 MiB, or a quarter of `/dev/shm` where that is less.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.queue_bytes = bytes;
        self
    }

    /// Has `hook` called with each [`Event`], by whichever thread of this process notices it. It
    /// must not wait for the pool.
    ///
    /// ```
    /// use common::pool::{Event, Pool};
    /// use std::sync::mpsc;
    ///
    /// let (events, seen) = mpsc::channel();
    /// let pool = Pool::builder().workers(1).on_event(move |event| {
    ///     let _ = events.send(event.clone());
    /// }).build()?;
    /// pool.apply(|| 1, ())?;
    /// assert!(seen.iter().any(|event| matches!(event, Event::TaskEnded { ok: true, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_event(mut self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Starts the workers. Does not wait until they are ready.
    ///
    /// # Errors
    ///
    /// [`PoolError`]; then no worker is left running.
    pub fn build(self) -> Result<Pool, PoolError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        check(&self.settings)?;
        let workers = self.settings.workers;
        let mut settings = self.settings;
        settings.cells = settings.cells.max(4 * workers);
        let engine = Engine::new(settings, self.hook)?;
        // Dropping this ends those that were started.
        let pool = Pool::of(engine);
        for worker in 0..workers {
            pool.engine.start_worker(worker)?;
        }
        pool.engine.start_threads()?;
        Ok(pool)
    }
}

fn check(settings: &Settings) -> Result<(), PoolError> {
    let wrong = |what, value: String, remedy| {
        Err(PoolError::Setting {
            what,
            value,
            remedy,
        })
    };
    let workers = settings.workers;
    if workers == 0 || workers > MOST_WORKERS {
        return wrong("workers", workers.to_string(), "at least 1, at most 32768");
    }
    if settings.limits.tasks == Some(0) {
        return wrong("max_tasks_per_worker", "0".into(), "at least 1");
    }
    if settings.task_timeout == Some(Duration::ZERO) {
        return wrong("task_timeout", "0".into(), "some time");
    }
    if settings.name.contains('\0') {
        return wrong("name", format!("{:?}", settings.name), "no NUL");
    }
    Ok(())
}
