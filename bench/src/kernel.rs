//! The bare system calls that our figures are compared with, and plain forked peers.

#![allow(unsafe_code)] // That is what system calls are.

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

/// The argument that makes this program exit at once.
const EXIT: &str = "exit-at-once";

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// Exits if this process was started by [`posix_spawn_self`].
pub fn exit_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == EXIT) {
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) }
    }
}

/// Starts this program once more, to exit as soon as it reaches `main`, and waits for it.
pub fn posix_spawn_self() -> io::Result<()> {
    let exe = CString::from(c"/proc/self/exe");
    let exit = CString::new(EXIT)?;
    let argv = [
        exe.as_ptr().cast_mut(),
        exit.as_ptr().cast_mut(),
        null_mut(),
    ];
    let mut pid = 0;
    // SAFETY: the path and the arguments are NUL-terminated strings that outlive the call, the
    // list ends with a null pointer, and nobody changes the environment meanwhile.
    let error = unsafe {
        let none = (std::ptr::null(), std::ptr::null());
        libc::posix_spawn(
            &raw mut pid,
            exe.as_ptr(),
            none.0,
            none.1,
            argv.as_ptr(),
            environ,
        )
    };
    match error {
        0 => wait(pid),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Forks; the child exits at once; waits for it.
pub fn fork_exit() -> io::Result<()> {
    // SAFETY: the child calls nothing but `_exit`, which is allowed after any fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above.
        0 => unsafe { libc::_exit(0) },
        pid => wait(pid),
    }
}

/// As [`fork_exit`], with what every child of the library is promised beside its fork, each by the
/// bare calls: it is killed when its parent ends, has a name, flushes its streams and sends a
/// result, and its handle is a pidfd.
pub fn fork_with_duties() -> io::Result<()> {
    let mut link = [0; 2];
    let mut word = [0u8; 16];
    // SAFETY: the arrays outlive the calls that are given them, with their lengths; the child calls
    // nothing that another thread's locks could stop, for there is no other thread.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        check(libc::socketpair(libc::AF_UNIX, kind, 0, link.as_mut_ptr()))?;
        let [ours, theirs] = link;
        let pid = check(libc::fork())?;
        if pid == 0 {
            libc::close(ours);
            kill_on_hangup(theirs);
            libc::prctl(libc::PR_SET_NAME, c"Process-1".as_ptr());
            libc::send(theirs, word.as_ptr().cast(), word.len(), 0);
            libc::fflush(null_mut());
            libc::_exit(0);
        }
        let pidfd = pidfd_open(pid);
        poll(&[pidfd], -1);
        libc::recv(
            ours,
            word.as_mut_ptr().cast(),
            word.len(),
            libc::MSG_DONTWAIT,
        );
        let waited = wait(pid);
        for fd in [ours, theirs, pidfd] {
            libc::close(fd);
        }
        waited
    }
}

/// As [`fork_with_duties`], by the cheapest calls that there are for each duty, although they would
/// not do for the library: the signal cannot be taken back by the parent to detach, and the page
/// holds only a short result.
pub fn fork_with_least(page: &AtomicU32) -> io::Result<()> {
    // SAFETY: as in `fork_with_duties`.
    unsafe {
        let pid = check(libc::fork())?;
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() == 1 {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_NAME, c"Process-1".as_ptr());
            page.store(1, Ordering::Release);
            libc::fflush(null_mut());
            libc::_exit(0);
        }
        let pidfd = pidfd_open(pid);
        poll(&[pidfd], -1);
        page.swap(0, Ordering::Acquire);
        let waited = wait(pid);
        libc::close(pidfd);
        waited
    }
}

/// asm-generic/fcntl.h; the libc crate does not have it for every target.
const F_SETSIG: libc::c_int = 10;

/// From now on this process is killed when the other end of the socket is closed.
pub fn kill_on_hangup(socket: libc::c_int) {
    // SAFETY: integers only.
    unsafe {
        libc::fcntl(socket, libc::F_SETOWN, libc::getpid());
        libc::fcntl(socket, F_SETSIG, libc::SIGKILL);
        libc::fcntl(socket, libc::F_SETFL, libc::O_ASYNC);
    }
    poll(&[socket], 0);
}

/// A descriptor for a child that has not been waited for.
pub fn pidfd_open(pid: libc::pid_t) -> libc::c_int {
    // SAFETY: integers only.
    unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) as libc::c_int }
}

