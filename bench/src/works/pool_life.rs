//! What a pool costs when it does nothing: to be made, and to be there.

use super::pool_tasks::{WORKERS, nothing};
use crate::harness::time::seconds;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::pool::Pool;
use std::time::Duration;

/// Made, used once and dropped.
pub const CREATE: Work = Work {
    name: "pool_create",
    what: "a pool of 4 is made, given one task, and dropped",
    metric: "latency",
    unit: "ms",
    better: Better::Lower,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust("ours:Pool", "Pool::new, apply, drop", create),
        Side::python(
            "py:mp.Pool(fork)",
            "terminate, join",
            "pools.py",
            &["create", "mp"],
        ),
        Side::python(
            "py:mp.Pool(spawn)",
            "terminate, join",
            "pools.py",
            &["create", "mp_spawn"],
        ),
        Side::rust("rust:procspawn::Pool", "shutdown", procspawn_create),
    ],
    musts: CREATE_MUSTS,
};

/// Idle for ten seconds.
pub const IDLE: Work = Work {
    name: "pool_idle",
    what: "a pool of 2 that has been used once does nothing for 10 s: user + system time",
    metric: "cpu",
    unit: "ms",
    better: Better::Lower,
    reps: 1,
    account: Account::Figure,
    sides: &[
        Side::rust("ours:Pool", "parent and workers", idle),
        Side::python(
            "py:mp.Pool",
            "parent and workers",
            "pools.py",
            &["idle", "mp"],
        ),
    ],
    musts: IDLE_MUSTS,
};

const CREATE_MUSTS: &[Must] = &[Must {
    text: "faster than Python's fork pool",
    any: &[Check::Better {
        ours: "ours:Pool",
        than: "py:mp.Pool(fork)",
        times: 1.0,
    }],
}];

const IDLE_MUSTS: &[Must] = &[Must {
    text: "no CPU used: at most 5 ms in 10 s, 0.05 % of a core",
    any: &[Check::AtMost {
        ours: "ours:Pool",
        limit: 5.0,
    }],
}];

fn create() -> Result<Repetition, Skip> {
    let all = || Ok(Pool::new(4)?.apply(nothing, ())?);
    Ok(seconds(all, |seconds| seconds * 1e3))
}

fn idle() -> Result<Repetition, Skip> {
    let pool = Pool::new(WORKERS)?;
    pool.apply(nothing, ())?;
    let all = move || {
        let _ = &pool;
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    };
    Ok(seconds(all, |seconds| seconds))
}

fn procspawn_create() -> Result<Repetition, Skip> {
    let all = || {
        let pool = procspawn::Pool::new(4)?;
        pool.spawn((), |()| nothing()).join()?;
        pool.shutdown();
        Ok(())
    };
    Ok(seconds(all, |seconds| seconds * 1e3))
}
