//! The fork server: a small clean process that forks on request, or rather just before.
//!
//! ```text
//!  this process                 | spare, forked in advance      | fork server (spawned)
//!  request: hello, lifeline,    |                               |
//!    cwd, streams      -------> | tells the server -----------> | watches it from now on,
//!  pid, pidfd          <------- | takes its place and streams   |   forks the next spare
//!        result        <======= | runs the function, ends       |
//!        exit status   <------- X --------- on the lifeline --- | reaps it
//! ```
//!
//! The server is spawned at the first use and ends with the process that uses it. It has one
//! thread and little memory, so its fork is cheap and safe. It keeps one fork ready, the spare,
//! which reads the next request itself: a start waits neither for the server nor for a fork. The
//! new process is a child of the server, which therefore takes its exit status and passes it on;
//! everything else is as in the other methods.
//!
//! A spare killed at any step loses nothing: before it has answered it does not call the function,
//! and a start that is not answered is asked for again. If it dies without having told the server,
//! nobody knows whether it had taken one: then the server closes the connection, which tells the
//! one who waits, and stays only to see its other children to their end; the next start brings up
//! another server.
//!
//! To copy: the folder process/ and what its mod.rs names.

#![allow(unsafe_code)] // Forks, in a process known to have one thread.

use super::child;
use super::error::SpawnError;
use super::handle::Process;
use super::inherited::Inherited;
use super::packet::{self, Kind, Packet, ReceiveError};
use super::record::Link;
use super::start::{self, Streams};
use super::{lock, spare, sys, wait};
use crate::codec;
use crate::departures::Departures;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// What it has, so that a new process can be told what differs.
    inherited: Inherited,
    process: Process<()>,
}

static SERVER: Mutex<Option<Server>> = Mutex::new(None);
/// Servers that take no more requests but have children yet.
static RETIRED: Mutex<Vec<Process<()>>> = Mutex::new(Vec::new());

/// In a process just forked: its parent's server is not its own. The handle is kept from its
/// destructor's duties by not being its owner.
#[inline]
pub(super) fn forget() {
    *lock(&SERVER) = None;
    lock(&RETIRED).clear();
}

/// How the environment of a process forked now must be changed to be this process's, with the
/// builder's `changes`.
pub(super) fn environment_changes(
    changes: Vec<(OsString, Option<OsString>)>,
) -> Vec<(OsString, Option<OsString>)> {
    let mut all = match &*lock(&SERVER) {
        Some(server) => server.inherited.environment_changes(),
        None => Vec::new(),
    };
    all.extend(changes);
    all
}

