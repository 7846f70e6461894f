//! Things to wait for, in the manager's style: they are the shared-memory ones of this library,
//! which need no manager's process and work where it is busy or gone.
//!
//! To copy: the folder manager/ and what its mod.rs names, queue/, ring/, sync/, shm/.

use super::Manager;
use crate::deadline::Deadline;
use crate::futex::{self, Spin};
use crate::queue::{JoinableQueue, Queue};
use crate::shm::{Segment, ShmError};
use crate::sync::{LockError, RobustGuard, RobustMutex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Python's `manager.Queue()`: a [`Queue`].
pub type QueueProxy<T> = Queue<T>;

/// Python's `manager.JoinableQueue()`: a [`JoinableQueue`].
pub type JoinableQueueProxy<T> = JoinableQueue<T>;

impl Manager {
    /// A queue without a limit but its memory's.
    ///
    /// # Errors
    ///
    /// [`ShmError`] if there is no shared memory for it.
    pub fn queue<T: ?Sized>(&self) -> Result<QueueProxy<T>, ShmError> {
        Queue::<()>::builder().build()
    }

    /// A queue of at most `items` messages.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn bounded_queue<T: ?Sized>(&self, items: u32) -> Result<QueueProxy<T>, ShmError> {
        Queue::<()>::builder().items(items).build()
    }

    /// A lock.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn lock(&self) -> Result<LockProxy, ShmError> {
        LockProxy::new()
    }

    /// An event, not set.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn event(&self) -> Result<EventProxy, ShmError> {
        EventProxy::new()
    }
}

/// Python's `manager.Lock()`, but one whose holder may die: then the next one gets it.
///
/// ```
/// use common::Process;
/// use common::manager::{LockProxy, Manager};
///
/// fn hold_and_die(lock: LockProxy) {
///     std::mem::forget(lock.lock());
///     std::process::abort();
/// }
///
/// let lock = Manager::new()?.lock()?;
/// let process = Process::spawn(hold_and_die, (lock.clone(),))?;
/// assert!(process.join().is_err());
/// assert!(lock.lock().holder_died());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LockProxy(Segment);

/// Holds a [`LockProxy`]'s lock; unlocks when dropped, by the thread that locked.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard<'a> {
    _guard: RobustGuard<'a>,
    holder_died: bool,
}

static SPIN: Spin = Spin::new();

impl LockProxy {
    fn new() -> Result<Self, ShmError> {
        let segment = Segment::create(size_of::<RobustMutex>())?;
        segment
            .at::<RobustMutex>(0)?
            .init()
            .map_err(|error| ShmError::Invalid {
                name: segment.name().into(),
                reason: error.to_string(),
            })?;
        Ok(LockProxy(segment))
    }

    /// Locks; waits until it can.
    ///
    /// # Panics
    ///
    /// If this thread has it already, or the shared memory has been overwritten.
    pub fn lock(&self) -> LockGuard<'_> {
        match self.lock_until(Deadline::Never) {
            Ok(guard) => guard,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`lock`](LockProxy::lock), for at most `timeout`; `None` if somebody else has it then.
    ///
    /// # Panics
    ///
    /// As [`lock`](LockProxy::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Option<LockGuard<'_>> {
        match self.lock_until(Deadline::after(timeout)) {
            Ok(guard) => Some(guard),
            Err(LockError::Timeout) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn lock_until(&self, deadline: Deadline) -> Result<LockGuard<'_>, LockError> {
        let mutex: &RobustMutex = self.0.at(0).map_err(|_| LockError::Broken)?;
        let mut holder_died = false;
        let _guard = mutex.lock(deadline, &SPIN, || holder_died = true)?;
        Ok(LockGuard {
            _guard,
            holder_died,
        })
    }
}

impl LockGuard<'_> {
    /// Whether the last one who had the lock died with it, perhaps in the middle of something.
    pub fn holder_died(&self) -> bool {
        self.holder_died
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("holder_died", &self.holder_died)
            .finish()
    }
}

/// Python's `manager.Event()`: a flag to wait for.
///
/// ```
/// use common::Process;
/// use common::manager::{EventProxy, Manager};
/// let event = Manager::new()?.event()?;
/// let process = Process::spawn(|event: EventProxy| event.set(), (event.clone(),))?;
/// event.wait();
/// assert!(event.is_set());
/// process.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EventProxy(Segment);

impl EventProxy {
    fn new() -> Result<Self, ShmError> {
        let segment = Segment::create(size_of::<AtomicU32>())?;
        segment.reserve(size_of::<AtomicU32>())?;
        Ok(EventProxy(segment))
    }

    fn word(&self) -> &AtomicU32 {
        // The segment is long enough, aligned, and was reserved: whoever has it has its word.
        match self.0.at(0) {
            Ok(word) => word,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sets it, and wakes all that wait.
    pub fn set(&self) {
        self.word().store(1, Ordering::Release);
        futex::wake(self.word(), u32::MAX);
    }

    /// Makes it not set.
    pub fn clear(&self) {
        self.word().store(0, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.word().load(Ordering::Acquire) != 0
    }

    /// Waits until it is set.
    pub fn wait(&self) {
        self.wait_until(Deadline::Never);
    }

    /// Waits for at most `timeout`; says whether it is set.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        loop {
            if self.is_set() || SPIN.until(|| self.is_set()) {
                return true;
            }
            if deadline.passed() {
                return false;
            }
            futex::wait(self.word(), 0, deadline.remaining());
        }
    }
}

macro_rules! as_segment {
    ($($Proxy:ident)*) => {$(
        impl Serialize for $Proxy {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $Proxy {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let segment = Segment::deserialize(deserializer)?;
                if segment.len() < size_of::<AtomicU32>() {
                    return Err(serde::de::Error::custom("its memory is too small"));
                }
                segment.reserve(segment.len()).map_err(serde::de::Error::custom)?;
                Ok($Proxy(segment))
            }
        }

        impl fmt::Debug for $Proxy {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Proxy), "({})"), self.0.name())
            }
        }
    )*};
}

as_segment!(LockProxy EventProxy);
