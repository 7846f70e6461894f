//! What a process knows of one that it started: alive or not, how it ended, what it returned.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::error::{ChildFailure, JoinError, remedy};
use super::packet::{self, Kind, Packet, ReceiveError};
use super::{lock, sys, wait};
use crate::codec;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// The fork server, as long as it lives, which sends it on; this is its pidfd.
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

#[derive(Debug, Default)]
struct Ending {
    outcome: Option<Outcome>,
    status: Option<ExitStatus>,
    /// Where the fork server will say the status.
    server_says: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Returned(Arc<Vec<u8>>),
    Failed(ChildFailure),
    /// Something arrived that this process could not take.
    Unreceived(String),
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

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether this process started it.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }

    /// Whether it has ended; if so, its outcome has been collected.
    pub(super) fn has_ended(&self) -> bool {
        if self.is_ours() && matches!(&*lock(&self.state), State::Ended(_)) {
            return true;
        }
        let ended = wait::is_readable_now(self.pidfd.as_fd());
        if ended && self.is_ours() {
            self.collect();
        }
        ended
    }

    /// Waits for its end and collects the outcome; false if `deadline` came first.
    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if !self.is_ours() {
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
        if let State::Running(link) = &mut *state {
            let ending = link.take().map(|link| self.read_ending(link));
            *state = State::Ended(ending.unwrap_or_default());
        }
    }

    fn read_ending(&self, link: Link) -> Ending {
        let mut ending = Ending::default();
        while ending.outcome.is_none() {
            match packet::receive(link.ours.as_fd(), false) {
                Ok(packet) => ending.take(packet),
                // It ended without a word; the last, before it had read its hello.
                Err(ReceiveError::Closed | ReceiveError::Os(Errno::EAGAIN | Errno::ECONNRESET)) => {
                    break;
                }
                Err(error) => {
                    let remedy = match error {
                        ReceiveError::Os(errno) => remedy(errno),
                        _ => "",
                    };
                    ending.outcome = Some(Outcome::Unreceived(format!("{error}{remedy}")));
                }
            }
        }
        // A fork server's as well: had that been killed, and were this the container's process 1,
        // nobody else would.
        if ending.status.is_none() {
            ending.status = sys::reap(self.pidfd.as_fd()).ok().flatten();
        }
        if let (Reaper::Server(_), None) = (&self.reaper, ending.status) {
            // It comes a little later, and few ask for it.
            ending.server_says = Some(Arc::new(link.ours));
        }
        ending
    }

    /// The exit status of a process that has ended; `None` if it is lost, or its fork server does
    /// not tell it before `deadline`.
    pub(super) fn exit_status(&self, deadline: Option<Instant>) -> Option<ExitStatus> {
        loop {
            let (status, link) = match &mut *lock(&self.state) {
                State::Running(_) => return None,
                State::Ended(ending) => ending.hear_server(),
            };
            let (Some(link), Reaper::Server(server)) = (link, &self.reaper) else {
                return status;
            };
            // Without the lock, so that others can look at the state meanwhile.
            match wait::readable(&[link.as_fd(), server.as_fd()], deadline).as_deref() {
                Ok([0, ..]) => {}
                // The server has ended without a word, or is late.
                _ => return None,
            }
        }
    }

    /// The exit code of a process whose status is lost, as far as what it said last tells.
    pub(super) fn last_word(&self) -> i32 {
        match &*lock(&self.state) {
            State::Ended(ending) => match ending.outcome {
                Some(Outcome::Returned(_)) => 0,
                Some(Outcome::Failed(_)) => 1,
                Some(Outcome::Unreceived(_)) | None => 255,
            },
            State::Running(_) => 255,
        }
    }

    /// What a process that has ended returned, as `decode` reads it. `deadline` is for its fork
    /// server to tell how it ended if it returned nothing.
    pub(super) fn result<R>(
        &self,
        deadline: Option<Instant>,
        decode: impl FnOnce(&[u8]) -> Result<R, JoinError>,
    ) -> Result<R, JoinError> {
        let process = || self.name.clone();
        let outcome = match &*lock(&self.state) {
            State::Running(_) => return Err(JoinError::NotOwner { process: process() }),
            State::Ended(ending) => ending.outcome.clone(),
        };
        // Without the lock: decoding is the program's code, which may ask for this process.
        match outcome {
            Some(Outcome::Returned(bytes)) => decode(&bytes),
            Some(Outcome::Failed(failure)) => Err(JoinError::of_failure(&self.name, &failure)),
            Some(Outcome::Unreceived(reason)) => Err(JoinError::Unreceived {
                process: process(),
                reason,
            }),
            None => Err(JoinError::of_status(&self.name, self.exit_status(deadline))),
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match sys::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the deadly signal off its lifeline, if it is this process's child.
    pub(super) fn detach(&self) {
        if !self.is_ours() {
            return;
        }
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

impl Ending {
    /// Takes what the fork server has said; the status, or where it has yet to say it.
    fn hear_server(&mut self) -> (Option<ExitStatus>, Option<Arc<OwnedFd>>) {
        while self.status.is_none()
            && let Some(link) = self.server_says.take()
        {
            match packet::receive(link.as_fd(), false) {
                Ok(packet) => {
                    self.take(packet);
                    if self.status.is_none() {
                        self.server_says = Some(link);
                    } else {
                        // Another thread that waits for the same is to look again.
                        let _ = shutdown(link.as_raw_fd(), Shutdown::Read);
                    }
                }
                Err(ReceiveError::Os(Errno::EAGAIN)) => {
                    self.server_says = Some(link.clone());
                    return (None, Some(link));
                }
                Err(_) => {}
            }
        }
        (self.status, None)
    }

    fn take(&mut self, packet: Packet) {
        match packet.kind {
            Kind::Returned => self.outcome = Some(Outcome::Returned(Arc::new(packet.body))),
            Kind::Failed => {
                let failure = codec::decode(&packet.body);
                self.outcome = Some(failure.map_or_else(
                    |error| Outcome::Unreceived(format!("its report is unreadable: {error}")),
                    Outcome::Failed,
                ));
            }
            Kind::Ended => {
                self.status = codec::decode(&packet.body).ok().map(ExitStatus::from_raw);
            }
            _ => {}
        }
    }
}
