//! Killed clients, killed servers, functions that misbehave.

use crate::{eventually, is_alive, kill};
use common::Process;
use common::codec::{decode, encode};
use common::manager::{CallError, ConnectError, EventProxy, ListProxy, Manager, Proxy, StartError};
use common::process;
use common::queue::Queue;
use nix::sys::signal::{self, Signal};
use std::process::abort;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use testkit::{isolated, soak};

fn add(n: &mut u64, by: u64) -> u64 {
    *n += by;
    *n
}

fn gated(n: &mut u64, started: EventProxy, go: EventProxy) -> u64 {
    started.set();
    go.wait();
    *n += 1;
    *n
}

#[test]
fn a_client_killed_during_its_call_harms_nobody() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let (started, go) = (manager.event().unwrap(), manager.event().unwrap());
        let call = |value: Proxy<u64>, started: EventProxy, go: EventProxy| {
            value.call(gated, (started, go)).unwrap()
        };
        let args = (value.clone(), started.clone(), go.clone());
        let process = Process::spawn(call, args).unwrap();
        started.wait();
        process.kill().unwrap();
        assert!(process.join().is_err());
        go.set();
        assert_eq!(value.call(add, (1,)).unwrap(), 2);
    });
}

#[test]
fn a_client_that_dies_before_and_after_its_call_harms_nobody() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        // What was sent is done, though nobody is there any more.
        let send_and_die = |value: Proxy<u64>| -> u8 {
            // Until the manager has let it in, what a process sends waits in its own memory.
            value.call(add, (0,)).unwrap();
            for _ in 0..10 {
                let _sent = value.call_async(add, (1,));
            }
            abort();
        };
        let process = Process::spawn(send_and_die, (value.clone(),)).unwrap();
        assert!(process.join().is_err());
        eventually("all are done", || value.call(add, (0,)).unwrap() == 10);
        // The answer is in the lane, and nobody reads it.
        let call_and_die = |value: Proxy<u64>| -> u8 {
            let _sent = value.call_async(add, (1,));
            while value.call(add, (0,)).unwrap() != 11 {}
            abort();
        };
        let process = Process::spawn(call_and_die, (value.clone(),)).unwrap();
        assert!(process.join().is_err());
        assert_eq!(value.call(add, (0,)).unwrap(), 11);
    });
}

#[test]
fn clients_are_killed_at_random() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let list: ListProxy<Proxy<u64>> = manager.list().unwrap();
        let work = |value: Proxy<u64>, list: ListProxy<Proxy<u64>>| -> u8 {
            loop {
                value.call(add, (1,)).unwrap();
                list.append(value.clone()).unwrap();
                drop(list.pop().unwrap());
                drop(encode(&value));
            }
        };
        let mut last = 0;
        for round in 0..12 * soak() as u64 {
            let spawn = || Process::spawn(work, (value.clone(), list.clone())).unwrap();
            let processes = [spawn(), spawn()];
            let seen = last;
            eventually("both work", || value.call(add, (0,)).unwrap() > seen + 5);
            std::thread::sleep(Duration::from_micros(round * 7919 % 3000));
            for process in &processes {
                process.kill().unwrap();
            }
            for process in processes {
                assert!(process.join().is_err());
            }
            last = value.call(add, (0,)).unwrap();
        }
        list.clear().unwrap();
        assert_eq!(manager.count().unwrap(), 2);
    });
}

