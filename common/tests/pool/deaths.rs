//! Workers that die, in every way.

use super::{died, nap, pids, square, wait_until_running};
use common::pool::{Pool, TaskError};
use common::sync::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_bytes::ByteBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::{isolated, isolated_for, soak};

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

/// Those behind it in its chunk do not pay for a task that was lost and run again.
#[test]
fn each_task_of_a_chunk_has_its_own_retries() {
    isolated(|| {
        fn dies_once((x, place): (u64, String)) -> u64 {
            if x % 3 == 2 && std::fs::File::create_new(format!("{place}-{x}")).is_ok() {
                signal_self(Signal::SIGKILL);
            }
            x
        }
        let place = std::env::temp_dir().join(format!("pool-each-{}", std::process::id()));
        let place = place.to_str().unwrap();
        let items = || (0..9).map(|x| (x, place.to_string()));
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        for size in [9, 4] {
            let all = pool.map_chunked(dies_once, items(), size);
            assert_eq!(all, Ok((0..9).collect()), "in chunks of {size}");
            for x in [2, 5, 8] {
                std::fs::remove_file(format!("{place}-{x}")).unwrap();
            }
        }
        // Nor has one that dies each time more of them because of the others.
        let each: Vec<_> = pool.imap(kills_at_five, 3..8).chunk_size(5).collect();
        assert!(each[2].is_err() && each.iter().filter(|one| one.is_ok()).count() == 4);
    });
}

#[test]
fn a_chunk_may_be_as_large_as_one_likes() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let all = pool.map_async_chunked(kills_at_five, 0..10, usize::MAX);
        let error = all.get_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(died(&error.unwrap_err()).2.index, Some(5));
        assert_eq!(all.progress(), 10);
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
        wait_until_running(&pool, 3);
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

/// The time until somebody takes the answer does not count: `map` may still draw the items.
#[test]
fn an_answer_that_has_to_wait_is_not_late() {
    isolated(|| {
        let builder = Pool::builder().workers(1).queue_bytes(1 << 16);
        let pool = builder.task_timeout(Duration::from_millis(500));
        let pool = pool.build().unwrap();
        // Its thread that takes answers sleeps behind that.
        assert_eq!(pool.apply(square, (3,)), Ok(9));
        let last = Event::new().unwrap();
        let answer = |(n, last): (u64, Event)| {
            if n == 63 {
                last.set();
            }
            // Longer than the ring.
            ByteBuf::from(vec![0; 1 << 18])
        };
        let items = (0..65).map(|n| {
            // Those before are handed over together.
            if n == 64 {
                last.wait_timeout(Duration::from_secs(10));
            }
            (n, last.clone())
        });
        let answers = pool.map(answer, items);
        assert_eq!(answers.map(|all| all.len()), Ok(65));
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
                let (mut answered, mut early) = ([0; 3], false);
                while Instant::now() < end {
                    random = random
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    sleep(Duration::from_micros((random >> 33) % 20_000));
                    let at = (random >> 40) as usize % 3;
                    let worker = &pool.stats().workers[at];
                    let Some(pid) = worker.pid else { continue };
                    // Three in a row that were not ready yet would be the end of all that waits.
                    let idle = worker.tasks == answered[at];
                    if idle && early {
                        continue;
                    }
                    (early, answered[at]) = (idle, worker.tasks);
                    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
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
