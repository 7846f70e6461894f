//! Many tasks that are next to nothing: what a task costs.

use super::pool_tasks::{WORKERS, procspawn_map, rayon_pool, square};
use crate::harness::time::per_second;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::pool::Pool;
use rayon::prelude::*;

/// In the chunks that the pool picks.
pub const CHUNKED: Work = Work {
    name: "map_small",
    what: "map of x * x over 100,000 numbers by a pool of 2, chunks as the pool picks them",
    metric: "rate",
    unit: "tasks/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "map", || ours(None)),
        Side::python(
            "py:mp.Pool",
            "chunks of 12,500",
            "pools.py",
            &["small", "mp"],
        ),
        Side::rust(
            "rust:procspawn::Pool(hand-chunked)",
            "8 chunks of 12,500",
            procspawn_chunks,
        ),
        Side::rust("thread:rayon", "threads of one process", || rayon(N)),
    ],
    musts: CHUNKED_MUSTS,
};

/// One by one.
pub const CHUNK_1: Work = Work {
    name: "map_small_chunk1",
    what: "map of x * x over 100,000 numbers by a pool of 2, each sent on its own",
    metric: "rate",
    unit: "tasks/s",
    better: Better::Higher,
    reps: 5,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "map_chunked", || ours(Some(1))),
        Side::python(
            "py:mp.Pool",
            "20,000 numbers",
            "pools.py",
            &["small1", "mp"],
        ),
        Side::python(
            "py:mpire",
            "20,000 numbers",
            "pools.py",
            &["small1", "mpire"],
        ),
        Side::rust(
            "rust:procspawn::Pool",
            "10,000 numbers, 64 in flight",
            procspawn_singles,
        ),
        Side::rust(
            "thread:rayon",
            "threads of one process, with_max_len(1)",
            || rayon(1),
        ),
    ],
    musts: CHUNK_1_MUSTS,
};

const CHUNKED_MUSTS: &[Must] = &[
    Must {
        text: "8 x Python's Pool",
        any: &[better(8.0, "py:mp.Pool")],
    },
    Must {
        text: "not below procspawn, hand-chunked",
        any: &[better(1.0, "rust:procspawn::Pool(hand-chunked)")],
    },
];

const CHUNK_1_MUSTS: &[Must] = &[Must {
    text: "20 x Python's Pool",
    any: &[better(20.0, "py:mp.Pool")],
}];

const fn better(times: f64, than: &'static str) -> Check {
    let ours = "ours:Pool";
    Check::Better { ours, than, times }
}

const N: usize = 100_000;

fn ours(chunk: Option<usize>) -> Result<Repetition, Skip> {
    let pool = Pool::new(WORKERS)?;
    Ok(per_second(N, move || {
        let squares = match chunk {
            None => pool.map(square, 0..N as u64)?,
            Some(size) => pool.map_chunked(square, 0..N as u64, size)?,
        };
        assert_eq!(squares.len(), N);
        Ok(())
    }))
}

fn procspawn_chunks() -> Result<Repetition, Skip> {
    let pool = procspawn::Pool::new(WORKERS)?;
    Ok(per_second(N, move || {
        let numbers: Vec<u64> = (0..N as u64).collect();
        let chunks = numbers.chunks(12_500).map(<[u64]>::to_vec);
        let squares: fn(Vec<u64>) -> Vec<u64> = |chunk| chunk.into_iter().map(square).collect();
        let mut all = Vec::with_capacity(N);
        procspawn_map(&pool, chunks, 8, squares, |chunk| all.extend(chunk))?;
        assert_eq!(all.len(), N);
        Ok(())
    }))
}

fn procspawn_singles() -> Result<Repetition, Skip> {
    const FEW: usize = 10_000;
    let pool = procspawn::Pool::new(WORKERS)?;
    Ok(per_second(FEW, move || {
        let mut sum = 0;
        procspawn_map(&pool, 0..FEW as u64, 64, square, |square| sum += square)?;
        assert!(sum > 0);
        Ok(())
    }))
}

fn rayon(longest: usize) -> Result<Repetition, Skip> {
    let pool = rayon_pool()?;
    Ok(per_second(N, move || {
        let numbers = (0..N).into_par_iter().with_max_len(longest);
        let squares: Vec<_> = pool.install(|| numbers.map(|x| square(x as u64)).collect());
        assert_eq!(std::hint::black_box(squares).len(), N);
        Ok(())
    }))
}
