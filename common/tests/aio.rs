//! The pool of coroutines: values, limits of time, workers that die, cancelling.

use common::aio;
use common::aio::pool::{Pool, TaskError};
use common::process::{Process, Stdio};
use futures::executor::block_on;
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use testkit::{ends_within, isolated, pidfd};
use tokio::time::{sleep, timeout};

async fn square(x: u64) -> u64 {
    tokio::task::yield_now().await;
    x * x
}

async fn pid() -> u32 {
    sleep(Duration::from_millis(50)).await;
    std::process::id()
}

/// A file whose existence tells another process something.
fn flag(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("common-aio-test-{name}"))
}

struct Flag(String);

impl Flag {
    fn new(name: &str) -> Flag {
        Flag(format!("{}-{name}", std::process::id()))
    }

    fn count(&self) -> usize {
        std::fs::read(flag(&self.0)).map_or(0, |bytes| bytes.len())
    }

    fn wait(&self, count: usize) {
        while self.count() < count {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(flag(&self.0));
    }
}

fn raise(name: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(flag(name));
    file.unwrap().write_all(b"x").unwrap();
}

#[test]
fn values_come_back_under_any_executor() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        assert_eq!(block_on(pool.apply(square, (7,))), Ok(49));
        assert_eq!(
            block_on(pool.apply(
                |a: String, n: usize| async move { a.repeat(n) },
                ("ab".into(), 2)
            )),
            Ok("abab".to_owned())
        );
        let squares: Vec<u64> = (0..1_000).map(|x| x * x).collect();
        assert_eq!(block_on(pool.map(square, 0..1_000)), Ok(squares.clone()));

        let current = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(
            current.block_on(pool.map(square, 0..1_000)),
            Ok(squares.clone())
        );
        let several = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let spawned = several.spawn(pool.map(square, 0..1_000));
        assert_eq!(several.block_on(spawned).unwrap(), Ok(squares));
    });
}

#[test]
fn nothing_to_do_is_done_at_once() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(block_on(pool.map(square, [])), Ok(vec![]));
        assert_eq!(block_on(pool.imap_unordered(square, []).count()), 0);
    });
}

#[test]
fn zero_of_anything_is_refused() {
    let text = |built: Result<Pool, _>| {
        built
            .err()
            .map(|error: common::pool::PoolError| error.to_string())
    };
    for (built, name) in [
        (Pool::new(0), "workers"),
        (Pool::builder().threads(0).build(), "threads"),
        (Pool::builder().in_flight(0).build(), "in_flight"),
    ] {
        assert!(text(built).unwrap().contains(name));
    }
}

#[test]
fn streams_are_ordered_or_not_and_drawn_no_further_than_the_window() {
    isolated(|| {
        static DRAWN: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::builder()
            .workers(2)
            .in_flight(4)
            .window(8)
            .build()
            .unwrap();
        let endless = || {
            (0..).inspect(|_| {
                DRAWN.fetch_add(1, SeqCst);
            })
        };
        let first: Vec<_> = block_on(pool.imap(square, endless()).take(20).collect());
        assert_eq!(first, (0..20).map(|x| Ok(x * x)).collect::<Vec<_>>());
        assert!(DRAWN.load(SeqCst) <= 20 + 8 + 1, "{DRAWN:?}");

        let all: BTreeSet<_> = block_on(
            pool.imap_unordered(square, 0..100)
                .map(Result::unwrap)
                .collect(),
        );
        assert_eq!(all, (0..100).map(|x| x * x).collect());
    });
}

#[test]
fn a_worker_runs_many_at_the_same_time_and_no_more_than_told() {
    isolated(|| {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        async fn count(_: usize) -> usize {
            MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(Duration::from_millis(20)).await;
            RUNNING.fetch_sub(1, SeqCst);
            MOST.load(SeqCst)
        }
        let pool = Pool::builder().workers(1).in_flight(50).build().unwrap();
        let most = block_on(pool.map(count, 0..200)).unwrap();
        assert_eq!(
            most.into_iter().max(),
            Some(48),
            "four chunks of 12 fit in 50"
        );
        let most = block_on(
            pool.imap_unordered(count, 0..200)
                .map(Result::unwrap)
                .collect::<Vec<_>>(),
        );
        assert_eq!(most.into_iter().max(), Some(50));
    });
}

