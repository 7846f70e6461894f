//! The pool as its users see it: calls, results, errors, life.

use common::pool::{Event, Pool, PoolError, TaskError, as_completed, wait_all, wait_any};
use common::process::{self, Process, StartMethod, Stdio};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::{ends_within, isolated, pidfd};

fn square(x: u64) -> u64 {
    x * x
}

fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

fn pid(_: u64) -> u32 {
    std::process::id()
}

fn refuse_odd(x: u64) -> u64 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x
}

fn pool(workers: usize) -> Pool {
    Pool::new(workers).unwrap()
}

/// O-001, O-002, O-003, O-015.
#[test]
fn apply_map_and_starmap() {
    isolated(|| {
        let pool = pool(3);
        assert_eq!(pool.apply(square, (5,)), Ok(25));
        assert_eq!(pool.apply(|| (), ()), Ok(()));
        let serial = |n: u64| (0..n).map(square).collect::<Vec<_>>();
        assert_eq!(pool.map(square, 0..10), Ok(serial(10)));
        assert_eq!(pool.map_chunked(square, 0..100, 20), Ok(serial(100)));
        assert_eq!(pool.map(square, 0..20_000), Ok(serial(20_000)));
        let add = |a: u64, b: u64| a + b;
        let pairs = || (0..100).map(|n| (n, 2 * n));
        let sums: Vec<u64> = (0..100).map(|n| 3 * n).collect();
        assert_eq!(pool.starmap(add, pairs()), Ok(sums.clone()));
        assert_eq!(pool.starmap_chunked(add, pairs(), 10), Ok(sums.clone()));
        assert_eq!(pool.starmap_async(add, pairs()).get(), Ok(sums));
        assert_eq!(pool.map(square, []), Ok(vec![]));
        assert_eq!(pool.map_async(square, []).get(), Ok(vec![]));
        assert_eq!(pool.imap(square, []).count(), 0);
        assert_eq!(pool.imap_unordered(square, []).count(), 0);
        pool.finish().unwrap();
    });
}

/// O-006: it completes at once.
#[test]
fn an_empty_map_needs_no_worker() {
    isolated(|| {
        let pool = pool(1);
        let busy = pool.apply_async(nap, (60_000,));
        assert!(pool.map_async_chunked(square, [], 1).is_ready());
        drop(busy);
    });
}

/// O-004, O-021: callbacks get the whole list, or the error, once.
#[test]
fn callbacks() {
    isolated(|| {
        let pool = pool(2);
        let (tell, hear) = mpsc::channel();
        let told = tell.clone();
        let squares = pool.map_async(square, 0..10);
        squares.on_success(move |all| told.send(Ok(all)).unwrap());
        let told = tell.clone();
        squares.on_error(move |error| told.send(Err(error)).unwrap());
        let ten: Vec<u64> = (0..10).map(square).collect();
        assert_eq!(hear.recv().unwrap(), Ok(ten));
        let told = tell.clone();
        let odd = pool.apply_async(refuse_odd, (3,));
        odd.on_success(|_| panic!("3 is not even"));
        odd.on_error(move |error| told.send(Err(error)).unwrap());
        let error = hear.recv().unwrap().unwrap_err();
        assert_eq!(odd.get(), Err(error));
        // Registered too late is as good.
        let told = tell;
        squares.on_success(move |all| told.send(Ok(all)).unwrap());
        assert_eq!(hear.recv().unwrap().unwrap().len(), 10);
        assert!(hear.try_recv().is_err());
    });
}

/// A callback may use the pool and may end it.
#[test]
fn a_callback_submits_and_terminates() {
    isolated(|| {
        let pool = Arc::new(pool(2));
        let (tell, hear) = mpsc::channel();
        let inner = pool.clone();
        pool.apply_async(square, (2,)).on_success(move |four| {
            let sixteen = inner.apply(square, (four,));
            let naps = inner.map_async(nap, vec![60_000; 10_000]);
            inner.terminate();
            tell.send((sixteen, naps.get())).unwrap();
        });
        let told = hear.recv().unwrap();
        assert_eq!(told, (Ok(16), Err(TaskError::Cancelled)));
    });
}

