//! The handle of a process: waiting for it, signalling it, and what it returned.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::builder::Builder;
use super::error::{JoinError, SpawnError};
use super::record::Child;
use super::registry;
use super::start::Streams;
use crate::function::Function;
use crate::{codec, reactor};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::{Future, IntoFuture};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A process that was started, whose function returns `R`; Python's `Process`.
///
/// Dropping it closes the pipes that are still in it and waits for the process to end; a daemon's
/// is asked to end first (SIGTERM, and SIGKILL a second later). A process ends, within a second,
/// when the one that started it has ended in whatever way, and so do its own children.
/// [`detach`](Self::detach) undoes both.
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
#[must_use = "dropping it waits for the process to end: keep it, `join` it or `detach` it"]
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
    #[doc(alias = "ident")]
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.child.name()
    }

    /// Whether it is terminated, rather than waited for, when this handle is dropped.
    #[must_use]
    pub fn daemon(&self) -> bool {
        self.child.daemon()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.child.has_ended()
    }

    /// Its exit code, `None` while it runs: 0 if its function returned, 1 if that panicked (not
    /// Rust's 101; Python's code), `-9` if SIGKILL ended it, and so on. If its exit status is lost,
    /// what it said last counts; 255 if it said nothing. A fork server that has not told the status
    /// a second after it was asked for counts as having lost it, until it does.
    #[doc(alias = "exitcode")]
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        if !self.child.has_ended() {
            return None;
        }
        let status = self.child.exit_status(Some(soon()));
        let code = status.and_then(|status| status.code().or(status.signal().map(|s| -s)));
        Some(code.unwrap_or_else(|| self.child.last_word()))
    }

    /// Its exit status; `None` while it runs, and if the status is lost (see
    /// [`exit_code`](Self::exit_code)).
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self.child.has_ended() {
            true => self.child.exit_status(Some(soon())),
            false => None,
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
    ///
    /// Blocks until the process has begun, a millisecond or so after its start; one that was
    /// stopped before (SIGSTOP) begins when it is continued.
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
    #[doc(alias = "start")]
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
        self.outcome(None)
    }

    /// As [`join`](Self::join), for at most `timeout`; `None` if it still runs then. If it has
    /// ended without a result, its fork server gets at least a second to tell how.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    ///
    /// ```
    /// use common::process::Process;
    /// use std::time::Duration;
    /// let process = Process::spawn(|| std::thread::sleep(Duration::MAX), ())?;
    /// if process.join_timeout(Duration::from_millis(5)).is_none() {
    ///     process.kill()?;
    /// }
    /// assert!(process.join().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> Option<Result<R, JoinError>> {
        let deadline = Instant::now().checked_add(timeout);
        match self.child.wait_until(deadline) {
            Ok(true) => Some(self.outcome(deadline.map(|at| at.max(soon())))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// As [`join`](Self::join) without waiting; `None` if it still runs. (For its fork server to
    /// tell how it ended, see [`join_timeout`](Self::join_timeout).)
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn try_join(&self) -> Option<Result<R, JoinError>> {
        self.join_timeout(Duration::ZERO)
    }

    fn outcome(&self, deadline: Option<Instant>) -> Result<R, JoinError> {
        self.child.result(deadline, |bytes| {
            codec::decode(bytes).map_err(|error| JoinError::Result {
                process: self.name().to_owned(),
                error,
            })
        })
    }

    async fn joined(&self) -> Result<R, JoinError> {
        // Where there can be no reactor (no descriptors left, say), waiting the plain way is late
        // but right.
        if let Ok(pidfd) = self.child.pidfd().try_clone_to_owned() {
            let _ = reactor::readable(pidfd).await;
        }
        self.child.wait_until(None)?;
        // An executor's thread is not to wait long for a fork server that is stopped.
        self.outcome(Some(soon()))
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

/// Readable when the process has ended; for [`wait`](super::wait()), `poll`, tokio's `AsyncFd`
/// (of what `as_fd` gives). Python's `sentinel`.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }
}

/// When a fork server must have told how a process ended that has ended already.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

/// How long a daemon may take to obey SIGTERM when its handle is dropped.
const GRACE: Duration = Duration::from_secs(1);

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Leave || !self.child.is_ours() {
            return;
        }
        // It may be waiting for the end of what it reads, or for somebody to read what it writes:
        // that is an error for it now (EPIPE).
        self.stdin = None;
        self.stdout = None;
        self.stderr = None;
        if self.child.daemon() && !self.child.has_ended() {
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
