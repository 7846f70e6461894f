//! A fork server by bare calls: what a start by one costs at the least.

#![allow(unsafe_code)] // System calls.

use crate::kernel::{self, check, kill_on_hangup, poll};
use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;

/// A tiny process that forks on request, and this process's socket to it.
pub struct Server {
    control: libc::c_int,
    _process: kernel::Child,
}

/// What a request takes along: the lifeline, the directory and the standard streams.
const RIGHTS: usize = 5;

impl Server {
    /// Forks the server.
    ///
    /// # Errors
    ///
    /// Those of socketpair(2) and fork(2).
    pub fn start() -> io::Result<Server> {
        let [control, theirs] = pair()?;
        let process = kernel::fork(move || serve(theirs))?;
        close(&[theirs]);
        Ok(Server {
            control,
            _process: process,
        })
    }

    /// Has it fork a process that sends a result, and waits for both.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn start_and_join(&self) -> io::Result<()> {
        let [ours, theirs] = pair()?;
        // SAFETY: a constant path.
        let directory = unsafe {
            let how = libc::O_PATH | libc::O_CLOEXEC;
            check(libc::open(c".".as_ptr(), how))?
        };
        send(self.control, &[theirs, directory, 0, 1, 2])?;
        close(&[directory]);
        poll(&[self.control, ours], -1);
        let [pidfd] = receive(self.control)?;
        poll(&[pidfd], -1);
        let [] = receive(ours)?;
        close(&[pidfd, ours, theirs]);
        Ok(())
    }
}

fn serve(control: libc::c_int) {
    let mut wards: Vec<(libc::pid_t, [libc::c_int; 2])> = Vec::new();
    loop {
        let all: Vec<_> = std::iter::once(control)
            .chain(wards.iter().map(|(_, [pidfd, _])| *pidfd))
            .collect();
        poll(&all, -1);
        if let Ok(rights) = receive::<RIGHTS>(control) {
            // SAFETY: this process was forked from one that had a single thread, and starts none.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let _ = begin(control, rights);
                // SAFETY: no preconditions.
                unsafe { libc::_exit(0) }
            }
            let [lifeline, others @ ..] = rights;
            close(&others);
            wards.push((pid, [kernel::pidfd_open(pid), lifeline]));
        }
        wards.retain(|(pid, fds)| {
            // SAFETY: no status is asked for.
            let ended = unsafe { libc::waitpid(*pid, null_mut(), libc::WNOHANG) } == *pid;
            if ended {
                let _ = send(fds[1], &[]);
                close(fds);
            }
            !ended
        });
    }
}

/// What a new process is promised: it is known by a pidfd, is where it was to be, ends with its
/// user, and has a name and a result.
fn begin(control: libc::c_int, rights: [libc::c_int; RIGHTS]) -> io::Result<()> {
    let [lifeline, directory, streams @ ..] = rights;
    // SAFETY: integers and a constant string; nobody else is in this process.
    unsafe {
        send(control, &[kernel::pidfd_open(libc::getpid())])?;
        libc::fchdir(directory);
        for (number, stream) in (0..).zip(streams) {
            libc::dup2(stream, number);
        }
        libc::dup2(lifeline, 3);
        libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
        kill_on_hangup(3);
        libc::prctl(libc::PR_SET_NAME, c"Process-1".as_ptr());
        send(3, &[])?;
        libc::fflush(null_mut());
    }
    Ok(())
}

fn pair() -> io::Result<[libc::c_int; 2]> {
    let mut pair = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) })?;
    Ok(pair)
}

fn close(fds: &[libc::c_int]) {
    for &fd in fds {
        // SAFETY: the caller's, who does not use it any more.
        unsafe { libc::close(fd) };
    }
}

/// As much as a hello or a result takes.
const WORDS: usize = 128;
/// Aligned as a header of control messages must be.
type Control = [u64; 6];

fn message(words: &mut [u8; WORDS], f: impl FnOnce(&mut libc::msghdr) -> isize) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: words.as_mut_ptr().cast(),
        iov_len: WORDS,
    };
    // SAFETY: all-zero bytes are a valid header.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    check(f(&mut header) as libc::c_int).map(drop)
}

fn send(socket: libc::c_int, fds: &[libc::c_int]) -> io::Result<()> {
    let mut control: Control = [0; 6];
    message(&mut [0; WORDS], |header| {
        // SAFETY: there is room for the header and five descriptors, and both outlive the call.
        unsafe {
            if !fds.is_empty() {
                let bytes = size_of_val(fds) as libc::c_uint;
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
                let first = &mut *libc::CMSG_FIRSTHDR(header);
                first.cmsg_level = libc::SOL_SOCKET;
                first.cmsg_type = libc::SCM_RIGHTS;
                first.cmsg_len = libc::CMSG_LEN(bytes) as usize;
                fds.as_ptr()
                    .copy_to_nonoverlapping(libc::CMSG_DATA(first).cast(), fds.len());
            }
            libc::sendmsg(socket, header, libc::MSG_NOSIGNAL)
        }
    })
}

/// A message that is there already, and its descriptors.
fn receive<const N: usize>(socket: libc::c_int) -> io::Result<[libc::c_int; N]> {
    let mut control: Control = [0; 6];
    let mut fds = [-1; N];
    message(&mut [0; WORDS], |header| {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: as above; where a descriptor came, as many came as the other end sends.
        unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
            let got = libc::recvmsg(socket, header, flags);
            if let Some(first) = libc::CMSG_FIRSTHDR(header).as_ref() {
                let rights = libc::CMSG_DATA(first).cast::<libc::c_int>();
                rights.copy_to_nonoverlapping(fds.as_mut_ptr(), N);
            }
            got
        }
    })?;
    Ok(fds)
}
