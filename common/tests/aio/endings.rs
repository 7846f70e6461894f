//! How a coroutine ends before it is done: limits of time, cancelling, the end of its pool.

use super::{Flag, pid, raise, runtime, square, within_ten_seconds};
use common::aio;
use common::aio::pool::{Pool, TaskError};
use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use std::time::{Duration, Instant};
use testkit::isolated;
use tokio::time::{sleep, timeout};

/// A pool that has room for one call at a time.
fn one_place() -> Pool {
    let builder = Pool::builder().workers(1).in_flight(1).window(1);
    builder.build().unwrap()
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

/// What is dropped at its limit of time may panic then: that is its own end only.
#[test]
fn a_panic_in_a_cancelled_coroutine_is_its_own() {
    isolated(|| {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        async fn wait(x: u64) -> u64 {
            if x == 1 {
                let _bomb = Bomb;
                sleep(Duration::from_secs(3_600)).await;
            }
            x
        }
        let pool = Pool::builder()
            .workers(1)
            .chunk_size(3)
            .task_timeout(Duration::from_millis(50))
            // To print the panic, with a backtrace perhaps, may block the loop for long.
            .hard_timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let ends: Vec<_> = block_on(pool.imap(wait, 0..3).collect());
        assert_eq!((&ends[0], &ends[2]), (&Ok(0), &Ok(2)));
        assert!(
            matches!(&ends[1], Err(TaskError::Panicked { message, .. }) if message == "in drop"),
            "{:?}",
            ends[1]
        );
    });
}

/// A time too long for the clock is for ever.
#[test]
fn limits_of_time_may_be_as_long_as_one_likes() {
    isolated(|| {
        let builder = || Pool::builder().workers(1);
        for builder in [
            builder().task_timeout(Duration::MAX),
            builder().hard_timeout(Duration::MAX),
            builder().task_timeout(Duration::from_secs(1 << 62)),
        ] {
            let pool = builder.build().unwrap();
            assert_eq!(block_on(pool.apply(square, (3,))), Ok(9));
        }
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
        let pool = one_place();
        runtime().block_on(async {
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
        let pool = one_place();
        runtime().block_on(async {
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

/// Two streams that were polled once, of a pool that has room for half of that; the second has
/// to wait for the first.
macro_rules! two_streams {
    ($pool:ident, $first:ident, $second:ident) => {
        let builder = Pool::builder().workers(1).in_flight(2).window(2);
        let $pool = builder.build().unwrap();
        let mut $first = Box::pin($pool.imap(square, 0..10));
        let mut $second = Box::pin($pool.imap(square, 0..10));
        assert_eq!($first.next().now_or_never(), None);
        assert_eq!($second.next().now_or_never(), None);
    };
}

#[test]
fn a_stream_that_nobody_polls_holds_up_no_other() {
    isolated(|| {
        two_streams!(pool, first, second);
        let all = within_ten_seconds(first.collect::<Vec<_>>());
        assert_eq!(all, (0..10).map(|x| Ok(x * x)).collect::<Vec<_>>());
        let rest = block_on(second.collect::<Vec<_>>());
        assert_eq!(rest, all);
        drop(pool);
    });
}

/// What it had asked for before is done; what it asks for later is not.
#[test]
fn finishing_waits_for_nobody_to_poll() {
    isolated(|| {
        two_streams!(pool, first, second);
        within_ten_seconds(pool.finish());
        for stream in [&mut first, &mut second] {
            assert_eq!(block_on(stream.next()), Some(Ok(0)));
            assert_eq!(block_on(stream.next()), Some(Ok(1)));
            assert_eq!(block_on(stream.next()), Some(Err(TaskError::Closed)));
        }
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
        runtime().block_on(async {
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
