//! Messages on the lifeline, the socket between a process and its parent.
//!
//! A packet is a header and a body, sent whole or not at all (SOCK_SEQPACKET, unix(7)), with
//! descriptors beside it. A large body is put in a memory file whose descriptor goes instead, so
//! that sending never blocks: a parent that does not read cannot keep its child from ending, nor a
//! slow child its parent from going on.
//!
//! To copy: packet.rs, sys.rs.

use super::sys::{self, Received};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use thiserror::Error;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Parent to child: who you are and what to run.
    Hello = 1,
    /// Child to parent: what the function returned, encoded.
    Returned = 2,
    /// Child to parent: an encoded `Failure`.
    Failed = 3,
    /// Fork server to parent: the wait status of a child it has reaped.
    Ended = 4,
    /// Fork server to parent: the pid of a new child, with its pidfd.
    Forked = 5,
    /// Fork server to parent: the error number of a failed fork.
    NotForked = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Hello, Returned, Failed, Ended, Forked, NotForked]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

/// A message that came out of a lifeline.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Why no packet came out.
#[derive(Debug, Error)]
pub(super) enum ReceiveError {
    #[error("the other end is closed")]
    Closed,
    #[error("what arrived is no message of this library: {0}")]
    Corrupt(&'static str),
    #[error("the socket cannot be read: {0}")]
    Os(#[from] Errno),
}

/// Two ends, neither inherited by exec, neither numbered like a standard stream.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (a, b) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    Ok((sys::above_stdio(a)?, sys::above_stdio(b)?))
}

const MAGIC: [u8; 4] = *b"cmn1";
const HEADER: usize = 16;
/// Most starts and results are no longer, and every receiver has room for as much on its stack.
const INLINE: usize = 1024;

/// Sends a packet without blocking.
///
/// # Errors
///
/// `EPIPE` or `ECONNRESET` if the other end is gone; `ENOSPC`, `ENOMEM`, `EMFILE` if there is no
/// memory or descriptor for a large body.
#[inline]
pub(super) fn send(
    socket: BorrowedFd<'_>,
    kind: Kind,
    body: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let spilled = if body.len() > INLINE {
        Some(spill(body)?)
    } else {
        None
    };
    let mut header = [0u8; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = kind as u8;
    header[5] = u8::from(spilled.is_some());
    header[8..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let inline = if spilled.is_some() { &[] } else { body };
    let raw: Vec<RawFd> = spilled
        .iter()
        .map(AsRawFd::as_raw_fd)
        .chain(fds.iter().map(AsRawFd::as_raw_fd))
        .collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let iov = [IoSlice::new(&header), IoSlice::new(inline)];
    let controls = if raw.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    uninterrupted(|| sendmsg::<()>(socket.as_raw_fd(), &iov, controls, flags, None)).map(drop)
}

fn spill(body: &[u8]) -> Result<File, Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let mut file = File::from(memfd_create(c"common-message", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(body).map_err(errno)?;
    Ok(file)
}

/// Takes the next packet; waits for one if `wait`, else fails with `EAGAIN`.
///
/// # Errors
///
/// [`ReceiveError`]; a packet that is not well-formed is consumed. `ECONNRESET` means that the
/// other end was closed before it had read what was sent to it; `EMFILE` that descriptors came
/// with it for which this process has no room.
pub(super) fn receive(socket: BorrowedFd<'_>, wait: bool) -> Result<Packet, ReceiveError> {
    let flags = match wait {
        true => MsgFlags::empty(),
        false => MsgFlags::MSG_DONTWAIT,
    };
    let mut buffer = [0u8; HEADER + INLINE];
    let Received {
        length,
        mut fds,
        fds_lost,
    } = uninterrupted(|| sys::receive(socket, &mut buffer, flags.bits()))?;
    if length == 0 {
        return Err(ReceiveError::Closed);
    }
    if fds_lost {
        return Err(Errno::EMFILE.into());
    }
    if length < HEADER || buffer[..4] != MAGIC {
        return Err(ReceiveError::Corrupt("it has no header"));
    }
    let kind = Kind::of(buffer[4]).ok_or(ReceiveError::Corrupt("it is of no known kind"))?;
    let mut size = [0u8; 8];
    size.copy_from_slice(&buffer[8..HEADER]);
    let size = u64::from_le_bytes(size);
    let body = if buffer[5] == 0 {
        buffer[HEADER..length].to_vec()
    } else if fds.is_empty() {
        return Err(ReceiveError::Corrupt("its memory file is missing"));
    } else {
        unspill(File::from(fds.remove(0)), size)?
    };
    if body.len() as u64 != size {
        return Err(ReceiveError::Corrupt("it is truncated"));
    }
    Ok(Packet { kind, body, fds })
}

#[inline]
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Reads a memory file. Its sender may still change it, so it is copied out, never mapped, and
/// its size is believed only as far as memory goes.
fn unspill(file: File, size: u64) -> Result<Vec<u8>, ReceiveError> {
    let held = file.metadata().map_or(0, |about| about.len());
    if held != size {
        return Err(ReceiveError::Corrupt("its memory file has another size"));
    }
    let mut body = Vec::new();
    usize::try_from(size)
        .ok()
        .and_then(|size| body.try_reserve_exact(size).ok().map(|()| size))
        .map(|size| body.resize(size, 0))
        .ok_or(ReceiveError::Os(Errno::ENOMEM))?;
    file.read_exact_at(&mut body, 0)
        .map_err(|_| ReceiveError::Corrupt("its memory file shrank"))?;
    Ok(body)
}
