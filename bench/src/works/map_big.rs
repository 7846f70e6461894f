//! Large arguments, one way.

use super::pool_tasks::{WORKERS, procspawn_map};
use crate::harness::{Account, Better, Check, Must, Reading, Repetition, Side, Skip, Work};
use common::pool::Pool;
use serde_bytes::ByteBuf;
use std::time::Instant;

/// See the module.
pub const WORK: Work = Work {
    name: "map_big",
    what: "64 payloads of 4 MiB, bytes, each sent to a pool of 2 that returns its length",
    metric: "bandwidth",
    unit: "GB/s",
    better: Better::Higher,
    reps: 5,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "map_chunked, 1 payload a chunk", || {
            ours(Some(1))
        }),
        Side::rust("ours:Pool(default chunks)", "map", || ours(None)),
        Side::python("py:mp.Pool", "chunksize 1", "pools.py", &["big", "mp"]),
        Side::python("py:mpire", "chunk_size 1", "pools.py", &["big", "mpire"]),
        Side::python("py:loky", "chunksize 1", "pools.py", &["big", "loky"]),
        Side::python("py:pebble", "chunksize 1", "pools.py", &["big", "pebble"]),
        Side::rust(
            "rust:procspawn::Pool(serde_bytes)",
            "4 in flight",
            procspawn,
        ),
    ],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[
    Must {
        text: "2 x the best peer: mpire",
        any: &[better("py:mpire")],
    },
    Must {
        text: "2 x the best peer: loky",
        any: &[better("py:loky")],
    },
    Must {
        text: "2 x the best peer: pebble",
        any: &[better("py:pebble")],
    },
    Must {
        text: "2 x the best peer: Python's Pool",
        any: &[better("py:mp.Pool")],
    },
    Must {
        text: "2 x the best peer: procspawn",
        any: &[better("rust:procspawn::Pool(serde_bytes)")],
    },
];

const fn better(than: &'static str) -> Check {
    let (ours, times) = ("ours:Pool", 2.0);
    Check::Better { ours, than, times }
}

const PAYLOADS: usize = 64;
const SIZE: usize = 4 << 20;

/// The payloads are made before the clock starts.
fn gigabytes(
    mut send: impl FnMut(Vec<ByteBuf>) -> Result<usize, crate::harness::Failed> + 'static,
) -> Repetition {
    Box::new(move || {
        let payload = |i| ByteBuf::from(vec![i as u8; SIZE]);
        let payloads: Vec<_> = (0..PAYLOADS).map(payload).collect();
        let start = Instant::now();
        let sum = send(payloads)?;
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(sum, PAYLOADS * SIZE);
        Ok(Reading::from((PAYLOADS * SIZE) as f64 / seconds / 1e9))
    })
}

fn length(payload: ByteBuf) -> usize {
    payload.len()
}

fn ours(chunk: Option<usize>) -> Result<Repetition, Skip> {
    let pool = Pool::new(WORKERS)?;
    Ok(gigabytes(move |payloads| {
        let lengths = match chunk {
            None => pool.map(length, payloads)?,
            Some(size) => pool.map_chunked(length, payloads, size)?,
        };
        Ok(lengths.into_iter().sum())
    }))
}

fn procspawn() -> Result<Repetition, Skip> {
    let pool = procspawn::Pool::new(WORKERS)?;
    Ok(gigabytes(move |payloads| {
        let mut sum = 0;
        procspawn_map(&pool, payloads, 2, length, |length| sum += length)?;
        Ok(sum)
    }))
}
