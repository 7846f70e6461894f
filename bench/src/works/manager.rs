//! Values that live in a server process, and what an operation on them costs.

use super::daemon;
use crate::harness::time::per_second;
use crate::harness::{
    Account, Better, Check, Failed, Must, Reading, Repetition, Side, Skip, Work, tree,
};
use common::function::Function;
use common::manager::{CallError, CallFuture, DictProxy, ListProxy, Manager, Proxy};
use common::process::Process;
use common::queue::Queue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;

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
        Side::rust(OURS, "20,000 calls", || clients(1, 20_000, list, append)),
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
        Side::rust(OURS, "4 x 20,000 calls", || {
            clients(4, 20_000, list, append)
        }),
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
        Side::rust(OURS, "20,000 calls", || clients(1, 20_000, dict, get)),
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
        Side::rust(OURS, "20,000 calls", || clients(1, 20_000, dict, set)),
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
    sides: &[
        Side::rust(OURS, "300,000 calls", || {
            clients(1, 300_000, vec, append_pipelined)
        }),
        Side::python(
            "redis:RPUSH",
            FROM_C,
            REDIS,
            &["rpush", "1", "100", "300000"],
        ),
    ],
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
    sides: &[
        Side::rust(OURS, "1,000,000 x append, pipelined", memory),
        Side::python(
            PY_LIST,
            "10 x extend of 100,000",
            "managers.py",
            &["memory"],
        ),
    ],
    musts: &[Must {
        text: "at most 2 x the data",
        any: &[Check::AtMost {
            ours: OURS,
            limit: 2.0,
        }],
    }],
};

const OURS: &str = "ours:Manager";

const FROM_C: &str = "redis-benchmark over a unix socket; connections of one process";

const fn better(times: f64, than: &'static str) -> Check {
    let ours = OURS;
    Check::Better { ours, than, times }
}

type Dict = DictProxy<u64, u64>;
type List = Proxy<Vec<u64>>;

fn list(manager: &Manager) -> Result<ListProxy<u64>, CallError> {
    manager.list()
}

fn vec(manager: &Manager) -> Result<List, CallError> {
    manager.host(Vec::new())
}

fn dict(manager: &Manager) -> Result<Dict, CallError> {
    manager.dict_of((0..100).map(|i| (i, i)))
}

/// Does so many calls each time it is told how many, and says when it has.
fn serve(go: &Queue<u64>, done: &Queue<()>, calls: impl Fn(u64) -> Result<(), CallError>) {
    for n in go.iter().map_while(Result::ok) {
        calls(n).expect("the manager lives");
        done.put(()).expect("nobody closes it");
    }
}

fn append(list: ListProxy<u64>, go: Queue<u64>, done: Queue<()>) {
    serve(&go, &done, |n| (0..n).try_for_each(|i| list.append(i)));
}

fn get(dict: Dict, go: Queue<u64>, done: Queue<()>) {
    let get = |key| dict.get(key).map(|value| assert!(value.is_some()));
    serve(&go, &done, |n| (0..n).try_for_each(|i| get(i % 100)));
}

fn set(dict: Dict, go: Queue<u64>, done: Queue<()>) {
    serve(&go, &done, |n| {
        (0..n).try_for_each(|i| dict.set(i % 100, i))
    });
}

fn append_pipelined(list: List, go: Queue<u64>, done: Queue<()>) {
    serve(&go, &done, |n| pipelined(&list, n));
}

/// Appends so many numbers with 100 calls in flight.
fn pipelined(list: &List, n: u64) -> Result<(), CallError> {
    let mut flying = VecDeque::with_capacity(100);
    for i in 0..n {
        if flying.len() == 100 {
            flying
                .pop_front()
                .map_or(Ok(()), |call: CallFuture<()>| call.wait())?;
        }
        flying.push_back(list.call_async(|list: &mut Vec<u64>, i: u64| list.push(i), (i,)));
    }
    flying.into_iter().try_for_each(CallFuture::wait)
}

/// So many client processes that do `n` calls each, beside a manager that holds one value.
fn clients<P, F>(
    count: usize,
    n: u64,
    value: fn(&Manager) -> Result<P, CallError>,
    client: F,
) -> Result<Repetition, Skip>
where
    P: Clone + Serialize + DeserializeOwned + 'static,
    F: Function<(P, Queue<u64>, Queue<()>), Output = ()>,
{
    let manager = Manager::new()?;
    let (proxy, done) = (value(&manager)?, Queue::new()?);
    let mut processes: Vec<(Process<()>, Queue<u64>)> = Vec::new();
    for _ in 0..count {
        let go = Queue::new()?;
        processes.push((
            daemon(client, (proxy.clone(), go.clone(), done.clone()))?,
            go,
        ));
    }
    Ok(per_second(count * n as usize, move || {
        let _ = (&manager, &proxy);
        processes.iter().try_for_each(|(_, go)| go.put(n))?;
        Ok((0..count).try_for_each(|_| done.get())?)
    }))
}

fn memory() -> Result<Repetition, Skip> {
    const N: u64 = 1_000_000;
    let manager = Manager::new()?;
    Ok(Box::new(move || {
        let list = vec(&manager)?;
        pipelined(&list, N)?;
        assert_eq!(list.call(|list: &mut Vec<u64>| list.len() as u64, ())?, N);
        let server = manager
            .pid()
            .and_then(|pid| tree::resident(pid.cast_signed()));
        let mib = server.ok_or_else(|| Failed::from("the server's memory cannot be read"))?;
        Ok(Reading::from(mib * f64::from(1 << 20) / (N * 8) as f64))
    }))
}
