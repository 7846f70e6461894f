//! Handles on results: waiting, callbacks, cancelling, and what they keep in memory.

use super::{nap, pool, refuse_odd, square, wait_until_running};
use common::pool::{IMapUnordered, Pool, TaskError, as_completed, wait_all, wait_any};
use common::sync::{Event, Semaphore};
use futures::Stream;
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use testkit::isolated;

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
        let told = tell.clone();
        let odd = pool.map_async(refuse_odd, 0..4);
        odd.on_success(|_| panic!("1 and 3 are not even"));
        odd.on_error(move |error| told.send(Err(error)).unwrap());
        assert_eq!(hear.recv().unwrap(), odd.get());
        // Registered too late is as good.
        let told = tell;
        squares.on_success(move |all| told.send(Ok(all)).unwrap());
        assert_eq!(hear.recv().unwrap().unwrap().len(), 10);
        assert!(hear.try_recv().is_err());
    });
}

/// The thread that calls it may be asleep until there are more results.
#[test]
fn a_late_callback_is_called_at_once() {
    isolated(|| {
        let pool = pool(2);
        let slow = pool.apply_async(nap, (60_000,));
        let quick = pool.apply_async(square, (3,));
        while !quick.is_ready() {
            sleep(Duration::from_millis(1));
        }
        let (tell, hear) = mpsc::channel();
        let start = Instant::now();
        for _ in 0..10 {
            // Until it is asleep.
            sleep(Duration::from_millis(10));
            let told = tell.clone();
            quick.on_success(move |nine| told.send(nine).unwrap());
            assert_eq!(hear.recv(), Ok(9));
        }
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(slow.cancel());
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

/// It runs on the thread that takes results for those who cannot do so themselves.
#[test]
fn a_callback_waits_for_a_future_and_for_several_pools() {
    isolated(|| {
        let (pool, other) = (Arc::new(pool(1)), pool(1));
        let gate = Event::new().unwrap();
        let waits = other.apply_async(|gate: Event| gate.wait(), (gate.clone(),));
        let (tell, hear) = mpsc::channel();
        let inner = pool.clone();
        pool.apply_async(nap, (1,)).on_success(move |_| {
            let both = [waits, inner.apply_async(drop::<u8>, (1,))];
            tell.send(wait_any(&both, None)).unwrap();
            gate.set();
            tell.send(wait_any(&both[..1], None)).unwrap();
            let nine = futures::executor::block_on(inner.apply_async(square, (3,)));
            let four = inner.imap_unordered(square, [2]);
            let four = futures::executor::block_on_stream(four).collect::<Vec<_>>();
            let right = (nine, four) == (Ok(9), vec![Ok(4)]);
            tell.send(right.then_some(9)).unwrap();
        });
        let long = Duration::from_secs(20);
        let told = [(); 3].map(|()| hear.recv_timeout(long));
        assert_eq!(told, [Ok(Some(1)), Ok(Some(0)), Ok(Some(9))]);
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

#[test]
fn as_completed_waits_no_longer_than_asked() {
    isolated(|| {
        let (pool, other) = (pool(1), pool(1));
        let go = Event::new().unwrap();
        let wait = |pool: &Pool| pool.apply_async(|go: Event| go.wait(), (go.clone(),));
        let mut of_one = as_completed([wait(&pool)]);
        let mut of_both = as_completed([wait(&pool), wait(&other)]);
        for results in [&mut of_one, &mut of_both] {
            assert_eq!(results.next_timeout(Duration::ZERO), None);
            let start = Instant::now();
            assert_eq!(results.next_timeout(Duration::from_millis(20)), None);
            assert!(start.elapsed() >= Duration::from_millis(20));
        }
        go.set();
        let long = Duration::from_secs(30);
        assert_eq!(of_one.next_timeout(long), Some(Some((0, Ok(())))));
        assert_eq!(of_one.next_timeout(long), Some(None));
        assert!(of_both.next_timeout(long).unwrap().is_some());
        assert_eq!(of_both.count(), 1);
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
        wait_until_running(&pool, 1);
        assert!(first.cancel());
        assert_eq!(first.get(), Err(TaskError::Cancelled));
        assert_eq!(last.get(), Ok(9));
        assert!(!last.cancel());
        assert_eq!(never.get(), Err(TaskError::Cancelled));
        assert!(!flag.exists());
    });
}

#[test]
fn what_was_cancelled_is_not_queued() {
    isolated(|| {
        let pool = pool(1);
        // More than there is room for in the table of what is under way.
        let naps: Vec<_> = (0..1500)
            .map(|_| pool.apply_async(nap, (60_000,)))
            .collect();
        wait_until_running(&pool, 1);
        assert_eq!(pool.stats().queued, 1499);
        assert!(naps[1400].cancel());
        assert_eq!(pool.stats().queued, 1498);
        pool.terminate();
    });
}

#[test]
fn results_nobody_reads() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(2)
            .queue_bytes(1 << 16)
            .build()
            .unwrap();
        for _ in 0..100 {
            drop(pool.apply_async(|| ByteBuf::from(vec![0; 100_000]), ()));
        }
        drop(pool.imap(square, 0..).next());
        assert_eq!(pool.apply(square, (3,)), Ok(9));
        pool.finish().unwrap();
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

/// A task of an executor: to wake it is to send it there. Its fields are dropped one by one.
struct Task {
    stream: Mutex<IMapUnordered<std::array::IntoIter<(Event, Semaphore), 2>, ()>>,
    executor: Sender<Arc<Task>>,
    _gone: Sender<()>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let executor = self.executor.clone();
        let _ = executor.send(self);
    }
}

/// The executor is gone, so to wake the task is to drop it, and the stream that it waits for.
#[test]
fn a_wake_up_that_drops_the_stream() {
    isolated(|| {
        let pool = pool(2);
        let begun = Semaphore::new(0).unwrap();
        let gates = [(); 2].map(|()| Event::new().unwrap());
        let wait = |(gate, begun): (Event, Semaphore)| {
            begun.release(1).unwrap();
            gate.wait();
        };
        let items = gates.clone().map(|gate| (gate, begun.clone()));
        let stream = pool.imap_unordered(wait, items);
        let (executor, queue) = mpsc::channel();
        let (_gone, gone) = mpsc::channel();
        let stream = Mutex::new(stream);
        let task = Arc::new(Task {
            stream,
            executor,
            _gone,
        });
        let waker = Waker::from(task.clone());
        let polled =
            Pin::new(&mut *task.stream.lock().unwrap()).poll_next(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop((queue, task, waker));
        // Both have what they were sent: a gate that nobody opens would count as on its way.
        let _both = (begun.acquire(), begun.acquire());
        gates[0].set();
        let dropped = gone.recv_timeout(Duration::from_secs(10));
        assert_eq!(dropped, Err(RecvTimeoutError::Disconnected));
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

/// Where the next result to be decoded says so, and what it waits for then.
static SLOW: Mutex<Option<(Sender<()>, Receiver<()>)>> = Mutex::new(None);

/// Whether it was told in time to go on.
#[derive(Serialize)]
struct Slow(bool);

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let in_time = bool::deserialize(from)?;
        let (begun, go_on) = SLOW.lock().unwrap().take().unwrap();
        begun.send(()).unwrap();
        let told = go_on.recv_timeout(Duration::from_secs(10));
        Ok(Slow(in_time && told.is_ok()))
    }
}

/// To decode a result is to run the user's code, which may take its time.
#[test]
fn a_result_that_is_being_decoded_holds_nobody_up() {
    isolated(|| {
        let pool = pool(1);
        let (begun, has_begun) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        *SLOW.lock().unwrap() = Some((begun, go_on));
        let result = pool.apply_async(|| Slow(true), ());
        thread::scope(|scope| {
            let decoding = scope.spawn(|| result.get());
            has_begun.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(!result.cancel());
            assert_eq!(pool.apply(square, (3,)), Ok(9));
            go.send(()).expect("cancelling waited for the decoding");
            assert!(decoding.join().unwrap().unwrap().0);
        });
    });
}