#[test]
fn a_killed_server_is_noticed_by_all() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let told: Queue<(String, Duration)> = Queue::new().unwrap();
        let work = |value: Proxy<u64>, told: Queue<(String, Duration)>| {
            let error = loop {
                if let Err(error) = value.call(add, (1,)) {
                    break error;
                }
            };
            let again = Instant::now();
            value.call(add, (1,)).unwrap_err();
            told.put((error.to_string(), again.elapsed())).unwrap();
        };
        let processes: Vec<Process<()>> = (0..4)
            .map(|_| Process::spawn(work, (value.clone(), told.clone())).unwrap())
            .collect();
        eventually("they work", || value.call(add, (0,)).unwrap() > 100);
        kill(manager.pid().unwrap());
        let killed = Instant::now();
        for _ in &processes {
            let left = Duration::from_secs(1).saturating_sub(killed.elapsed());
            let (error, again) = told.get_timeout(left).expect("an error within a second");
            assert!(error.contains("cannot be reached"), "{error}");
            assert!(again < Duration::from_secs(1));
        }
        for process in processes {
            process.join().unwrap();
        }
        let error = value.call(add, (1,)).unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }));
        assert!(matches!(
            manager.host(1),
            Err(CallError::Disconnected { .. })
        ));
    });
}

#[test]
fn a_server_killed_within_a_call_is_noticed_by_sleepers_and_futures() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let (started, go) = (manager.event().unwrap(), manager.event().unwrap());
        let first = value.call_async(gated, (started.clone(), go.clone()));
        let mut futures: Vec<_> = (0..3).map(|_| value.call_async(add, (1,))).collect();
        futures.push(first);
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| value.call(add, (1,)).unwrap_err()))
                .collect();
            let futures = scope
                .spawn(move || futures::executor::block_on(futures::future::join_all(futures)));
            started.wait();
            kill(manager.pid().unwrap());
            let killed = Instant::now();
            for waiter in waiters {
                let error = waiter.join().unwrap();
                assert!(matches!(error, CallError::Disconnected { .. }));
            }
            for result in futures.join().unwrap() {
                assert!(matches!(result, Err(CallError::Disconnected { .. })));
            }
            assert!(killed.elapsed() < Duration::from_secs(1));
        });
    });
}

/// It was forked by a function of the manager, and has a copy of all that the manager has open.
#[test]
fn a_process_that_outlives_a_killed_server_keeps_nobody_waiting() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let fork = |_: &mut u64| {
            let process = process::fork(|| std::thread::sleep(Duration::MAX)).unwrap();
            let pid = process.pid();
            process.detach();
            pid
        };
        let pid = value.call(fork, ()).unwrap();
        assert_eq!(value.call(add, (1,)), Ok(2));
        kill(manager.pid().unwrap());
        let limit = Duration::from_secs(10);
        let error = value.call_timeout(add, (1,), limit).unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        let error = Manager::connect(manager.address(), manager.key()).unwrap_err();
        assert!(!matches!(error, ConnectError::Timeout { .. }), "{error}");
        assert!(is_alive(pid));
        kill(pid);
        eventually("it has ended", || !is_alive(pid));
    });
}

// G-032
#[test]
fn after_the_end_calls_fail_at_once() {
    isolated(|| {
        let mut manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let bytes = encode(&value).unwrap();
        manager.shutdown();
        manager.shutdown();
        let start = Instant::now();
        let error = value.call(add, (1,)).unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        // Also one that is deserialised only now, and in another process.
        let late: Proxy<u64> = decode(&bytes).unwrap();
        let error = late.call(add, (1,)).unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        let call = |value: Proxy<u64>| value.call(add, (1,)).unwrap_err();
        let process = Process::spawn(call, (value.clone(),)).unwrap();
        let error = process.join().unwrap();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
        encode(&late).unwrap();
        assert!(format!("{late:?}").contains("Manager"));
    });
}