/// How long a start waits for a server that has been stopped (SIGSTOP) until it takes another.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Has the server fork a process.
///
/// # Errors
///
/// [`SpawnError::Os`]. If the server or the spare was killed before the process began, or does not
/// answer for long, that is tried again, with another `link`.
pub(super) fn fork(
    name: &str,
    hello: &[u8],
    departures: Departures,
    link: &mut Link,
    streams: &Streams<Option<OwnedFd>>,
) -> Result<Born, SpawnError> {
    let os = |step, error| SpawnError::Os {
        process: name.to_owned(),
        step,
        error,
    };
    sweep();
    let mut slot = lock(&SERVER);
    // A server found dead is replaced; the second that is would be a reason to wonder.
    for _ in 0..3 {
        let server = match slot.take() {
            Some(server) if server.is_usable() => slot.insert(server),
            unfit => {
                retire(unfit.filter(|server| server.process.is_alive()));
                slot.insert(Server::start()?)
            }
        };
        let directory = open(".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|error| os("the working directory, for it to begin in", error))?;
        match server.request(hello, link, streams, directory) {
            Err(Request::Lost) => {
                retire(slot.take());
                // The old one may yet be told how the dead one ended.
                let (ours, theirs) = packet::pair().map_err(|error| os("a socket", error))?;
                *link = Link { ours, theirs };
            }
            Err(Request::Refused(error)) => return Err(os("fork in the fork server", error)),
            Ok(born) => {
                departures.sent();
                return born.map_err(|error| os("a pidfd from the fork server", error));
            }
        }
    }
    Err(os(
        "the fork server, killed or stopped again and again",
        Errno::ECONNRESET,
    ))
}

/// Reaps servers that have seen their last child to its end.
pub(super) fn sweep() {
    lock(&RETIRED).retain(Process::is_alive);
}

fn retire(server: Option<Server>) {
    lock(&RETIRED).extend(server.map(|server| server.process));
}

/// For tests: as if the server had been found unfit for more requests.
#[cfg(test)]
pub(super) fn retire_it() {
    retire(lock(&SERVER).take());
}

/// For tests: how many servers there are that take no more requests.
#[cfg(test)]
pub(super) fn retired() -> usize {
    sweep();
    lock(&RETIRED).len()
}

enum Request {
    /// Whoever had it has not answered and never will, and so has not called the function.
    Lost,
    Refused(Errno),
}

/// The inner error: it was born, perhaps has begun, and there is no descriptor for it here.
type Answer = Result<Result<Born, Errno>, Request>;

impl Server {
    fn start() -> Result<Server, SpawnError> {
        let os = |error| SpawnError::Os {
            process: "ForkServer".into(),
            step: "a socket to it",
            error,
        };
        let (control, theirs) = packet::pair().map_err(os)?;
        let inherited = Inherited::now();
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
            inherited,
            process,
        })
    }

    /// One of a process that has given up rights since would give them to others again.
    fn is_usable(&self) -> bool {
        self.owner == std::process::id()
            && self.process.is_alive()
            && self.inherited.has_our_rights()
    }

    fn request(
        &self,
        hello: &[u8],
        link: &Link,
        streams: &Streams<Option<OwnedFd>>,
        directory: OwnedFd,
    ) -> Answer {
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
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Request::Lost),
            other => other.map_err(Request::Refused)?,
        }
        // There is to be room for the answer's descriptor: without it nobody could have the new
        // process, and it would be ended after it has begun.
        drop(directory);
        self.answer(link)
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

    fn answer(&self, link: &Link) -> Answer {
        // The server speaks on the lifeline if the one that took the request has died.
        let both = [self.control.as_fd(), link.ours.as_fd()];
        let ready = wait::readable(&both, Some(Instant::now() + PATIENCE));
        if ready.unwrap_or_default().is_empty() {
            // Stopped, perhaps. What it has not answered by now it cannot answer any more, and so
            // it will not call the function.
            let _ = shutdown(self.control.as_raw_fd(), Shutdown::Both);
        }
        // Even if only the lifeline was ready: the function may have returned already.
        match packet::receive(self.control.as_fd(), false) {
            Err(ReceiveError::Os(Errno::ECONNRESET | Errno::EAGAIN)) => Err(Request::Lost),
            Err(ReceiveError::Os(error)) => Ok(Err(error)),
            Err(_) => Err(Request::Lost),
            Ok(Packet {
                kind: Kind::Forked,
                body,
                mut fds,
            }) => {
                let pid = number(&body).unwrap_or(0);
                match fds.pop() {
                    Some(pidfd) if pid > 0 => Ok(Ok(Born {
                        pid: Pid::from_raw(pid),
                        pidfd,
                        server: self.pidfd.clone(),
                    })),
                    _ => Ok(Err(Errno::EMFILE)),
                }
            }
            Ok(packet) => {
                let error = number(&packet.body).unwrap_or(libc::EPROTO);
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

/// What the server keeps.
struct Keeper {
    /// Where requests come from; `None` once it takes no more.
    control: Option<OwnedFd>,
    /// Where a spare says that it has taken one: the server's end and the spares'.
    taken: (OwnedFd, OwnedFd),
    /// The pidfd of the fork that waits for the next request.
    spare: Option<OwnedFd>,
    wards: Vec<Ward>,
    /// What a spare does before it is asked for anything.
    rehearsal: Vec<u8>,
}

/// What the server does until its user has gone.
fn serve() {
    let Some(control) = child::take_received_fds().pop() else {
        return;
    };
    let Ok(taken) = packet::pair() else {
        return;
    };
    // A Ctrl-C in the terminal is for the program to deal with, and for its processes. Blocked,
    // not ignored: one sent to a process just begun waits until that lets it in.
    let _ = SigSet::from(Signal::SIGINT).thread_block();
    sys::heed_children();
    sys::forget_exit_handlers();
    let rehearsal = child::rehearsal();
    // What is set up at its first use, the standard output for one, every fork then has.
    child::rehearse(&rehearsal);
    let mut keeper = Keeper {
        control: Some(control),
        taken,
        spare: None,
        wards: Vec::new(),
        rehearsal,
    };
    while keeper.has_duties() {
        keeper.keep_a_spare();
        keeper.wait();
    }
}

impl Keeper {
    fn has_duties(&self) -> bool {
        self.control.is_some() || self.spare.is_some() || !self.wards.is_empty()
    }

    /// Forks a spare if there is none. If that fails, one who has asked is told why.
    fn keep_a_spare(&mut self) {
        let Some(control) = &self.control else {
            return;
        };
        if self.spare.is_some() {
            return;
        }
        // SAFETY: this process has one thread: it was spawned to run `serve`, which starts none.
        let error = match unsafe { sys::fork() } {
            Ok(ForkResult::Child) => {
                spare::wait_as_one(control.as_fd(), self.taken.1.as_fd(), &self.rehearsal)
            }
            Ok(ForkResult::Parent { child }) => match sys::pidfd_open(child) {
                Ok(pidfd) => {
                    self.spare = Some(pidfd);
                    return;
                }
                Err(error) => {
                    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(child, None);
                    error
                }
            },
            Err(error) => error,
        };
        match packet::receive(control.as_fd(), false) {
            // Nobody asks yet: `wait` goes on until somebody does, and this is tried again. Nor
            // does anybody ask where the connection is closed, which `wait` sees.
            Err(ReceiveError::Closed | ReceiveError::Os(Errno::EAGAIN | Errno::ECONNRESET)) => {}
            _ => spare::refuse(control.as_fd(), error),
        }
    }

    /// Waits until something happens to anybody, and deals with it.
    fn wait(&mut self) {
        let mut fds = vec![self.taken.0.as_fd()];
        fds.extend(self.wards.iter().map(|ward| ward.pidfd.as_fd()));
        let control = self.control.as_ref().map(AsFd::as_fd);
        // Without a spare the requests come here.
        fds.extend(self.spare.as_ref().map(AsFd::as_fd).or(control));
        let Ok((ready, gone)) = wait::readable_or_hung_up(&fds, control) else {
            self.control = None;
            return;
        };
        if gone {
            // Its user has another server by now; had the user ended, so would this process, by
            // its lifeline.
            self.control = None;
        }
        let spare = 1 + self.wards.len();
        // First whether the spare has taken a request: one that has, and ended, is none any more.
        if (ready.contains(&0) || ready.contains(&spare))
            && let Ok(packet) = packet::receive(self.taken.0.as_fd(), false)
            && let (Some(pidfd), Some(lifeline)) =
                (self.spare.take(), packet.fds.into_iter().next())
        {
            self.wards.push(Ward { pidfd, lifeline });
        }
        for &at in ready.iter().rev().filter(|&&at| 0 < at && at < spare) {
            report_end(&self.wards.swap_remove(at - 1));
        }
        if ready.contains(&spare) && self.spare.as_ref().is_some_and(has_ended) {
            // Whether it had taken a request nobody knows; those who wait are told by the end of
            // the connection.
            self.spare = None;
            self.control = None;
        }
    }
}

/// Whether a child that is no ward has ended; reaps it.
fn has_ended(spare: &OwnedFd) -> bool {
    !matches!(sys::reap(spare.as_fd()), Ok(None))
}

fn report_end(ward: &Ward) {
    if let Ok(Some(status)) = sys::reap(ward.pidfd.as_fd()) {
        let body = codec::encode(&status.into_raw()).unwrap_or_default();
        // The user may have gone, or not be interested.
        let _ = packet::send(ward.lifeline.as_fd(), Kind::Ended, &body, &[]);
    }
    // There is no more to come. To close it would not say so: the spare has a copy.
    let _ = shutdown(ward.lifeline.as_raw_fd(), Shutdown::Write);
}

/// What an answer says, a pid or an error number; plain, because each piece of code that a new
/// process runs costs it a page fault.
fn number(body: &[u8]) -> Option<i32> {
    body.try_into().ok().map(i32::from_ne_bytes)
}
