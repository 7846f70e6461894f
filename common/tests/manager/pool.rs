//! A pool in the manager, and its clients.

use crate::{eventually, is_alive, kill, workers};
use common::Process;
use common::manager::{CallError, Hosted, ListProxy, Manager, PoolProxy, Proxy};
use common::pool::{Pool, TaskError};
use common::queue::Queue;
use common::sync::Event;
use std::time::{Duration, Instant};
use testkit::{isolated, soak};

const LONG: Duration = Duration::from_secs(30);

fn square(x: u64) -> u64 {
    x * x
}

fn add(n: &mut u64, by: u64) -> u64 {
    *n += by;
    *n
}

fn never(started: Event) {
    started.set();
    std::thread::sleep(Duration::MAX);
}

// G-021
#[test]
fn a_pool_is_used_by_children() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(2).unwrap();
        let client = |pool: PoolProxy| {
            assert_eq!(pool.apply(square, (5,)).unwrap(), Ok(25));
            let squares = pool.map(square, 0..1000).unwrap().unwrap();
            assert_eq!(squares, (0..1000).map(square).collect::<Vec<_>>());
            std::process::id()
        };
        let children: Vec<_> = (0..3)
            .map(|_| Process::spawn(client, (pool.clone(),)).unwrap())
            .collect();
        let pid = pool.apply(std::process::id, ()).unwrap().unwrap();
        assert!(workers(&pool).contains(&pid));
        for child in children {
            assert_ne!(child.join().unwrap(), pid);
        }
        // In any order, awaited or not.
        let calls: Vec<_> = (0..2000).map(|i| pool.apply_async(square, (i,))).collect();
        for (i, call) in calls.into_iter().enumerate().rev() {
            assert_eq!(call.wait().unwrap(), Ok(square(i as u64)));
        }
        let calls = (0..100).map(|i| pool.apply_async(square, (i,)));
        let all = futures::executor::block_on(futures::future::try_join_all(calls)).unwrap();
        assert_eq!(all[99], Ok(99 * 99));
        assert_eq!(pool.map(square, []).unwrap(), Ok(vec![]));
        // It ends with its last proxy.
        let pids = workers(&pool);
        assert_eq!(pids.len(), 2);
        drop(pool);
        assert_eq!(manager.count().unwrap(), 0);
        eventually("the workers have ended", || {
            !pids.iter().any(|&pid| is_alive(pid))
        });
    });
}

#[test]
fn a_slow_task_holds_up_neither_the_manager_nor_other_tasks() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(2).unwrap();
        let value = manager.host(0u64).unwrap();
        let started = Event::new().unwrap();
        let slow = pool.apply_async(never, (started.clone(),));
        assert!(started.wait_timeout(LONG));
        for i in 1..=100 {
            assert_eq!(value.call(add, (1,)).unwrap(), i);
            assert_eq!(pool.apply(square, (i,)).unwrap(), Ok(i * i));
        }
        let start = Instant::now();
        let late = slow.wait_timeout(Duration::from_millis(20));
        assert!(matches!(late, Err(CallError::Timeout { .. })));
        assert!(start.elapsed() < Duration::from_secs(5));
        // What still runs is cancelled with the pool.
        started.clear();
        let slow = pool.apply_async(never, (started.clone(),));
        assert!(started.wait_timeout(LONG));
        let end = |pool: &mut Pool| pool.terminate();
        pool.proxy().call(end, ()).unwrap();
        assert_eq!(slow.wait().unwrap(), Err(TaskError::Cancelled));
        assert_eq!(pool.apply(square, (1,)).unwrap(), Err(TaskError::Closed));
    });
}

#[test]
fn tasks_that_fail_fail_alone() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(1).unwrap();
        let panics = |n: u8| -> u8 { panic!("not {n}") };
        match pool.apply(panics, (7,)).unwrap() {
            Err(TaskError::Panicked { message, .. }) => assert_eq!(message, "not 7"),
            other => panic!("{other:?}"),
        }
        let aborts = || -> u8 { std::process::abort() };
        let died = pool.apply(aborts, ()).unwrap();
        assert!(
            matches!(died, Err(TaskError::WorkerDied { .. })),
            "{died:?}"
        );
        // A worker killed from outside.
        let started = Event::new().unwrap();
        let slow = pool.apply_async(never, (started.clone(),));
        assert!(started.wait_timeout(LONG));
        kill(workers(&pool)[0]);
        let died = slow.wait_timeout(LONG).unwrap();
        assert!(
            matches!(died, Err(TaskError::WorkerDied { .. })),
            "{died:?}"
        );
        assert_eq!(pool.apply(square, (3,)).unwrap(), Ok(9));
        assert!(!pool.proxy().is_poisoned().unwrap());
        let none = manager.pool(0).unwrap_err().to_string();
        assert!(none.contains("workers"), "{none}");
    });
}

