//! Small messages between four processes: two put, two get, one queue.

use crate::harness::{Account, Better, Must, Side, Work};

/// See the module.
pub const WORK: Work = Work {
    name: "queue_2x2",
    what: "16-byte messages, 2 producers and 2 consumers; each consumer takes half",
    metric: "rate",
    unit: "msgs/s",
    better: Better::Higher,
    reps: 9,
    account: Account::No,
    sides: &[Side::python(
        "py:mp.Queue",
        "30,000 of 16 bytes",
        "mp_queue.py",
        &["2x2"],
    )],
    musts: MUSTS,
};

const MUSTS: &[Must] = &[];
