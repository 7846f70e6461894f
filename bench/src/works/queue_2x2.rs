//! Small messages between four processes: two put, two get, one queue.

use super::daemon;
use crate::harness::time::per_second;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use common::process::Process;
use common::queue::Queue;

/// See the module.
pub const WORK: Work = Work {
    name: "queue_2x2",
    what: "16-byte messages, 2 producers and 2 consumers; each consumer takes half",
    metric: "rate",
    unit: "msgs/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[
        Side::rust("ours:Queue<(u64, u64)>", "1,000,000 of (u64, u64)", ours),
        Side::python("py:mp.Queue", "30,000 of 16 bytes", "mp_queue.py", &["2x2"]),
    ],
    musts: &[Must {
        text: "10 x Python's Queue",
        any: &[Check::Better {
            ours: "ours:Queue<(u64, u64)>",
            than: "py:mp.Queue",
            times: 10.0,
        }],
    }],
};

/// What each of the four handles in a repetition.
const EACH: u64 = 500_000;

fn produce(queue: Queue<(u64, u64)>, go: Queue<()>) {
    for _ in go.iter().map_while(Result::ok) {
        (0..EACH).for_each(|i| queue.put((i, i)).expect("nobody closes it"));
    }
}

fn consume(queue: Queue<(u64, u64)>, go: Queue<()>, done: Queue<()>) {
    for _ in go.iter().map_while(Result::ok) {
        for _ in 0..EACH {
            queue.get().expect("nobody closes it");
        }
        done.put(()).expect("nobody closes it");
    }
}

fn ours() -> Result<Repetition, Skip> {
    let (queue, done) = (Queue::new()?, Queue::new()?);
    let mut children: Vec<(Process<()>, Queue<()>)> = Vec::new();
    for _ in 0..2 {
        let go = Queue::new()?;
        children.push((daemon(produce, (queue.clone(), go.clone()))?, go));
        let go = Queue::new()?;
        children.push((
            daemon(consume, (queue.clone(), go.clone(), done.clone()))?,
            go,
        ));
    }
    Ok(per_second(2 * EACH as usize, move || {
        children.iter().try_for_each(|(_, go)| go.put(()))?;
        done.get()?;
        Ok(done.get()?)
    }))
}
