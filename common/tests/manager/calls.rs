//! Calls, from one process and from many.

use crate::kill;
use common::Process;
use common::codec::{decode, encode};
use common::manager::{CallError, EventProxy, Hosted, ListProxy, Manager, Proxy, transaction};
use common::process;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use testkit::isolated;

const SOON: Duration = Duration::from_millis(50);

fn add(n: &mut u64, by: u64) -> u64 {
    *n += by;
    *n
}

fn get(n: &mut u64) -> u64 {
    *n
}

fn add_many(counter: Proxy<u64>, times: u64) {
    for _ in 0..times {
        counter.call(add, (1,)).unwrap();
    }
}

#[test]
fn a_value_is_shared_by_many_processes() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let counter = manager.host(0u64).unwrap();
        let processes: Vec<_> = (0..4)
            .map(|_| Process::spawn(add_many, (counter.clone(), 500)).unwrap())
            .collect();
        add_many(counter.clone(), 500);
        for process in processes {
            process.join().unwrap();
        }
        assert_eq!(counter.call(get, ()).unwrap(), 2500);
        assert_eq!(manager.count().unwrap(), 1);
    });
}

#[test]
fn fifty_processes_call_at_once() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let counter = manager.host(0u64).unwrap();
        let processes: Vec<_> = (0..50)
            .map(|_| Process::spawn(add_many, (counter.clone(), 100)).unwrap())
            .collect();
        for process in processes {
            process.join().unwrap();
        }
        assert_eq!(counter.call(get, ()).unwrap(), 5000);
    });
}

#[test]
fn threads_share_a_connection() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let counter = manager.host(0u64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| add_many(counter.clone(), 1000));
            }
        });
        assert_eq!(counter.call(get, ()).unwrap(), 6000);
    });
}

// G-029
#[test]
fn five_processes_append_their_index() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        let append = |list: ListProxy<u32>, i: u32| {
            list.append(i).unwrap();
            list.snapshot().unwrap()
        };
        let processes: Vec<_> = (0..5)
            .map(|i| Process::spawn(append, (list.clone(), i)).unwrap())
            .collect();
        let seen: Vec<Vec<u32>> = processes.iter().map(|p| p.join().unwrap()).collect();
        let mut last = list.snapshot().unwrap();
        for (i, seen) in seen.iter().enumerate() {
            assert!(seen.contains(&(i as u32)));
            assert_eq!(*seen, last[..seen.len()]);
        }
        last.sort();
        assert_eq!(last, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn many_calls_are_in_flight() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list: Proxy<Vec<u32>> = manager.host(Vec::new()).unwrap();
        let push = |list: &mut Vec<u32>, i: u32| {
            list.push(i);
            list.len()
        };
        let calls: Vec<_> = (0..20_000).map(|i| list.call_async(push, (i,))).collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.wait().unwrap(), i + 1);
        }
        let calls: Vec<_> = (0..20_000).map(|i| list.call_async(push, (i,))).collect();
        let all = futures::executor::block_on(futures::future::try_join_all(calls)).unwrap();
        assert_eq!(all.last(), Some(&40_000));
        // Dropped calls are made all the same.
        for i in 0..1000 {
            drop(list.call_async(push, (i,)));
        }
        assert_eq!(list.call(push, (0,)).unwrap(), 41_001);
    });
}

#[test]
fn futures_and_threads_wait_side_by_side() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let counter = manager.host(0u64).unwrap();
        let slow = |n: &mut u64| {
            std::thread::sleep(Duration::from_millis(2));
            *n += 1;
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| add_many(counter.clone(), 200));
                scope.spawn(|| {
                    for _ in 0..20 {
                        let calls = (0..5).map(|_| counter.call_async(slow, ()));
                        let all = futures::future::try_join_all(calls);
                        futures::executor::block_on(all).unwrap();
                    }
                });
            }
        });
        assert_eq!(counter.call(get, ()).unwrap(), 600);
    });
}

