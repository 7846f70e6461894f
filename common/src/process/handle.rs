//! The handle of a process: waiting for it, signalling it, and what it returned.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::builder::Builder;
use super::error::{ChildFailure, JoinError, SpawnError};
use super::packet::{self, Kind, Packet};
use super::start::Streams;
use super::{lock, registry, sys, wait};
use crate::function::Function;
use crate::{codec, reactor};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::{Future, IntoFuture};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A process that was started, whose function returns `R`; Python's `Process`.
///
/// Dropping it waits for the process to end; a daemon's is asked to end first (SIGTERM, and
/// SIGKILL a second later). A process ends, within a second, when the one that started it has
/// ended in whatever way, and so do its own children. [`detach`](Self::detach) undoes both.
///
/// ```
/// use common::process::Process;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let process = Process::spawn(square, (7,))?;
/// assert_eq!(process.join()?, 49);
/// assert_eq!(process.exit_code(), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Process<R> {
    /// The pipe to its standard input, if [`Stdio::piped`](super::Stdio::piped) was asked for.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its standard output, likewise.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its standard error, likewise.
    pub stderr: Option<ChildStderr>,
    child: Arc<Child>,
    on_drop: OnDrop,
    result: PhantomData<fn() -> R>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnDrop {
    Join,
    Leave,
}

impl Process<()> {
    /// Describes a process before it is started: its name, streams, limits and start method.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<R> Process<R> {
    pub(super) fn new(child: Arc<Child>, pipes: Streams<Option<OwnedFd>>) -> Self {
        Process {
            stdin: pipes.stdin.map(ChildStdin::from),
            stdout: pipes.stdout.map(ChildStdout::from),
            stderr: pipes.stderr.map(ChildStderr::from),
            child,
            on_drop: OnDrop::Join,
            result: PhantomData,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.child.name()
    }

    /// Whether it is terminated, rather than waited for, when this handle is dropped.
    pub fn daemon(&self) -> bool {
        self.child.daemon()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        !self.child.has_ended()
    }

    /// Its exit code, `None` while it runs: 0 if its function returned, 1 if that panicked (not
    /// Rust's 101; Python's code), `-9` if SIGKILL ended it, and so on. If its exit status is lost,
    /// what it said last counts; 255 if it said nothing.
    pub fn exit_code(&self) -> Option<i32> {
        if !self.child.has_ended() {
            return None;
        }
        let state = lock(&self.child.state);
        let State::Ended(Ending { status, outcome }) = &*state else {
            return Some(255);
        };
        let status = status.and_then(|status| status.code().or(status.signal().map(|s| -s)));
        Some(status.unwrap_or(match outcome {
            Some(Outcome::Returned(_)) => 0,
            Some(Outcome::Failed(_)) => 1,
            None => 255,
        }))
    }

    /// Its exit status; `None` while it runs, and if the status is lost.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.has_ended();
        match &*lock(&self.child.state) {
            State::Running(_) => None,
            State::Ended(ending) => ending.status,
        }
    }

    /// Asks it to stop what it does (SIGINT), as Ctrl-C does. Harmless once it has ended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, because the process changed its user.
    pub fn interrupt(&self) -> io::Result<()> {
        self.child.signal(Signal::SIGINT)
    }

    /// Asks it to end (SIGTERM). Harmless once it has ended. Its own children end with it.
    ///
    /// # Errors
    ///
    /// As [`interrupt`](Self::interrupt).
    pub fn terminate(&self) -> io::Result<()> {
        self.child.signal(Signal::SIGTERM)
    }

    /// Ends it at once (SIGKILL). Harmless once it has ended. Its own children end with it.
    ///
    /// # Errors
    ///
    /// As [`interrupt`](Self::interrupt).
    ///
    /// ```
    /// use common::process::{JoinError, Process};
    /// let process = Process::spawn(|| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// process.kill()?;
    /// let error: JoinError = process.join().unwrap_err();
    /// assert!(error.to_string().contains("SIGKILL"));
    /// assert_eq!(process.exit_code(), Some(-9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill(&self) -> io::Result<()> {
        self.child.signal(Signal::SIGKILL)
    }

    /// Lets it live on when this handle is dropped and when this process ends. While this process
    /// lives it still reaps the other when that ends.
    pub fn detach(mut self) {
        self.on_drop = OnDrop::Leave;
        self.child.detach();
    }
}