/// Waits until one of them is readable, for at most so many milliseconds (-1: for ever).
pub fn poll(fds: &[libc::c_int], millis: libc::c_int) {
    let poll = |&fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<libc::pollfd> = fds.iter().map(poll).collect();
    let n = polled.len() as libc::nfds_t;
    // SAFETY: so many structures, which outlive the call.
    unsafe { libc::poll(polled.as_mut_ptr(), n, millis) };
}

/// What the system call gave, or its error.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

fn wait(pid: libc::pid_t) -> io::Result<()> {
    // SAFETY: no status is asked for, so there is nothing to write to.
    match unsafe { libc::waitpid(pid, null_mut(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A forked child, killed and reaped when this is dropped.
pub struct Child(libc::pid_t);

/// Runs `body` in a forked child. For peers that have no way of their own to start a process.
///
/// # Errors
///
/// Those of fork(2), and if this process has more than one thread.
pub fn fork(body: impl FnOnce()) -> io::Result<Child> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "a process with threads cannot fork a peer",
        ));
    }
    // SAFETY: there is only this thread, so the child may run anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: prctl with these arguments and `_exit` have no preconditions. The parent's
            // only thread is the one whose end sends the signal.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(Child(pid)),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: kill has no preconditions, and the pid is ours until it is waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let _ = wait(self.0);
    }
}

/// Memory, shared with children forked later. Never unmapped: a side keeps it while it runs.
pub struct Shared<T: 'static>(&'static T);

impl<T: Default> Shared<T> {
    /// Maps memory and puts the default value there.
    ///
    /// # Errors
    ///
    /// Those of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        let place: *mut T = map(size_of::<T>(), libc::MAP_SHARED)?.cast();
        // SAFETY: the place is mapped, large enough, aligned to a page, and nobody else's.
        unsafe { place.write(T::default()) };
        // SAFETY: as above, and it stays mapped for good.
        Ok(Shared(unsafe { &*place }))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

fn map(bytes: usize, kind: libc::c_int) -> io::Result<*mut libc::c_void> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, wherever the kernel likes.
    match unsafe { libc::mmap(null_mut(), bytes, access, kind | libc::MAP_ANONYMOUS, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        place => Ok(place),
    }
}

/// Sleeps while `word` holds `value`. May return for no reason.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    let timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is valid memory for the whole call; no timeout.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            timeout,
        )
    };
}

/// Wakes one that sleeps on `word`.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is valid memory for the whole call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// A lock for several processes that is handed on when its holder is killed
/// (pthread_mutexattr_setrobust(3)), and nothing else.
pub struct RobustLock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: only the pthread calls touch it, and they are for several threads.
unsafe impl Sync for RobustLock {}

impl Default for RobustLock {
    fn default() -> Self {
        let mut attributes = MaybeUninit::uninit();
        let mut lock = MaybeUninit::uninit();
        // SAFETY: the attributes are initialised before they are used, and the lock by the last
        // call; one that has never been locked may be moved.
        RobustLock(unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            let attributes = attributes.as_mut_ptr();
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(lock.as_mut_ptr(), attributes);
            UnsafeCell::new(lock.assume_init())
        })
    }
}

impl RobustLock {
    /// Calls `f` with the lock held.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: an initialised mutex in memory that stays; whoever locks it unlocks it.
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
        let result = f();
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        result
    }
}

/// Makes this process as large and as threaded as a real one may be: so many bytes touched, in
/// pages of 4 KiB, and so many threads that sleep.
///
/// # Errors
///
/// Those of mmap(2).
pub fn grow(bytes: usize, threads: usize) -> io::Result<()> {
    let place = map(bytes, libc::MAP_PRIVATE)?;
    // SAFETY: the range was just mapped.
    unsafe { libc::madvise(place, bytes, libc::MADV_NOHUGEPAGE) };
    for offset in (0..bytes).step_by(4096) {
        // SAFETY: inside the mapping, which is nobody else's.
        unsafe { place.cast::<u8>().add(offset).write_volatile(1) };
    }
    for _ in 0..threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_holds_its_value() {
        let word = Shared::<AtomicU32>::new().unwrap();
        word.store(7, Ordering::Relaxed);
        futex_wait(&word, 8);
        futex_wake(&word);
        assert_eq!(word.load(Ordering::Relaxed), 7);
    }
}
