//! Starting a process that does nothing, and waiting until it has ended.

use crate::harness::time::each_us;
use crate::harness::{Account, Better, Check, Must, Repetition, Side, Skip, Work};
use crate::kernel;
use crate::server::Server;
use common::process::{self, Process, StartMethod};
use std::sync::atomic::AtomicU32;

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
    Side::rust("ours:spawn", "Process::spawn, unit result", || {
        ours(StartMethod::Spawn)
    }),
    Side::rust(
        "ours:spawn,1GiB",
        "the same with 1 GiB touched and 8 threads",
        spawn_large,
    ),
    Side::rust("ours:forkserver", "StartMethod::ForkServer", || {
        ours(StartMethod::ForkServer)
    }),
    Side::rust(
        "ours:forkserver,1GiB",
        "with 1 GiB touched and 8 threads",
        forkserver_large,
    ),
    Side::rust(
        "ours:fork(closure)",
        "process::fork, a process of one thread",
        fork_closure,
    ),
    Side::rust(
        "limit:posix_spawn(self)",
        "this program, exiting at the top of main",
        spawn_self,
    ),
    Side::rust("limit:fork", "fork, _exit, waitpid in a tiny process", fork),
    Side::rust(
        "limit:fork+duties",
        "fork with a lifeline, name, result, flush and pidfd, by bare calls",
        fork_with_duties,
    ),
    Side::rust(
        "limit:fork+least",
        "the same with the parent's death as a signal and the result in a shared page",
        fork_with_least,
    ),
    Side::rust(
        "limit:forkserver",
        "a fork server and its children's duties by bare calls",
        bare_server,
    ),
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

const MUSTS: &[Must] = &[
    Must {
        text: "spawn at most 1.15 x posix_spawn of the same binary exiting at once",
        any: &[at_most("ours:spawn", "limit:posix_spawn(self)", 1.15)],
    },
    Must {
        text: "ForkServer at most 2.5 x a bare fork of a tiny process",
        any: &[at_most("ours:forkserver", "limit:fork", 2.5)],
    },
    Must {
        text: "the same when the caller has 1 GiB touched and 8 threads",
        any: &[at_most("ours:forkserver,1GiB", "limit:fork", 2.5)],
    },
    Must {
        text: "fork(closure) at most 1.3 x a bare fork",
        any: &[at_most("ours:fork(closure)", "limit:fork", 1.3)],
    },
];

const fn at_most(ours: &'static str, of: &'static str, times: f64) -> Check {
    Check::AtMostTimes { ours, of, times }
}

const GIB: usize = 1 << 30;

fn nothing() {}

fn ours(method: StartMethod) -> Result<Repetition, Skip> {
    Ok(each_us(20, move || {
        let builder = Process::<()>::builder().start_method(method);
        Ok(builder.spawn(nothing, ())?.join()?)
    }))
}

fn spawn_large() -> Result<Repetition, Skip> {
    kernel::grow(GIB, 8)?;
    ours(StartMethod::Spawn)
}

fn forkserver_large() -> Result<Repetition, Skip> {
    kernel::grow(GIB, 8)?;
    ours(StartMethod::ForkServer)
}

fn fork_closure() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(process::fork(|| ())?.join()?)))
}

fn spawn_self() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(kernel::posix_spawn_self()?)))
}

fn fork() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(kernel::fork_exit()?)))
}

fn fork_with_duties() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(kernel::fork_with_duties()?)))
}

fn fork_with_least() -> Result<Repetition, Skip> {
    let page = kernel::Shared::<AtomicU32>::new()?;
    Ok(each_us(20, move || Ok(kernel::fork_with_least(&page)?)))
}

fn bare_server() -> Result<Repetition, Skip> {
    let server = Server::start()?;
    Ok(each_us(20, move || Ok(server.start_and_join()?)))
}

fn fork_large() -> Result<Repetition, Skip> {
    kernel::grow(GIB, 8)?;
    Ok(each_us(2, || Ok(kernel::fork_exit()?)))
}

fn procspawn() -> Result<Repetition, Skip> {
    Ok(each_us(20, || Ok(procspawn::spawn((), |()| ()).join()?)))
}
