//! What one process at a time holds, or so many.

use crate::{LONG, SOON};
use common::process::{self, Process};
use common::shared::Value;
use common::sync::{Event, Mutex, MutexError, Overflow, ReentrantMutex, Semaphore};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use testkit::isolated;

#[test]
fn a_mutex_excludes_other_processes() {
    // S-001, S-002, S-006, S-007. Only who has the guard can release, and once.
    isolated(|| {
        let mutex = Mutex::new(String::from("free")).unwrap();
        assert!(!mutex.is_locked());
        let (holds, go) = (Event::new().unwrap(), Event::new().unwrap());
        fn holder(mutex: Mutex<String>, holds: Event, go: Event) {
            let mut guard = mutex.lock().unwrap();
            holds.set();
            go.wait();
            guard.push_str(", then held");
        }
        let args = (mutex.clone(), holds.clone(), go.clone());
        let child: Process<()> = Process::spawn(holder, args).unwrap();
        holds.wait();
        assert!(mutex.is_locked() && format!("{mutex:?}").contains("holder: Some"));
        assert_eq!(mutex.holder(), Some(child.pid()));
        assert!(matches!(mutex.try_lock(), Err(MutexError::Locked)));
        let start = Instant::now();
        assert!(matches!(mutex.lock_timeout(SOON), Err(MutexError::Locked)));
        assert_eq!(mutex.get_timeout(SOON), Err(MutexError::Locked));
        assert!(start.elapsed() >= 2 * SOON);
        go.set();
        child.join().unwrap();
        let guard = mutex.lock().unwrap();
        assert_eq!(mutex.holder(), Some(nix::unistd::gettid().as_raw() as u32));
        assert_eq!(*guard, "free, then held");
        drop(guard);
        assert_eq!(mutex.get_timeout(SOON).unwrap(), "free, then held");
        assert!(!mutex.is_locked() && mutex.holder().is_none());
    });
}

#[test]
fn the_mutex_of_a_killed_holder_is_handed_on_unchanged() {
    isolated(|| {
        let mutex = Mutex::new(vec![1, 2, 3]).unwrap();
        let theirs = mutex.clone();
        let child: Process<()> = process::fork(move || {
            let mut guard = theirs.lock().unwrap();
            guard.clear();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        })
        .unwrap();
        assert!(child.join().is_err());
        let guard = mutex.lock_timeout(LONG).unwrap();
        assert!(guard.holder_died());
        assert_eq!(*guard, [1, 2, 3]);
        drop(guard);
        assert!(!mutex.lock().unwrap().holder_died());
    });
}

#[test]
fn who_only_asks_for_the_value_does_not_keep_a_death_to_itself() {
    isolated(|| {
        let value = Value::new(1).unwrap();
        let child: Process<()> = process::fork(|| {
            let _guard = value.mutex().lock().unwrap();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        })
        .unwrap();
        assert!(child.join().is_err());
        assert_eq!(value.mutex().get_timeout(LONG), Ok(1));
        assert_eq!(value.get(), Ok(1));
        value.set(2).unwrap();
        assert!(value.mutex().lock().unwrap().holder_died());
        assert!(!value.mutex().lock().unwrap().holder_died());
    });
}

thread_local! {
    static OF_LOOKS: RefCell<Option<Mutex<Looks>>> = const { RefCell::new(None) };
}

/// Looks, when it is dropped, whether the mutex that it was in is locked.
#[derive(Serialize, Deserialize)]
struct Looks;

impl Drop for Looks {
    fn drop(&mut self) {
        OF_LOOKS.with_borrow(|mutex| assert!(!mutex.as_ref().is_some_and(Mutex::is_locked)));
    }
}

#[test]
fn a_copy_of_the_value_is_dropped_without_the_lock() {
    isolated(|| {
        let mutex = Mutex::new(Looks).unwrap();
        OF_LOOKS.set(Some(mutex.clone()));
        drop(mutex.lock().unwrap());
        drop(mutex.get().unwrap());
        OF_LOOKS.set(None);
    });
}

/// Whether another process gets it.
fn is_free(lock: &ReentrantMutex) -> bool {
    let try_lock = |lock: ReentrantMutex| match lock.try_lock() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, MutexError::Locked);
            assert!(lock.is_locked() && lock.lock_timeout(SOON).is_err());
            false
        }
    };
    let child = Process::spawn(try_lock, (lock.clone(),)).unwrap();
    child.join().unwrap()
}

