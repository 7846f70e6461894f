//! Things to wait for, in the manager's style: they are the shared-memory ones of this library,
//! which need no manager's process and work where it is busy or gone.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::Manager;
use crate::queue::{JoinableQueue, Queue};
use crate::shm::ShmError;
use crate::sync::{Barrier, Condvar, Event, Mutex, MutexError, ReentrantMutex, Semaphore};

/// Python's `manager.Queue()`: a [`Queue`].
pub type QueueProxy<T> = Queue<T>;

/// Python's `manager.JoinableQueue()`: a [`JoinableQueue`].
pub type JoinableQueueProxy<T> = JoinableQueue<T>;

/// Python's `manager.Lock()`: a [`Mutex`] without a value. One whose holder may die: then the next
/// one gets it, and is told.
///
/// ```
/// use common::Process;
/// use common::manager::{LockProxy, Manager};
///
/// fn hold_and_die(lock: LockProxy) {
///     let _guard = lock.lock();
///     std::process::abort();
/// }
///
/// let lock = Manager::new()?.lock()?;
/// let process = Process::spawn(hold_and_die, (lock.clone(),))?;
/// assert!(process.join().is_err());
/// assert!(lock.lock()?.holder_died());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type LockProxy = Mutex<()>;

/// Python's `manager.RLock()`: a [`ReentrantMutex`].
pub type RLockProxy = ReentrantMutex;

/// Python's `manager.Semaphore()` and `manager.BoundedSemaphore()`: a [`Semaphore`].
pub type SemaphoreProxy = Semaphore;

/// Python's `manager.Condition()`: a [`Condvar`]. The lock that goes with it is a [`LockProxy`],
/// or a [`Mutex`] with what is waited for in it.
///
/// ```
/// use common::Process;
/// use common::manager::{ConditionProxy, ListProxy, LockProxy, Manager};
///
/// fn consume(list: ListProxy<u32>, lock: LockProxy, changed: ConditionProxy) -> Option<u32> {
///     let mut guard = lock.lock().ok()?;
///     while list.is_empty().ok()? {
///         guard = changed.wait(guard).ok()?;
///     }
///     list.pop().ok()?
/// }
///
/// let manager = Manager::new()?;
/// let (list, lock, changed) = (manager.list()?, manager.lock()?, manager.condition()?);
/// let process = Process::spawn(consume, (list.clone(), lock.clone(), changed.clone()))?;
/// {
///     let mut guard = lock.lock()?;
///     list.append(7)?;
///     changed.notify_one(&mut guard)?;
/// }
/// assert_eq!(process.join()?, Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type ConditionProxy = Condvar;

/// Python's `manager.Event()`: an [`Event`].
pub type EventProxy = Event;

/// Python's `manager.Barrier()`: a [`Barrier`].
pub type BarrierProxy = Barrier;

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

    /// A queue that knows which of its messages are done with.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn joinable_queue<T>(&self) -> Result<JoinableQueueProxy<T>, ShmError> {
        JoinableQueue::new()
    }

    /// A lock that nobody holds.
    ///
    /// # Errors
    ///
    /// [`MutexError::Memory`].
    pub fn lock(&self) -> Result<LockProxy, MutexError> {
        Mutex::with_capacity((), 0)
    }

    /// A lock that nobody holds, and that its holder may take again.
    ///
    /// # Errors
    ///
    /// As [`lock`](Manager::lock).
    pub fn rlock(&self) -> Result<RLockProxy, MutexError> {
        ReentrantMutex::new()
    }

    /// A semaphore with so many permits; more may be released than were acquired.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn semaphore(&self, permits: u32) -> Result<SemaphoreProxy, ShmError> {
        Semaphore::new(permits)
    }

    /// A semaphore with so many permits, of which there are never more.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn bounded_semaphore(&self, permits: u32) -> Result<SemaphoreProxy, ShmError> {
        Semaphore::bounded(permits)
    }

    /// A condition that nobody waits for.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn condition(&self) -> Result<ConditionProxy, ShmError> {
        Condvar::new()
    }

    /// An event, not set.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    pub fn event(&self) -> Result<EventProxy, ShmError> {
        Event::new()
    }

    /// A barrier for so many parties.
    ///
    /// # Errors
    ///
    /// As [`queue`](Manager::queue).
    ///
    /// # Panics
    ///
    /// If there are no parties.
    pub fn barrier(&self, parties: u32) -> Result<BarrierProxy, ShmError> {
        Barrier::new(parties)
    }
}
