//! The fork server: a small clean process that forks on request.
//!
//! ```text
//!  this process                 | fork server (spawned)         | new process
//!  request: hello, lifeline,    |                               |
//!    cwd, streams      -------> | fork ---------------------->  | takes its lifeline and streams,
//!  pid, pidfd          <------- | remembers it                  |   runs the function
//!                      <======================= lifeline ====== |   result
//!  exit status         <------- | reaps it, tells its lifeline  X
//! ```
//!
//! It is spawned at the first use and ends with the process that uses it. It has one thread and
//! little memory, so its fork is cheap and safe. The new process is a child of the server, which
//! therefore takes its exit status and passes it on; everything else is as in the other methods.
//!
//! To copy: the folder process/ and what its mod.rs names.

#![allow(unsafe_code)] // Forks, in a process known to have one thread.

use super::child;
use super::error::SpawnError;
use super::handle::{Link, Process};
use super::packet::{self, Kind, Packet, ReceiveError};
use super::start::{self, Streams, differences};
use super::{lock, sys, wait};
use crate::codec;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex};

/// A process that the server has forked.
pub(super) struct Born {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// The server's pidfd.
    pub(super) server: Arc<OwnedFd>,
}

/// This process's connection to its server.
struct Server {
    control: OwnedFd,
    pidfd: Arc<OwnedFd>,
    /// The process that started it: a fork of that one must start its own.
    owner: u32,
    /// The environment it has, so that a new process can be told what differs.
    environment: BTreeMap<OsString, OsString>,
    process: Process<()>,
}

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// In a process just forked: its parent's server is not its own. The handle is kept from its
/// destructor's duties by not being its owner.
pub(super) fn forget() {
    *lock(&SERVER) = None;
}

/// How the environment of a process forked now must be changed to be this process's, with the
/// builder's `changes`.
pub(super) fn environment_changes(
    changes: Vec<(OsString, Option<OsString>)>,
) -> Vec<(OsString, Option<OsString>)> {
    let mut all = match &*lock(&SERVER) {
        Some(server) => differences(&server.environment, std::env::vars_os()),
        None => Vec::new(),
    };
    all.extend(changes);
    all
}

/// Has the server fork a process.
///
/// # Errors
///
/// [`SpawnError::Os`]. If the server was found dead before it read the request, another is
/// started; if it died in the middle of the fork, that is an error, for the process may have run.
pub(super) fn fork(
    name: &str,
    hello: &[u8],
    link: &Link,
    streams: &Streams<Option<OwnedFd>>,
) -> Result<Born, SpawnError> {
    let os = |step, error| SpawnError::Os {
        process: name.to_owned(),
        step,
        error,
    };
    let mut slot = lock(&SERVER);
    for _ in 0..2 {
        let server = match slot.take().filter(Server::is_usable) {
            Some(server) => slot.insert(server),
            None => slot.insert(Server::start()?),
        };
        match server.request(hello, link, streams) {
            Err(Request::NotRead) => *slot = None,
            Err(Request::Refused(error)) => return Err(os("fork in the fork server", error)),
            Ok(born) => return Ok(born),
        }
    }
    Err(os(
        "the fork server, killed twice in a row",
        Errno::ECONNRESET,
    ))
}

enum Request {
    /// The server is gone and did not see the request.
    NotRead,
    Refused(Errno),
}

impl Server {
    fn start() -> Result<Server, SpawnError> {
        let os = |error| SpawnError::Os {
            process: "ForkServer".into(),
            step: "a socket to it",
            error,
        };
        let (control, theirs) = packet::pair().map_err(os)?;
        let process = start::spawn_hidden("ForkServer", serve, &[theirs.as_fd()])?;
        let pidfd = process.as_fd().try_clone_to_owned();
        let pidfd = pidfd.map_err(|error| {
            os(Errno::from_raw(
                error.raw_os_error().unwrap_or(libc::EMFILE),
            ))
        })?;
        Ok(Server {
            control,
            pidfd: Arc::new(pidfd),
            owner: std::process::id(),
            environment: std::env::vars_os().collect(),
            process,
        })
    }

    fn is_usable(&self) -> bool {
        self.owner == std::process::id() && self.process.is_alive()
    }

