//! The parent's side of a start: what the three methods have in common, and then each.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::builder::{Builder, SetUp, StartMethod, Stdio, StdioKind};
use super::child::{self, CurrentProcess, Hello};
use super::error::SpawnError;
use super::handle::Process;
use super::packet::{self, Kind};
use super::record::{Child, Link, Reaper};
use super::{forkserver, registry, sys};
use crate::codec;
use crate::departures::Departures;
use crate::function::{Function, Task};
use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One thing for each standard stream.
#[derive(Debug, Default)]
pub(super) struct Streams<T> {
    pub(super) stdin: T,
    pub(super) stdout: T,
    pub(super) stderr: T,
}

impl<T> Streams<T> {
    pub(super) fn each(&self) -> [&T; 3] {
        [&self.stdin, &self.stdout, &self.stderr]
    }
}

/// A process that is about to be.
struct Start {
    name: String,
    identity: Vec<u32>,
    daemon: bool,
    hidden: bool,
    method: StartMethod,
    set_up: SetUp,
    /// The ends that the child gets; `None` where it shares the parent's.
    streams: Streams<Option<OwnedFd>>,
    /// The ends that the handle gets.
    pipes: Streams<Option<OwnedFd>>,
    link: Link,
}

pub(super) fn start<F, A, R>(builder: Builder, f: F, args: A) -> Result<Process<R>, SpawnError>
where
    F: Function<A, Output = R>,
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    if builder.method == StartMethod::Fork {
        return fork(builder, move || f.call(args));
    }
    let start = prepare(builder)?;
    let entry = Task::entry(f).map_err(|error| SpawnError::Function {
        process: start.name.clone(),
        error,
    })?;
    let (args, departures) = Departures::of(|| codec::encode(&args));
    let args = args.map_err(|error| SpawnError::Arguments {
        process: start.name.clone(),
        error,
    })?;
    match start.method {
        StartMethod::ForkServer => by_fork_server(start, entry, args, departures),
        _ => by_spawn(start, entry, args, departures, &[]),
    }
}

/// Spawns a process that is part of this library's own machinery, with descriptors beside its
/// arguments.
pub(super) fn spawn_hidden<F>(
    name: &str,
    f: F,
    fds: &[BorrowedFd<'_>],
) -> Result<Process<()>, SpawnError>
where
    F: Function<(), Output = ()>,
{
    let mut builder = Process::builder().name(name).daemon(true);
    builder.hidden = true;
    let start = prepare(builder)?;
    let entry = Task::entry(f).map_err(|error| SpawnError::Function {
        process: name.to_owned(),
        error,
    })?;
    by_spawn(start, entry, Vec::new(), Departures::default(), fds)
}

fn prepare(builder: Builder) -> Result<Start, SpawnError> {
    registry::sweep();
    let identity = child::next_identity(builder.hidden);
    let name = builder
        .name
        .unwrap_or_else(|| child::default_name(&identity));
    for (variable, value) in &builder.set_up.env {
        if let Some(reason) = no_variable(variable, value.as_deref()) {
            return Err(SpawnError::Environment {
                process: name,
                variable: variable.clone(),
                reason,
            });
        }
    }
    let os = |step| os_error(&name, step);
    let Streams {
        stdin,
        stdout,
        stderr,
    } = builder.streams;
    let (in_theirs, in_ours) = stream(stdin, true).map_err(os("its stdin"))?;
    let (out_theirs, out_ours) = stream(stdout, false).map_err(os("its stdout"))?;
    let (err_theirs, err_ours) = stream(stderr, false).map_err(os("its stderr"))?;
    let (ours, theirs) = packet::pair().map_err(os("a socket to it"))?;
    Ok(Start {
        identity,
        daemon: builder.daemon.unwrap_or_else(|| child::current().daemon),
        hidden: builder.hidden,
        method: builder.method,
        set_up: builder.set_up,
        streams: Streams {
            stdin: in_theirs,
            stdout: out_theirs,
            stderr: err_theirs,
        },
        pipes: Streams {
            stdin: in_ours,
            stdout: out_ours,
            stderr: err_ours,
        },
        link: Link { ours, theirs },
        name,
    })
}

/// Why the environment cannot hold this (environ(7)); to set it would panic.
fn no_variable(name: &OsStr, value: Option<&OsStr>) -> Option<&'static str> {
    let has = |text: &OsStr, byte| text.as_bytes().contains(&byte);
    if name.is_empty() {
        Some("a name cannot be empty")
    } else if has(name, b'=') {
        Some("a name cannot contain `=`")
    } else if has(name, 0) {
        Some("a name cannot contain a NUL")
    } else if value.is_some_and(|value| has(value, 0)) {
        Some("a value cannot contain a NUL")
    } else {
        None
    }
}

