//! One task that does nothing, submitted and waited for.

use super::pool_tasks::{WORKERS, nothing, rayon_pool};
use crate::harness::time::mean_us;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::pool::Pool;

/// See the module.
pub const WORK: Work = Work {
    name: "apply_rtt",
    what: "a task that does nothing is given to a pool of 2 and its result waited for",
    metric: "latency",
    unit: "us",
    better: Better::Lower,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "apply, 10,000 times", ours),
        Side::python("py:mp.Pool", "apply, fork", "pools.py", &["apply", "mp"]),
        Side::python(
            "py:ProcessPoolExecutor",
            "submit, result",
            "pools.py",
            &["apply", "ppe"],
        ),
        Side::python("py:loky", "submit, result", "pools.py", &["apply", "loky"]),
        Side::python(
            "py:pebble",
            "schedule, result",
            "pools.py",
            &["apply", "pebble"],
        ),
        Side::python("py:mpire", "apply", "pools.py", &["apply", "mpire"]),
        Side::rust("rust:procspawn::Pool", "spawn, join", procspawn),
        Side::rust("thread:rayon", "install, threads of one process", rayon),
    ],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[Must {
    text: "3 us, or 30 x better than Python's Pool",
    any: &[
        Check::AtMost {
            ours: "ours:Pool",
            limit: 3.0,
        },
        Check::Better {
            ours: "ours:Pool",
            than: "py:mp.Pool",
            times: 30.0,
        },
    ],
}];

fn ours() -> Result<Repetition, Skip> {
    const N: usize = 10_000;
    let pool = Pool::new(WORKERS)?;
    Ok(mean_us(N, move || {
        (0..N).try_for_each(|_| pool.apply(nothing, ()))?;
        Ok(())
    }))
}

fn procspawn() -> Result<Repetition, Skip> {
    const N: usize = 1_000;
    let pool = procspawn::Pool::new(WORKERS)?;
    Ok(mean_us(N, move || {
        for _ in 0..N {
            pool.spawn((), |()| nothing()).join()?;
        }
        Ok(())
    }))
}

fn rayon() -> Result<Repetition, Skip> {
    const N: usize = 20_000;
    let pool = rayon_pool()?;
    Ok(mean_us(N, move || {
        (0..N).for_each(|_| pool.install(nothing));
        Ok(())
    }))
}