#[test]
fn a_reentrant_mutex_is_held_until_its_last_guard_is_dropped() {
    // S-004; one release too many is ruled out by the guards
    isolated(|| {
        let lock = ReentrantMutex::new().unwrap();
        assert!(!lock.is_locked() && is_free(&lock));
        let first = lock.lock().unwrap();
        let second = lock.try_lock().unwrap();
        let third = lock.lock_timeout(SOON).unwrap();
        let elsewhere = || lock.try_lock().map(drop);
        let other_thread = std::thread::scope(|scope| scope.spawn(elsewhere).join().unwrap());
        assert_eq!(other_thread, Err(MutexError::Locked));
        // In any order.
        for guard in [second, first, third] {
            assert!(lock.is_locked() && !is_free(&lock));
            drop(guard);
        }
        assert!(!lock.is_locked() && is_free(&lock));
    });
}

#[test]
fn a_reentrant_mutex_held_by_a_child_is_locked_here() {
    // S-005
    isolated(|| {
        let lock = ReentrantMutex::new().unwrap();
        let (holds, go) = (Event::new().unwrap(), Event::new().unwrap());
        fn holder(lock: ReentrantMutex, holds: Event, go: Event) {
            let (_first, second) = (lock.lock().unwrap(), lock.lock().unwrap());
            drop(second);
            holds.set();
            go.wait();
        }
        let args = (lock.clone(), holds.clone(), go.clone());
        let child = Process::spawn(holder, args).unwrap();
        holds.wait();
        assert!(lock.is_locked());
        assert_eq!(lock.try_lock().unwrap_err(), MutexError::Locked);
        let start = Instant::now();
        assert_eq!(lock.lock_timeout(SOON).unwrap_err(), MutexError::Locked);
        assert!(start.elapsed() >= SOON);
        go.set();
        assert!(!lock.lock_timeout(LONG).unwrap().holder_died());
        child.join().unwrap();
    });
}

#[test]
fn the_reentrant_mutex_of_a_killed_holder_is_handed_on() {
    isolated(|| {
        let (lock, holds) = (ReentrantMutex::new().unwrap(), Event::new().unwrap());
        fn holder(lock: ReentrantMutex, holds: Event) {
            let _guards = [lock.lock().unwrap(), lock.lock().unwrap()];
            holds.set();
            std::thread::sleep(Duration::MAX);
        }
        let child = Process::spawn(holder, (lock.clone(), holds.clone())).unwrap();
        holds.wait();
        std::thread::scope(|scope| {
            // One sleeps for it already.
            let waiter = scope.spawn(|| lock.lock_timeout(LONG).unwrap().holder_died());
            child.kill().unwrap();
            assert!(waiter.join().unwrap());
        });
        assert!(child.join().is_err());
        // The dead one's two do not count.
        let guard = lock.lock_timeout(LONG).unwrap();
        assert!(!guard.holder_died());
        drop(guard);
        assert!(is_free(&lock));
    });
}

#[test]
fn a_fork_of_the_holder_does_not_unlock() {
    isolated(|| {
        let lock = ReentrantMutex::new().unwrap();
        for guards in [1, 2] {
            // Each process has a copy of these.
            let first = Cell::new(Some(lock.lock().unwrap()));
            let second = Cell::new((guards == 2).then(|| lock.lock().unwrap()));
            let child = process::fork(|| drop((first.take(), second.take()))).unwrap();
            child.join().unwrap();
            assert!(!is_free(&lock));
            drop((first, second));
            assert!(is_free(&lock));
        }
    });
}

#[test]
fn a_fork_of_the_holder_changes_nothing() {
    isolated(|| {
        let mutex = Mutex::new(0).unwrap();
        let mut guard = mutex.lock().unwrap();
        *guard = 1;
        let guard = Cell::new(Some(guard));
        let child = process::fork(|| drop(guard.take())).unwrap();
        child.join().unwrap();
        // The holder undoes its change.
        let panics = || {
            let _guard = guard.take();
            panic!("on purpose");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(*mutex.lock().unwrap(), 0);
    });
}

#[test]
fn what_a_fork_locks_itself_is_not_its_copy_of_the_guards() {
    isolated(|| {
        let (mutex, lock) = (Mutex::new(0).unwrap(), ReentrantMutex::new().unwrap());
        let free = Event::new().unwrap();
        let mut guard = mutex.lock().unwrap();
        *guard = 100;
        let guards = Cell::new(Some((guard, lock.lock().unwrap())));
        let child: Process<()> = process::fork(|| {
            let copies = guards.take();
            assert!(free.wait_timeout(LONG));
            let mut own = mutex.lock_timeout(LONG).unwrap();
            let _own_lock = lock.lock_timeout(LONG).unwrap();
            *own = 5;
            own.store().unwrap();
            drop(copies);
            let me = Some(std::process::id());
            assert_eq!((mutex.holder(), lock.holder()), (me, me));
        })
        .unwrap();
        drop(guards.take());
        free.set();
        child.join().unwrap();
        assert_eq!(mutex.get(), Ok(5));
        assert!(is_free(&lock));
    });
}

#[test]
fn a_destructor_changes_the_value_while_a_panic_goes_on() {
    struct Leaves<'a>(&'a Mutex<Vec<u8>>, usize);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().resize(self.1, 7);
        }
    }
    isolated(|| {
        let mutex = Mutex::with_capacity(vec![7; 3], 100).unwrap();
        // What does not fit is not stored, and a second panic would end the process.
        for (len, then) in [(2, 2), (1000, 2), (1, 1)] {
            let panics = || {
                let _leaves = Leaves(&mutex, len);
                panic!("on purpose");
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
            assert_eq!(mutex.get().unwrap().len(), then);
        }
    });
}

