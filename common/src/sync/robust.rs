//! The lock everything here stands on: a robust, process-shared pthread mutex.
//!
//! Robust: when its holder is killed the kernel hands the lock on, and the next one to lock it
//! learns so and repairs what was half-done. A mutex made of a futex alone stays locked for ever,
//! because nobody can tell a dead holder from a slow one in time.
//!
//! To copy: sync/robust.rs, deadline.rs, futex.rs, shm/, departures.rs.

#![allow(unsafe_code)] // The pthread calls.

use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::Shared;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;
use thiserror::Error;

/// A mutex in shared memory, without what it protects.
#[repr(C)]
pub(crate) struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the mutex is changed by the pthread calls only, which synchronise themselves. Its kind,
// which says what rules they follow, is checked before every call. What cannot be checked are the
// links that glibc keeps in a mutex that is held, for its list of the thread's locks: a process
// gone mad that overwrites just these can bring down the one that holds the lock.
unsafe impl Shared for RobustMutex {}
// SAFETY: that is what a mutex is for.
unsafe impl Sync for RobustMutex {}

/// The lock is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LockError {
    /// Somebody else held it until the deadline.
    #[error("the lock was held by another process until the deadline")]
    Timeout,
    /// This thread holds it already.
    #[error("this thread holds the lock already")]
    Deadlock,
    /// The shared memory has been overwritten.
    #[error("the lock's memory has been overwritten")]
    Broken,
}

/// Unlocks when dropped.
pub(crate) struct RobustGuard<'a> {
    mutex: &'a RobustMutex,
    /// The thread that locked. A fork has a copy of the guard, and may hold the lock as well later:
    /// that is not this guard's to let go.
    holder: u32,
    /// The thread that locks must unlock.
    _thread: PhantomData<*const ()>,
}

/// The thread's id in the futex word.
const THREAD: u32 = 0x3fff_ffff;
/// Where the kernel says there that its holder has died: whoever comes next has the lock.
const DIED: u32 = 0x4000_0000;
/// How long one wait lasts before a look whether the holder exists.
const SLICE: Duration = Duration::from_millis(100);
/// `Deadline::Now` waits this long for one who is copying a message; not for one who is stopped.
const COPYING: Duration = Duration::from_millis(10);

impl RobustMutex {
    /// Makes it a mutex. Once, by who created the memory, before anybody else has it.
    pub(crate) fn init(&self) -> Result<(), LockError> {
        let made = make().ok_or(LockError::Broken)?;
        // SAFETY: nobody else has the memory yet (the caller's promise); a pthread mutex that has
        // never been locked may be moved.
        unsafe { self.0.get().write(made) };
        Ok(())
    }