#[test]
fn a_client_killed_while_its_task_runs_harms_nobody() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(1).unwrap();
        let (started, go) = (Event::new().unwrap(), Event::new().unwrap());
        fn gated(started: Event, go: Event) -> Vec<u8> {
            started.set();
            go.wait();
            vec![7; 1 << 20]
        }
        let client = |pool: PoolProxy, started: Event, go: Event| -> usize {
            pool.apply(gated, (started, go)).unwrap().unwrap().len()
        };
        let args = (pool.clone(), started.clone(), go.clone());
        let client = Process::spawn(client, args).unwrap();
        assert!(started.wait_timeout(LONG));
        client.kill().unwrap();
        assert!(client.join().is_err());
        let next = pool.apply_async(square, (4,));
        go.set();
        assert_eq!(next.wait().unwrap(), Ok(16));
    });
}

#[test]
fn a_killed_manager_ends_the_tasks_and_their_clients_are_told() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(2).unwrap();
        let pids = workers(&pool);
        let started = Event::new().unwrap();
        let slow = pool.apply_async(never, (started.clone(),));
        assert!(started.wait_timeout(LONG));
        let killed = Instant::now();
        kill(manager.pid().unwrap());
        let error = slow.wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        assert!(killed.elapsed() < Duration::from_secs(1));
        assert!(pool.apply(square, (1,)).is_err());
        eventually("the workers have ended", || {
            !pids.iter().any(|&pid| is_alive(pid))
        });
    });
}

#[test]
fn workers_and_managers_are_killed_at_random() {
    isolated(|| {
        let work = |pool: PoolProxy, told: Queue<String>| {
            let end = loop {
                match pool.apply(square, (3,)) {
                    Ok(Ok(9) | Err(TaskError::WorkerDied { .. })) => {}
                    Ok(other) => break format!("{other:?}"),
                    Err(error) => break error.to_string(),
                }
            };
            told.put(end).unwrap();
        };
        for round in 0..8 * u64::from(soak()) {
            let manager = Manager::new().unwrap();
            let pool = manager.pool(2).unwrap();
            let told: Queue<String> = Queue::new().unwrap();
            let spawn = || Process::spawn(work, (pool.clone(), told.clone())).unwrap();
            let clients: [Process<()>; 3] = std::array::from_fn(|_| spawn());
            let [first, second] = workers(&pool)[..] else {
                panic!("two workers");
            };
            kill(first);
            eventually("it was replaced", || {
                let now = workers(&pool);
                now.len() == 2 && !now.contains(&first)
            });
            std::thread::sleep(Duration::from_micros(round * 7919 % 3000));
            kill(second);
            std::thread::sleep(Duration::from_micros(round * 6271 % 2000));
            kill(manager.pid().unwrap());
            let killed = Instant::now();
            for _ in &clients {
                let left = Duration::from_secs(1).saturating_sub(killed.elapsed());
                let end = told.get_timeout(left).expect("an error within a second");
                assert!(end.contains("cannot be reached"), "{end}");
            }
            clients.iter().for_each(|client| client.join().unwrap());
        }
        // Sweeps what the last one left.
        drop(Queue::<u8>::new().unwrap());
    });
}

#[test]
fn proxies_go_to_workers_and_come_back() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(2).unwrap();
        let list: ListProxy<u64> = manager.list().unwrap();
        let counter = manager.host(0u64).unwrap();
        let task = |list: ListProxy<u64>, counter: Proxy<u64>| {
            list.append(counter.call(add, (1,)).unwrap()).unwrap();
            counter
        };
        for i in 1..=10 {
            let back = pool.apply(task, (list.clone(), counter.clone()));
            assert_eq!(back.unwrap().unwrap().call(add, (0,)).unwrap(), i);
        }
        assert_eq!(list.to_string(), "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]");
        drop((list, counter));
        eventually("the values are dropped", || manager.count().unwrap() == 1);
        // A function in the manager would wait for itself.
        let value = manager.host(0u64).unwrap();
        let inside = |_: &mut u64, pool: PoolProxy| pool.apply(square, (2,)).unwrap_err();
        let error = value.call(inside, (pool.clone(),)).unwrap();
        assert_eq!(error, CallError::WouldBlock);
    });
}

#[test]
fn large_results_of_a_client_that_reads_late_stay_whole() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(2).unwrap();
        // Several times what fits in the channel, while other answers come in between.
        let fill = |i: u8| serde_bytes::ByteBuf::from(vec![i; 300_000]);
        let calls: Vec<_> = (0..20).map(|i| pool.apply_async(fill, (i,))).collect();
        let value = manager.host(0u64).unwrap();
        for i in 1..=200 {
            assert_eq!(value.call(add, (1,)).unwrap(), i);
        }
        for (i, call) in calls.into_iter().enumerate() {
            let bytes = call.wait().unwrap().unwrap();
            assert!(bytes.len() == 300_000 && bytes.iter().all(|&b| b == i as u8));
        }
    });
}
