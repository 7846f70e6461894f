//! What a pool can be told before it is made.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::Pool;
use super::calls::{Client, Terms};
use super::driver::{Driver, Settings};
use super::host::accept;
use crate::pool::{self, PoolBuilder, PoolError};
use crate::{process, reactor};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};

/// A description of a [`Pool`].
///
/// ```
/// use common::aio::pool::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::builder()
///     .workers(2)
///     .in_flight(100)
///     .task_timeout(Duration::from_secs(5))
///     .retries(1)
///     .build()?;
/// # Ok::<(), common::pool::PoolError>(())
/// ```
#[must_use = "a builder starts nothing until `build` is called"]
pub struct Builder {
    workers: usize,
    threads: usize,
    in_flight: usize,
    window: Option<usize>,
    chunk_size: Option<usize>,
    retries: u32,
    task_timeout: Option<Duration>,
    hard_timeout: Option<Duration>,
    hosts: PoolBuilder,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .field("threads", &self.threads)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            workers: process::cpu_count(),
            threads: 1,
            in_flight: 1_000,
            window: None,
            chunk_size: None,
            retries: 0,
            task_timeout: None,
            hard_timeout: None,
            hosts: pool::Pool::builder().name("AioWorker").queue_bytes(1 << 20),
        }
    }
}

impl Builder {
    /// How many processes; by default as many as there are usable CPUs.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many threads the runtime of each worker has. With one, the default, everything in a
    /// worker runs in its main thread.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// How many coroutines a worker runs at the same time; by default 1,000.
    pub fn in_flight(mut self, coroutines: usize) -> Self {
        self.in_flight = coroutines;
        self
    }

    /// How many coroutines may be under way in the whole pool, running or on their way to a
    /// worker; whoever asks for more waits. By default twice what the workers run at the same
    /// time; never less than one worker does.
    pub fn window(mut self, coroutines: usize) -> Self {
        self.window = Some(coroutines);
        self
    }

    /// How many items travel together. By default, `map` makes four chunks for each worker but none
    /// larger than a quarter of [`in_flight`](Self::in_flight), and the `imap`s send items singly.
    /// Never more than `in_flight`.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items);
        self
    }

    /// How many times a coroutine that was lost with its worker is run again; by default never.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Cancels a coroutine that has run for so long, at its next await. Nothing by default.
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.task_timeout = Some(timeout);
        self
    }

    /// Kills a worker that has not answered for a coroutine so long after it was sent there, as one
    /// whose loop is blocked. By default, and at least, a second more than the
    /// [`task_timeout`](Self::task_timeout), if there is one.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// Describes where the workers live: start method, initializer, niceness, CPUs, limit of
    /// memory. The number of workers is this builder's, and so are the
    /// [`retries`](Self::retries): those set in `hosts` are not heeded. A time limit for tasks
    /// would be one for a worker's whole life.
    ///
    /// ```
    /// use common::aio;
    /// use common::pool::Pool;
    ///
    /// let hosts = Pool::builder().nice(5).memory_limit(4 << 30);
    /// let pool = aio::pool::Pool::builder().workers(1).hosts(hosts).build()?;
    /// # Ok::<(), common::pool::PoolError>(())
    /// ```
    pub fn hosts(mut self, hosts: PoolBuilder) -> Self {
        self.hosts = hosts;
        self
    }

    /// Makes the pool. Its workers are started at once; this does not wait for them.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if a number is zero that must not be, or there are no descriptors, threads or
    /// processes to be had.
    pub fn build(self) -> Result<Pool, PoolError> {
        self.check()?;
        let (terms, settings) = (self.terms(), self.settings());
        let key = random();
        let address = format!("common-aio-{}-{:016x}", std::process::id(), random() as u64);
        let runtime = reactor::handle().map_err(PoolError::Thread)?;
        let _context = runtime.enter();
        let listener = listen(&address).map_err(PoolError::Socket)?;
        // A worker that dies is replaced here: to serve again would be to pass for the dead one.
        let hosts = self.hosts.workers(self.workers).retries(0).build()?;
        let hosts = Arc::new(hosts);
        let (events, happening) = mpsc::unbounded_channel();
        runtime.spawn(accept(listener, key, events.clone()));
        let driver = Driver::new(settings, address, key, Arc::clone(&hosts), events.clone());
        runtime.spawn(driver.run(happening));
        Ok(Pool {
            client: Client {
                events,
                permits: Arc::new(Semaphore::new(terms.window)),
                next_id: Arc::new(AtomicU64::new(0)),
                runtime,
                hosts,
                terms,
            },
        })
    }

    fn check(&self) -> Result<(), PoolError> {
        let numbers = [
            (self.workers, "workers"),
            (self.threads, "threads"),
            (self.in_flight, "in_flight"),
        ];
        match numbers.into_iter().find(|(number, _)| *number == 0) {
            None => Ok(()),
            Some((_, what)) => Err(PoolError::Setting {
                what,
                value: "0".to_owned(),
                remedy: "at least 1",
            }),
        }
    }

    fn terms(&self) -> Terms {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let in_flight = self.in_flight.min(most);
        let all = self.workers.saturating_mul(in_flight).saturating_mul(2);
        Terms {
            workers: self.workers,
            in_flight,
            window: self.window.unwrap_or(all).clamp(in_flight, most),
            chunk_size: self.chunk_size,
            retries: self.retries,
            task_timeout: self.task_timeout,
        }
    }

    fn settings(&self) -> Settings {
        let least = self
            .task_timeout
            .map(|timeout| timeout.saturating_add(Duration::from_secs(1)));
        Settings {
            workers: self.workers,
            threads: self.threads,
            in_flight: self.in_flight,
            task_timeout: self.task_timeout,
            hard_timeout: self.hard_timeout.max(least),
        }
    }
}

fn listen(address: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(address)?;
    let listener = StdUnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// The standard library's hash maps have keys from the kernel's random numbers; nothing more is
/// needed to tell the workers from other processes of the same user.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(()));
    half() << 64 | half()
}
