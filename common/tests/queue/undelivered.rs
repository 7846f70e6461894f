//! Senders in arguments that nobody gets: they do not keep the queue open.

use super::LONG;
use common::aio;
use common::manager::Manager;
use common::pool::{Pool, TaskError};
use common::process::{Process, StartMethod};
use common::queue::{GetError, Queue, Receiver, Sender};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize, Serializer, ser};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;
use testkit::{METHODS, isolated};

fn ends() -> (Sender<u32>, Receiver<u32>) {
    Queue::new().unwrap().split()
}

/// There is no sender any more.
fn assert_ends(receiver: &Receiver<u32>) {
    assert_eq!(receiver.get_timeout(LONG), Err(GetError::Closed));
}

fn take(_sender: Sender<u32>) {}

#[derive(Deserialize)]
struct Unfit;

impl Serialize for Unfit {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("not today"))
    }
}

fn take_both(_sender: Sender<u32>, _unfit: Unfit) {}

#[test]
fn one_before_an_argument_that_cannot_be_serialised() {
    isolated(|| {
        let (sender, receiver) = ends();
        assert!(Process::spawn(take_both, (sender, Unfit)).is_err());
        assert_ends(&receiver);

        let pool = Pool::new(1).unwrap();
        let (sender, receiver) = ends();
        assert!(pool.apply(take_both, (sender, Unfit)).is_err());
        assert_ends(&receiver);

        let (sender, receiver) = ends();
        assert!(pool.starmap(take_both, [(sender, Unfit)]).is_err());
        assert_ends(&receiver);

        let value = Manager::new().unwrap();
        let value = value.host(0u32).unwrap();
        let (sender, receiver) = ends();
        let method = |_: &mut u32, _: Sender<u32>, _: Unfit| {};
        assert!(value.call(method, (sender, Unfit)).is_err());
        assert_ends(&receiver);

        async fn never(_: Sender<u32>, _: Unfit) {}
        let pool = aio::pool::Pool::new(1).unwrap();
        let (sender, receiver) = ends();
        let called = futures::executor::block_on(pool.apply(never, (sender, Unfit)));
        assert!(called.is_err());
        assert_ends(&receiver);
    });
}

#[test]
fn the_argument_of_a_process_that_cannot_be_started() {
    isolated(|| {
        // No variable may be so long (execve(2)).
        let (sender, receiver) = ends();
        let builder = Process::builder().env("LONG", "x".repeat(1 << 20));
        let error = builder.spawn(take, (sender,)).unwrap_err();
        assert!(error.to_string().contains("posix_spawn"), "{error}");
        assert_ends(&receiver);

        // Two descriptors are enough for the socket to it, and for no more.
        for (method, step) in [
            (StartMethod::Spawn, "a pidfd for it"),
            (StartMethod::ForkServer, "a socket to it"),
        ] {
            let (sender, receiver) = ends();
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let next = [(); 2].map(|()| File::open("/dev/null").unwrap());
            let limit = next.iter().map(AsRawFd::as_raw_fd).max().unwrap() as u64 + 1;
            drop(next);
            setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
            let started = Process::builder()
                .start_method(method)
                .spawn(take, (sender,));
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            let error = started.unwrap_err();
            assert!(error.to_string().contains(step), "{error}");
            assert_ends(&receiver);
        }
    });
}

#[test]
fn the_argument_of_a_process_that_cannot_be_set_up() {
    isolated(|| {
        for method in METHODS {
            let (sender, receiver) = ends();
            let process = Process::builder()
                .start_method(method)
                .current_dir("/no/such/place")
                .spawn(take, (sender,))
                .unwrap();
            assert_ends(&receiver);
            assert!(process.join().is_err());
        }
    });
}

/// A pool whose one worker has something to do for ever.
fn busy() -> Pool {
    let pool = Pool::new(1).unwrap();
    drop(pool.apply_async(|| sleep(Duration::MAX), ()));
    pool
}

#[test]
fn the_argument_of_a_task_that_is_never_begun() {
    isolated(|| {
        let pool = busy();
        let (in_ring, cancelled) = ends();
        let in_ring = pool.apply_async(take, (in_ring,));
        let (sender, terminated) = ends();
        let terminated = (pool.apply_async(take, (sender,)), terminated);
        // More than there is room for in the table of what is under way.
        let fillers = pool.map_async_chunked(|_: u32| (), 0..3000, 1);
        let (waiting, left_out) = ends();
        let waiting = pool.apply_async(take, (waiting,));

        assert!(waiting.cancel());
        assert_ends(&left_out);
        assert!(in_ring.cancel());
        assert_ends(&cancelled);
        pool.terminate();
        assert_ends(&terminated.1);
        assert_eq!(terminated.0.get(), Err(TaskError::Cancelled));
        assert!(fillers.get().is_err());
    });
}

