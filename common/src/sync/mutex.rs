//! A value that one process at a time holds.
//!
//! The value lies in shared memory as bytes, twice: a changed one is written beside the old one,
//! and one store makes it the value. So it is never half-changed, whoever is killed.

#![allow(unsafe_code)] // A marker.

use super::object::{Kind, Object};
use super::robust::forks;
use super::{LockError, RobustGuard, RobustMutex};
use crate::codec::{self, DecodeError, EncodeError};
use crate::deadline::Deadline;
use crate::futex::Spin;
use crate::shm::{Shared, ShmError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// A value between processes, of which one at a time holds it.
///
/// Locking it decodes the value, and dropping the guard encodes it if it was changed. A holder
/// that is killed, or panics, has changed nothing, and the next one gets the lock.
///
/// ```
/// use common::sync::Mutex;
///
/// let counter = Mutex::new(0)?;
/// *counter.lock()? += 1;
/// assert_eq!(*counter.lock()?, 1);
/// # Ok::<(), common::sync::MutexError>(())
/// ```
#[doc(alias = "Lock")]
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Mutex<T> {
    object: Object<State>,
    _value: PhantomData<fn() -> T>,
}

/// The value, held; let go when dropped.
#[must_use = "the mutex is let go when the guard is dropped"]
pub struct MutexGuard<'a, T: Serialize> {
    mutex: &'a Mutex<T>,
    /// Before the value, whose destructor is the program's code and may take its time.
    _guard: RobustGuard<'a>,
    value: T,
    changed: bool,
    holder_died: bool,
    /// Whether a panic went on already when it was locked.
    panicking: bool,
    /// A guard stays in its thread, so that one elsewhere is a fork's copy.
    forks: u32,
    /// Even if the guard is forgotten: the C library's list of this thread's locks leads there.
    _mapped: Object<State>,
}

/// A mutex could not be made, locked or changed.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum MutexError {
    /// Somebody else held it, until the deadline if there was one.
    #[error("the mutex is held by somebody else")]
    Locked,
    /// This thread holds it already.
    #[error(
        "this thread holds the mutex already: drop that guard first, or take a `ReentrantMutex`"
    )]
    Deadlock,
    /// The value is longer than the mutex has room for.
    #[error(
        "{bytes} bytes do not fit the {capacity} of the mutex; make it with `Mutex::with_capacity`"
    )]
    TooLong {
        /// The value's length in bytes.
        bytes: usize,
        /// What there is room for.
        capacity: usize,
    },
    /// The value does not let itself be turned into bytes.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The bytes are no value: some process has overwritten them.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The machine's shared memory is full.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The mutex has been overwritten by some process.
    #[error("the mutex's memory has been overwritten by some process: make a new one")]
    Broken,
}

/// In words, with the remedy: it is what `main` and `unwrap` print.
impl fmt::Debug for MutexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[repr(C)]
struct State {
    mutex: RobustMutex,
    /// Bytes that each of the two places has.
    capacity: AtomicU64,
    /// Which of the two is the value, and its length: bit 63, and the rest.
    current: AtomicU64,
    /// Whether a holder has died and nobody has been told yet. Under the lock.
    died: AtomicU32,
}

// SAFETY: atomics, and a mutex that checks itself.
unsafe impl Shared for State {}
impl Kind for State {
    const MAGIC: u64 = 0x6d70_2d6d_7574_6503;
}

/// Room for a value unless it is said; memory is committed for what is used.
const ROOM: usize = 1 << 20;
const SECOND: u64 = 1 << 63;

impl<T: Serialize + DeserializeOwned> Mutex<T> {
    /// A mutex with room for values of up to a MiB in bytes.
    ///
    /// # Errors
    ///
    /// [`MutexError`], as [`Mutex::with_capacity`].
    pub fn new(value: T) -> Result<Self, MutexError> {
        Self::with_capacity(value, ROOM)
    }

