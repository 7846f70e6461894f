//! Tasks that compute: how much of the cores they get, when even and when uneven.

use super::pool_tasks::{WORKERS, procspawn_map, rayon_pool, spin};
use crate::harness::time::seconds;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::pool::Pool;
use rayon::prelude::*;

/// All alike.
pub const EVEN: Work = Work {
    name: "map_cpu",
    what: "64 tasks of 10 ms (busy, by the wall clock) by a pool of 2: ideal time / time",
    metric: "efficiency",
    unit: "of 1",
    better: Better::Higher,
    reps: 5,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "map", || ours(&even(), efficiency)),
        Side::python("py:mp.Pool", "default chunks", "pools.py", &["cpu", "mp"]),
        Side::rust("rust:procspawn::Pool", "4 in flight", || {
            procspawn(&even(), efficiency)
        }),
        Side::rust("thread:rayon", "threads of one process", || {
            rayon(&even(), efficiency)
        }),
    ],
    musts: EVEN_MUSTS,
};

/// From short to long.
pub const UNEVEN: Work = Work {
    name: "map_uneven",
    what: "40 tasks of 1 ms to 200 ms, longest last, by a pool of 2: time / best possible time",
    metric: "ratio",
    unit: "of best",
    better: Better::Lower,
    reps: 3,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "map", || ours(&uneven(), of_best)),
        Side::python(
            "py:mp.Pool",
            "default chunks",
            "pools.py",
            &["uneven", "mp"],
        ),
        Side::python(
            "py:mp.Pool(chunksize=1)",
            "one by one",
            "pools.py",
            &["uneven1", "mp"],
        ),
        Side::rust("rust:procspawn::Pool", "4 in flight", || {
            procspawn(&uneven(), of_best)
        }),
        Side::rust("thread:rayon", "threads of one process", || {
            rayon(&uneven(), of_best)
        }),
    ],
    musts: UNEVEN_MUSTS,
};

const EVEN_MUSTS: &[Must] = &[Must {
    text: "efficiency at least 0.995",
    any: &[Check::AtLeast {
        ours: "ours:Pool",
        limit: 0.995,
    }],
}];

const UNEVEN_MUSTS: &[Must] = &[Must {
    text: "at most 1.05 x the best schedule",
    any: &[Check::AtMost {
        ours: "ours:Pool",
        limit: 1.05,
    }],
}];

/// The tasks' lengths in microseconds.
fn even() -> Vec<u64> {
    vec![10_000; 64]
}

/// The best schedule of these takes half of their sum: the first with the last, and so on.
fn uneven() -> Vec<u64> {
    (0..40).map(|i| 1_000 + i * 199_000 / 39).collect()
}

/// What no schedule can beat, in seconds.
fn best(tasks: &[u64]) -> f64 {
    tasks.iter().sum::<u64>() as f64 / WORKERS as f64 / 1e6
}

type Figure = fn(best: f64, seconds: f64) -> f64;

fn efficiency(best: f64, seconds: f64) -> f64 {
    best / seconds
}

fn of_best(best: f64, seconds: f64) -> f64 {
    seconds / best
}

fn ours(tasks: &[u64], figure: Figure) -> Result<Repetition, Skip> {
    let (tasks, best) = (tasks.to_vec(), best(tasks));
    let pool = Pool::new(WORKERS)?;
    let all = move || Ok(pool.map(spin, tasks.iter().copied()).map(drop)?);
    Ok(seconds(all, move |seconds| figure(best, seconds)))
}

fn procspawn(tasks: &[u64], figure: Figure) -> Result<Repetition, Skip> {
    let (tasks, best) = (tasks.to_vec(), best(tasks));
    let pool = procspawn::Pool::new(WORKERS)?;
    let all = move || Ok(procspawn_map(&pool, tasks.iter().copied(), 4, spin, drop)?);
    Ok(seconds(all, move |seconds| figure(best, seconds)))
}

fn rayon(tasks: &[u64], figure: Figure) -> Result<Repetition, Skip> {
    let (tasks, best) = (tasks.to_vec(), best(tasks));
    let pool = rayon_pool()?;
    let all = move || {
        pool.install(|| tasks.par_iter().for_each(|&task| spin(task)));
        Ok(())
    };
    Ok(seconds(all, move |seconds| figure(best, seconds)))
}