#[test]
fn the_argument_of_a_task_that_is_refused() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let (sender, receiver) = ends();
        let senders = (0..2).map(|_| {
            pool.terminate();
            sender.clone()
        });
        assert_eq!(pool.map(take, senders), Err(TaskError::Closed));
        drop(sender);
        assert_ends(&receiver);
    });
}

/// The segments of this process.
fn segments() -> usize {
    let own = format!("-{}-", std::process::id());
    let names = fs::read_dir("/dev/shm").unwrap().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().contains(&own))
        .count()
}

#[test]
fn a_queue_given_to_a_task_that_is_never_begun_goes_with_its_last_handle() {
    isolated(|| {
        let pool = busy();
        let before = segments();
        let queue = Queue::<u32>::new().unwrap();
        let task = pool.apply_async(|_: Queue<u32>| (), (queue,));
        assert!(segments() > before);
        assert!(task.cancel());
        common::shm::sweep();
        assert_eq!(segments(), before);
    });
}

fn die_once(_sender: Sender<u32>, deaths: Queue<u32>) {
    if deaths.try_get().is_ok() {
        std::process::abort();
    }
}

#[test]
fn what_a_second_worker_reads_is_counted_for_each() {
    isolated(|| {
        let deaths = Queue::new().unwrap();
        deaths.put_many([1, 2]).unwrap();
        // The same task again.
        let pool = Pool::builder().workers(1).retries(2).build().unwrap();
        let (sender, receiver) = ends();
        pool.apply(die_once, (sender, deaths.clone())).unwrap();
        assert_ends(&receiver);

        // What was in one message with it.
        deaths.put(1).unwrap();
        let pool = Pool::new(1).unwrap();
        let (sender, receiver) = ends();
        let calls = [(sender.clone(), deaths.clone()), (sender, deaths)];
        let error = pool.starmap_chunked(die_once, calls, 2).unwrap_err();
        assert!(matches!(error, TaskError::WorkerDied { .. }), "{error}");
        assert_ends(&receiver);
    });
}

#[test]
fn the_argument_of_an_initializer_is_counted_for_each_worker() {
    isolated(|| {
        let (sender, receiver) = ends();
        let builder = Pool::builder().workers(2).max_tasks_per_worker(3);
        let keep = |sender: Sender<u32>| sender;
        let pool = builder.initializer(keep, (sender,)).build().unwrap();
        let put = |sender: &mut Sender<u32>, n: u32| sender.put(n).unwrap();
        pool.map_with(put, 0..10).unwrap();
        pool.finish().unwrap();
        assert_eq!(receiver.iter().map(Result::unwrap).sum::<u32>(), 45);

        let (sender, receiver) = ends();
        drop(Pool::builder().initializer(take, (sender,)));
        assert_ends(&receiver);
    });
}

#[test]
fn the_argument_of_a_call_that_the_manager_does_not_get() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u32).unwrap();
        let method = |n: &mut u32, _: Sender<u32>| *n;
        let pid = manager.pid().unwrap().cast_signed();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        assert!(value.call(|n: &mut u32| *n, ()).is_err());
        let (sender, receiver) = ends();
        assert!(value.call(method, (sender,)).is_err());
        assert_ends(&receiver);
    });
}

#[test]
fn the_argument_of_a_coroutine_that_is_never_begun() {
    isolated(|| {
        async fn forever() {
            std::future::pending().await
        }
        async fn never(_: Sender<u32>) {}
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        // The second waits for a worker, the third for room in the pool.
        let builder = aio::pool::Pool::builder();
        let pool = builder.workers(1).in_flight(1).window(2).build().unwrap();
        runtime.block_on(async {
            let first = tokio::spawn(pool.apply(forever, ()));
            let (sender, second) = ends();
            let waits = tokio::spawn(pool.apply(never, (sender,)));
            let (sender, third) = ends();
            let waits_too = tokio::spawn(pool.apply(never, (sender,)));
            tokio::task::yield_now().await;
            for (task, receiver) in [(waits_too, third), (waits, second)] {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                assert_ends(&receiver);
            }
            first.abort();
        });
    });
}
