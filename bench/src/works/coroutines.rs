//! Coroutines in the workers of a pool, beside coroutines in one process.

use crate::harness::time::{per_second, seconds};
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::aio::pool::Pool;
use futures::executor::block_on;
use std::time::Duration;

/// Many that wait.
pub const SLEEP: Work = Work {
    name: "aio_sleep",
    what: "4 workers with 1,000 coroutines each that sleep for 1 s",
    metric: "wall",
    unit: "s",
    better: Better::Lower,
    reps: 3,
    account: Account::Beside,
    sides: &[
        Side::rust(OURS, "aio::pool::Pool::map, 4,000 coroutines", our_sleep),
        Side::python(
            "py:Pool x asyncio",
            "Pool(4), asyncio.gather in each",
            "coroutines.py",
            &["sleep_pool"],
        ),
        Side::python(
            "py:asyncio.gather",
            "4,000 in one process",
            "coroutines.py",
            &["sleep"],
        ),
        Side::rust("rust:tokio", "4,000 tasks in one thread", tokio_sleep),
    ],
    musts: &[Must {
        text: "1.1 s at most",
        any: &[Check::AtMost {
            ours: OURS,
            limit: 1.1,
        }],
    }],
};

/// Many that do next to nothing.
pub const TRIVIAL: Work = Work {
    name: "aio_trivial",
    what: "100,000 coroutines that return their argument, over 2 workers",
    metric: "rate",
    unit: "tasks/s",
    better: Better::Higher,
    reps: 5,
    account: Account::No,
    sides: &[
        Side::rust(OURS, "aio::pool::Pool::map", our_trivial),
        Side::python(
            "py:asyncio.gather",
            "in one process",
            "coroutines.py",
            &["gather"],
        ),
        Side::rust("rust:tokio(spawn)", "in one thread", || tokio_trivial(1)),
        Side::rust("rust:tokio(spawn),2 threads", "in one process", || {
            tokio_trivial(2)
        }),
    ],
    musts: &[Must {
        text: "10 x asyncio",
        any: &[Check::Better {
            ours: OURS,
            than: "py:asyncio.gather",
            times: 10.0,
        }],
    }],
};

const OURS: &str = "ours:aio";

const N: u64 = 100_000;

async fn trivial(x: u64) -> u64 {
    x
}

async fn sleep(_: u64) {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn our_sleep() -> Result<Repetition, Skip> {
    let pool = Pool::new(4)?;
    let all = move || {
        let slept = block_on(pool.map(sleep, 0..4_000u64))?;
        assert_eq!(slept.len(), 4_000);
        Ok(())
    };
    Ok(seconds(all, |seconds| seconds))
}

fn our_trivial() -> Result<Repetition, Skip> {
    let pool = Pool::new(2)?;
    let all = move || {
        let same = block_on(pool.map(trivial, 0..N))?;
        assert!(same.into_iter().eq(0..N));
        Ok(())
    };
    Ok(per_second(N as usize, all))
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_time().build()
}

fn tokio_trivial(threads: usize) -> Result<Repetition, Skip> {
    let runtime = runtime(threads)?;
    let all = move || {
        runtime.block_on(async {
            let tasks: Vec<_> = (0..N).map(|x| tokio::spawn(trivial(x))).collect();
            for (x, task) in (0..N).zip(tasks) {
                assert_eq!(task.await?, x);
            }
            Ok(())
        })
    };
    Ok(per_second(N as usize, all))
}

fn tokio_sleep() -> Result<Repetition, Skip> {
    let runtime = runtime(1)?;
    let all = move || {
        runtime.block_on(async {
            let sleeps = (0..4_000).map(|_| tokio::time::sleep(Duration::from_secs(1)));
            futures::future::join_all(sleeps).await;
            Ok(())
        })
    };
    Ok(seconds(all, |seconds| seconds))
}
