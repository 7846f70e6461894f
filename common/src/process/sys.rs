//! The system calls that nix has no wrapper for, each made safe where it can be.
//!
//! To copy: sys.rs.

#![allow(unsafe_code)] // Raw system calls; every one is wrapped here and nowhere else.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// A file descriptor that stands for a process: readable when it has ended (pidfd_open(2)).
/// Safe from pid reuse as long as `pid` is a child that has not been waited for.
pub(super) fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is passed; a returned descriptor is new and ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: as above; the number fits, descriptors are ints.
    above_stdio(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to exactly this process (pidfd_send_signal(2)).
pub(super) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    // SAFETY: the null siginfo asks for the default one; nothing else is a pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Takes the exit status of a child that has ended; `None` while it runs (waitid(2)).
///
/// Not nix's `waitid`: that one refuses children ended by a real-time signal.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    // SAFETY: all-zero bytes are a valid siginfo_t, whose pid 0 means "none yet".
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call; the descriptor is borrowed for it.
    let result = unsafe {
        libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd() as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
        )
    };
    Errno::result(result)?;
    // SAFETY: after a successful waitid these fields of the union are the ones in use.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(ExitStatus::from_raw(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })))
}

/// A message and the descriptors that came with it.
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// Some descriptors did not fit into this process's limit.
    pub(super) fds_lost: bool,
}

/// recvmsg(2). Not nix's: where descriptors were lost, that one loses the others too.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> Result<Received, Errno> {
    // Room for at least 16 descriptors, aligned as a cmsghdr must be.
    let mut control = [0u64; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to the two buffers above, with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = Errno::result(length)?;
    let mut fds = Vec::new();
    let mut fds_lost = message.msg_flags & libc::MSG_CTRUNC != 0;
    // SAFETY: the kernel has filled in the control buffer and its length; the macros walk it. The
    // descriptors in it are new and nobody else's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                #[allow(clippy::unnecessary_cast)] // Of another type under musl.
                let bytes = control.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    let fd = OwnedFd::from_raw_fd(first.add(at).read_unaligned());
                    match above_stdio(fd) {
                        Ok(fd) => fds.push(fd),
                        Err(_) => fds_lost = true,
                    }
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(Received {
        length: length as usize,
        fds,
        fds_lost,
    })
}

/// From now on this process is killed when the other end of `socket` is closed everywhere, even
/// if it is asleep or blocks all signals (O_ASYNC in open(2), F_SETOWN and F_SETSIG in fcntl(2)).
///
/// Nothing may be sent to `socket` any more: data would kill as well.
#[inline]
pub(super) fn kill_on_hangup(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = socket.as_raw_fd();
    // SAFETY: fcntl on a borrowed descriptor, with integers only.
    unsafe {
        Errno::result(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
        Errno::result(libc::fcntl(fd, F_SETSIG, libc::SIGKILL))?;
        Errno::result(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC))?;
    }
    Ok(())
}

/// asm-generic/fcntl.h; the libc crate does not have it for every target.
const F_SETSIG: libc::c_int = 10;

/// Whether [`kill_on_hangup`] is in force for `socket`, in whichever process it was called.
#[inline]
pub(super) fn is_armed(socket: BorrowedFd<'_>) -> bool {
    // SAFETY: fcntl on a borrowed descriptor, without further arguments.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_ASYNC != 0
}

/// Undoes [`kill_on_hangup`]. The setting belongs to the open socket, not to the descriptor, so
/// that the parent can undo what its child did.
pub(super) fn disarm(socket: BorrowedFd<'_>) {
    // SAFETY: fcntl on a borrowed descriptor, with integers only.
    unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, 0) };
}

/// Closes every descriptor from `first` on. For a process that has just begun and knows that
/// nobody in it uses them.
pub(super) fn close_from(first: RawFd) {
    // SAFETY: the caller is a new process: no other part of it holds any of these descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == -1 {
        // Linux before 5.9. Collected first: the directory being read is a descriptor itself.
        let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for fd in open.into_iter().filter(|&fd| fd >= first) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Makes `fd` also open under `number`, closing what was there; kept across exec if it is one of
/// 0 to 2.
pub(super) fn put_at(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        return Ok(());
    }
    let flags = if number > 2 { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the callers are new processes that own the numbers they overwrite.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), number, flags) }).map(drop)
}

/// The descriptor that was put at `number` before this process began, now owned.
///
/// # Safety
///
/// `number` must be open and nobody else's in this process.
pub(super) unsafe fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The same with a number of at least 3, so that it never stands where a standard stream is
/// expected, even in a program that has closed those.
pub(super) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: fcntl on an open descriptor; a returned descriptor is new and ours.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: as above.
    Errno::result(copy).map(|copy| unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Opens /dev/null at every standard stream that is closed, as Rust's own start-up does: otherwise
/// the next file opened would become somebody's standard output.
pub(super) fn open_closed_stdio() {
    for number in 0..3 {
        // SAFETY: integers and a constant path only; the lowest free number is `number`, because
        // those below are open by now.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// As Rust's own start-up does: a write to a closed pipe is an error, not a silent death.
pub(super) fn ignore_sigpipe() {
    // SAFETY: sets a disposition; no handler runs.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The kernel keeps the exit statuses of this process's children until it asks for them. Who
/// started it may have had them thrown away, which is inherited.
pub(super) fn heed_children() {
    // SAFETY: sets a disposition; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// glibc's fork, never a raw clone: only the former tells the thread library of the new process's
/// id, without which robust mutexes do not notice its death.
///
/// # Safety
///
/// The caller must be single-threaded: a lock held by another thread would stay locked in the
/// child for ever.
#[inline]
pub(super) unsafe fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: the caller's promise.
    unsafe { nix::unistd::fork() }
}

/// How many threads this process has.
pub(super) fn thread_count() -> Result<u64, std::io::Error> {
    // The link count of a directory is two and one for each directory in it; here that is one for
    // each thread (proc_pid_task(5)), and cheaper than reading it.
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

/// Writes out what Rust and C keep in their buffers for the standard streams.
#[inline]
pub(super) fn flush_stdio() {
    let _ = std::io::stdout().flush();
    // SAFETY: a null stream means "all of them".
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// From here on an exit, of this process or of one forked from it, runs only the exit handlers that
/// are registered later (on_exit(3): the last one registered is the first to run).
pub(super) fn forget_exit_handlers() {
    unsafe extern "C" {
        fn on_exit(
            handler: extern "C" fn(libc::c_int, *mut libc::c_void),
            argument: *mut libc::c_void,
        ) -> libc::c_int;
    }
    extern "C" fn end(code: libc::c_int, _: *mut libc::c_void) {
        // SAFETY: a null stream means "all of them".
        unsafe { libc::fflush(std::ptr::null_mut()) };
        exit_now(code)
    }
    // SAFETY: the handler may be called whenever the process exits. If there is no memory for it,
    // the other handlers run as well.
    unsafe { on_exit(end, std::ptr::null_mut()) };
}

/// Ends the process at once: no destructor and no exit handler of the parent's runs.
#[inline]
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Sets or removes a variable of this process.
pub(super) fn set_env(name: &std::ffi::OsStr, value: Option<&std::ffi::OsStr>) {
    // SAFETY: called only while a new process sets itself up, before it has a second thread.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Has exec close it.
pub(super) fn close_on_exec(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: fcntl on a borrowed descriptor, with integers only.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(result).map(drop)
}