impl<R> Process<R>
where
    R: Serialize + DeserializeOwned + 'static,
{
    /// Starts a process that runs `f(args)`, `args` being the tuple of its arguments: `(a,)`,
    /// `(a, b)`, up to eight. Python's `Process(target=f, args=args).start()`.
    ///
    /// Blocks until the process exists, not until it runs. See [`Process::builder`] for a name, a
    /// start method, streams and limits.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], which says what to do about it.
    ///
    /// ```
    /// use common::process::Process;
    /// let process = Process::spawn(|a: String, n: usize| a.repeat(n), ("ab".to_string(), 2))?;
    /// assert_eq!(process.join()?, "abab");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<F, A>(f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, Output = R>,
        A: Serialize + DeserializeOwned + 'static,
    {
        Process::builder().spawn(f, args)
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits until it has ended, and gives back what its function returned. May be called again.
    ///
    /// A result that arrived counts, whatever the exit status is then.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: how it ended instead.
    pub fn join(&self) -> Result<R, JoinError> {
        self.child.wait_until(None)?;
        self.outcome()
    }

    /// As [`join`](Self::join), for at most `timeout`; `None` if it still runs then.
    pub fn join_timeout(&self, timeout: Duration) -> Option<Result<R, JoinError>> {
        match self.child.wait_until(Instant::now().checked_add(timeout)) {
            Ok(true) => Some(self.outcome()),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// As [`join`](Self::join) without waiting; `None` if it still runs.
    pub fn try_join(&self) -> Option<Result<R, JoinError>> {
        self.join_timeout(Duration::ZERO)
    }

    fn outcome(&self) -> Result<R, JoinError> {
        let name = self.name();
        match &*lock(&self.child.state) {
            State::Ended(Ending {
                outcome: Some(Outcome::Returned(bytes)),
                ..
            }) => codec::decode(bytes).map_err(|error| JoinError::Result {
                process: name.to_owned(),
                error,
            }),
            State::Ended(Ending {
                outcome: Some(Outcome::Failed(failure)),
                ..
            }) => Err(JoinError::of_failure(name, failure)),
            State::Ended(Ending { status, .. }) => Err(JoinError::of_status(name, *status)),
            State::Running(_) => Err(JoinError::NotOwner {
                process: name.to_owned(),
            }),
        }
    }

    async fn joined(&self) -> Result<R, JoinError> {
        // Where there can be no reactor (no descriptors left, say), waiting the plain way is late
        // but right.
        if let Ok(pidfd) = self.child.pidfd.try_clone() {
            let _ = reactor::readable(pidfd).await;
        }
        self.join()
    }
}

/// `process.await` waits as [`Process::join`] does, under any executor. Dropping the future drops
/// the handle, which waits; to give up waiting, await `&process`.
impl<R: DeserializeOwned + 'static> IntoFuture for Process<R> {
    type Output = Result<R, JoinError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.joined().await })
    }
}

/// As for `Process`; dropping the future leaves the process as it is.
///
/// ```
/// use common::process::Process;
/// let process = Process::spawn(|| 6 * 7, ())?;
/// let answer = futures::executor::block_on(async { (&process).await })?;
/// assert_eq!(answer, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<'a, R: DeserializeOwned + 'static> IntoFuture for &'a Process<R> {
    type Output = Result<R, JoinError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.joined())
    }
}

/// Readable when the process has ended; for [`wait`](super::wait()), `poll`, tokio's `AsyncFd`.
/// Python's `sentinel`.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

/// How long a daemon may take to obey SIGTERM when its handle is dropped.
const GRACE: Duration = Duration::from_secs(1);

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Leave || self.child.owner != std::process::id() {
            return;
        }
        // It may be waiting for the end of what it reads.
        self.stdin = None;
        if self.child.daemon && !self.child.has_ended() {
            let _ = self.terminate();
            if !matches!(
                self.child.wait_until(Instant::now().checked_add(GRACE)),
                Ok(true)
            ) {
                let _ = self.kill();
            }
        }
        let _ = self.child.wait_until(None);
        registry::remove(&self.child);
    }
}

/// A process, whatever its function returns.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    pid: Pid,
    pidfd: OwnedFd,
    daemon: bool,
    /// The process that started it, the only one that can wait for it.
    owner: u32,
    reaper: Reaper,
    state: Mutex<State>,
}

/// Who takes the exit status from the kernel.
#[derive(Debug)]
pub(super) enum Reaper {
    /// This process: it is the parent.
    Parent,
    /// The fork server, which sends it on; this is its pidfd.
    Server(Arc<OwnedFd>),
}

