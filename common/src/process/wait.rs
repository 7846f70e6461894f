//! Waiting for file descriptors: the handles of processes, pipes, sockets.
//!
//! To copy: wait.rs.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Waits until at least one of `items` is ready, and returns the positions of all that are:
/// processes that have ended, sockets and pipes that have data or have reached their end. Empty if
/// `timeout` passed first; `None` waits for ever. As Python's `multiprocessing.connection.wait`.
///
/// # Errors
///
/// What poll(2) says: too many items for the limit on open files, mostly.
///
/// ```
/// use common::process::{Process, wait};
/// use std::time::Duration;
///
/// fn nap(millis: u64) {
///     std::thread::sleep(Duration::from_millis(millis));
/// }
///
/// let quick = Process::spawn(nap, (10,))?;
/// let slow = Process::spawn(nap, (60_000,))?;
/// assert_eq!(wait(&[&quick, &slow], None)?, [0]);
/// slow.kill()?;
/// assert_eq!(wait(&[&slow], Some(Duration::from_secs(10)))?, [0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "sentinel")]
pub fn wait(items: &[&dyn AsFd], timeout: Option<Duration>) -> std::io::Result<Vec<usize>> {
    let fds: Vec<BorrowedFd<'_>> = items.iter().map(|item| item.as_fd()).collect();
    // A timeout too large for the clock is for ever.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    Ok(readable(&fds, deadline)?)
}

/// Which of `fds` can be read, or have been hung up.
pub(super) fn readable(
    fds: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Vec<usize>, Errno> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|&fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    loop {
        let left = deadline
            .map(|at| TimeSpec::from_duration(at.saturating_duration_since(Instant::now())));
        match ppoll(&mut polled, left, None) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    Ok((0..fds.len()).filter(|&i| is_ready(&polled[i])).collect())
}

/// As [`readable`] without a limit; and whether `socket` has been hung up, be there data in it or
/// not.
pub(super) fn readable_or_hung_up(
    fds: &[BorrowedFd<'_>],
    socket: Option<BorrowedFd<'_>>,
) -> Result<(Vec<usize>, bool), Errno> {
    let input = fds.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let hangup = socket.map(|fd| PollFd::new(fd, PollFlags::empty()));
    let mut polled: Vec<PollFd<'_>> = input.chain(hangup).collect();
    while let Err(error) = ppoll(&mut polled, None, None) {
        if error != Errno::EINTR {
            return Err(error);
        }
    }
    let ready: Vec<usize> = (0..polled.len())
        .filter(|&i| is_ready(&polled[i]))
        .collect();
    let gone = ready.contains(&fds.len());
    Ok((
        ready.into_iter().filter(|&at| at < fds.len()).collect(),
        gone,
    ))
}

fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_none_or(|events| !events.is_empty())
}

/// Whether the one descriptor is ready now.
pub(super) fn is_readable_now(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    ppoll(&mut polled, Some(NOW), None).is_ok_and(|ready| ready > 0)
}

/// Whether any of them is ready now, or nobody can tell: more than poll(2) takes at a time.
pub(super) fn any_readable_now(fds: &[BorrowedFd<'_>]) -> bool {
    let polled = fds.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut polled: Vec<PollFd<'_>> = polled.collect();
    ppoll(&mut polled, Some(NOW), None).map_or(true, |ready| ready > 0)
}

const NOW: TimeSpec = TimeSpec::from_duration(Duration::ZERO);

/// Whether the one descriptor is ready before `deadline`.
pub(super) fn is_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool, Errno> {
    Ok(!readable(&[fd], deadline)?.is_empty())
}

/// Whether the other end of a socket is closed everywhere.
#[inline]
pub(super) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let gone = PollFlags::POLLHUP;
    ppoll(&mut polled, Some(NOW), None).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events.intersects(gone))
}

/// Waits until the other end of a socket is closed everywhere; false if `deadline` came first.
pub(super) fn hung_up(socket: BorrowedFd<'_>, deadline: Option<Instant>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    loop {
        let left = deadline
            .map(|at| TimeSpec::from_duration(at.saturating_duration_since(Instant::now())));
        match ppoll(&mut polled, left, None) {
            Err(Errno::EINTR) => {}
            _ => return is_hung_up(socket),
        }
    }
}