#[test]
fn a_destructor_or_a_serialiser_that_panics_ends_nothing() {
    struct Bomb(#[allow(dead_code)] u8);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    #[derive(serde::Deserialize)]
    struct Mute;
    impl serde::Serialize for Mute {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("cannot speak");
        }
    }
    /// A result that is a bomb where it is made.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Lit {
        #[serde(skip)]
        _bomb: Option<Bomb>,
    }
    isolated(|| {
        let manager = Manager::new().unwrap();
        let bomb = manager.host_with(|| Bomb(1), ()).unwrap();
        drop(bomb);
        let value = manager.host(0u64).unwrap();
        let light = |_: &mut u64| Lit {
            _bomb: Some(Bomb(2)),
        };
        value.call(light, ()).unwrap();
        drop(value);
        let value = manager.host(1u64).unwrap();
        let error = value.call(|_: &mut u64| Mute, ()).err().unwrap();
        assert!(matches!(error, CallError::Server(_)), "{error}");
        assert!(!value.is_poisoned().unwrap());
        assert_eq!(value.call(add, (1,)).unwrap(), 2);
        let error = manager.host_with(|| -> u8 { panic!("no value") }, ()).err();
        assert!(error.unwrap().to_string().contains("no value"));
        assert_eq!(manager.count().unwrap(), 1);
    });
}

// G-012, G-014
#[test]
fn a_proxy_of_another_type_and_a_value_that_cannot_be_sent_are_errors() {
    struct Secret;
    impl serde::Serialize for Secret {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("secret"))
        }
    }
    impl<'de> serde::Deserialize<'de> for Secret {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Secret)
        }
    }
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let wrong: Proxy<String> = decode(&encode(&value).unwrap()).unwrap();
        let error = wrong.call(|s: &mut String| s.len(), ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the value is a `u64`, not a `alloc::string::String`"
        );
        let error = value
            .call(|_: &mut u64, _: Secret| (), (Secret,))
            .unwrap_err();
        assert!(matches!(error, CallError::Arguments(_)), "{error}");
        let error = value.call(|_: &mut u64| Secret, ()).err().unwrap();
        assert!(error.to_string().contains("secret"), "{error}");
        assert_eq!(value.call(add, (1,)).unwrap(), 2);
    });
}

static LEVEL: AtomicU32 = AtomicU32::new(0);

// G-027
#[test]
fn an_initialiser_runs_in_the_server_and_may_fail() {
    isolated(|| {
        let set = |level: u32| LEVEL.store(level, SeqCst);
        let manager = Manager::builder().initializer(set, (7,)).start().unwrap();
        let level = manager.host_with(|| LEVEL.load(SeqCst), ()).unwrap();
        assert_eq!(level.call(|level: &mut u32| *level, ()).unwrap(), 7);
        assert_eq!(LEVEL.load(SeqCst), 0);
        drop(manager);
        let fail = || panic!("not today");
        let error = Manager::builder()
            .initializer(fail, ())
            .start()
            .unwrap_err();
        assert!(error.to_string().contains("not today"), "{error}");
        let fail_at_length = || panic!("{}", "no änd ".repeat(1000));
        let error = Manager::builder()
            .initializer(fail_at_length, ())
            .start()
            .unwrap_err();
        assert!(matches!(error, StartError::Initializer { .. }), "{error}");
        assert!(error.to_string().contains("no änd no änd"), "{error}");
        let leave = || std::process::exit(3);
        let error = Manager::builder()
            .initializer(leave, ())
            .start()
            .unwrap_err();
        assert!(error.to_string().contains("3"), "{error}");
        let begin = Instant::now();
        let error = Manager::builder()
            .initializer(|| std::thread::sleep(Duration::MAX), ())
            .start_timeout(Duration::from_millis(50))
            .unwrap_err();
        assert!(error.to_string().contains("not ready in time"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5));
        let in_time = Manager::builder().start_timeout(Duration::from_secs(60));
        assert_eq!(in_time.unwrap().count().unwrap(), 0);
    });
}

/// So long as it is stopped it does not heed a request to end either.
#[test]
fn a_manager_that_is_stopped_while_it_starts_is_killed_in_time() {
    isolated(|| {
        let stop = || signal::raise(Signal::SIGSTOP).unwrap();
        let begin = Instant::now();
        let error = Manager::builder()
            .initializer(stop, ())
            .start_timeout(Duration::from_millis(50))
            .unwrap_err();
        assert!(matches!(error, StartError::NotUp { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_millis(900));
        assert!(common::process::active_children().is_empty());
    });
}
