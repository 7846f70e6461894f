//! Large messages, one way.

use super::daemon;
use crate::harness::time::seconds;
use crate::harness::{Account, Better, Check, Failed, Must, Repetition, Side, Skip, Work};
use crate::kernel;
use common::queue::Queue;
use ipc_channel::ipc;
use std::hint::black_box;

/// See the module.
pub const WORK: Work = Work {
    name: "queue_big",
    what: "messages of 1 MiB, bytes, from one process to another",
    metric: "bandwidth",
    unit: "GB/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust(
            "ours:put_bytes,get_into",
            "512 messages, one buffer used again",
            || {
                ours(|queue, buffer| {
                    queue.get_into(buffer)?;
                    Ok(buffer.len())
                })
            },
        ),
        Side::rust(
            "ours:put_bytes,get_with",
            "512 messages, lent in place, not read",
            || ours(|queue, _| Ok(queue.get_with(|bytes| black_box(bytes).len())?)),
        ),
        Side::rust("rust:ipc-channel(bytes)", "256 messages", ipc_bytes),
        Side::python("py:mp.Queue", "64 messages", "mp_queue.py", &["big"]),
        Side::rust("limit:memcpy", "one thread, in the cache", memcpy),
    ],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[
    Must {
        text: "2 x ipc-channel",
        any: &[Check::Better {
            ours: "ours:put_bytes,get_into",
            than: "rust:ipc-channel(bytes)",
            times: 2.0,
        }],
    },
    Must {
        text: "12 x Python's Queue",
        any: &[Check::Better {
            ours: "ours:put_bytes,get_into",
            than: "py:mp.Queue",
            times: 12.0,
        }],
    },
];

const MIB: usize = 1 << 20;

/// What `n` messages in so many seconds are in GB/s.
fn gigabytes(n: usize) -> impl Fn(f64) -> f64 {
    move |seconds| (n * MIB) as f64 / seconds / 1e9
}

fn produce(queue: Queue<[u8]>, started: Queue<usize>) {
    let message = vec![7; MIB];
    for n in started.iter().map_while(Result::ok) {
        (0..n).for_each(|_| queue.put_bytes(&message).expect("nobody closes it"));
    }
}

type Take = fn(&Queue<[u8]>, &mut Vec<u8>) -> Result<usize, Failed>;

fn ours(take: Take) -> Result<Repetition, Skip> {
    const N: usize = 512;
    let (queue, go) = (Queue::<[u8]>::new()?, Queue::new()?);
    let child = daemon(produce, (queue.clone(), go.clone()))?;
    let mut buffer = Vec::new();
    let all = move || {
        let _ = &child;
        go.put(N)?;
        for _ in 0..N {
            assert_eq!(take(&queue, &mut buffer)?, MIB);
        }
        Ok(())
    };
    Ok(seconds(all, gigabytes(N)))
}

fn ipc_bytes() -> Result<Repetition, Skip> {
    const N: usize = 256;
    let (go, started) = ipc::channel::<usize>()?;
    let (messages, arrivals) = ipc::bytes_channel()?;
    let child = kernel::fork(move || {
        let message = vec![7; MIB];
        while let Ok(n) = started.recv() {
            (0..n).for_each(|_| messages.send(&message).expect("the consumer lives"));
        }
    })?;
    let all = move || {
        let _ = &child;
        go.send(N)?;
        for _ in 0..N {
            assert_eq!(arrivals.recv()?.len(), MIB);
        }
        Ok(())
    };
    Ok(seconds(all, gigabytes(N)))
}

fn memcpy() -> Result<Repetition, Skip> {
    const N: usize = 1000;
    let (from, mut to) = (vec![7u8; MIB], vec![0u8; MIB]);
    let all = move || {
        for _ in 0..N {
            to.copy_from_slice(black_box(&from));
            black_box(&mut to);
        }
        Ok(())
    };
    Ok(seconds(all, gigabytes(N)))
}