#[test]
fn a_forgotten_guard_keeps_the_lock_mapped() {
    isolated(|| {
        fn forgets() {
            // The C library links this one to the last one that was forgotten.
            let other = Mutex::new(0).unwrap();
            let mutex = Mutex::new(0).unwrap();
            std::mem::forget(mutex.lock().unwrap());
            drop(mutex);
            *other.lock().unwrap() += 1;
            let lock = ReentrantMutex::new().unwrap();
            std::mem::forget(lock.lock().unwrap());
            drop(lock);
            *other.lock().unwrap() += 1;
        }
        // What is forgotten goes with its process.
        Process::spawn(forgets, ()).unwrap().join().unwrap();
    });
}

#[test]
fn who_wants_to_release_what_another_acquired_takes_a_semaphore() {
    // S-003, and the extra release of S-001
    isolated(|| {
        let lock = Semaphore::bounded(1).unwrap();
        lock.acquire().forget();
        assert!(lock.try_acquire().is_none());
        let release = |lock: Semaphore| lock.release(1).unwrap();
        let child = Process::spawn(release, (lock.clone(),)).unwrap();
        child.join().unwrap();
        assert_eq!(lock.available(), 1);
        let (released, bound) = (1, 1);
        assert_eq!(lock.release(1), Err(Overflow { released, bound }));
    });
}

#[test]
fn a_value_too_long_for_the_mutex_is_an_error_and_changes_nothing() {
    let mutex = Mutex::with_capacity(vec![0u8; 10], 100).unwrap();
    let mut guard = mutex.lock().unwrap();
    guard.resize(1000, 7);
    let error = guard.store().unwrap_err();
    assert!(matches!(error, MutexError::TooLong { .. }));
    assert!(format!("{error:?}").contains("with_capacity"), "{error:?}");
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), [0; 10]);
}

#[test]
fn more_room_than_there_can_be_is_an_error() {
    for bytes in [usize::MAX / 2, usize::MAX] {
        assert!(Mutex::with_capacity(0, bytes).is_err());
    }
}

#[test]
fn a_semaphore_counts() {
    // S-008, S-009, S-010. A `try_acquire` has no timeout that could be ignored.
    isolated(|| {
        let (semaphore, bounded) = (Semaphore::new(2).unwrap(), Semaphore::bounded(2).unwrap());
        for semaphore in [&semaphore, &bounded] {
            assert_eq!(semaphore.available(), 2);
            let first = semaphore.acquire();
            assert_eq!(semaphore.available(), 1);
            let second = semaphore.try_acquire().unwrap();
            assert_eq!(semaphore.available(), 0);
            assert!(semaphore.try_acquire().is_none());
            let start = Instant::now();
            assert!(semaphore.acquire_timeout(SOON).is_none());
            assert!(start.elapsed() >= SOON);
            drop((first, second));
            assert_eq!(semaphore.available(), 2);
        }
        for available in [3, 4] {
            semaphore.release(1).unwrap();
            assert_eq!(semaphore.available(), available);
        }
        let error = bounded.release(1).unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
        assert_eq!(bounded.available(), 2);

        let empty = Semaphore::new(0).unwrap();
        let take = |semaphore: Semaphore| semaphore.acquire().forget();
        let waiting: Vec<Process<()>> = (0..3)
            .map(|_| Process::spawn(take, (empty.clone(),)).unwrap())
            .collect();
        empty.release(3).unwrap();
        waiting.iter().for_each(|one| one.join().unwrap());
        assert_eq!(empty.available(), 0);
    });
}

#[test]
fn a_forks_copy_of_a_permit_gives_nothing_back() {
    isolated(|| {
        let semaphore = Semaphore::new(1).unwrap();
        let permit = Cell::new(Some(semaphore.acquire()));
        let child = process::fork(|| {
            drop(permit.take());
            // What it takes itself it gives back.
            semaphore.release(1).unwrap();
            drop(semaphore.acquire());
            semaphore.available()
        });
        assert_eq!(child.unwrap().join(), Ok(1));
        semaphore.acquire().forget();
        assert_eq!(semaphore.available(), 0);
        drop(permit.take());
        assert_eq!(semaphore.available(), 1);
    });
}