    /// Locks. If the last holder died with it, `recover` repairs what it left before anybody
    /// else can look.
    #[inline]
    pub(crate) fn lock(
        &self,
        deadline: Deadline,
        spin: &Spin,
        recover: impl FnOnce(),
    ) -> Result<RobustGuard<'_>, LockError> {
        self.check()?;
        // SAFETY: an initialised mutex of the expected kind, in memory that outlives the call.
        let mut code = unsafe { libc::pthread_mutex_trylock(self.0.get()) };
        if code == libc::EBUSY {
            code = self.wait(deadline, spin)?;
        }
        if code == libc::EOWNERDEAD {
            recover();
            // SAFETY: this thread holds the mutex, as EOWNERDEAD says.
            code = unsafe { libc::pthread_mutex_consistent(self.0.get()) };
        }
        match code {
            0 => Ok(RobustGuard {
                mutex: self,
                holder: self.holder_bits(),
                _thread: PhantomData,
            }),
            libc::ETIMEDOUT => Err(LockError::Timeout),
            libc::EDEADLK => Err(LockError::Deadlock),
            _ => Err(LockError::Broken),
        }
    }

    /// Locks if it is free.
    pub(crate) fn try_lock(&self, recover: impl FnOnce()) -> Option<RobustGuard<'_>> {
        if self.word().load(Ordering::Relaxed) != 0 {
            return None;
        }
        static NONE: Spin = Spin::new();
        let soon = Deadline::after(Duration::from_micros(1));
        self.lock(soon, &NONE, recover).ok()
    }

    /// The id of the thread that holds it now.
    pub(crate) fn holder(&self) -> Option<u32> {
        Some(self.holder_bits()).filter(|&thread| thread != 0)
    }

    /// As [`RobustMutex::holder`]; 0 for none.
    #[inline]
    fn holder_bits(&self) -> u32 {
        self.word().load(Ordering::Relaxed) & THREAD
    }

    /// Whether this thread holds it; a fork of the holder does not. Asks the kernel who this is.
    pub(crate) fn is_held_here(&self) -> bool {
        self.holder() == Some(nix::unistd::gettid().as_raw().cast_unsigned())
    }

    /// Unlocks it if this thread holds it.
    #[inline]
    pub(crate) fn unlock(&self) {
        if self.check().is_ok() {
            // SAFETY: an initialised mutex of the error-checking kind, which says EPERM to who
            // does not hold it, in memory that outlives the call.
            unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        }
    }

    #[cold]
    fn wait(&self, deadline: Deadline, spin: &Spin) -> Result<libc::c_int, LockError> {
        let deadline = match deadline {
            Deadline::Now => Deadline::after(COPYING),
            other => other,
        };
        spin.until(|| self.word().load(Ordering::Relaxed) == 0);
        loop {
            let before = self.word().load(Ordering::Relaxed);
            match self.timed(deadline.at_most(SLICE)) {
                libc::ETIMEDOUT if deadline.passed() => return Ok(libc::ETIMEDOUT),
                libc::ETIMEDOUT => self.check_holder(before)?,
                code => return Ok(code),
            }
            self.check()?;
        }
    }

    fn timed(&self, timeout: Duration) -> libc::c_int {
        let mut until = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the clock exists and `until` is a place for the answer; then both are read.
        unsafe {
            libc::clock_gettime(libc::CLOCK_MONOTONIC, until.as_mut_ptr());
            let mut until = until.assume_init();
            until.tv_nsec += i64::from(timeout.subsec_nanos());
            until.tv_sec += timeout.as_secs().cast_signed() + until.tv_nsec / 1_000_000_000;
            until.tv_nsec %= 1_000_000_000;
            pthread_mutex_clocklock(self.0.get(), libc::CLOCK_MONOTONIC, &raw const until)
        }
    }

    /// A holder that does not exist and that the kernel has not reported dead never was one.
    fn check_holder(&self, before: u32) -> Result<(), LockError> {
        let holder = (before & THREAD).cast_signed();
        // SAFETY: signal 0 only asks whether the thread exists.
        let exists = holder != 0
            && (unsafe { libc::kill(holder, 0) } == 0
                || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH));
        // Only now: a thread is reported before it is gone.
        let now = self.word().load(Ordering::Relaxed);
        let reported = now == 0 || now & DIED != 0;
        match exists || reported || now & THREAD != before & THREAD {
            true => Ok(()),
            false => Err(LockError::Broken),
        }
    }

    /// Only memory that still looks like a robust mutex is given to the C library: another kind
    /// would make it follow other rules, up to calling `abort`.
    #[inline]
    fn check(&self) -> Result<(), LockError> {
        match kind(self.0.get()) == expected_kind() {
            true => Ok(()),
            false => Err(LockError::Broken),
        }
    }

    /// The word that holds the thread's id.
    fn word(&self) -> &AtomicU32 {
        // SAFETY: glibc's mutex begins with the futex word, an aligned int.
        unsafe { &*self.0.get().cast::<AtomicU32>() }
    }
}

impl Drop for RobustGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.holder == self.mutex.holder_bits() {
            self.mutex.unlock();
        }
    }
}

unsafe extern "C" {
    // glibc 2.30; the crate libc does not declare it. `pthread_mutex_timedlock` would do, but it
    // goes by the wall clock, which jumps.
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

/// How often a process was forked on the way to this one since it was first asked for: the same as
/// before unless this is a fork. To ask the kernel who this is would take longer than all the rest.
pub(super) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static COUNTS: Once = Once::new();
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    COUNTS.call_once(|| {
        // SAFETY: in a fork's child the handler may do what a signal handler may, and it changes
        // an atomic. (If there is no memory for it, copies are not told apart.)
        unsafe { libc::pthread_atfork(None, None, Some(count)) };
    });
    FORKS.load(Ordering::Relaxed)
}

