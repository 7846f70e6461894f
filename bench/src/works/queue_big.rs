//! Large messages, one way.

use crate::harness::time::seconds;
use crate::harness::{Account, Better, Must, Repetition, Side, Skip, Work};
use crate::kernel;
use ipc_channel::ipc;

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
        Side::rust("rust:ipc-channel(bytes)", "256 messages", ipc_bytes),
        Side::python("py:mp.Queue", "64 messages", "mp_queue.py", &["big"]),
        Side::rust("limit:memcpy", "one thread, in the cache", memcpy),
    ],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[];

const MIB: usize = 1 << 20;

/// What `n` messages in so many seconds are in GB/s.
fn gigabytes(n: usize) -> impl Fn(f64) -> f64 {
    move |seconds| (n * MIB) as f64 / seconds / 1e9
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
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
        }
        Ok(())
    };
    Ok(seconds(all, gigabytes(N)))
}