struct Refuses;
impl serde::Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}
impl<'de> serde::Deserialize<'de> for Refuses {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Refuses)
    }
}

/// O-005, O-022.
#[test]
fn what_cannot_be_sent_is_an_error_and_no_more() {
    isolated(|| {
        let pool = pool(2);
        for _ in 0..20 {
            let arg = pool.apply(|_: Refuses| 1, (Refuses,));
            assert!(matches!(&arg, Err(TaskError::Encode(e)) if e.reason.contains("not today")));
            let result = pool.apply(|| Refuses, ());
            let Err(error) = result else { panic!() };
            assert!(error.to_string().contains("Refuses"), "{error}");
        }
        let map = pool.map(|_: Refuses| 1, [Refuses, Refuses]);
        assert!(matches!(map, Err(TaskError::Encode(_))));
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

/// O-007: a panic of the input is the caller's, twice in a row.
#[test]
fn a_panic_in_the_input_iterator() {
    isolated(|| {
        let pool = pool(2);
        let input = |fails_at: u64| {
            (0..10_000u64).map(move |n| match n == fails_at {
                true => panic!("input {n}"),
                false => n,
            })
        };
        for fails_at in [0, 0, 3, 5000] {
            let map = std::panic::AssertUnwindSafe(|| pool.map(square, input(fails_at)));
            assert!(std::panic::catch_unwind(map).is_err());
        }
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

/// O-011, O-012: what came before the chunk that fails is delivered first.
#[test]
fn a_panic_in_the_input_of_imap() {
    isolated(|| {
        let pool = pool(2);
        for (chunk, before) in [(1, 7), (2, 6), (4, 4)] {
            let input = (0..10u64).map(|n| if n == 7 { panic!("input") } else { n });
            let mut squares = pool.imap(square, input.clone()).chunk_size(chunk);
            let got: Vec<u64> = (0..before)
                .map(|_| squares.next().unwrap().unwrap())
                .collect();
            assert_eq!(got, (0..before).map(square).collect::<Vec<_>>());
            let next = std::panic::AssertUnwindSafe(|| squares.next());
            assert!(std::panic::catch_unwind(next).is_err());
            let mut squares = pool.imap_unordered(square, input).chunk_size(chunk);
            let got: HashSet<u64> = (0..before)
                .map(|_| squares.next().unwrap().unwrap())
                .collect();
            assert_eq!(got, (0..before).map(square).collect::<HashSet<_>>());
            let next = std::panic::AssertUnwindSafe(|| squares.next());
            assert!(std::panic::catch_unwind(next).is_err());
        }
        assert_eq!(pool.apply(square, (2,)), Ok(4));
    });
}

/// O-008, O-009, O-033.
#[test]
fn get_waits_no_longer_than_asked() {
    isolated(|| {
        let pool = pool(1);
        let start = Instant::now();
        let result = pool.apply_async(nap, (100,));
        assert_eq!(result.get(), Ok(100));
        assert!(start.elapsed() >= Duration::from_millis(100));
        let slow = pool.apply_async(nap, (60_000,));
        let start = Instant::now();
        assert_eq!(slow.get_timeout(Duration::from_millis(50)), None);
        assert!(start.elapsed() >= Duration::from_millis(50));
        // O-030: there is no success to be asked about yet.
        assert_eq!(slow.is_successful(), None);
        assert!(!slow.is_ready());
        pool.terminate();
    });
}

/// O-010.
#[test]
fn imap_is_in_order_and_lazy() {
    isolated(|| {
        let pool = pool(2);
        let mut squares = pool.imap(square, 0..10);
        for n in 0..10 {
            assert_eq!(squares.next(), Some(Ok(n * n)));
        }
        assert_eq!(squares.next(), None);
        assert_eq!(squares.next(), None);
        let thousand: Result<Vec<u64>, _> = pool.imap(square, 0..1000).chunk_size(100).collect();
        assert_eq!(thousand, Ok((0..1000).map(square).collect()));
        let drawn = Arc::new(AtomicUsize::new(0));
        let seen = drawn.clone();
        let endless = (0..).inspect(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mut squares = pool.imap(square, endless).window(3);
        assert_eq!(squares.next(), Some(Ok(0)));
        assert_eq!(squares.next(), Some(Ok(1)));
        assert!(drawn.load(Ordering::Relaxed) <= 5);
        let mut slow = pool.imap(nap, [60_000]);
        assert_eq!(slow.next_timeout(Duration::from_millis(20)), None);
    });
}

/// O-012.
#[test]
fn imap_unordered_gives_each_once() {
    isolated(|| {
        let pool = pool(3);
        for chunk in [1, 53] {
            let got: Result<BTreeSet<u64>, _> = pool
                .imap_unordered(square, 0..1000)
                .chunk_size(chunk)
                .collect();
            assert_eq!(got, Ok((0..1000).map(square).collect()));
        }
        let first = pool.imap_unordered(nap, [2000, 1]).next();
        assert_eq!(first, Some(Ok(1)));
    });
}

#[test]
fn imap_unordered_is_a_stream() {
    isolated(|| {
        use futures::StreamExt;
        let pool = pool(2);
        let stream = StreamExt::map(pool.imap_unordered(square, 0..100), Result::unwrap);
        let sum = futures::executor::block_on(stream.fold(0, |a, b| async move { a + b }));
        assert_eq!(sum, (0..100).map(square).sum::<u64>());
    });
}

#[test]
fn results_are_futures_under_any_executor() {
    isolated(|| {
        let pool = pool(2);
        let both =
            futures::future::join(pool.apply_async(square, (3,)), pool.map_async(square, 0..4));
        let (nine, four) = futures::executor::block_on(both);
        assert_eq!((nine, four), (Ok(9), Ok(vec![0, 1, 4, 9])));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(runtime.block_on(pool.apply_async(square, (4,))), Ok(16));
    });
}

#[test]
fn any_all_and_as_completed() {
    isolated(|| {
        let (pool, other) = (pool(2), pool(1));
        let naps = [2000, 30].map(|millis| pool.apply_async(nap, (millis,)));
        assert_eq!(wait_any(&naps, Some(Duration::ZERO)), None);
        assert_eq!(wait_any(&naps, None), Some(1));
        assert!(!wait_all(&naps, Some(Duration::from_millis(1))));
        assert!(wait_all(&naps, None));
        assert_eq!(wait_any::<u64>(&[], None), None);
        let both = [pool.apply_async(nap, (300,)), other.apply_async(nap, (1,))];
        let order: Vec<_> = as_completed(both).collect();
        assert_eq!(order, [(1, Ok(1)), (0, Ok(300))]);
    });
}

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

/// O-017: type, place and index of the failure come along.
#[test]
fn a_panic_is_told_with_its_place() {
    isolated(|| {
        let pool = pool(2);
        let Err(TaskError::Panicked {
            message,
            location,
            task,
        }) = pool.map(refuse_odd, 0..4)
        else {
            panic!()
        };
        assert_eq!(message, "1 is odd");
        assert!(location.unwrap().contains("pool.rs"));
        assert_eq!(task.index, Some(1));
        assert!(task.function.ends_with("refuse_odd"));
        let own: Result<Result<u8, String>, _> = pool.apply(
            |text: String| text.parse().map_err(|_| text),
            ("x".to_string(),),
        );
        assert_eq!(own, Ok(Err("x".to_string())));
    });
}

fn slow_panic(millis: u64) {
    // A megabyte on the terminal helps nobody.
    std::panic::set_hook(Box::new(|_| ()));
    nap(millis);
    panic!("{}", "x".repeat(1 << 20));
}

/// O-018.
#[test]
fn map_does_not_fail_fast_and_try_map_does() {
    isolated(|| {
        let pool = pool(2);
        let start = Instant::now();
        assert!(pool.map(slow_panic, [0, 1000]).is_err());
        assert!(start.elapsed() >= Duration::from_millis(1000));
        let start = Instant::now();
        assert!(pool.try_map(slow_panic, [0, 600_000]).is_err());
        assert!(start.elapsed() < Duration::from_secs(300));
        assert_eq!(pool.try_map(square, 0..3), Ok(vec![0, 1, 4]));
    });
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

/// Memory of a process that is its own, in bytes: what is shared and what is in files does not
/// count.
fn own_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

/// O-019: of arguments nothing is kept once the task is done, of a result nothing once its handle
/// is dropped; neither here nor in the worker.
#[test]
fn arguments_and_results_are_not_kept() {
    isolated(|| {
        const LARGE: usize = 64 << 20;
        // What the pool may keep for the next task is less.
        const SLACK: usize = 16 << 20;
        let pool = pool(1);
        pool.apply(square, (1,)).unwrap();
        let own = std::process::id();
        let worker = pool.stats().workers[0].pid.unwrap();
        let before = [own, worker].map(own_memory);
        let back = |pid: u32, before: usize| {
            // The worker answers first, and another thread may still hold what it hands on.
            let end = Instant::now() + Duration::from_secs(10);
            while own_memory(pid) > before + SLACK {
                assert!(Instant::now() < end, "{} of {pid}", own_memory(pid));
                sleep(Duration::from_millis(1));
            }
        };
        let large = || ByteBuf::from(vec![1; LARGE]);
        let length = pool.apply_async(|bytes: ByteBuf| bytes.len(), (large(),));
        length.wait();
        back(own, before[0]);
        back(worker, before[1]);
        assert_eq!(length.get(), Ok(LARGE));
        let made = pool.apply_async(|| ByteBuf::from(vec![1; LARGE]), ());
        made.wait();
        back(worker, before[1]);
        // Until then it may be asked for, and again.
        assert!(own_memory(own) > before[0] + LARGE - SLACK);
        assert_eq!(made.get().unwrap().len(), LARGE);
        assert_eq!(made.get().unwrap().len(), LARGE);
        drop(made);
        back(own, before[0]);
    });
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Serialize, Deserialize)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

/// O-019: each value is dropped by who had it: the arguments here and again in the worker; the
/// callbacks, those that are never called as well.
#[test]
fn arguments_and_callbacks_are_dropped() {
    isolated(|| {
        let pool = pool(1);
        let drops = |_: Counted| DROPPED.load(Ordering::SeqCst);
        let first = pool.apply_async(drops, (Counted,));
        assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
        assert_eq!(first.get(), Ok(0));
        assert_eq!(pool.map(drops, [Counted, Counted]), Ok(vec![1, 2]));
        assert_eq!(DROPPED.load(Ordering::SeqCst), 3);
        let (tell, hear) = mpsc::channel::<()>();
        let told = tell.clone();
        first.on_success(move |_| drop(told));
        first.on_error(move |_| drop(tell));
        // Nobody can tell any more, though the handle is still there.
        let gone = hear.recv_timeout(Duration::from_secs(10));
        assert_eq!(gone, Err(mpsc::RecvTimeoutError::Disconnected));
        drop(first);
    });
}

/// O-020: where Python warns that a pool was not closed, the type says what happens: it is
/// terminated.
#[test]
fn dropping_an_open_pool_terminates_it() {
    isolated(|| {
        let pool = pool(2);
        let naps = pool.map_async(nap, [60_000; 4]);
        while pool.stats().running < 2 {
            sleep(Duration::from_millis(1));
        }
        let workers = pool.stats().workers;
        let workers: Vec<_> = workers.iter().map(|w| pidfd(w.pid.unwrap())).collect();
        let start = Instant::now();
        drop(pool);
        assert!(start.elapsed() < Duration::from_secs(30));
        ends_within(&workers, Duration::ZERO);
        assert_eq!(naps.get(), Err(TaskError::Cancelled));
    });
}

#[test]
fn cancelling() {
    isolated(|| {
        let pool = pool(1);
        let first = pool.apply_async(nap, (60_000,));
        let flag = std::env::temp_dir().join(format!("pool-cancel-{}", std::process::id()));
        let never = pool.apply_async(
            |path: String| std::fs::write(path, "").unwrap(),
            (flag.to_str().unwrap().to_string(),),
        );
        let last = pool.apply_async(square, (3,));
        assert!(never.cancel());
        assert!(!never.cancel());
        while pool.stats().running == 0 {
            sleep(Duration::from_millis(1));
        }
        assert!(first.cancel());
        assert_eq!(first.get(), Err(TaskError::Cancelled));
        assert_eq!(last.get(), Ok(9));
        assert!(!last.cancel());
        assert_eq!(never.get(), Err(TaskError::Cancelled));
        assert!(!flag.exists());
    });
}

#[test]
fn nested_pools() {
    isolated(|| {
        fn sum_of_squares(n: u64) -> u64 {
            Pool::new(2)
                .unwrap()
                .map(square, 0..n)
                .unwrap()
                .into_iter()
                .sum()
        }
        assert_eq!(pool(2).map(sum_of_squares, [3, 4]), Ok(vec![5, 14]));
    });
}

/// A process that has only a copy of the pool gets an error from every call, and the pool does not
/// notice.
#[test]
fn a_copy_of_the_pool_in_a_fork_is_refused() {
    isolated(|| {
        let pool = pool(2);
        let owner = std::process::id();
        let busy = pool.apply_async(nap, (50,));
        // SAFETY: glibc keeps its own locks right, the copy takes none that a thread of the pool
        // may have held, and the child ends without a destructor of this process.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() }.unwrap();
        let ForkResult::Parent { child } = forked else {
            let refused = std::panic::AssertUnwindSafe(|| {
                let error = TaskError::NotOwner { owner };
                assert_eq!(pool.apply(square, (3,)), Err(error.clone()));
                assert_eq!(pool.apply_async(square, (3,)).get(), Err(error.clone()));
                assert_eq!(pool.map(square, 0..3), Err(error.clone()));
                assert_eq!(pool.imap(square, 0..3).next(), Some(Err(error.clone())));
                assert_eq!(pool.imap_unordered(square, 0..3).next(), Some(Err(error)));
                assert!(matches!(pool.join(), Err(PoolError::NotOwner { owner: o }) if o == owner));
                pool.terminate();
            });
            let code = i32::from(std::panic::catch_unwind(refused).is_err());
            // SAFETY: it only ends this process.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(code)
            }
        };
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        assert_eq!(busy.get(), Ok(50));
        assert_eq!(pool.apply(square, (3,)), Ok(9));
        pool.finish().unwrap();
    });
}

/// A spawned worker has the program's statics anew: a task that uses the static its pool is in
/// gets another pool, of its own worker.
#[test]
fn a_task_that_uses_its_pools_static() {
    isolated(|| {
        static POOL: LazyLock<Pool> = LazyLock::new(|| pool(1));
        fn inner() -> (u32, u32) {
            (std::process::id(), process::parent().unwrap().pid())
        }
        fn outer() -> (u32, Result<(u32, u32), TaskError>) {
            (std::process::id(), POOL.apply(inner, ()))
        }
        // In a process that ends, for a static is never dropped.
        let program = Process::spawn(|| POOL.apply(outer, ()), ()).unwrap();
        let (worker, told) = program.join().unwrap().unwrap();
        let (innermost, parent) = told.unwrap();
        assert_eq!(parent, worker);
        assert_ne!(innermost, worker);
    });
}

/// A forked worker has the statics as they were when it was started: before there was a pool.
#[test]
fn a_forked_worker_has_no_copy_of_its_pool() {
    isolated(|| {
        static POOL: OnceLock<Pool> = OnceLock::new();
        fn program() -> (Option<StartMethod>, bool) {
            let builder = Pool::builder().workers(1).start_method(StartMethod::Fork);
            let pool = POOL.get_or_init(|| builder.build().unwrap());
            let look = || (process::current().start_method(), POOL.get().is_some());
            pool.apply(look, ()).unwrap()
        }
        let seen = Process::spawn(program, ()).unwrap().join().unwrap();
        assert_eq!(seen, (Some(StartMethod::Fork), false));
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
