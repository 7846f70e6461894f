//! From the settings to the end: workers that come and go, closing, terminating, dropping.

use super::{nap, pool, square, wait_until_running};
use common::pool::{Event, Pool, PoolError, TaskError};
use common::process::{self, Process, StartMethod, Stdio};
use common::sync::Event as Gate;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{ends_within, isolated, pidfd};

/// O-013, O-025.
#[test]
fn settings_that_make_no_sense() {
    isolated(|| {
        assert!(matches!(Pool::new(0), Err(PoolError::Setting { .. })));
        let no_tasks = Pool::builder().max_tasks_per_worker(0).build();
        assert!(matches!(no_tasks, Err(PoolError::Setting { .. })));
        let three = pool(3);
        assert_eq!((three.workers(), three.stats().workers.len()), (3, 3));
    });
}

#[test]
fn workers_are_started_as_the_builder_says() {
    isolated(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let builder = Pool::builder().workers(2).start_method(method);
            let pool = builder.build().unwrap();
            let how = |_: u8| process::current().start_method();
            assert_eq!(pool.map(how, 0..9), Ok(vec![Some(method); 9]));
            // And so is a worker that replaces another.
            let aborts = || -> () { std::process::abort() };
            assert!(pool.apply(aborts, ()).is_err());
            assert!(pool.apply(aborts, ()).is_err());
            assert_eq!(pool.map(how, 0..9), Ok(vec![Some(method); 9]));
            pool.finish().unwrap();
        }
    });
}

#[test]
fn the_default_is_a_worker_for_each_core() {
    isolated(|| {
        let pool = Pool::default();
        assert_eq!(pool.workers(), process::cpu_count());
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

fn pid(_: u64) -> u32 {
    std::process::id()
}

/// O-023.
#[test]
fn workers_leave_after_their_tasks() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(3)
            .max_tasks_per_worker(10)
            .build()
            .unwrap();
        let pids = pool.map_chunked(pid, 0..100, 1).unwrap();
        let pids: HashSet<u32> = pids.into_iter().collect();
        assert!(pids.len() >= 10, "{}", pids.len());
    });
}

/// O-024.
#[test]
fn a_closed_pool_replaces_workers_while_it_must() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(3)
            .max_tasks_per_worker(1)
            .build()
            .unwrap();
        let naps: Vec<_> = (0..6).map(|n| pool.apply_async(nap, (n,))).collect();
        pool.close();
        pool.join().unwrap();
        let naps: Result<Vec<u64>, _> = naps.iter().map(|nap| nap.get()).collect();
        assert_eq!(naps, Ok((0..6).collect()));
    });
}

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// O-028.
#[test]
fn the_initializer_runs_once_in_each_worker() {
    isolated(|| {
        fn count(add: usize) {
            STARTED.fetch_add(add, Ordering::SeqCst);
        }
        let pool = Pool::builder()
            .workers(2)
            .initializer(count, (7,))
            .build()
            .unwrap();
        let seen = pool
            .map(|_: u8| STARTED.load(Ordering::SeqCst), 0..20)
            .unwrap();
        assert!(seen.iter().all(|&seen| seen == 7));
        let wrong = pool.map_with(|_: &mut String, n: u8| n, 0..3);
        assert!(matches!(wrong, Err(TaskError::State { .. })), "{wrong:?}");
    });
}

#[test]
fn an_initializer_that_fails_is_told_and_not_tried_for_ever() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(2)
            .initializer(|| -> u8 { panic!("no licence") }, ());
        let pool = pool.build().unwrap();
        let error = pool.apply(square, (1,)).unwrap_err();
        assert!(error.to_string().contains("no licence"), "{error}");
        assert!(pool.apply(square, (1,)).is_err());
    });
}

/// How the last ones have died; what others have said before is old.
#[test]
fn an_initializer_that_kills_its_worker_is_told() {
    isolated(|| {
        fn initialize(licence: PathBuf) {
            assert!(licence.exists(), "no licence");
            std::process::abort();
        }
        let licence = std::env::temp_dir().join(format!("pool-licence-{}", std::process::id()));
        let builder = Pool::builder().workers(1);
        let builder = builder.initializer(initialize, (licence.clone(),));
        let pool = builder.build().unwrap();
        let error = pool.apply(square, (1,)).unwrap_err();
        assert!(error.to_string().contains("no licence"), "{error}");
        std::fs::write(&licence, "").unwrap();
        let error = pool.apply(square, (1,)).unwrap_err();
        std::fs::remove_file(&licence).unwrap();
        assert!(error.to_string().contains("SIGABRT"), "{error}");
    });
}

