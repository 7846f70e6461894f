//! The sockets between clients and the server: whole packets, never blocking, with a descriptor
//! beside one of them.
//!
//! They attach clients, tell each side when the other has gone, and wake sleepers; requests and
//! replies go through the channel.
//!
//! To copy: socket.rs, deadline.rs.

#![allow(unsafe_code)] // Adopts a descriptor that the kernel has just opened for us.

use crate::deadline::Deadline;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, listen, recvmsg, sendmsg, socket,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// No packet is longer.
pub(super) const PACKET: usize = 1024;

fn new() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// A socket that listens.
pub(super) fn listen_at(address: &UnixAddr) -> Result<OwnedFd, Errno> {
    let listener = new()?;
    bind(listener.as_raw_fd(), address)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

/// The next who connected; `EAGAIN` if there is none.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let accepted = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just opened it for us; nobody else knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(accepted) })
}

/// A socket connected to a listener; waits while the listener's queue is full.
pub(super) fn connect_to(address: &UnixAddr, deadline: Deadline) -> Result<OwnedFd, Errno> {
    let connection = new()?;
    loop {
        match connect(connection.as_raw_fd(), address) {
            Ok(()) => return Ok(connection),
            Err(Errno::EINTR) => {}
            // The queue of a listener gives no sign when it has room again.
            Err(Errno::EAGAIN) if !deadline.passed() => {
                std::thread::sleep(deadline.at_most(Duration::from_millis(1)));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sends a packet, perhaps with a descriptor. `EAGAIN` if the other side reads too slowly.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let raw: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let controls = if raw.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        let iov = [IoSlice::new(bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &iov, controls, flags, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Wakes the other side. One that has many such bytes to read is awake enough.
pub(super) fn wake(socket: BorrowedFd<'_>) {
    let _ = send(socket, &[0], None);
}

/// Takes a packet and the descriptor beside it; an empty one means that the other side is gone.
/// `EAGAIN` if there is none.
pub(super) fn receive(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut buffer = [0; PACKET];
    let mut controls = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut controls), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let length = message.bytes;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just opened these for us; nobody else knows the numbers.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((buffer[..length].to_vec(), fds.pop()))
}

/// Reads away the bytes that woke this side; false if the other side is gone.
pub(super) fn drain(socket: impl AsFd) -> bool {
    let socket = socket.as_fd().as_raw_fd();
    let mut buffer = [0u8; 64];
    loop {
        let flags = MsgFlags::MSG_DONTWAIT;
        match nix::sys::socket::recv(socket, &mut buffer, flags) {
            Ok(0) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return error == Errno::EAGAIN,
        }
    }
}

/// Whether the other side is gone, whatever it has sent before.
pub(super) fn is_hung_up(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Waits until one of the descriptors can be read or is hung up; the deadline may come first.
pub(super) fn wait(fds: &[impl AsFd], deadline: Deadline) {
    let mut fds: Vec<PollFd> = fds
        .iter()
        .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
        .collect();
    // Rounded up: not to look a few times in vain in the last millisecond.
    let timeout = deadline.remaining().map(|left| {
        let millis = left.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    // Whatever comes of it, the caller looks again.
    let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE));
}