#[test]
fn large_values_pass() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let bytes = manager.host(serde_bytes::ByteBuf::new()).unwrap();
        let fill = |bytes: &mut serde_bytes::ByteBuf, len: usize| {
            bytes.resize(len, 7);
            bytes.clone()
        };
        for len in [0, 1, 262_000, 262_144, 300_000, 100 << 20] {
            let back = bytes.call(fill, (len,)).unwrap();
            assert_eq!(back.len(), len);
            assert!(back.iter().all(|&byte| byte == 7));
            let set = |bytes: &mut serde_bytes::ByteBuf, new: serde_bytes::ByteBuf| {
                *bytes = new;
                bytes.len()
            };
            assert_eq!(bytes.call(set, (back,)).unwrap(), len);
        }
    });
}

#[test]
fn a_panic_poisons_until_cleared() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (value, other) = (manager.host(5u64).unwrap(), manager.host(6u64).unwrap());
        let fail = |n: &mut u64| -> u64 {
            *n = 9;
            panic!("boom {n}")
        };
        match value.call(fail, ()) {
            Err(CallError::Panicked(panic)) => {
                assert_eq!(panic.message, "boom 9");
                assert!(panic.location.unwrap().contains("calls.rs"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(value.call(get, ()), Err(CallError::Poisoned(_))));
        assert!(value.is_poisoned().unwrap());
        assert_eq!(other.call(get, ()).unwrap(), 6);
        value.clear_poison().unwrap();
        assert_eq!(value.call(get, ()).unwrap(), 9);
        // A transaction poisons all that took part.
        let fail = |_: &mut u64, _: &mut u64| -> () { panic!("both") };
        let error = transaction((&value, &other), fail, ()).unwrap_err();
        assert!(matches!(error, CallError::Panicked(_)));
        assert!(value.is_poisoned().unwrap() && other.is_poisoned().unwrap());
    });
}

#[test]
fn transactions_exclude_each_other() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (a, b) = (manager.host(1000i64).unwrap(), manager.host(0i64).unwrap());
        fn swap(a: &mut i64, b: &mut i64) -> i64 {
            std::mem::swap(a, b);
            *a + *b
        }
        let work = |a: Proxy<i64>, b: Proxy<i64>| {
            for _ in 0..300 {
                assert_eq!(transaction((&a, &b), swap, ()).unwrap(), 1000);
            }
        };
        let process = Process::spawn(work, (a.clone(), b.clone())).unwrap();
        work(b.clone(), a.clone());
        process.join().unwrap();
        let wrong: Proxy<String> = decode(&encode(&b).unwrap()).unwrap();
        let of_two = |_: &mut i64, _: &mut String| ();
        let error = transaction((&a, &wrong), of_two, ()).unwrap_err();
        let expected = "the value is a `i64`, not a `alloc::string::String`";
        assert_eq!(error.to_string(), expected);
        let twice = transaction((&a, &a), swap, ()).unwrap_err();
        assert_eq!(twice, CallError::Busy);
        let stranger = Manager::new().unwrap();
        let c = stranger.host(0i64).unwrap();
        assert_eq!(transaction((&a, &c), swap, ()), Err(CallError::Foreign));
        assert_eq!(manager.publish("c", &c), Err(CallError::Foreign));
        assert_eq!(transaction((&a, &b), swap, ()).unwrap(), 1000);
    });
}