#[test]
fn one_worker_is_enough_where_others_cannot_be_made_ready() {
    isolated(|| {
        let take = |seat: PathBuf| assert!(File::create_new(seat).is_ok(), "there is one seat");
        let seat = std::env::temp_dir().join(format!("pool-seat-{}", std::process::id()));
        let (ended, ends) = channel();
        let builder = Pool::builder().workers(2).on_event(move |event| {
            if let Event::WorkerEnded { .. } = event {
                let _ = ended.send(());
            }
        });
        let pool = builder.initializer(take, (seat.clone(),)).build().unwrap();
        let go = Gate::new().unwrap();
        let waits = pool.apply_async(|go: Gate| go.wait(), (go.clone(),));
        for _ in 0..5 {
            ends.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        go.set();
        assert_eq!(waits.get(), Ok(()));
        std::fs::remove_file(seat).unwrap();
    });
}

#[derive(Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("no such key")
    }
}

#[test]
fn an_initializer_whose_arguments_cannot_be_decoded_is_told() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(1)
            .initializer(|_: Unreadable| (), (Unreadable,));
        let pool = pool.build().unwrap();
        let error = pool.apply(square, (1,)).unwrap_err();
        assert!(error.to_string().contains("no such key"), "{error}");
    });
}

#[test]
fn niceness_affinity_and_name() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(1)
            .nice(5)
            .cpu_affinity([0])
            .name("Cruncher");
        let pool = pool.build().unwrap();
        let seen = pool.apply(
            || {
                let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
                let name = std::fs::read_to_string("/proc/self/comm").unwrap();
                let nice = stat
                    .rsplit_once(')')
                    .unwrap()
                    .1
                    .split(' ')
                    .nth(17)
                    .unwrap()
                    .to_owned();
                (name, nice, common::process::cpu_count())
            },
            (),
        );
        assert_eq!(seen, Ok(("Cruncher-1\n".into(), "5".into(), 1)));
        let pool = Pool::builder()
            .workers(1)
            .cpu_affinity([1000])
            .build()
            .unwrap();
        let error = pool.apply(square, (1,)).unwrap_err();
        assert!(error.to_string().contains("affinity"), "{error}");
    });
}

/// O-029: the sum is right and nothing is printed, at the end neither.
#[test]
fn two_hundred_workers() {
    isolated(|| {
        fn sum_of_squares() -> u64 {
            pool(200).map(square, 0..1000).unwrap().into_iter().sum()
        }
        let builder = Process::builder().stderr(Stdio::piped());
        let mut process = builder.spawn(sum_of_squares, ()).unwrap();
        let mut printed = String::new();
        let mut stderr = process.stderr.take().unwrap();
        stderr.read_to_string(&mut printed).unwrap();
        assert_eq!((process.join().unwrap(), &*printed), (332_833_500, ""));
    });
}

#[test]
fn a_hook_may_look_at_the_pool_and_may_panic() {
    isolated(|| {
        let pool = Arc::new(OnceLock::<Pool>::new());
        let theirs = Arc::downgrade(&pool);
        let hook = move |event: &Event| {
            if let Some(pool) = theirs.upgrade().as_ref().and_then(|pool| pool.get()) {
                let _ = pool.stats();
            }
            let ended = matches!(event, Event::WorkerEnded { .. } | Event::TaskEnded { .. });
            assert!(!ended, "the hook fails");
        };
        let made = Pool::builder().workers(1).on_event(hook).build().unwrap();
        assert!(pool.set(made).is_ok());
        let pool = pool.get().unwrap();
        for _ in 0..2 {
            assert_eq!(pool.apply(square, (3,)), Ok(9));
            pool.apply(|| -> () { std::process::abort() }, ())
                .unwrap_err();
        }
        pool.close();
        assert!(pool.join_timeout(Duration::from_secs(30)).unwrap());
    });
}

#[test]
fn events_and_stats() {
    isolated(|| {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        let pool = Pool::builder().workers(1).on_event(move |event| {
            seen.lock().unwrap().push(event.clone());
        });
        let pool = pool.build().unwrap();
        pool.apply(nap, (20,)).unwrap();
        pool.apply(|| -> () { std::process::abort() }, ())
            .unwrap_err();
        pool.apply(square, (2,)).unwrap();
        let stats = pool.stats();
        assert_eq!((stats.workers[0].tasks, stats.workers[0].restarts), (2, 1));
        assert!(stats.workers[0].busy >= Duration::from_millis(20));
        assert!(stats.workers[0].peak_rss.unwrap() > 100_000);
        pool.finish().unwrap();
        let events = events.lock().unwrap();
        let kind = |event: &Event| match event {
            Event::WorkerStarted { .. } => 'w',
            Event::TaskStarted { .. } => 's',
            Event::TaskEnded { ok: true, .. } => 'e',
            Event::WorkerEnded { lost, .. } => {
                if lost.len() == 1 {
                    'L'
                } else {
                    'd'
                }
            }
            _ => '?',
        };
        let mut kinds: Vec<char> = events.iter().map(kind).collect();
        kinds.sort_unstable();
        // One worker was lost with its task; two of three tasks have ended well.
        let kinds: String = kinds.into_iter().filter(|&kind| kind != 'd').collect();
        assert_eq!(kinds, "Leesssww");
    });
}

