//! Values that live in a server process, and what an operation on them costs.

use crate::harness::{Account, Better, Check, Must, Side, Work};

const PY_LIST: &str = "py:Manager().list";
const PY_DICT: &str = "py:Manager().dict";
const REDIS: &str = "redis_server.py";

/// What the works that give a rate have in common.
const RATE: Work = Work {
    name: "",
    what: "",
    metric: "rate",
    unit: "ops/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[],
    musts: &[],
};

/// One client that appends.
pub const APPEND: Work = Work {
    name: "manager_append",
    what: "list.append(int) by 1 client process, one call at a time",
    sides: &[
        Side::python(PY_LIST, "3,000 calls", "managers.py", &["append"]),
        Side::python("redis:RPUSH", FROM_C, REDIS, &["rpush", "1", "1", "5000"]),
    ],
    musts: &[Must {
        text: "20 x Python's manager",
        any: &[better(20.0, PY_LIST)],
    }],
    ..RATE
};

/// Four clients that append.
pub const APPEND_4: Work = Work {
    name: "manager_append4",
    what: "list.append(int) by 4 client processes, each one call at a time",
    sides: &[
        Side::python(PY_LIST, "4 x 3,000 calls", "managers.py", &["append4"]),
        Side::python("redis:RPUSH", FROM_C, REDIS, &["rpush", "4", "1", "10000"]),
    ],
    musts: &[Must {
        text: "15 x Python's manager",
        any: &[better(15.0, PY_LIST)],
    }],
    ..RATE
};

/// One client that reads a dict.
pub const GET: Work = Work {
    name: "manager_get",
    what: "dict[k] by 1 client process, one call at a time",
    sides: &[
        Side::python(PY_DICT, "3,000 calls", "managers.py", &["get"]),
        Side::python("redis:HGET", FROM_C, REDIS, &["hget", "1", "1", "5000"]),
    ],
    musts: &[Must {
        text: "20 x Python's manager",
        any: &[better(20.0, PY_DICT)],
    }],
    ..RATE
};

/// One client that writes to a dict.
pub const SET: Work = Work {
    name: "manager_set",
    what: "dict[k] = v by 1 client process, one call at a time",
    sides: &[
        Side::python(PY_DICT, "3,000 calls", "managers.py", &["set"]),
        Side::python("redis:HSET", FROM_C, REDIS, &["hset", "1", "1", "5000"]),
    ],
    musts: &[Must {
        text: "20 x Python's manager",
        any: &[better(20.0, PY_DICT)],
    }],
    ..RATE
};

/// Many calls in flight.
pub const PIPELINED: Work = Work {
    name: "manager_pipelined",
    what: "list.append(int) by 1 client process, 100 calls in flight",
    sides: &[Side::python(
        "redis:RPUSH",
        FROM_C,
        REDIS,
        &["rpush", "1", "100", "300000"],
    )],
    musts: &[Must {
        text: "1.3 M/s, or Redis's pipelined figure",
        any: &[
            Check::AtLeast {
                ours: OURS,
                limit: 1.3e6,
            },
            better(1.0, "redis:RPUSH"),
        ],
    }],
    ..RATE
};

/// What a large list costs.
pub const MEMORY: Work = Work {
    name: "manager_memory",
    what: "a list of 1,000,000 numbers of 8 bytes: the server's memory (RSS) / the data's 8 MB",
    metric: "memory",
    unit: "x data",
    better: Better::Lower,
    reps: 2,
    account: Account::No,
    sides: &[Side::python(
        PY_LIST,
        "10 x extend of 100,000",
        "managers.py",
        &["memory"],
    )],
    musts: &[Must {
        text: "at most 2 x the data",
        any: &[Check::AtMost {
            ours: OURS,
            limit: 2.0,
        }],
    }],
};

const OURS: &str = "ours";

const FROM_C: &str = "redis-benchmark over a unix socket; connections of one process";

const fn better(times: f64, than: &'static str) -> Check {
    let ours = OURS;
    Check::Better { ours, than, times }
}
