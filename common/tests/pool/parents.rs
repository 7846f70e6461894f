//! The process that has the pool ends, is killed or interrupted.

use super::{died, nap, pids, square, wait_until_running};
use common::function::Function;
use common::pool::Pool;
use common::process::{JoinError, Process, Stdio};
use nix::sys::signal::{Signal, kill};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::Duration;
use testkit::{ends_within, isolated, pidfd};

/// O-026: a program that ends with a pool in a static.
#[test]
fn an_unclosed_pool_in_a_static_hinders_nobody() {
    isolated(|| {
        static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(2).unwrap());
        fn ends() -> u64 {
            let sixteen = POOL.apply(square, (4,)).unwrap();
            tell_workers(&POOL);
            sixteen
        }
        let (program, workers) = with_workers(ends);
        assert_eq!(program.join().unwrap(), 16);
        assert_eq!(program.exit_code(), Some(0));
        ends_within(&workers, Duration::from_secs(1));
    });
}

/// Prints the pids of the pool's workers for [`with_workers`], and waits until they are read.
fn tell_workers(pool: &Pool) {
    println!(
        "{:?}",
        pids(pool)
            .iter()
            .map(|pid| pid.as_raw())
            .collect::<Vec<_>>()
    );
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// A process with a pool, and the pidfds of its workers.
fn with_workers<R: Serialize + DeserializeOwned + 'static>(
    f: impl Function<(), Output = R>,
) -> (Process<R>, Vec<OwnedFd>) {
    let piped = || Stdio::piped();
    let builder = Process::builder().stdin(piped()).stdout(piped());
    let mut process = builder.spawn(f, ()).unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let numbers = line.trim().trim_matches(['[', ']']).split(", ");
    let workers = numbers.map(|pid| pidfd(pid.parse().unwrap())).collect();
    // Closing it is an answer as well.
    drop(process.stdin.take());
    (process, workers)
}

/// Maps in a process of its own.
fn maps_for_long() {
    let pool = Pool::new(3).unwrap();
    let naps = pool.map_async(nap, [60_000; 100]);
    wait_until_running(&pool, 3);
    tell_workers(&pool);
    let _ = naps.get();
}

fn mapping_process(action: fn(&Process<()>)) -> Result<(), JoinError> {
    let (process, workers) = with_workers(maps_for_long);
    action(&process);
    ends_within(&workers, Duration::from_secs(1));
    let joined = process.join();
    // What it left in /dev/shm is swept by the next.
    drop(Pool::new(1).unwrap());
    joined
}

#[test]
fn a_parent_killed_in_a_map_takes_its_workers_along() {
    isolated(|| {
        let joined = mapping_process(|process| process.kill().unwrap());
        assert!(matches!(joined, Err(JoinError::Signaled { signal: 9, .. })));
    });
}

#[test]
fn an_interrupt_ends_a_map_quietly() {
    isolated(|| {
        let joined = mapping_process(|process| process.interrupt().unwrap());
        assert!(matches!(joined, Err(JoinError::Signaled { signal: 2, .. })));
        // Ctrl-C goes to the workers as well. A program that catches it gets errors.
        let pool = Pool::new(2).unwrap();
        let naps = pool.map_async(nap, [60_000; 2]);
        wait_until_running(&pool, 2);
        pids(&pool)
            .iter()
            .for_each(|&pid| kill(pid, Signal::SIGINT).unwrap());
        assert_eq!(died(&naps.get().unwrap_err()).1, Some(libc::SIGINT));
    });
}