#[test]
fn several_threads_a_worker() {
    isolated(|| {
        let pool = Pool::builder().workers(1).threads(2).build().unwrap();
        // One blocks its thread; the other has to run meanwhile.
        async fn meet(name: String, other: String) {
            raise(&name);
            while !flag(&other).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let (a, b) = (Flag::new("meet-a"), Flag::new("meet-b"));
        let both = futures::future::join(
            pool.apply(meet, (a.0.clone(), b.0.clone())),
            pool.apply(meet, (b.0.clone(), a.0.clone())),
        );
        assert_eq!(block_on(both), (Ok(()), Ok(())));
    });
}

#[test]
fn panics_and_results_that_do_not_serialise_are_errors_of_their_own_item() {
    isolated(|| {
        struct Picky(u64);
        impl serde::Serialize for Picky {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    2 => Err(serde::ser::Error::custom("not 2")),
                    x => serializer.serialize_u64(x),
                }
            }
        }
        impl<'de> serde::Deserialize<'de> for Picky {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                u64::deserialize(d).map(Picky)
            }
        }
        async fn picky(x: u64) -> Picky {
            assert_ne!(x, 1, "not 1");
            Picky(x)
        }
        let pool = Pool::builder().workers(1).chunk_size(4).build().unwrap();
        let ends: Vec<_> = block_on(pool.imap(picky, 0..4).collect());
        assert!(matches!(&ends[0], Ok(Picky(0))));
        assert!(matches!(&ends[1], Err(TaskError::Panicked { .. })));
        assert!(
            matches!(&ends[2], Err(TaskError::Encode(error)) if error.reason.contains("not 2"))
        );
        assert!(matches!(&ends[3], Ok(Picky(3))));
        let first = block_on(pool.map(picky, 0..4)).err();
        assert!(matches!(first, Some(TaskError::Panicked { .. })));
    });
}

#[test]
fn a_soft_timeout_cancels_the_coroutine_and_the_worker_lives() {
    isolated(|| {
        async fn nap(milliseconds: u64) -> u32 {
            sleep(Duration::from_millis(milliseconds)).await;
            std::process::id()
        }
        let limit = Duration::from_millis(300);
        let pool = Pool::builder()
            .workers(1)
            .chunk_size(3)
            .task_timeout(limit)
            .build()
            .unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let ends: Vec<_> = block_on(pool.imap(nap, [60_000, 1, 60_000]).collect());
        assert!(matches!(ends[0], Err(TaskError::TimedOut { after, .. }) if after == limit));
        assert_eq!(ends[1], Ok(before));
        assert!(matches!(ends[2], Err(TaskError::TimedOut { .. })));
        assert_eq!(block_on(pool.apply(pid, ())), Ok(before));
    });
}

