//! Small messages, one way: as many as go through.

use super::daemon;
use crate::harness::time::per_second;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use crate::kernel;
use common::queue::Queue;
use ipc_channel::ipc;

/// One producer, one consumer.
pub const WORK: Work = Work {
    name: "queue_small",
    what: "16-byte messages, (u64, u64), from one process to another",
    metric: "rate",
    unit: "msgs/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust(
            "ours:Queue<(u64, u64)>",
            "1,000,000 of (u64, u64), put and get",
            ours,
        ),
        Side::rust(
            "rust:ipc-channel(typed)",
            "100,000 of (u64, u64)",
            ipc_typed,
        ),
        Side::python(
            "py:mp.Queue",
            "30,000 of 16 bytes",
            "mp_queue.py",
            &["small"],
        ),
        Side::rust(
            "thread:crossbeam_bounded1024",
            "threads of one process",
            crossbeam,
        ),
    ],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[
    Must {
        text: "10 x ipc-channel",
        any: &[Check::Better {
            ours: "ours:Queue<(u64, u64)>",
            than: "rust:ipc-channel(typed)",
            times: 10.0,
        }],
    },
    Must {
        text: "25 x Python's Queue",
        any: &[Check::Better {
            ours: "ours:Queue<(u64, u64)>",
            than: "py:mp.Queue",
            times: 25.0,
        }],
    },
];

/// Puts so many messages for each number that `started` gives.
fn produce(queue: Queue<(u64, u64)>, started: Queue<u64>) {
    for n in started.iter().map_while(Result::ok) {
        (0..n).for_each(|i| queue.put((i, i)).expect("the consumer lives"));
    }
}

fn ours() -> Result<Repetition, Skip> {
    const N: u64 = 1_000_000;
    let (queue, go) = (Queue::new()?, Queue::new()?);
    let child = daemon(produce, (queue.clone(), go.clone()))?;
    Ok(per_second(N as usize, move || {
        let _ = &child;
        go.put(N)?;
        for i in 0..N {
            assert_eq!(queue.get()?, (i, i));
        }
        Ok(())
    }))
}

fn ipc_typed() -> Result<Repetition, Skip> {
    const N: usize = 100_000;
    let (go, started) = ipc::channel::<usize>()?;
    let (messages, arrivals) = ipc::channel::<(u64, u64)>()?;
    let child = kernel::fork(move || {
        while let Ok(n) = started.recv() {
            (0..n as u64).for_each(|i| messages.send((i, i)).expect("the consumer lives"));
        }
    })?;
    Ok(per_second(N, move || {
        let _ = &child;
        go.send(N)?;
        for i in 0..N as u64 {
            assert_eq!(arrivals.recv()?, (i, i));
        }
        Ok(())
    }))
}

fn crossbeam() -> Result<Repetition, Skip> {
    const N: usize = 1_000_000;
    let (go, started) = crossbeam_channel::bounded::<usize>(1);
    let (messages, arrivals) = crossbeam_channel::bounded(1024);
    std::thread::spawn(move || {
        for n in started {
            (0..n as u64).for_each(|i| messages.send((i, i)).expect("the consumer lives"));
        }
    });
    Ok(per_second(N, move || {
        go.send(N)?;
        for i in 0..N as u64 {
            assert_eq!(arrivals.recv()?, (i, i));
        }
        Ok(())
    }))
}