    /// A mutex with room for values of up to `bytes` bytes. The memory is committed as it is
    /// first used.
    ///
    /// # Errors
    ///
    /// [`MutexError::Memory`], [`MutexError::Encode`], [`MutexError::TooLong`].
    pub fn with_capacity(value: T, bytes: usize) -> Result<Self, MutexError> {
        let mut made = Ok(());
        let init = |state: &State| {
            made = state.mutex.init();
            state.capacity.store(bytes as u64, SeqCst);
        };
        let room = bytes.checked_mul(2).ok_or(MutexError::TooLong {
            bytes,
            capacity: usize::MAX / 2,
        })?;
        let object = Object::create(room, init)?;
        made.map_err(lock_error)?;
        let mutex = Mutex {
            object,
            _value: PhantomData,
        };
        mutex.store(&value)?;
        Ok(mutex)
    }

    /// Blocks until nobody else holds it.
    ///
    /// # Errors
    ///
    /// [`MutexError::Deadlock`] if this thread does; [`MutexError::Broken`].
    #[doc(alias = "acquire")]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, MutexError> {
        self.lock_until(Deadline::Never)
    }

    /// Takes it if nobody holds it.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`], and [`MutexError::Locked`].
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, MutexError> {
        match self.is_locked() {
            true => Err(MutexError::Locked),
            false => self.lock_until(Deadline::Now),
        }
    }

    /// Blocks until nobody else holds it, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`], and [`MutexError::Locked`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, MutexError> {
        self.lock_until(Deadline::after(timeout))
    }

    /// A copy of the value. Blocks while somebody else holds it.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`].
    pub fn get(&self) -> Result<T, MutexError> {
        self.get_until(Deadline::Never)
    }

    /// As [`Mutex::get`], waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock_timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, MutexError> {
        self.get_until(Deadline::after(timeout))
    }

    fn get_until(&self, deadline: Deadline) -> Result<T, MutexError> {
        let _guard = self.hold(deadline)?;
        self.load()
    }

    pub(super) fn lock_until(&self, deadline: Deadline) -> Result<MutexGuard<'_, T>, MutexError> {
        let mut guard = self.lock_untold(deadline)?;
        guard.tell(false);
        Ok(guard)
    }

    /// Locks for one that cannot say whether the last holder died: the next one who can is told.
    pub(crate) fn lock_untold(&self, deadline: Deadline) -> Result<MutexGuard<'_, T>, MutexError> {
        let guard = self.hold(deadline)?;
        Ok(MutexGuard {
            value: self.load()?,
            mutex: self,
            _guard: guard,
            changed: false,
            holder_died: false,
            panicking: thread::panicking(),
            forks: forks(),
            _mapped: self.object.clone(),
        })
    }

    fn hold(&self, deadline: Deadline) -> Result<RobustGuard<'_>, MutexError> {
        static SPIN: Spin = Spin::new();
        let state = self.state();
        let note = || state.died.store(1, SeqCst);
        let guard = state.mutex.lock(deadline, &SPIN, note);
        guard.map_err(lock_error)
    }

    fn load(&self) -> Result<T, MutexError> {
        let capacity = self.capacity()?;
        let current = self.state().current.load(SeqCst);
        let len = usize::try_from(current & !SECOND).unwrap_or(usize::MAX);
        if len > capacity {
            return Err(MutexError::Broken);
        }
        let mut bytes = vec![0; len];
        let place = self.place(current & SECOND != 0, capacity);
        self.object.segment().read(place, &mut bytes)?;
        Ok(codec::decode(&bytes)?)
    }
}

