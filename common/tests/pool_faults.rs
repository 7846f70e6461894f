//! The pool when things go wrong: workers that die in every way, limits, floods, a dead parent.

use common::function::Function;
use common::pool::{Pool, TaskError, TaskId};
use common::process::{JoinError, Process, Stdio};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::{ends_within, isolated, isolated_for, pidfd, soak};

fn square(x: u64) -> u64 {
    x * x
}

fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

fn signal_self(signal: Signal) {
    kill(Pid::this(), signal).unwrap();
}

/// Ends its worker if `x` is 5.
fn kills_at_five(x: u64) -> u64 {
    if x == 5 {
        signal_self(Signal::SIGKILL);
    }
    x
}

fn pids(pool: &Pool) -> Vec<Pid> {
    let workers = pool.stats().workers;
    let pids = workers.iter().filter_map(|worker| worker.pid);
    pids.map(|pid| Pid::from_raw(pid as i32)).collect()
}

fn died(error: &TaskError) -> (Option<i32>, Option<i32>, &TaskId) {
    match error {
        TaskError::WorkerDied { status, task, .. } => {
            let status = status.unwrap();
            (status.code(), status.signal(), task)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_worker_killed_in_a_task_costs_that_task_alone() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        for chunk in [1, 4, 100] {
            let each: Vec<_> = pool.imap(kills_at_five, 0..10).chunk_size(chunk).collect();
            for (x, result) in each.iter().enumerate() {
                match result {
                    Ok(same) => assert_eq!(*same, x as u64),
                    Err(error) => {
                        let (_, signal, task) = died(error);
                        assert_eq!((signal, x, task.index), (Some(9), 5, Some(5)));
                    }
                }
            }
            assert!(each[5].is_err());
        }
        let error = pool.map(kills_at_five, 0..1000).unwrap_err();
        assert_eq!(died(&error).2.index, Some(5));
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

#[test]
fn retries_end_and_the_pool_lives() {
    isolated(|| {
        let pool = Pool::builder().workers(2).retries(3).build().unwrap();
        assert!(pool.apply(kills_at_five, (5,)).is_err());
        let restarts = || -> u32 { pool.stats().workers.iter().map(|w| w.restarts).sum() };
        while restarts() < 4 {
            sleep(Duration::from_millis(1));
        }
        assert_eq!(restarts(), 4);
        // The second attempt lives.
        fn once(path: String) -> bool {
            if std::fs::File::create_new(&path).is_ok() {
                signal_self(Signal::SIGKILL);
            }
            std::fs::remove_file(path).is_ok()
        }
        let path = std::env::temp_dir().join(format!("pool-once-{}", std::process::id()));
        assert_eq!(pool.apply(once, (path.to_str().unwrap().into(),)), Ok(true));
    });
}

#[test]
fn idle_workers_killed_are_replaced() {
    isolated(|| {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            pool.map(nap, [1; 6]).unwrap();
            let before = pids(&pool);
            before
                .iter()
                .for_each(|&pid| kill(pid, Signal::SIGKILL).unwrap());
            // Some may be given to a worker that is dead and not yet missed; none may hang.
            let results: Vec<_> = pool.imap(square, 0..50).collect();
            assert_eq!(results.len(), 50);
            while pids(&pool).len() < 3 || pids(&pool).iter().any(|pid| before.contains(pid)) {
                sleep(Duration::from_millis(1));
            }
            assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
        }
    });
}

#[test]
fn all_workers_killed_at_once_in_their_tasks() {
    isolated(|| {
        let pool = Pool::new(3).unwrap();
        let naps: Vec<_> = (0..3).map(|_| pool.apply_async(nap, (60_000,))).collect();
        let next = pool.apply_async(square, (4,));
        while pool.stats().running < 3 {
            sleep(Duration::from_millis(1));
        }
        pids(&pool)
            .iter()
            .for_each(|&pid| kill(pid, Signal::SIGKILL).unwrap());
        for nap in naps {
            assert_eq!(died(&nap.get().unwrap_err()).1, Some(9));
        }
        assert_eq!(next.get(), Ok(16));
    });
}

#[allow(unconditional_recursion)] // That is what it is for.
fn overflow(x: u64) -> u64 {
    std::hint::black_box(x) + std::hint::black_box(overflow(std::hint::black_box(x + 1)))
}

#[test]
fn exit_abort_and_stack_overflow() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let exit = pool
            .apply(|| -> u8 { std::process::exit(3) }, ())
            .unwrap_err();
        assert_eq!(died(&exit).0, Some(3));
        let abort = pool
            .apply(|| -> u8 { std::process::abort() }, ())
            .unwrap_err();
        assert_eq!(died(&abort).1, Some(libc::SIGABRT));
        assert!(abort.to_string().contains("SIGABRT"), "{abort}");
        assert!(died(&pool.apply(overflow, (0,)).unwrap_err()).1.is_some());
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

#[test]
fn a_worker_that_closes_its_descriptors_hurts_itself_only() {
    isolated(|| {
        fn close_all() {
            for fd in 0..1024 {
                let _ = nix::unistd::close(fd);
            }
        }
        let pool = Pool::new(1).unwrap();
        let _ = pool.apply(close_all, ());
        let bytes = ByteBuf::from(vec![1; 20 << 20]);
        let _ = pool.apply(|bytes: ByteBuf| bytes, (bytes,));
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

#[test]
fn a_deadline_kills_what_runs_and_what_is_stopped() {
    isolated(|| {
        let timeout = Duration::from_secs(1);
        let pool = Pool::builder()
            .workers(2)
            .task_timeout(timeout)
            .build()
            .unwrap();
        let start = Instant::now();
        let slow = pool.apply_async(nap, (60_000,));
        let stopped = pool.apply_async(|| signal_self(Signal::SIGSTOP), ());
        let Err(TaskError::TimedOut { after, task }) = slow.get() else {
            panic!()
        };
        assert!(start.elapsed() >= timeout);
        assert!(after == timeout && task.function.ends_with("nap"));
        assert!(matches!(stopped.get(), Err(TaskError::TimedOut { .. })));
        // The time in the queue does not count, and each item of a chunk has its own.
        assert_eq!(pool.map_chunked(nap, [250; 12], 6), Ok(vec![250; 12]));
        let each: Vec<_> = pool.imap(nap, [1, 60_000, 2]).chunk_size(3).collect();
        assert_eq!((&each[0], &each[2]), (&Ok(1), &Ok(2)));
        assert!(matches!(each[1], Err(TaskError::TimedOut { .. })));
    });
}

/// O-027.
#[test]
fn a_pool_that_cannot_start_leaves_nothing() {
    isolated(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 40, hard).unwrap();
        let error = Pool::new(100).unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(error.to_string().contains("worker"), "{error}");
        assert_eq!(Pool::new(1).unwrap().apply(square, (2,)), Ok(4));
    });
}

#[test]
fn workers_that_cannot_be_replaced() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        pool.apply(square, (2,)).unwrap();
        let waiting: Vec<_> = (0..10).map(|_| pool.apply_async(nap, (60_000,))).collect();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let pid = pids(&pool)[0];
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        for nap in &waiting {
            let error = nap.get().unwrap_err();
            assert!(
                matches!(
                    error,
                    TaskError::NoWorkers { .. } | TaskError::WorkerDied { .. }
                ),
                "{error}"
            );
        }
        assert!(pool.apply(square, (3,)).is_err());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while pool.apply(square, (3,)) != Ok(9) {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn messages_larger_than_the_ring() {
    isolated_for(Duration::from_secs(120), || {
        let pool = Pool::builder()
            .workers(2)
            .queue_bytes(1 << 20)
            .build()
            .unwrap();
        let sum = |bytes: ByteBuf| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
        let bytes = ByteBuf::from(vec![1; 100_000_000]);
        assert_eq!(pool.apply(sum, (bytes,)), Ok(100_000_000));
        // Once 1 GiB, where there is time for it.
        let size: usize = if soak() > 1 { 1 << 30 } else { 64 << 20 };
        let large = pool.apply_async(|size: usize| ByteBuf::from(vec![7; size]), (size,));
        let small = pool.apply_async(square, (3,));
        let large = large.get().unwrap();
        assert!(large.len() == size && large.iter().all(|&b| b == 7));
        assert_eq!(small.get(), Ok(9));
        let many = vec![ByteBuf::from(vec![1; 3_000_000]); 8];
        assert_eq!(pool.map(sum, many), Ok(vec![3_000_000; 8]));
    });
}

#[test]
fn a_worker_killed_while_it_receives_or_sends_a_long_message() {
    isolated_for(Duration::from_secs(120), || {
        let pool = Pool::builder()
            .workers(2)
            .queue_bytes(1 << 16)
            .build()
            .unwrap();
        for delay in 0..20 * u64::from(soak()) {
            let bytes = ByteBuf::from(vec![1; 10_000_000]);
            let echo = pool.apply_async(|bytes: ByteBuf| bytes, (bytes,));
            sleep(Duration::from_micros(delay * 400));
            for pid in pids(&pool) {
                let _ = kill(pid, Signal::SIGKILL);
            }
            match echo.get() {
                Ok(bytes) => assert_eq!(bytes.len(), 10_000_000),
                Err(error) => assert_eq!(died(&error).1, Some(9)),
            }
        }
        assert_eq!(pool.apply(square, (3,)), Ok(9));
    });
}

#[test]
fn a_hundred_thousand_queued_tasks_with_few_descriptors() {
    isolated(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        let pool = Pool::new(2).unwrap();
        let squares: Vec<_> = (0..100_000)
            .map(|x| pool.apply_async(square, (x,)))
            .collect();
        for (x, result) in (0..).zip(squares) {
            assert_eq!(result.get(), Ok(x * x));
        }
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

#[test]
fn memory_limits() {
    isolated(|| {
        let fill = |bytes: usize| std::hint::black_box(vec![1u8; bytes]).len();
        let pool = Pool::builder()
            .workers(1)
            .memory_limit(1 << 30)
            .build()
            .unwrap();
        assert_eq!(pool.apply(fill, (1 << 20,)), Ok(1 << 20));
        let error = pool.apply(fill, (2 << 30,)).unwrap_err();
        assert_eq!(died(&error).1, Some(libc::SIGABRT));
        let leak = |bytes: usize| {
            std::mem::forget(std::hint::black_box(vec![1u8; bytes]));
            std::process::id()
        };
        let most = 64 << 20;
        let pool = Pool::builder()
            .workers(1)
            .max_memory_per_worker(most)
            .build()
            .unwrap();
        let pids: Result<HashSet<u32>, _> = pool.imap(leak, [20 << 20; 12]).collect();
        assert!(pids.unwrap().len() >= 3);
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

/// O-026: a program that ends with a pool in a static.
#[test]
fn an_unclosed_pool_in_a_static_hinders_nobody() {
    isolated(|| {
        static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(2).unwrap());
        fn ends() -> u64 {
            let sixteen = POOL.apply(square, (4,)).unwrap();
            tell_workers(&POOL);
            sixteen
        }
        let (program, workers) = with_workers(ends);
        assert_eq!(program.join().unwrap(), 16);
        assert_eq!(program.exit_code(), Some(0));
        ends_within(&workers, Duration::from_secs(1));
    });
}

/// Prints the pids of the pool's workers for [`with_workers`], and waits until they are read.
fn tell_workers(pool: &Pool) {
    println!(
        "{:?}",
        pids(pool)
            .iter()
            .map(|pid| pid.as_raw())
            .collect::<Vec<_>>()
    );
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// A process with a pool, and the pidfds of its workers.
fn with_workers<R: Serialize + DeserializeOwned + 'static>(
    f: impl Function<(), Output = R>,
) -> (Process<R>, Vec<OwnedFd>) {
    let piped = || Stdio::piped();
    let builder = Process::builder().stdin(piped()).stdout(piped());
    let mut process = builder.spawn(f, ()).unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let numbers = line.trim().trim_matches(['[', ']']).split(", ");
    let workers = numbers.map(|pid| pidfd(pid.parse().unwrap())).collect();
    // Closing it is an answer as well.
    drop(process.stdin.take());
    (process, workers)
}

/// Maps in a process of its own.
fn maps_for_long() {
    let pool = Pool::new(3).unwrap();
    let naps = pool.map_async(nap, [60_000; 100]);
    while pool.stats().running < 3 {
        sleep(Duration::from_millis(1));
    }
    tell_workers(&pool);
    let _ = naps.get();
}

fn mapping_process(action: fn(&Process<()>)) -> Result<(), JoinError> {
    let (process, workers) = with_workers(maps_for_long);
    action(&process);
    ends_within(&workers, Duration::from_secs(1));
    let joined = process.join();
    // What it left in /dev/shm is swept by the next.
    drop(Pool::new(1).unwrap());
    joined
}

#[test]
fn a_parent_killed_in_a_map_takes_its_workers_along() {
    isolated(|| {
        let joined = mapping_process(|process| process.kill().unwrap());
        assert!(matches!(joined, Err(JoinError::Signaled { signal: 9, .. })));
    });
}

#[test]
fn an_interrupt_ends_a_map_quietly() {
    isolated(|| {
        let joined = mapping_process(|process| process.interrupt().unwrap());
        assert!(matches!(joined, Err(JoinError::Signaled { signal: 2, .. })));
        // Ctrl-C goes to the workers as well. A program that catches it gets errors.
        let pool = Pool::new(2).unwrap();
        let naps = pool.map_async(nap, [60_000; 2]);
        while pool.stats().running < 2 {
            sleep(Duration::from_millis(1));
        }
        pids(&pool)
            .iter()
            .for_each(|&pid| kill(pid, Signal::SIGINT).unwrap());
        assert_eq!(died(&naps.get().unwrap_err()).1, Some(libc::SIGINT));
    });
}

/// Random kills under load: each task is answered once, with its value or the right error.
#[test]
fn chaos() {
    isolated_for(Duration::from_secs(60 + 15 * u64::from(soak())), || {
        let time = Duration::from_millis(1500) * soak();
        let end = Instant::now() + time.min(Duration::from_secs(600));
        let pool = Pool::new(3).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = 1u64;
                while Instant::now() < end {
                    random = random
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    sleep(Duration::from_micros((random >> 33) % 20_000));
                    let pids = pids(&pool);
                    if !pids.is_empty() {
                        let _ = kill(pids[(random >> 40) as usize % pids.len()], Signal::SIGKILL);
                    }
                }
            });
            for chunk in [1, 7, 100] {
                let pool = &pool;
                scope.spawn(move || {
                    let (mut right, mut lost) = (0u64, 0u64);
                    while Instant::now() < end {
                        let each = pool.imap(square, 0..1000).chunk_size(chunk);
                        let mut count = 0;
                        for (x, result) in (0..).zip(each) {
                            count += 1;
                            match result {
                                Ok(value) => assert_eq!(value, x * x),
                                Err(error) => {
                                    assert_eq!(died(&error).2.index, Some(x as usize));
                                    lost += 1;
                                    continue;
                                }
                            }
                            right += 1;
                        }
                        assert_eq!(count, 1000);
                    }
                    assert!(right > 100 * lost, "{right} right, {lost} lost");
                });
            }
        });
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}