#[test]
fn a_slow_call_does_not_hold_others_beyond_their_timeout() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (slow, value) = (manager.host(0u64).unwrap(), manager.host(0u64).unwrap());
        let (started, go) = (manager.event().unwrap(), manager.event().unwrap());
        let wait = |_: &mut u64, started: EventProxy, go: EventProxy| {
            started.set();
            go.wait();
        };
        let waiting = slow.call_async(wait, (started.clone(), go.clone()));
        started.wait();
        let late = value.call_timeout(add, (1,), SOON);
        assert!(matches!(late, Err(CallError::Timeout { .. })));
        go.set();
        waiting.wait().unwrap();
        // The late one ran.
        assert_eq!(value.call(get, ()).unwrap(), 1);

        started.clear();
        let sleep = |_: &mut u64, started: EventProxy| {
            started.set();
            std::thread::sleep(Duration::from_secs(10));
        };
        let sleeping = slow.call_async(sleep, (started.clone(),));
        started.wait();
        let start = Instant::now();
        for _ in 0..3 {
            let late = value.call_timeout(add, (1,), SOON);
            assert!(matches!(late, Err(CallError::Timeout { .. })));
        }
        // One that has yet to connect, which nobody answers either.
        let call = |value: Proxy<u64>| {
            let start = Instant::now();
            let late = value.call_timeout(add, (1,), SOON);
            assert!(matches!(late, Err(CallError::Timeout { .. })));
            start.elapsed()
        };
        let process = Process::spawn(call, (value.clone(),)).unwrap();
        assert!(process.join().unwrap() < Duration::from_secs(1));
        assert!(start.elapsed() < Duration::from_secs(5));
        kill(manager.pid().unwrap());
        assert!(matches!(
            sleeping.wait(),
            Err(CallError::Disconnected { .. })
        ));
        assert!(start.elapsed() < Duration::from_secs(5), "it still slept");
    });
}

#[test]
fn a_limit_holds_for_whatever_waits_for_the_manager() {
    fn is_late<T>(result: Result<T, CallError>) {
        let error = result.map(drop).unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }
    isolated(|| {
        let mut manager = Manager::new().unwrap();
        let list = manager.list_of([1, 2]).unwrap();
        let number = manager.host(0u64).unwrap();
        let pool = manager.pool(1).unwrap();
        manager.publish("list", &list).unwrap();
        manager.set_timeout(Duration::from_secs(60));
        let found: ListProxy<i32> = manager.get("list").unwrap().unwrap();
        assert_eq!(found.len().unwrap(), 2);
        manager.set_timeout(SOON);
        let start = Instant::now();
        let hasty = pool.with_timeout(SOON);
        is_late(hasty.apply(|| std::thread::sleep(Duration::MAX), ()));
        is_late(hasty.map(|n: u32| n, [1, 2]));
        let made: Proxy<u64> = manager.host(0u64).unwrap();

        let pid = Pid::from_raw(manager.pid().unwrap().cast_signed());
        signal::kill(pid, Signal::SIGSTOP).unwrap();
        let hasty = list.with_timeout(SOON);
        is_late(hasty.clone().append(3));
        is_late(hasty.proxy().is_poisoned());
        let step = |n: &mut u64, _: &mut Vec<i32>| *n += 1;
        is_late(transaction((&number, &hasty), step, ()));
        is_late(made.call(get, ()));
        is_late(manager.host(0u64));
        is_late(manager.get::<ListProxy<i32>>("list"));
        is_late(manager.publish("again", &list));
        is_late(manager.withdraw("list"));
        is_late(manager.count());
        assert!(start.elapsed() < Duration::from_secs(5));
        signal::kill(pid, Signal::SIGCONT).unwrap();
        // They came too late, and were done.
        assert_eq!(list.len().unwrap(), 3);
        assert_eq!(number.call(get, ()).unwrap(), 1);
    });
}

#[test]
fn the_time_limit_of_a_call_bounds_connecting_as_well() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let pid = Pid::from_raw(manager.pid().unwrap().cast_signed());
        signal::kill(pid, Signal::SIGSTOP).unwrap();
        // A fork has to connect anew.
        let call = || {
            let start = Instant::now();
            let late = value.call_timeout(get, (), Duration::from_millis(1));
            assert!(matches!(late, Err(CallError::Timeout { .. })));
            start.elapsed()
        };
        let calls = (0..5).map(|_| process::fork(call).unwrap().join().unwrap());
        let fastest = calls.min().unwrap();
        signal::kill(pid, Signal::SIGCONT).unwrap();
        assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    });
}
