//! Small messages one by one and a hundred at a time.

use super::daemon;
use crate::harness::time::per_second;
use crate::harness::{Account, Better, Check, Failed, Must, Repetition, Side, Skip, Work};
use common::queue::Queue;

/// See the module.
pub const WORK: Work = Work {
    name: "queue_batch",
    what: "16-byte messages from one process to another, one by one and in batches of 100",
    metric: "rate",
    unit: "msgs/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust(
            "ours:put_many,get_many(100)",
            "1,000,000 of (u64, u64)",
            || ours(batches),
        ),
        Side::rust("ours:put,get", "1,000,000 of (u64, u64)", || ours(singles)),
    ],
    musts: &[Must {
        text: "3 x our single ones",
        any: &[Check::Better {
            ours: "ours:put_many,get_many(100)",
            than: "ours:put,get",
            times: 3.0,
        }],
    }],
};

const N: u64 = 1_000_000;
const BATCH: usize = 100;

type Messages = Queue<(u64, u64)>;

fn produce(queue: Messages, go: Queue<bool>) {
    for in_batches in go.iter().map_while(Result::ok) {
        match in_batches {
            true => (0..N).step_by(BATCH).for_each(|first| {
                let batch = (first..first + BATCH as u64).map(|i| (i, i));
                queue.put_many(batch).expect("nobody closes it");
            }),
            false => (0..N).for_each(|i| queue.put((i, i)).expect("nobody closes it")),
        }
    }
}

fn ours(take_all: fn(&Messages, &Queue<bool>) -> Result<(), Failed>) -> Result<Repetition, Skip> {
    let (queue, go) = (Queue::new()?, Queue::new()?);
    let child = daemon(produce, (queue.clone(), go.clone()))?;
    Ok(per_second(N as usize, move || {
        let _ = &child;
        take_all(&queue, &go)
    }))
}

fn batches(queue: &Messages, go: &Queue<bool>) -> Result<(), Failed> {
    go.put(true)?;
    let mut next = 0;
    while next < N {
        for message in queue.get_many(BATCH)? {
            assert_eq!(message, (next, next));
            next += 1;
        }
    }
    Ok(())
}

fn singles(queue: &Messages, go: &Queue<bool>) -> Result<(), Failed> {
    go.put(false)?;
    for i in 0..N {
        assert_eq!(queue.get()?, (i, i));
    }
    Ok(())
}
