//! Locks, signals and shared values between processes.

use common::process::{self, Process};
use common::queue::Queue;
use common::shared::{Array, ArrayError, Value};
use common::sync::{
    Barrier, Condvar, Event, Mutex, MutexError, Overflow, ReentrantMutex, Semaphore,
};
use std::cell::Cell;
use std::time::{Duration, Instant};
use testkit::isolated;

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_mutex_excludes_other_processes() {
    // S-001, S-002, S-006, S-007
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
        assert!(mutex.is_locked());
        assert!(matches!(mutex.try_lock(), Err(MutexError::Locked)));
        let start = Instant::now();
        assert!(matches!(mutex.lock_timeout(SOON), Err(MutexError::Locked)));
        assert!(start.elapsed() >= SOON);
        go.set();
        child.join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), "free, then held");
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
    assert!(matches!(guard.store(), Err(MutexError::TooLong { .. })));
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), [0; 10]);
}

#[test]
fn a_semaphore_counts() {
    // S-008, S-009, S-010
    isolated(|| {
        let semaphore = Semaphore::new(2).unwrap();
        let (first, second) = (semaphore.acquire(), semaphore.acquire());
        assert_eq!(semaphore.available(), 0);
        assert!(semaphore.try_acquire().is_none());
        assert!(semaphore.acquire_timeout(SOON).is_none());
        drop((first, second));
        semaphore.release(2).unwrap();
        assert_eq!(semaphore.available(), 4);
        let bounded = Semaphore::bounded(2).unwrap();
        assert!(bounded.release(1).is_err());
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
fn an_event_is_waited_for() {
    // S-021
    isolated(|| {
        let event = Event::new().unwrap();
        assert!(!event.wait_timeout(Duration::ZERO) && !event.wait_timeout(SOON));
        let set = |event: Event| {
            std::thread::sleep(SOON);
            event.set();
        };
        let child: Process<()> = Process::spawn(set, (event.clone(),)).unwrap();
        event.wait();
        assert!(event.wait_timeout(Duration::ZERO));
        child.join().unwrap();
        event.clear();
        assert!(!event.is_set());
    });
}

type Waiting = (Mutex<u32>, Condvar, Queue<u32>);

/// Waits once; counts itself in the mutex first, so that the test knows that it waits.
fn wait_once((mutex, condvar, woken): Waiting, me: u32) {
    let mut guard = mutex.lock().unwrap();
    *guard += 1;
    drop(condvar.wait(guard).unwrap());
    woken.put(me).unwrap();
}

fn waiters(count: u32) -> (Waiting, Vec<Process<()>>) {
    let waiting = (
        Mutex::new(0).unwrap(),
        Condvar::new().unwrap(),
        Queue::new().unwrap(),
    );
    let processes = (0..count)
        .map(|me| Process::spawn(wait_once, (waiting.clone(), me)).unwrap())
        .collect();
    let start = Instant::now();
    while *waiting.0.lock().unwrap() < count {
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    (waiting, processes)
}

#[test]
fn notify_wakes_as_many_as_it_says() {
    // S-011, S-013, S-014, S-020 (by the types)
    isolated(|| {
        let ((mutex, condvar, woken), processes) = waiters(6);
        let notify = |count| condvar.notify(&mut mutex.lock().unwrap(), count).unwrap();
        notify(1);
        woken.get_timeout(LONG).unwrap();
        notify(2);
        woken.get_timeout(LONG).unwrap();
        woken.get_timeout(LONG).unwrap();
        assert!(woken.get_timeout(SOON).is_err(), "nobody else was woken");
        notify(u32::MAX);
        for _ in 0..3 {
            woken.get_timeout(LONG).unwrap();
        }
        processes.iter().for_each(|one| one.join().unwrap());
        notify(3);
        let guard = mutex.lock().unwrap();
        let (_guard, notified) = condvar.wait_timeout(guard, SOON).unwrap();
        assert!(!notified, "that was for nobody");
    });
}

#[test]
fn a_killed_waiter_takes_no_notification_with_it() {
    isolated(|| {
        let ((mutex, condvar, woken), processes) = waiters(2);
        processes[0].kill().unwrap();
        assert!(processes[0].join().is_err());
        condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
        assert_eq!(woken.get_timeout(LONG), Ok(1));
        processes[1].join().unwrap();
    });
}

#[test]
fn waits_end_in_time() {
    // S-012, S-015, S-017, S-018
    isolated(|| {
        let (mutex, condvar) = (Mutex::new(0).unwrap(), Condvar::new().unwrap());
        let start = Instant::now();
        let (guard, notified) = condvar.wait_timeout(mutex.lock().unwrap(), SOON).unwrap();
        assert!(!notified && start.elapsed() >= SOON);
        let (guard, notified) = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
        assert!(!notified);
        let start = Instant::now();
        let (guard, ended) = condvar
            .wait_while_timeout(guard, |_| true, SOON * 2)
            .unwrap();
        assert!(!ended && start.elapsed() >= SOON * 2);
        drop(guard);
    });
}

#[test]
fn waiting_for_a_condition_both_ways() {
    // S-016
    isolated(|| {
        fn counter(mutex: Mutex<u32>, condvar: Condvar) {
            let guard = mutex.lock().unwrap();
            let mut guard = condvar.wait_while(guard, |n| *n < 5).unwrap();
            *guard = 100;
            condvar.notify_all(&mut guard).unwrap();
        }
        let (mutex, condvar) = (Mutex::new(0).unwrap(), Condvar::new().unwrap());
        let args = (mutex.clone(), condvar.clone());
        let child: Process<()> = Process::spawn(counter, args).unwrap();
        for _ in 0..5 {
            let mut guard = mutex.lock().unwrap();
            *guard += 1;
            condvar.notify_one(&mut guard).unwrap();
        }
        let guard = condvar
            .wait_while(mutex.lock().unwrap(), |n| *n != 100)
            .unwrap();
        drop(guard);
        child.join().unwrap();
    });
}

#[test]
fn a_barrier_keeps_in_step() {
    // S-022, S-023, S-031, S-032
    isolated(|| {
        fn party(barrier: Barrier, log: Queue<(u32, u32)>) {
            for phase in 0..50 {
                let index = barrier.wait_timeout(LONG).unwrap().index;
                log.put((phase, index)).unwrap();
                barrier.wait_timeout(LONG).unwrap();
            }
        }
        let (barrier, log) = (Barrier::new(5).unwrap(), Queue::new().unwrap());
        let parties: Vec<Process<()>> = (0..5)
            .map(|_| Process::spawn(party, (barrier.clone(), log.clone())).unwrap())
            .collect();
        for phase in 0..50 {
            let mut came: Vec<(u32, u32)> =
                (0..5).map(|_| log.get_timeout(LONG).unwrap()).collect();
            came.sort_unstable();
            assert_eq!(came, (0..5).map(|index| (phase, index)).collect::<Vec<_>>());
        }
        parties.iter().for_each(|one| one.join().unwrap());
        assert_eq!((barrier.waiting(), barrier.is_broken()), (0, false));
        assert_eq!(barrier.parties(), 5);
    });
}

#[test]
fn a_barrier_breaks_and_is_mended() {
    // S-024, S-025, S-026, S-027, S-028, S-030
    isolated(|| {
        fn party(barrier: Barrier) -> bool {
            barrier.wait().is_ok()
        }
        let parties = |barrier: &Barrier, count| -> Vec<Process<bool>> {
            let parties = (0..count)
                .map(|_| Process::spawn(party, (barrier.clone(),)).unwrap())
                .collect();
            let start = Instant::now();
            while barrier.waiting() < count {
                assert!(start.elapsed() < LONG);
                std::thread::sleep(Duration::from_millis(1));
            }
            parties
        };
        let all = |parties: Vec<Process<bool>>, good| {
            parties.iter().all(|one| one.join().unwrap() == good)
        };
        let barrier = Barrier::new(3).unwrap();
        let waiting = parties(&barrier, 2);
        barrier.abort();
        assert!(all(waiting, false) && barrier.is_broken());
        assert!(barrier.wait().is_err());
        barrier.reset();
        let waiting = parties(&barrier, 2);
        barrier.reset();
        assert!(all(waiting, false) && !barrier.is_broken());
        let waiting = parties(&barrier, 2);
        let mut acted = 0;
        let passed = barrier.wait_with(|| acted += 1).unwrap();
        assert!(passed.is_leader() && acted == 1 && all(waiting, true));
        let waiting = parties(&barrier, 1);
        assert!(barrier.wait_timeout(SOON).is_err() && all(waiting, false));

        let alone = Barrier::new(1).unwrap();
        for _ in 0..3 {
            alone.wait().unwrap();
        }
        assert!(alone.wait_with(|| panic!("the action fails")).is_err());
        assert!(alone.is_broken());
    });
}

#[test]
fn values_are_shared() {
    // V-001, V-003, V-008, V-009, V-012
    isolated(|| {
        fn change(number: Value<i64>, pair: Value<(f64, char)>, counter: Value<u32>) {
            number.set(-7).unwrap();
            pair.update(|(float, letter)| (*float, *letter) = (*float * 2.0, 'z'))
                .unwrap();
            for _ in 0..2000 {
                counter.update(|n| *n += 1).unwrap();
            }
        }
        let (number, pair) = (Value::new(5).unwrap(), Value::new((1.5, 'a')).unwrap());
        let counter = Value::new(0).unwrap();
        let copy = pair.get().unwrap();
        let children: Vec<Process<()>> = (0..4)
            .map(|_| {
                let args = (number.clone(), pair.clone(), counter.clone());
                Process::spawn(change, args).unwrap()
            })
            .collect();
        children.iter().for_each(|one| one.join().unwrap());
        assert_eq!(number.get(), Ok(-7));
        assert_eq!(pair.get(), Ok((24.0, 'z')));
        assert_eq!(copy, (1.5, 'a'));
        assert_eq!(counter.get(), Ok(8000));
    });
}

#[test]
fn arrays_are_shared() {
    // V-004, V-005, V-007, V-008
    isolated(|| {
        fn sums(array: Array<i32>) {
            let guard = array.lock().unwrap();
            for index in 1..array.len() {
                let sum = guard.get(index).unwrap() + guard.get(index - 1).unwrap();
                guard.write(index, &[sum]).unwrap();
            }
        }
        let array = Array::new(&[1, 2, 3, 4, 5]).unwrap();
        Process::<()>::spawn(sums, (array.clone(),))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(array.read(0..5).unwrap(), [1, 3, 6, 10, 15]);
        array.write(1, &[0, 0]).unwrap();
        assert_eq!(array.read(0..4).unwrap(), [1, 0, 0, 10]);
        assert!(matches!(array.get(5), Err(ArrayError::OutOfRange { .. })));
        assert!(matches!(
            array.write(4, &[1, 2]),
            Err(ArrayError::OutOfRange { .. })
        ));
        for _ in 0..3 {
            let zeroes = Array::<f64>::zeroed(1000).unwrap();
            assert_eq!(zeroes.read(0..1000).unwrap(), vec![0.0; 1000]);
            zeroes.write(0, &vec![1.0; 1000]).unwrap();
        }
        let texts = Array::new(&["ab".to_string(), "cd".to_string()]).unwrap();
        assert!(matches!(
            texts.set(0, "long".into()),
            Err(ArrayError::Uneven { .. })
        ));
    });
}