fn os_error(process: &str, step: &'static str) -> impl Fn(Errno) -> SpawnError {
    move |error| SpawnError::Os {
        process: process.to_owned(),
        step,
        error,
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The child's end and, for a pipe, the parent's.
fn stream(stdio: Stdio, reads: bool) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Errno> {
    let (theirs, ours): (OwnedFd, _) = match stdio.0 {
        StdioKind::Inherit => return Ok((None, None)),
        StdioKind::Null => {
            let null = File::options().read(true).write(true).open("/dev/null");
            (null.map_err(errno)?.into(), None)
        }
        StdioKind::Fd(fd) => (fd, None),
        StdioKind::Piped => {
            let (reader, writer) = std::io::pipe().map_err(errno)?;
            if reads {
                (reader.into(), Some(writer.into()))
            } else {
                (writer.into(), Some(reader.into()))
            }
        }
    };
    let ours = ours.map(sys::above_stdio).transpose()?;
    Ok((Some(sys::above_stdio(theirs)?), ours))
}

fn by_spawn<R>(
    mut start: Start,
    entry: crate::function::EntryRef,
    args: Vec<u8>,
    departures: Departures,
    fds: &[BorrowedFd<'_>],
) -> Result<Process<R>, SpawnError> {
    let env = environment(std::mem::take(&mut start.set_up.env));
    let hello = hello(&start, entry, args)?;
    let os = |step| os_error(&start.name, step);
    let pid = exec_self(&start, &env).map_err(os("posix_spawn of this program"))?;
    let pidfd = pidfd_of(&start, pid)?;
    // Last of all: a process that is ended because a step failed has not read its arguments. It is
    // here long before the new one asks for it.
    if let Err(error) = packet::send(start.link.ours.as_fd(), Kind::Hello, &hello, fds) {
        end(pid);
        return Err(os("its arguments")(error));
    }
    departures.sent();
    Ok(adopt(start, pid, pidfd, Reaper::Parent))
}

fn hello(
    start: &Start,
    entry: crate::function::EntryRef,
    args: Vec<u8>,
) -> Result<Vec<u8>, SpawnError> {
    let hello = Hello {
        who: who(start),
        set_up: start.set_up.clone(),
        entry,
        args,
    };
    codec::encode(&hello).map_err(|error| SpawnError::Arguments {
        process: start.name.clone(),
        error,
    })
}

fn who(start: &Start) -> child::Who {
    child::Who {
        name: start.name.clone(),
        identity: start.identity.clone(),
        daemon: start.daemon,
        method: Some(start.method),
        parent: Some((std::process::id(), child::current().name.clone())),
    }
}

/// This process's environment with the builder's changes and the marker that makes the child look
/// for its lifeline.
fn environment(changes: Vec<(OsString, Option<OsString>)>) -> Vec<CString> {
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    for (name, value) in changes {
        match value {
            Some(value) => all.insert(name, value),
            None => all.remove(&name),
        };
    }
    all.insert(child::MARKER.into(), child::marker_value().into());
    all.into_iter()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            // None has a NUL: this process's own came as C strings, the others are checked.
            CString::new(name.into_vec()).ok()
        })
        .collect()
}

fn exec_self(start: &Start, env: &[CString]) -> Result<Pid, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, fd) in (0..).zip(start.streams.each()) {
        if let Some(fd) = fd {
            actions.add_dup2(fd.as_raw_fd(), number)?;
        }
    }
    actions.add_dup2(start.link.theirs.as_raw_fd(), child::LIFELINE)?;
    let mut attributes = PosixSpawnAttr::init()?;
    // Blocked signals are inherited; the thread that spawns may have blocked any.
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let args: Vec<CString> = std::env::args_os()
        .filter_map(|arg| CString::new(arg.into_vec()).ok())
        .collect();
    // Still names the running binary after it has been replaced or deleted on disk (proc(5)).
    posix_spawn(c"/proc/self/exe", &actions, &attributes, &args, env)
}