    fn request(
        &self,
        hello: &[u8],
        link: &Link,
        streams: &Streams<Option<OwnedFd>>,
    ) -> Result<Born, Request> {
        let directory =
            open(".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(Request::Refused)?;
        let [stdin, stdout, stderr] = streams.each().map(Option::as_ref);
        let (i, o, e) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let fds = [
            link.theirs.as_fd(),
            directory.as_fd(),
            stdin.map_or(i.as_fd(), AsFd::as_fd),
            stdout.map_or(o.as_fd(), AsFd::as_fd),
            stderr.map_or(e.as_fd(), AsFd::as_fd),
        ];
        match self.send(hello, &fds) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Request::NotRead),
            other => other.map_err(Request::Refused)?,
        }
        self.answer()
    }

    fn send(&self, hello: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        match packet::send(self.control.as_fd(), Kind::Hello, hello, fds) {
            // One of this process's standard streams is closed. A child started in another way
            // would have /dev/null there; so shall this one.
            Err(Errno::EBADF) => {
                let null = open(
                    c"/dev/null",
                    OFlag::O_RDWR | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?;
                let is_open = |fd: &BorrowedFd<'_>| fd.try_clone_to_owned().is_ok();
                let fds: Vec<BorrowedFd<'_>> = fds
                    .iter()
                    .map(|fd| if is_open(fd) { *fd } else { null.as_fd() })
                    .collect();
                packet::send(self.control.as_fd(), Kind::Hello, hello, &fds)
            }
            other => other,
        }
    }

    fn answer(&self) -> Result<Born, Request> {
        match packet::receive(self.control.as_fd(), true) {
            Err(ReceiveError::Os(Errno::ECONNRESET)) => Err(Request::NotRead),
            Err(ReceiveError::Os(error)) => Err(Request::Refused(error)),
            Err(_) => Err(Request::Refused(Errno::ECONNABORTED)),
            Ok(Packet {
                kind: Kind::Forked,
                body,
                mut fds,
            }) => {
                let pid: i32 = codec::decode(&body).unwrap_or(0);
                match fds.pop() {
                    Some(pidfd) if pid > 0 => Ok(Born {
                        pid: Pid::from_raw(pid),
                        pidfd,
                        server: self.pidfd.clone(),
                    }),
                    _ => Err(Request::Refused(Errno::EMFILE)),
                }
            }
            Ok(packet) => {
                let error = codec::decode(&packet.body).unwrap_or(libc::EPROTO);
                Err(Request::Refused(Errno::from_raw(error)))
            }
        }
    }
}

/// A child of the server that it has not reaped.
struct Ward {
    pidfd: OwnedFd,
    lifeline: OwnedFd,
}

/// What the server does until its user has gone.
fn serve() {
    let Some(control) = child::take_received_fds().pop() else {
        return;
    };
    // A Ctrl-C in the terminal is for the program to deal with, and for its processes. Blocked,
    // not ignored: one sent to a process just forked waits until that lets it in.
    let interrupt = SigSet::from(Signal::SIGINT);
    let _ = interrupt.thread_block();
    let mut wards: Vec<Ward> = Vec::new();
    loop {
        let mut fds = vec![control.as_fd()];
        fds.extend(wards.iter().map(|ward| ward.pidfd.as_fd()));
        let Ok(ready) = wait::readable(&fds, None) else {
            return;
        };
        for &ended in ready.iter().rev().filter(|&&at| at > 0) {
            report_end(&wards.swap_remove(ended - 1));
        }
        if ready.first() == Some(&0) {
            match packet::receive(control.as_fd(), true) {
                Ok(request) => wards.extend(answer(control.as_fd(), request)),
                Err(ReceiveError::Closed) => return,
                Err(ReceiveError::Os(error)) => refuse(control.as_fd(), error),
                Err(ReceiveError::Corrupt(_)) => refuse(control.as_fd(), Errno::EPROTO),
            }
        }
    }
}

fn report_end(ward: &Ward) {
    if let Ok(Some(status)) = sys::reap(ward.pidfd.as_fd()) {
        let body = codec::encode(&status.into_raw()).unwrap_or_default();
        // The user may have gone, or not be interested.
        let _ = packet::send(ward.lifeline.as_fd(), Kind::Ended, &body, &[]);
    }
}

fn refuse(control: BorrowedFd<'_>, error: Errno) {
    let body = codec::encode(&(error as i32)).unwrap_or_default();
    let _ = packet::send(control, Kind::NotForked, &body, &[]);
}

/// Forks, and says so.
fn answer(control: BorrowedFd<'_>, request: Packet) -> Option<Ward> {
    if request.fds.len() != 5 {
        refuse(control, Errno::EPROTO);
        return None;
    }
    // SAFETY: this process has one thread: it was spawned to run `serve`, which starts none.
    match unsafe { sys::fork() } {
        Err(error) => {
            refuse(control, error);
            None
        }
        Ok(ForkResult::Child) => become_new_process(request),
        Ok(ForkResult::Parent { child }) => {
            let pidfd = match sys::pidfd_open(child) {
                Ok(pidfd) => pidfd,
                Err(error) => {
                    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(child, None);
                    refuse(control, error);
                    return None;
                }
            };
            let body = codec::encode(&child.as_raw()).unwrap_or_default();
            let _ = packet::send(control, Kind::Forked, &body, &[pidfd.as_fd()]);
            let lifeline = request.fds.into_iter().next()?;
            Some(Ward { pidfd, lifeline })
        }
    }
}

/// Leaves everything of the server's behind and runs what was asked for.
fn become_new_process(request: Packet) -> ! {
    let Packet { body, fds, .. } = request;
    let place = || -> Result<OwnedFd, Errno> {
        nix::unistd::fchdir(fds[1].as_fd())?;
        for (number, fd) in (0..).zip(&fds[2..]) {
            sys::put_at(fd.as_fd(), number)?;
        }
        sys::put_at(fds[0].as_fd(), child::LIFELINE)?;
        // SAFETY: just put there; the server's own lifeline, which was there, is closed by that,
        // and the server's handle of it is never touched in this process.
        Ok(unsafe { sys::adopt(child::LIFELINE) })
    };
    let lifeline = match place() {
        Ok(lifeline) => lifeline,
        Err(error) => {
            eprintln!("a process forked by the fork server cannot begin: {error}");
            sys::exit_now(1)
        }
    };
    // Everything else is the server's: its control socket, its other children's descriptors. The
    // objects that own them are in the server's stack frames, which are never left here.
    std::mem::forget(fds);
    sys::close_from(child::LIFELINE + 1);
    let _ = SigSet::from(Signal::SIGINT).thread_unblock();
    child::run(&body, lifeline)
}