/// O-014, O-031.
#[test]
fn terminate_is_prompt_with_ten_thousand_pending() {
    isolated(|| {
        let pool = pool(3);
        let naps = pool.map_async(nap, vec![60_000; 10_000]);
        std::thread::scope(|scope| {
            scope.spawn(|| pool.terminate());
        });
        assert_eq!(naps.get(), Err(TaskError::Cancelled));
    });
}

/// O-016, O-030.
#[test]
fn a_closed_pool_finishes_and_takes_nothing() {
    isolated(|| {
        let pool = pool(2);
        assert!(matches!(pool.join(), Err(PoolError::Open)));
        let naps = pool.map_async(nap, [10; 8]);
        pool.close();
        assert_eq!(pool.apply(square, (1,)), Err(TaskError::Closed));
        assert_eq!(pool.map(square, 0..3), Err(TaskError::Closed));
        assert_eq!(pool.apply_async(square, (1,)).get(), Err(TaskError::Closed));
        assert_eq!(pool.imap(square, 0..3).next(), Some(Err(TaskError::Closed)));
        pool.join().unwrap();
        pool.join().unwrap();
        assert!(naps.is_ready());
        assert_eq!(naps.get(), Ok(vec![10; 8]));
    });
}

/// O-020: where Python warns that a pool was not closed, the type says what happens: it is
/// terminated.
#[test]
fn dropping_an_open_pool_terminates_it() {
    isolated(|| {
        let pool = pool(2);
        let naps = pool.map_async(nap, [60_000; 4]);
        wait_until_running(&pool, 2);
        let workers = pool.stats().workers;
        let workers: Vec<_> = workers.iter().map(|w| pidfd(w.pid.unwrap())).collect();
        let start = Instant::now();
        drop(pool);
        assert!(start.elapsed() < Duration::from_secs(30));
        ends_within(&workers, Duration::ZERO);
        assert_eq!(naps.get(), Err(TaskError::Cancelled));
    });
}

/// Says that its worker leaves, and has it wait.
struct Leaving {
    begun: Gate,
    go: Gate,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.begun.set();
        self.go.wait();
    }
}

/// Nobody would answer it.
#[test]
fn what_is_drawn_while_the_workers_of_a_joined_pool_leave_is_refused() {
    isolated(|| {
        let (begun, go) = (Gate::new().unwrap(), Gate::new().unwrap());
        let pool = Pool::builder().workers(1).initializer(
            |begun: Gate, go: Gate| Leaving { begun, go },
            (begun.clone(), go.clone()),
        );
        let pool = pool.build().unwrap();
        let mut squares = pool.imap(square, 0..);
        pool.close();
        thread::scope(|scope| {
            let joined = scope.spawn(|| pool.join());
            assert!(begun.wait_timeout(Duration::from_secs(10)));
            assert_eq!(squares.next(), Some(Err(TaskError::Closed)));
            go.set();
            joined.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_join_with_a_limit_does_not_wait_longer_for_a_callback() {
    isolated(|| {
        let pool = pool(1);
        let (begun, begins) = channel();
        let (go, gone) = channel();
        let result = pool.apply_async(square, (3,));
        result.on_success(move |nine| {
            begun.send(nine).unwrap();
            gone.recv().unwrap();
        });
        assert_eq!(begins.recv(), Ok(9));
        pool.close();
        assert!(!pool.join_timeout(Duration::from_millis(20)).unwrap());
        let joining = thread::spawn(move || pool.join_timeout(Duration::from_secs(30)));
        go.send(()).unwrap();
        assert!(joining.join().unwrap().unwrap());
    });
}

/// And a callback may join the pool.
#[test]
fn a_callback_that_comes_after_the_pools_end_is_called() {
    isolated(|| {
        let (told, hear) = channel();
        let pool = Arc::new(pool(1));
        let result = pool.apply_async(square, (3,));
        let (its, tell) = (pool.clone(), told.clone());
        pool.close();
        result.on_success(move |_| tell.send(its.join().is_ok()).unwrap());
        assert_eq!(hear.recv(), Ok(true));

        // Of a pool that has none of its threads any more, this thread calls it.
        let pool = self::pool(1);
        let result = pool.apply_async(square, (3,));
        pool.close();
        pool.join().unwrap();
        drop(pool);
        let here = thread::current().id();
        let is_here = move || thread::current().id() == here;
        result.on_success(move |nine| told.send(nine == 9 && is_here()).unwrap());
        assert_eq!(hear.recv(), Ok(true));
    });
}
