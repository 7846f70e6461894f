//! Starting a process that does nothing, and waiting until it has ended.

use crate::harness::time::each_us;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use crate::kernel;

/// See the module.
pub const WORK: Work = Work {
    name: "start_join",
    what: "a process that runs an empty function is started and joined (median of some)",
    metric: "latency",
    unit: "us",
    better: Better::Lower,
    reps: 15,
    account: Account::No,
    sides: SIDES,
    musts: MUSTS,
};

const SIDES: &[Side] = &[
    Side::rust(
        "limit:posix_spawn(self)",
        "this program, exiting at the top of main",
        spawn_self,
    ),
    Side::rust("limit:fork", "fork, _exit, waitpid in a tiny process", fork),
    Side::rust(
        "limit:fork,1GiB",
        "the same with 1 GiB touched and 8 threads",
        fork_large,
    ),
    Side::rust("rust:procspawn", "procspawn::spawn, unit result", procspawn),
    Side::python(
        "py:fork",
        "multiprocessing.Process",
        "start_join.py",
        &["fork"],
    ),
    Side::python(
        "py:forkserver",
        "multiprocessing.Process",
        "start_join.py",
        &["forkserver"],
    ),
    Side::python(
        "py:spawn",
        "multiprocessing.Process",
        "start_join.py",
        &["spawn"],
    ),
];

const MUSTS: &[Must] = &[];

const GIB: usize = 1 << 30;

fn spawn_self() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(kernel::posix_spawn_self()?)))
}

fn fork() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(kernel::fork_exit()?)))
}

fn fork_large() -> Result<Repetition, Skip> {
    kernel::grow(GIB, 8)?;
    Ok(each_us(2, || Ok(kernel::fork_exit()?)))
}

fn procspawn() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(procspawn::spawn((), |()| ()).join()?)))
}