#[test]
fn a_hard_timeout_kills_a_worker_whose_loop_is_blocked() {
    isolated(|| {
        async fn block_the_loop() {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        let limit = Duration::from_millis(200);
        let pool = Pool::builder()
            .workers(1)
            .hard_timeout(limit)
            .build()
            .unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let blocked = block_on(pool.apply(block_the_loop, ()));
        assert!(
            matches!(blocked, Err(TaskError::TimedOut { after, .. }) if after == limit),
            "{blocked:?}"
        );
        assert_ne!(block_on(pool.apply(pid, ())).unwrap(), before);
    });
}

async fn die_at_first(name: String) -> u32 {
    raise(&name);
    let first = std::fs::read(flag(&name)).unwrap().len() == 1;
    if first {
        // The worker has others as well.
        sleep(Duration::from_millis(50)).await;
        std::process::abort();
    }
    std::process::id()
}

#[test]
fn a_dead_worker_is_told_to_each_of_its_coroutines_and_replaced() {
    isolated(|| {
        async fn wait(name: String) {
            raise(&name);
            sleep(Duration::from_secs(3_600)).await;
        }
        let pool = Pool::builder().workers(1).build().unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let running = Flag::new("running");
        let all = stream::iter(0..20)
            .map(|_| pool.apply(wait, (running.0.clone(),)))
            .buffer_unordered(20)
            .collect::<Vec<_>>();
        let killer = std::thread::spawn({
            let name = running.0.clone();
            move || {
                let running = std::mem::ManuallyDrop::new(Flag(name));
                running.wait(20);
                let pid = nix::unistd::Pid::from_raw(before as i32);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        });
        for end in block_on(all) {
            assert!(
                matches!(&end, Err(TaskError::WorkerDied { pid, .. }) if *pid == before),
                "{end:?}"
            );
            assert!(end.unwrap_err().to_string().contains("SIGKILL"));
        }
        killer.join().unwrap();
        assert_ne!(block_on(pool.apply(pid, ())).unwrap(), before);
    });
}

#[test]
fn what_was_lost_is_run_again_if_asked_for() {
    isolated(|| {
        let flag = Flag::new("retried");
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let both = futures::future::join(
            pool.apply(die_at_first, (flag.0.clone(),)),
            pool.apply(pid, ()),
        );
        let (died, bystander) = block_on(both);
        assert_ne!(died.unwrap(), before);
        assert_ne!(bystander, Err(TaskError::Closed));
        assert_eq!(flag.count(), 2);
    });
}

/// A task that always kills its worker ends when its retries do, and the pool lives.
#[test]
fn retries_end() {
    isolated(|| {
        async fn die(name: String) {
            raise(&name);
            std::process::exit(3);
        }
        let flag = Flag::new("always");
        let pool = Pool::builder().workers(2).retries(2).build().unwrap();
        let end = block_on(pool.apply(die, (flag.0.clone(),)));
        assert!(matches!(&end, Err(TaskError::WorkerDied { .. })), "{end:?}");
        assert_eq!(flag.count(), 3);
        assert_eq!(block_on(pool.apply(square, (3,))), Ok(9));
    });
}

#[test]
fn dropping_the_future_cancels_the_coroutine() {
    isolated(|| {
        struct OnDrop(String);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                raise(&self.0);
            }
        }
        async fn wait(started: String, dropped: String) {
            let _cleanup = OnDrop(dropped);
            raise(&started);
            sleep(Duration::from_secs(3_600)).await;
        }
        let (started, dropped) = (Flag::new("started"), Flag::new("dropped"));
        let pool = Pool::builder()
            .workers(1)
            .in_flight(1)
            .window(1)
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let call = tokio::spawn(pool.apply(wait, (started.0.clone(), dropped.0.clone())));
            while started.count() == 0 {
                sleep(Duration::from_millis(2)).await;
            }
            call.abort();
            assert!(call.await.is_err());
            // Its place is free again only when it has gone.
            assert_eq!(pool.apply(square, (2,)).await, Ok(4));
        });
        assert_eq!(dropped.count(), 1);
    });
}

/// A pool that is full makes its callers wait, not their runtime.
#[test]
fn a_full_pool_does_not_block_the_callers_runtime() {
    isolated(|| {
        async fn wait() {
            sleep(Duration::from_secs(3_600)).await;
        }
        let pool = Pool::builder()
            .workers(1)
            .in_flight(1)
            .window(1)
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let first = tokio::spawn(pool.apply(wait, ()));
            let second = timeout(Duration::from_millis(100), pool.apply(wait, ()));
            assert!(second.await.is_err(), "there is no place for it");
            first.abort();
            assert_eq!(pool.apply(square, (2,)).await, Ok(4));
        });
    });
}

#[test]
fn dropping_the_pool_ends_everything_and_tells() {
    isolated(|| {
        async fn wait(name: String) {
            raise(&name);
            std::thread::sleep(Duration::from_secs(3_600));
        }
        let flag = Flag::new("blocked");
        let pool = Pool::new(1).unwrap();
        let call = std::thread::spawn({
            let call = pool.apply(wait, (flag.0.clone(),));
            move || block_on(call)
        });
        flag.wait(1);
        let later = pool.apply(square, (1,));
        let start = Instant::now();
        drop(pool);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(call.join().unwrap(), Err(TaskError::Cancelled));
        assert_eq!(block_on(later), Err(TaskError::Closed));
    });
}

#[test]
fn finishing_lets_everything_end_first() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let flag = Flag::new("finish");
        async fn slow(name: String) {
            raise(&name);
            sleep(Duration::from_millis(200)).await;
            raise(&name);
        }
        let call = std::thread::spawn({
            let call = pool.apply(slow, (flag.0.clone(),));
            move || block_on(call)
        });
        flag.wait(1);
        block_on(pool.finish());
        assert_eq!(flag.count(), 2);
        assert_eq!(call.join().unwrap(), Ok(()));
    });
}

#[test]
fn large_arguments_and_results_cross() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let text = "x".repeat(20 << 20);
        let twice = block_on(pool.apply(|text: String| async move { text + "y" }, (text.clone(),)));
        assert_eq!(twice.unwrap().len(), text.len() + 1);
    });
}

