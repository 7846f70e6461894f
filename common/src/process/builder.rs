//! Everything that can be said about a process before it is started.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::error::SpawnError;
use super::handle::Process;
use super::start::{self, Streams};
use crate::function::Function;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// How the new process comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, serde::Deserialize)]
pub enum StartMethod {
    /// Runs this program's executable anew and hands it the function. Always safe, whatever
    /// threads and locks the caller has. One to two milliseconds.
    #[default]
    Spawn,
    /// Copies the calling process (fork(2)). About 0.4 ms for a small one, 40 ms for one of a
    /// GiB; refused unless the caller has exactly one thread.
    Fork,
    /// Asks a small helper process, spawned at first use, to fork itself. About 0.5 ms, however
    /// large the caller is and however many threads it has.
    ///
    /// The new process has the caller's environment, working directory and standard streams, user,
    /// groups and root directory as they are now; what else a process inherits (its umask, limits,
    /// priority, process group, ignored signals) as it was at that first use.
    ForkServer,
}

/// Where a standard stream of a new process leads; as `std::process::Stdio`, which does not let
/// others than `Command` look inside.
#[derive(Debug, Default)]
pub struct Stdio(pub(super) StdioKind);

#[derive(Debug, Default)]
pub(super) enum StdioKind {
    #[default]
    Inherit,
    Null,
    Piped,
    Fd(OwnedFd),
}

impl Stdio {
    /// Where the parent's leads. The default.
    #[must_use]
    pub fn inherit() -> Self {
        Stdio(StdioKind::Inherit)
    }

    /// To `/dev/null`.
    #[must_use]
    pub fn null() -> Self {
        Stdio(StdioKind::Null)
    }

    /// To a pipe, whose other end is in the handle's field `stdin`, `stdout` or `stderr`.
    #[must_use]
    pub fn piped() -> Self {
        Stdio(StdioKind::Piped)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Stdio(StdioKind::Fd(file.into()))
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Stdio(StdioKind::Fd(fd))
    }
}

/// A limit the kernel enforces on one process (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(super) enum Limit {
    AddressSpace,
    CpuTime,
    OpenFiles,
    CoreSize,
}

/// Describes a process, then starts it. Made by [`Process::builder`].
///
/// ```
/// use common::process::{Process, Stdio};
/// use std::io::Read;
///
/// let mut process = Process::builder()
///     .name("greeter")
///     .env("GREETING", "Hello")
///     .stdout(Stdio::piped())
///     .spawn(|| print!("{}!", std::env::var("GREETING").unwrap()), ())?;
/// let mut said = String::new();
/// process.stdout.take().unwrap().read_to_string(&mut said)?;
/// assert_eq!(said, "Hello!");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing until `spawn` or `fork` is called"]
pub struct Builder {
    pub(super) name: Option<String>,
    pub(super) daemon: Option<bool>,
    pub(super) method: StartMethod,
    pub(super) hidden: bool,
    pub(super) set_up: SetUp,
    pub(super) streams: Streams<Stdio>,
}

/// What a new process does to itself before it runs its function.
#[derive(Debug, Default, Clone, Serialize, serde::Deserialize)]
pub(super) struct SetUp {
    pub(super) env: Vec<(OsString, Option<OsString>)>,
    /// Not a path: serde has those in UTF-8 only.
    pub(super) current_dir: Option<OsString>,
    pub(super) limits: Vec<(Limit, u64)>,
}

impl Builder {
    /// What errors and [`current`](super::current) call it, and (its first 15 bytes) `ps -e`. By
    /// default `Process-1`, `Process-2` and so on; a child of `Process-1` is `Process-1:1`, as in
    /// Python.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A daemon is terminated when its handle is dropped; others are waited for. By default as
    /// the calling process is.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = Some(daemon);
        self
    }

    /// How it is started; [`StartMethod::Spawn`] by default.
    #[doc(alias = "set_start_method")]
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets an environment variable of the new process. A name that is empty or contains `=`, and
    /// a NUL anywhere, are an error of the start.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.set_up.env.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable of the new process.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.set_up.env.push((name.into(), None));
        self
    }

    /// Its working directory; by default the caller's. Where that is impossible, `join` says so.
    pub fn current_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.set_up.current_dir = Some(path.into().into_os_string());
        self
    }

    /// Its standard input.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.streams.stdin = stdin.into();
        self
    }

    /// Its standard output.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.streams.stdout = stdout.into();
        self
    }

    /// Its standard error.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.streams.stderr = stderr.into();
        self
    }

    /// At most so many bytes of address space: allocations beyond fail, and Rust aborts then.
    pub fn address_space(self, bytes: u64) -> Self {
        self.limit(Limit::AddressSpace, bytes)
    }

    /// At most so much CPU time, in whole seconds (rounded up): SIGXCPU ends it then.
    pub fn cpu_time(self, time: Duration) -> Self {
        let begun = u64::from(time.subsec_nanos() > 0);
        let seconds = time.as_secs().saturating_add(begun);
        self.limit(Limit::CpuTime, seconds)
    }

    /// At most so many open files.
    pub fn open_files(self, count: u64) -> Self {
        self.limit(Limit::OpenFiles, count)
    }

    /// At most so many bytes of core dump; 0 for none.
    pub fn core_size(self, bytes: u64) -> Self {
        self.limit(Limit::CoreSize, bytes)
    }

    fn limit(mut self, limit: Limit, value: u64) -> Self {
        self.set_up.limits.push((limit, value));
        self
    }

    /// Starts it: `f(args)` runs in the new process, `args` being the tuple of its arguments.
    ///
    /// Blocks until the process exists, not until it runs.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], which says what to do about it.
    ///
    /// ```
    /// use common::process::{Process, StartMethod};
    /// let process = Process::builder()
    ///     .start_method(StartMethod::ForkServer)
    ///     .spawn(|a: u32, b: u32| a + b, (2, 3))?;
    /// assert_eq!(process.join()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<F, A, R>(self, f: F, args: A) -> Result<Process<R>, SpawnError>
    where
        F: Function<A, Output = R>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        start::start(self, f, args)
    }

    /// As [`fork`](super::fork()), with what this builder says; its start method is ignored.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; [`SpawnError::Threads`] unless this process has exactly one thread.
    pub fn fork<F, R>(self, f: F) -> Result<Process<R>, SpawnError>
    where
        F: FnOnce() -> R,
        R: Serialize + DeserializeOwned,
    {
        start::fork(self, f)
    }
}