#[derive(Debug)]
enum State {
    Running(Option<Link>),
    Ended(Ending),
}

/// The lifeline, both ends.
#[derive(Debug)]
pub(super) struct Link {
    /// When this end is closed, the child is killed.
    pub(super) ours: OwnedFd,
    /// The child's end. The parent keeps it only to be able to [`sys::disarm`] it.
    pub(super) theirs: OwnedFd,
}

#[derive(Debug)]
struct Ending {
    status: Option<ExitStatus>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Returned(Vec<u8>),
    Failed(ChildFailure),
}

impl Child {
    pub(super) fn new(
        name: String,
        pid: Pid,
        pidfd: OwnedFd,
        daemon: bool,
        link: Link,
        reaper: Reaper,
    ) -> Self {
        Child {
            name,
            pid,
            pidfd,
            daemon,
            owner: std::process::id(),
            reaper,
            state: Mutex::new(State::Running(Some(link))),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    pub(super) fn daemon(&self) -> bool {
        self.daemon
    }

    /// Whether it has ended; if so, its outcome has been collected.
    pub(super) fn has_ended(&self) -> bool {
        let now = Some(Instant::now());
        if self.owner != std::process::id() {
            return wait::is_readable(self.pidfd.as_fd(), now).unwrap_or(false);
        }
        matches!(self.wait_until(now), Ok(true))
    }

    /// Waits for its end and collects the outcome; false if `deadline` came first.
    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if self.owner != std::process::id() {
            return Err(JoinError::NotOwner {
                process: self.name.clone(),
            });
        }
        if matches!(&*lock(&self.state), State::Ended(_)) {
            return Ok(true);
        }
        // Without the lock, so that others can look at the state meanwhile.
        match wait::is_readable(self.pidfd.as_fd(), deadline) {
            Ok(true) => {
                self.collect();
                Ok(true)
            }
            // poll(2) on one valid descriptor fails for want of memory only; then say that the
            // outcome is unknown rather than loop.
            Ok(false) => Ok(false),
            Err(_) => Err(JoinError::Lost {
                process: self.name.clone(),
            }),
        }
    }

    fn collect(&self) {
        let mut state = lock(&self.state);
        let State::Running(link) = &mut *state else {
            return;
        };
        let ending = link.take().map_or(
            Ending {
                status: None,
                outcome: None,
            },
            |link| self.read_outcome(&link),
        );
        *state = State::Ended(ending);
    }

    fn read_outcome(&self, link: &Link) -> Ending {
        let mut ending = Ending {
            status: None,
            outcome: None,
        };
        while ending.outcome.is_none()
            && let Ok(packet) = packet::receive(link.ours.as_fd(), false)
        {
            ending.take(packet);
        }
        match &self.reaper {
            Reaper::Parent => ending.status = sys::reap(self.pidfd.as_fd()).ok().flatten(),
            Reaper::Server(server) => {
                while ending.status.is_none() && server_speaks(link, server) {
                    let Ok(packet) = packet::receive(link.ours.as_fd(), false) else {
                        break;
                    };
                    ending.take(packet);
                }
            }
        }
        ending
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match sys::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the deadly signal off its lifeline.
    fn detach(&self) {
        // The child arms its lifeline as its first act; only after that can it be disarmed.
        while !self.has_ended() {
            if let State::Running(Some(link)) = &*lock(&self.state)
                && sys::is_armed(link.theirs.as_fd())
            {
                return sys::disarm(link.theirs.as_fd());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(super) fn close_link(&self) {
        if let State::Running(link) = &mut *lock(&self.state) {
            *link = None;
        }
    }
}

/// Waits until the fork server has sent something; false if it has ended instead.
fn server_speaks(link: &Link, server: &OwnedFd) -> bool {
    wait::readable(&[link.ours.as_fd(), server.as_fd()], None)
        .is_ok_and(|ready| ready.first() == Some(&0))
}

impl Ending {
    fn take(&mut self, packet: Packet) {
        match packet.kind {
            Kind::Returned => self.outcome = Some(Outcome::Returned(packet.body)),
            Kind::Failed => {
                let failure = codec::decode(&packet.body).unwrap_or_else(|error| {
                    ChildFailure::SetUp(format!("its report is unreadable: {error}"))
                });
                self.outcome = Some(Outcome::Failed(failure));
            }
            Kind::Ended => {
                self.status = codec::decode(&packet.body).ok().map(ExitStatus::from_raw);
            }
            _ => {}
        }
    }
}