/// Workers that cannot be started are an error for whoever waits, not a hang; and when they can
/// be again, the pool works again.
#[test]
fn no_worker_can_be_started() {
    isolated(|| {
        let initialize = |repaired: String| assert!(flag(&repaired).exists(), "out of order");
        let repaired = Flag::new("repaired");
        let hosts = common::pool::Pool::builder().initializer(initialize, (repaired.0.clone(),));
        let pool = Pool::builder().workers(2).hosts(hosts).build().unwrap();
        let end = block_on(pool.apply(square, (2,)));
        assert!(matches!(&end, Err(TaskError::NoWorkers { .. })), "{end:?}");
        assert!(end.unwrap_err().to_string().contains("out of order"));
        raise(&repaired.0);
        assert_eq!(block_on(pool.apply(square, (2,))), Ok(4));
    });
}

/// Anybody may connect to the socket, and say what he likes.
#[test]
fn strangers_at_the_socket_are_not_listened_to() {
    use std::io::Write;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(block_on(pool.apply(square, (2,))), Ok(4));
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let ours = format!("@common-aio-{}-", std::process::id());
        let name = sockets
            .split_whitespace()
            .find(|word| word.starts_with(&ours))
            .unwrap();
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let mut strangers = Vec::new();
        for garbage in [
            &b""[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 1_000],
            &[0; 1_000],
        ] {
            let mut stranger = UnixStream::connect_addr(&address).unwrap();
            let _ = stranger.write_all(garbage);
            strangers.push(stranger);
        }
        assert_eq!(block_on(pool.map(square, 0..100)).unwrap().len(), 100);
    });
}

/// Workers are killed at random under load; every call is answered once, with its value or with
/// the news of its worker's death.
#[test]
fn random_kills() {
    isolated(|| {
        async fn work(x: u64) -> u64 {
            sleep(Duration::from_millis(x % 7)).await;
            x
        }
        let pool = Pool::builder().workers(2).in_flight(20).build().unwrap();
        let end = Instant::now() + Duration::from_secs(1) * testkit::soak();
        let killer = std::thread::spawn(move || {
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(30));
                if let Some(child) = common::process::active_children().first() {
                    let pid = nix::unistd::Pid::from_raw(child.pid as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        });
        let mut values = 0;
        while !killer.is_finished() {
            let ends: Vec<_> = block_on(pool.imap(work, 0..500).collect());
            assert_eq!(ends.len(), 500);
            for (x, end) in (0..).zip(ends) {
                match end {
                    Ok(value) => assert_eq!(value, x),
                    Err(error) => assert!(matches!(error, TaskError::WorkerDied { .. }), "{error}"),
                }
                values += 1;
            }
        }
        killer.join().unwrap();
        assert!(values > 0);
        assert_eq!(block_on(pool.apply(square, (4,))), Ok(16));
    });
}

/// Prints the pids of its workers, once for each coroutine that has begun, and goes on for long.
fn maps_for_long() {
    async fn forever(_: u64) {
        println!("{}", std::process::id());
        sleep(Duration::from_secs(3_600)).await;
    }
    // So few that it takes both workers.
    let pool = Pool::builder().workers(2).in_flight(10).build().unwrap();
    let _ = block_on(pool.map(forever, 0..20));
}

#[test]
fn a_parent_killed_in_a_map_takes_its_workers_along() {
    isolated(|| {
        let builder = Process::builder().stdout(Stdio::piped());
        let mut parent = builder.spawn(maps_for_long, ()).unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pids: BTreeSet<u32> = lines
            .take(20)
            .map(|line| line.unwrap().parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 2);
        let workers: Vec<_> = pids.into_iter().map(pidfd).collect();
        parent.kill().unwrap();
        ends_within(&workers, Duration::from_secs(1));
        parent.join().unwrap_err();
        // What it left in /dev/shm is swept by the next.
        drop(Pool::new(1).unwrap());
    });
}

/// A function that blocks, awaited; and cancelled with its future.
#[test]
fn a_blocking_function_is_awaited_and_cancelled() {
    isolated(|| {
        fn block(name: String) {
            raise(&name);
            std::thread::sleep(Duration::from_secs(3_600));
        }
        let flag = Flag::new("blocking");
        let pool = common::pool::Pool::new(1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let blocking = aio::run_in(&pool, block, (flag.0.clone(),));
            let seen = async {
                while flag.count() == 0 {
                    sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::select! {
                end = blocking => panic!("{end:?}"),
                () = seen => {}
            }
            // The only worker is free again, or this would wait for an hour.
            assert_eq!(aio::run_in(&pool, |x: u32| x + 1, (1,)).await, Ok(2));
        });
    });
}