fn by_fork_server<R>(
    mut start: Start,
    entry: crate::function::EntryRef,
    args: Vec<u8>,
    departures: Departures,
) -> Result<Process<R>, SpawnError> {
    let changes = std::mem::take(&mut start.set_up.env);
    start.set_up.env = forkserver::environment_changes(changes);
    let hello = hello(&start, entry, args)?;
    let (link, streams) = (&mut start.link, &start.streams);
    let born = forkserver::fork(&start.name, &hello, departures, link, streams)?;
    let reaper = Reaper::Server(born.server);
    Ok(adopt(start, born.pid, born.pidfd, reaper))
}

pub(super) fn fork<F, R>(builder: Builder, f: F) -> Result<Process<R>, SpawnError>
where
    F: FnOnce() -> R,
    R: Serialize + DeserializeOwned,
{
    let mut start = prepare(builder)?;
    start.method = StartMethod::Fork;
    let threads = lasting_threads().map_err(errno).map_err(os_error(
        &start.name,
        "counting this process's threads in /proc/self/task",
    ))?;
    if threads != 1 {
        return Err(SpawnError::Threads {
            process: start.name,
            threads,
        });
    }
    // What can be done here is: each page that the child touches is copied or mapped for it anew.
    let newborn = CurrentProcess::new(who(&start));
    // Room for the pidfd: without one the new process would be ended after it has begun.
    let room = start.link.theirs.try_clone().map_err(errno);
    let room = room.map_err(os_error(&start.name, "a pidfd for it"))?;
    crate::panic::note_locations();
    // What is in the buffers now is the parent's to write, once.
    sys::flush_stdio();
    // SAFETY: this is the only thread.
    #[allow(unsafe_code)]
    match unsafe { sys::fork() } {
        Err(error) => Err(os_error(&start.name, "fork")(error)),
        Ok(ForkResult::Parent { child }) => {
            drop(room);
            let pidfd = pidfd_of(&start, child)?;
            Ok(adopt(start, child, pidfd, Reaper::Parent))
        }
        Ok(ForkResult::Child) => {
            // The parent's ends are the parent's alone: here they would keep this process alive
            // without it, and its own input from ending.
            drop((start.link.ours, start.pipes, room));
            child::run_fork(newborn, start.link.theirs, start.streams, &start.set_up, f)
        }
    }
}

/// How many threads this process has. One that has just been joined is there for a moment yet: the
/// kernel wakes who waits for it before it is quite gone.
fn lasting_threads() -> std::io::Result<u64> {
    let end = Instant::now() + Duration::from_millis(20);
    loop {
        match sys::thread_count()? {
            more if more > 1 && Instant::now() < end => {
                std::thread::sleep(Duration::from_micros(100));
            }
            threads => return Ok(threads),
        }
    }
}

/// A pidfd for a process that has just been started, which is ended if there is none to be had.
fn pidfd_of(start: &Start, pid: Pid) -> Result<OwnedFd, SpawnError> {
    sys::pidfd_open(pid).map_err(|error| {
        end(pid);
        os_error(&start.name, "a pidfd for it")(error)
    })
}

/// Ends a child of which nobody else knows, and reaps it.
fn end(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    while nix::sys::wait::waitpid(pid, None) == Err(Errno::EINTR) {}
}

/// Makes a handle for a process that has just been started.
fn adopt<R>(start: Start, pid: Pid, pidfd: OwnedFd, reaper: Reaper) -> Process<R> {
    let child = Arc::new(Child::new(
        start.name,
        pid,
        pidfd,
        start.daemon,
        start.link,
        reaper,
    ));
    if !start.hidden {
        registry::add(child.clone());
    }
    Process::new(child, start.pipes)
}
