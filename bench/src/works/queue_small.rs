//! Small messages, one way: as many as go through.

use crate::harness::time::per_second;
use crate::harness::{Account, Better, Must, Repetition, Side, Skip, Work};
use crate::kernel;
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

const MUSTS: &[Must] = &[];

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