impl<T> Mutex<T> {
    /// Whether somebody holds it now.
    #[doc(alias = "locked")]
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.holder().is_some()
    }

    /// The thread that holds it now: its id, which is the process's own for a process of one
    /// thread, and whose process `/proc/<id>/status` names (gettid(2)). For a person who looks for
    /// the one that does not let go; it may be another's as soon as it is told.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        self.state().mutex.holder()
    }

    fn state(&self) -> &State {
        self.object.get()
    }

    fn capacity(&self) -> Result<usize, MutexError> {
        let room = self.object.segment().len();
        let room = room.saturating_sub(Object::<State>::BYTES);
        usize::try_from(self.state().capacity.load(SeqCst))
            .ok()
            .filter(|capacity| *capacity <= room / 2)
            .ok_or(MutexError::Broken)
    }

    fn place(&self, second: bool, capacity: usize) -> usize {
        Object::<State>::BYTES + if second { capacity } else { 0 }
    }
}

impl<T: Serialize> Mutex<T> {
    /// Writes the value beside the old one and makes it the value. Under the lock.
    fn store(&self, value: &T) -> Result<(), MutexError> {
        let (bytes, capacity) = (codec::encode(value)?, self.capacity()?);
        if bytes.len() > capacity {
            let bytes = bytes.len();
            return Err(MutexError::TooLong { bytes, capacity });
        }
        let second = self.state().current.load(SeqCst) & SECOND == 0;
        let place = self.place(second, capacity);
        self.object.segment().write(place, &bytes)?;
        let which = if second { SECOND } else { 0 };
        self.state()
            .current
            .store(which | bytes.len() as u64, SeqCst);
        Ok(())
    }
}

impl<'a, T: Serialize> MutexGuard<'a, T> {
    /// Says from now on whether a holder has died: since somebody was told, or `before` that.
    pub(super) fn tell(&mut self, before: bool) {
        let died = &self.mutex.state().died;
        let since = died.load(SeqCst) != 0;
        if since {
            died.store(0, SeqCst);
        }
        self.holder_died = since || before;
    }

    /// The mutex, which outlives the guard.
    pub(super) fn mutex_of(&self) -> &'a Mutex<T> {
        self.mutex
    }

    /// Whether one who held the mutex died with it and this is the first guard since (others only
    /// got the value, updated it, or waited for a condition). Its value is as that one found it;
    /// but what else goes with it, a file for instance, may be half-changed.
    #[must_use]
    pub fn holder_died(&self) -> bool {
        self.holder_died
    }

    /// Stores what was changed up to here, for everybody who locks it later: dropping the guard
    /// does so too, but cannot say that it failed.
    ///
    /// # Errors
    ///
    /// [`MutexError::TooLong`], [`MutexError::Encode`], [`MutexError::Memory`]: the value is as
    /// it was when it was locked. [`MutexError::Locked`] in a fork of the holder, which has a copy
    /// of the guard and not the lock.
    pub fn store(&mut self) -> Result<(), MutexError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        self.check_held()?;
        self.mutex.store(&self.value)
    }

    /// A fork of the holder has a copy of the guard and not the lock.
    pub(crate) fn check_held(&self) -> Result<(), MutexError> {
        match self.forks == forks() {
            true => Ok(()),
            false => Err(MutexError::Locked),
        }
    }
}

impl<T: Serialize> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

/// # Panics
///
/// If the changed value cannot be stored: it does not fit (see [`MutexGuard::store`]). Not in a
/// destructor while a panic goes on.
impl<T: Serialize> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // A panic in the middle of a change undoes it; one that went on already, while destructors
        // run, does not. A fork's copy of the guard changes nothing.
        let interrupted = thread::panicking() && !self.panicking;
        if !interrupted
            && let Err(error) = self.store()
            && error != MutexError::Locked
            && !thread::panicking()
        {
            panic!("the changed value was not stored: {error}");
        }
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Mutex {
            object: self.object.clone(),
            _value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("of", &std::any::type_name::<T>())
            .field("holder", &self.holder())
            .finish()
    }
}

impl<T: Serialize + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

pub(super) fn lock_error(error: LockError) -> MutexError {
    match error {
        LockError::Timeout => MutexError::Locked,
        LockError::Deadlock => MutexError::Deadlock,
        LockError::Broken => MutexError::Broken,
    }
}
