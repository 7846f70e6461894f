//! The fork server's spare: a process forked in advance, which becomes the next one asked for. What
//! it has to do with the others is told in forkserver.rs.
//!
//! To copy: the folder process/ and what its mod.rs names.

#![allow(unsafe_code)] // Adopts the descriptor that was put there.

use super::packet::{self, Kind, Packet, ReceiveError};
use super::{child, sys, wait};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Waits for a request, says that it is taken, and becomes what is asked for. Never returns.
pub(super) fn wait_as_one(control: BorrowedFd<'_>, taken: BorrowedFd<'_>, rehearsal: &[u8]) -> ! {
    // It serves the server's user; without the server nobody would reap it.
    let server = nix::unistd::getppid();
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // Unless somebody waits already.
    if !wait::is_readable_now(control) {
        child::rehearse(rehearsal);
    }
    loop {
        let request = match packet::receive(control, true) {
            Ok(request) if request.fds.len() == 5 => request,
            Ok(_) | Err(ReceiveError::Corrupt(_)) => {
                refuse(control, Errno::EPROTO);
                continue;
            }
            Err(ReceiveError::Os(error)) if error != Errno::ECONNRESET => {
                refuse(control, error);
                continue;
            }
            Err(_) => sys::exit_now(0),
        };
        let this = nix::unistd::getpid();
        match sys::pidfd_open(this) {
            Err(error) => refuse(control, error),
            Ok(pidfd) => {
                // From here on this is a process like any other: it outlives the server.
                let _ = nix::sys::prctl::set_pdeathsig(None);
                if nix::unistd::getppid() != server {
                    sys::exit_now(1);
                }
                // The server must know of the process before its user does.
                if packet::send(taken, Kind::Forked, &[], &[request.fds[0].as_fd()]).is_err() {
                    sys::exit_now(1);
                }
                let body = this.as_raw().to_ne_bytes();
                // Without an answer the user starts another.
                if packet::send(control, Kind::Forked, &body, &[pidfd.as_fd()]).is_err() {
                    sys::exit_now(1);
                }
                become_new_process(request)
            }
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
    std::process::exit(child::run(&body, lifeline))
}

/// Tells one who has asked that there is no process for it.
pub(super) fn refuse(control: BorrowedFd<'_>, error: Errno) {
    let _ = packet::send(control, Kind::NotForked, &(error as i32).to_ne_bytes(), &[]);
}
