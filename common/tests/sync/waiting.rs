//! What processes wait for: events, conditions, barriers.

#![allow(unsafe_code)] // A signal handler.

use crate::{LONG, SOON};
use common::process::{self, Process};
use common::queue::Queue;
use common::shared::Value;
use common::sync::{Barrier, Condvar, Event, Mutex};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use testkit::isolated;

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

/// So many processes, and so many threads of this one, that wait once.
fn waiters(processes: u32, threads: u32) -> (Waiting, Vec<Process<()>>, Vec<JoinHandle<()>>) {
    let waiting = (
        Mutex::new(0).unwrap(),
        Condvar::new().unwrap(),
        Queue::new().unwrap(),
    );
    let process = |me| Process::spawn(wait_once, (waiting.clone(), me)).unwrap();
    let thread = |me| {
        let waiting = waiting.clone();
        thread::spawn(move || wait_once(waiting, me))
    };
    let count = processes + threads;
    let waiters = (
        (0..processes).map(process).collect(),
        (processes..count).map(thread).collect(),
    );
    let start = Instant::now();
    while *waiting.0.lock().unwrap() < count {
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    (waiting, waiters.0, waiters.1)
}

#[test]
fn notify_wakes_as_many_as_it_says() {
    // S-011, S-013, S-014, S-020 (by the types)
    isolated(|| {
        for counts in [&[1, 1, 4][..], &[2, 4], &[6]] {
            let ((mutex, condvar, woken), processes, threads) = waiters(3, 3);
            let notify = |count| {
                let mut guard = mutex.lock().unwrap();
                match count {
                    6 => condvar.notify_all(&mut guard).unwrap(),
                    _ => condvar.notify(&mut guard, count).unwrap(),
                }
            };
            for count in counts {
                notify(*count);
                for _ in 0..*count {
                    woken.get_timeout(LONG).unwrap();
                }
                assert!(woken.get_timeout(SOON).is_err(), "nobody else was woken");
            }
            processes.iter().for_each(|one| one.join().unwrap());
            threads.into_iter().for_each(|one| one.join().unwrap());
            notify(3);
            let guard = mutex.lock().unwrap();
            let (_guard, notified) = condvar.wait_timeout(guard, SOON).unwrap();
            assert!(!notified, "that was for nobody");
        }
    });
}

#[test]
fn a_killed_waiter_takes_no_notification_with_it() {
    isolated(|| {
        let ((mutex, condvar, woken), processes, _) = waiters(2, 0);
        processes[0].kill().unwrap();
        assert!(processes[0].join().is_err());
        condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
        assert_eq!(woken.get_timeout(LONG), Ok(1));
        processes[1].join().unwrap();
    });
}

#[test]
fn the_conditions_of_one_mutex_are_apart() {
    isolated(|| {
        let ((mutex, not_empty, woken), _, threads) = waiters(0, 1);
        let not_full = Condvar::new().unwrap();
        // For nobody: its waiters wait for the other, and look again while this one waits.
        not_full.notify_one(&mut mutex.lock().unwrap()).unwrap();
        let guard = mutex.lock().unwrap();
        let slices = Duration::from_millis(1200);
        let (mut guard, notified) = not_full.wait_timeout(guard, slices).unwrap();
        assert!(!notified && woken.is_empty());
        not_empty.notify_one(&mut guard).unwrap();
        // Whoever waits for the other one takes nothing from it.
        let (guard, notified) = not_full.wait_timeout(guard, SOON).unwrap();
        assert!(!notified);
        drop(guard);
        assert_eq!(woken.get_timeout(LONG), Ok(0));
        threads.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn an_interrupted_wait_leaves_the_condition_usable() {
    // S-019. By default SIGINT ends the process; where a handler takes it, the handler is told and
    // the wait goes on: a signal is no notification.
    isolated(|| {
        extern "C" fn take(_: i32) {
            TAKEN.fetch_add(1, SeqCst);
        }
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let ((mutex, condvar, woken), processes, _) = waiters(1, 0);
        processes[0].interrupt().unwrap();
        assert!(
            processes[0]
                .join_timeout(LONG)
                .is_some_and(|ended| ended.is_err())
        );
        assert_eq!(processes[0].exit_code(), Some(-2));
        let (told, waiting) = (
            Queue::new().unwrap(),
            (mutex.clone(), condvar.clone(), woken.clone()),
        );
        let theirs = told.clone();
        let child: Process<u32> = process::fork(move || {
            use nix::sys::signal::{SigHandler, Signal, signal};
            // SAFETY: the handler adds to an atomic, no more.
            unsafe { signal(Signal::SIGINT, SigHandler::Handler(take)) }.unwrap();
            theirs.put(()).unwrap();
            wait_once(waiting, 7);
            TAKEN.load(SeqCst)
        })
        .unwrap();
        told.get_timeout(LONG).unwrap();
        let start = Instant::now();
        while *mutex.lock().unwrap() < 2 {
            assert!(start.elapsed() < LONG);
        }
        child.interrupt().unwrap();
        assert!(woken.get_timeout(SOON).is_err(), "it waits on");
        condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
        assert_eq!(woken.get_timeout(LONG), Ok(7));
        assert_eq!(child.join().unwrap(), 1);
    });
}

#[test]
fn a_forks_copy_of_the_guard_neither_notifies_nor_waits() {
    isolated(|| {
        let (mutex, condvar) = (Mutex::new(0).unwrap(), Condvar::new().unwrap());
        fn waits(mutex: Mutex<u32>, condvar: Condvar) -> bool {
            let mut guard = mutex.lock().unwrap();
            *guard = 1;
            condvar.wait_timeout(guard, LONG).unwrap().1
        }
        let waiter = Process::spawn(waits, (mutex.clone(), condvar.clone())).unwrap();
        let guard = loop {
            let guard = mutex.lock().unwrap();
            if *guard == 1 {
                break guard;
            }
            drop(guard);
            thread::yield_now();
        };
        let guard = Cell::new(Some(guard));
        let child = process::fork(|| {
            let mut copy = guard.take().unwrap();
            let notified = condvar.notify_all(&mut copy);
            (notified.is_err(), condvar.wait_timeout(copy, SOON).is_err())
        });
        assert_eq!(child.unwrap().join(), Ok((true, true)));
        condvar.notify_all(guard.take().as_mut().unwrap()).unwrap();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn waits_end_in_time() {
    // S-012, S-015, S-017, S-018
    isolated(|| {
        /// Whether it was notified; if not, its time was over.
        fn wait(mutex: Mutex<u32>, condvar: Condvar, time: Duration) -> bool {
            let start = Instant::now();
            let mut guard = mutex.lock().unwrap();
            *guard += 1;
            let (_guard, notified) = condvar.wait_timeout(guard, time).unwrap();
            assert!(notified || start.elapsed() >= time);
            notified
        }
        let (mutex, condvar) = (Mutex::new(0).unwrap(), Condvar::new().unwrap());
        let args = |time| (mutex.clone(), condvar.clone(), time);
        let processes = [SOON; 3].map(|time| Process::spawn(wait, args(time)).unwrap());
        thread::scope(|scope| {
            let (mutex, condvar) = (&mutex, &condvar);
            let wait = move || wait(mutex.clone(), condvar.clone(), SOON);
            let threads = [0; 3].map(|_| scope.spawn(wait));
            assert!(threads.into_iter().all(|one| !one.join().unwrap()));
        });
        assert!(processes.iter().all(|one| !one.join().unwrap()));
        // Those who have gone are not waited for, and take nothing.
        let waiter = Process::spawn(wait, args(LONG)).unwrap();
        let start = Instant::now();
        while *mutex.lock().unwrap() < 7 {
            assert!(start.elapsed() < LONG);
        }
        condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
        assert!(waiter.join().unwrap());

        let (guard, notified) = condvar
            .wait_timeout(mutex.lock().unwrap(), Duration::ZERO)
            .unwrap();
        assert!(!notified);
        thread::scope(|scope| {
            // It gets the lock once this one waits.
            scope.spawn(|| {
                for _ in 0..3 {
                    condvar.notify_one(&mut mutex.lock().unwrap()).unwrap();
                }
            });
            let start = Instant::now();
            let waited = condvar.wait_while_timeout(guard, |_| true, SOON * 2);
            assert!(!waited.unwrap().1 && start.elapsed() >= SOON * 2);
        });
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
            for phase in 0..1000 {
                let index = barrier.wait_timeout(LONG).unwrap().index;
                log.put((phase, index)).unwrap();
                barrier.wait_timeout(LONG).unwrap();
            }
        }
        let (barrier, log) = (Barrier::new(5).unwrap(), Queue::new().unwrap());
        let parties: Vec<Process<()>> = (0..5)
            .map(|_| Process::spawn(party, (barrier.clone(), log.clone())).unwrap())
            .collect();
        for phase in 0..1000 {
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
fn a_barriers_action_is_done_once_before_anybody_passes() {
    // S-024
    isolated(|| {
        fn party(barrier: Barrier, done: Value<u32>) {
            for round in 1..=50 {
                let act = || done.update(|times| *times += 1).unwrap();
                barrier.wait_with(act).unwrap();
                assert_eq!(done.get(), Ok(round));
                barrier.wait_timeout(LONG).unwrap();
            }
        }
        let (barrier, done) = (Barrier::new(5).unwrap(), Value::new(0).unwrap());
        let args = || (barrier.clone(), done.clone());
        let parties = [0; 5].map(|_| Process::<()>::spawn(party, args()).unwrap());
        parties.iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn a_barrier_breaks_and_is_mended() {
    // S-025, S-026, S-027, S-028, S-030; S-029: a barrier has no time of its own, and the
    // first party whose time is up breaks it for those that wait without one.
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
        let error = barrier.wait().unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
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
fn a_long_action_does_not_hold_up_who_has_a_timeout() {
    isolated(|| {
        let barrier = Barrier::new(2).unwrap();
        let (acts, go) = (Event::new().unwrap(), Event::new().unwrap());
        thread::scope(|scope| {
            let first = scope.spawn(|| barrier.wait());
            let leader = scope.spawn(|| {
                while barrier.waiting() == 0 {
                    thread::yield_now();
                }
                let act = || {
                    acts.set();
                    assert!(go.wait_timeout(LONG));
                };
                barrier.wait_with_timeout(act, LONG)
            });
            acts.wait();
            let start = Instant::now();
            assert!(barrier.wait_timeout(SOON).is_err());
            assert!((SOON..LONG / 2).contains(&start.elapsed()));
            // So it is broken for all.
            go.set();
            assert!(first.join().unwrap().is_err() && leader.join().unwrap().is_err());
        });
        assert!(barrier.is_broken());
        barrier.reset();
        assert!(!barrier.is_broken());
    });
}

#[test]
fn an_abort_does_not_wait_for_an_action() {
    isolated(|| {
        let barrier = Barrier::new(1).unwrap();
        let (acts, go) = (Event::new().unwrap(), Event::new().unwrap());
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let act = || {
                    acts.set();
                    assert!(go.wait_timeout(LONG));
                };
                barrier.wait_with(act)
            });
            acts.wait();
            let start = Instant::now();
            barrier.abort();
            assert!(barrier.is_broken() && start.elapsed() < LONG / 2);
            go.set();
            assert!(leader.join().unwrap().is_err());
        });
        assert!(barrier.is_broken());
    });
}

#[test]
fn a_leader_killed_in_its_action_takes_nobodys_place() {
    isolated(|| {
        let barrier = Barrier::new(1).unwrap();
        let die = || nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        let child: Process<()> = process::fork(|| {
            let _ = barrier.wait_with(die);
        })
        .unwrap();
        assert!(child.join().is_err());
        assert_eq!(barrier.waiting(), 0);
        let passed = barrier.wait_timeout(LONG).unwrap();
        assert_eq!((passed.index, passed.is_leader()), (0, true));
    });
}

#[test]
fn an_action_can_abort() {
    let barrier = Barrier::new(1).unwrap();
    for act in [Barrier::abort, Barrier::reset] {
        assert!(barrier.wait_with(|| act(&barrier)).is_err());
        assert!(barrier.is_broken());
        barrier.reset();
        assert!(barrier.wait().is_ok());
    }
}