fn make() -> Option<libc::pthread_mutex_t> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let mut mutex = MaybeUninit::<libc::pthread_mutex_t>::zeroed();
    // SAFETY: the attributes are initialised before they are used, and the mutex by its init.
    unsafe {
        let attributes = attributes.as_mut_ptr();
        let failed = libc::pthread_mutexattr_init(attributes)
            | libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
            | libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
            | libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
            | libc::pthread_mutex_init(mutex.as_mut_ptr(), attributes);
        libc::pthread_mutexattr_destroy(attributes);
        (failed == 0).then(|| mutex.assume_init())
    }
}

/// glibc's `__kind`: the fifth int of the mutex on all its 64-bit platforms.
#[inline]
fn kind(mutex: *mut libc::pthread_mutex_t) -> u32 {
    const { assert!(cfg!(all(target_env = "gnu", target_pointer_width = "64"))) };
    // SAFETY: the mutex is longer than five ints and aligned for them; it may be read at any
    // time because it is read as an atomic.
    unsafe { (*mutex.cast::<AtomicU32>().add(4)).load(Ordering::Relaxed) }
}

#[inline]
fn expected_kind() -> u32 {
    static KIND: OnceLock<u32> = OnceLock::new();
    *KIND.get_or_init(|| make().map_or(0, |mut mutex| kind(&raw mut mutex)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Segment;

    fn mutex(segment: &Segment) -> &RobustMutex {
        segment.at::<RobustMutex>(0).unwrap()
    }

    fn new() -> Segment {
        let segment = Segment::create(64).unwrap();
        mutex(&segment).init().unwrap();
        segment
    }

    #[test]
    fn it_excludes() {
        let (segment, spin) = (new(), Spin::new());
        let guard = mutex(&segment).lock(Deadline::Never, &spin, || ());
        let soon = Deadline::after(Duration::from_millis(5));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| mutex(&segment).lock(soon, &spin, || ()).err());
            assert_eq!(other.join().unwrap(), Some(LockError::Timeout));
            assert!(
                scope
                    .spawn(|| mutex(&segment).try_lock(|| ()).is_none())
                    .join()
                    .unwrap()
            );
        });
        let again = mutex(&segment).lock(soon, &spin, || ()).err();
        assert!(matches!(
            again,
            Some(LockError::Timeout | LockError::Deadlock)
        ));
        drop(guard);
        assert!(mutex(&segment).try_lock(|| ()).is_some());
    }

    #[test]
    fn the_lock_of_a_thread_that_ended_is_handed_on() {
        let (segment, spin) = (new(), Spin::new());
        std::thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(mutex(&segment).lock(Deadline::Never, &spin, || ())));
        });
        let mut recovered = false;
        drop(
            mutex(&segment)
                .lock(Deadline::Never, &spin, || recovered = true)
                .unwrap(),
        );
        assert!(recovered);
        mutex(&segment)
            .lock(Deadline::Never, &spin, || panic!("repaired"))
            .unwrap();
    }

    #[test]
    fn who_died_while_the_lock_was_waited_for_has_held_it() {
        let (segment, spin) = (new(), Spin::new());
        // It was free at first; the kernel has just woken somebody else, who is slow to take it.
        segment.write(0, &0xc000_0000_u32.to_ne_bytes()).unwrap();
        assert_eq!(mutex(&segment).check_holder(0), Ok(()));
        let mut recovered = false;
        let recover = || recovered = true;
        drop(mutex(&segment).lock(Deadline::Never, &spin, recover));
        assert!(recovered);
    }

    #[test]
    fn garbage_is_an_error_and_no_hang() {
        let (segment, spin) = (new(), Spin::new());
        segment.write(0, &[0xff, 0xff, 0xff, 0x0f]).unwrap(); // A holder that never was.
        let error = mutex(&segment).lock(Deadline::Never, &spin, || ()).err();
        assert_eq!(error, Some(LockError::Broken));
        segment.write(0, &0x8000_0000_u32.to_ne_bytes()).unwrap(); // Nobody, who is waited for.
        let error = mutex(&segment).lock(Deadline::Never, &spin, || ()).err();
        assert_eq!(error, Some(LockError::Broken));
        segment.write(0, &[0x5a; 40]).unwrap();
        let error = mutex(&segment).lock(Deadline::Never, &spin, || ()).err();
        assert_eq!(error, Some(LockError::Broken));
    }
}
