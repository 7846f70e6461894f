//! Workers that die or cannot be started, strangers, a parent that is killed.

use super::{Flag, flag, pid, raise, square, within_ten_seconds};
use common::aio::pool::{Pool, TaskError};
use common::process::{Process, Stdio};
use futures::executor::block_on;
use futures::{StreamExt, stream};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};
use testkit::{ends_within, isolated, pidfd};
use tokio::time::sleep;

async fn die_at_first(name: String) -> u32 {
    raise(&name);
    let first = std::fs::read(flag(&name)).unwrap().len() == 1;
    if first {
        // The worker has others as well.
        sleep(Duration::from_millis(50)).await;
        std::process::abort();
    }
    std::process::id()
}

#[test]
fn a_dead_worker_is_told_to_each_of_its_coroutines_and_replaced() {
    isolated(|| {
        async fn wait(name: String) {
            raise(&name);
            sleep(Duration::from_secs(3_600)).await;
        }
        let pool = Pool::builder().workers(1).build().unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let running = Flag::new("running");
        let all = stream::iter(0..20)
            .map(|_| pool.apply(wait, (running.0.clone(),)))
            .buffer_unordered(20)
            .collect::<Vec<_>>();
        let killer = std::thread::spawn({
            let name = running.0.clone();
            move || {
                let running = std::mem::ManuallyDrop::new(Flag(name));
                running.wait(20);
                let pid = nix::unistd::Pid::from_raw(before as i32);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        });
        for end in block_on(all) {
            assert!(
                matches!(&end, Err(TaskError::WorkerDied { pid, .. }) if *pid == before),
                "{end:?}"
            );
            assert!(end.unwrap_err().to_string().contains("SIGKILL"));
        }
        killer.join().unwrap();
        assert_ne!(block_on(pool.apply(pid, ())).unwrap(), before);
    });
}

#[test]
fn what_was_lost_is_run_again_if_asked_for() {
    isolated(|| {
        let flag = Flag::new("retried");
        let pool = Pool::builder().workers(1).retries(1).build().unwrap();
        let before = block_on(pool.apply(pid, ())).unwrap();
        let both = futures::future::join(
            pool.apply(die_at_first, (flag.0.clone(),)),
            pool.apply(pid, ()),
        );
        let (died, bystander) = block_on(both);
        assert_ne!(died.unwrap(), before);
        assert_ne!(bystander, Err(TaskError::Closed));
        assert_eq!(flag.count(), 2);
    });
}

/// The end of the worker's socket is seen before that of its process.
#[test]
fn how_a_worker_died_is_told() {
    isolated(|| {
        async fn die(signal: Option<i32>) {
            let Some(signal) = signal else {
                std::process::exit(3);
            };
            let signal = Signal::try_from(signal).unwrap();
            loop {
                // What handles it for Rust's own messages does so once.
                nix::sys::signal::raise(signal).unwrap();
            }
        }
        let pool = Pool::new(1).unwrap();
        for (signal, told) in [
            (Some(Signal::SIGABRT as i32), "SIGABRT"),
            (Some(Signal::SIGSEGV as i32), "SIGSEGV"),
            (Some(Signal::SIGTERM as i32), "SIGTERM"),
            (None, "it exited with code 3"),
        ] {
            let error = block_on(pool.apply(die, (signal,))).unwrap_err();
            assert!(error.to_string().contains(told), "{error}, not {told}");
        }
    });
}

/// The workers are not started again by the pool that they live in, which would give a new one
/// the dead one's place: then nobody would answer for what that had, if its socket stays open.
#[test]
fn retries_of_the_hosts_are_not_heeded() {
    isolated(|| {
        async fn die_with_an_heir(began: String) {
            raise(&began);
            // SAFETY: the worker has one thread, and the copy only looks for a file.
            #[allow(unsafe_code)]
            let forked = unsafe { nix::unistd::fork() }.unwrap();
            if let nix::unistd::ForkResult::Parent { .. } = forked {
                std::process::abort();
            }
            let last = Instant::now() + Duration::from_secs(30);
            while flag(&began).exists() && Instant::now() < last {
                std::thread::sleep(Duration::from_millis(5));
            }
            // SAFETY: it only ends this process.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(0)
            }
        }
        // Its copy lives as long as this.
        let began = Flag::new("began");
        let hosts = common::pool::Pool::builder().retries(1);
        let pool = Pool::builder().workers(1).hosts(hosts).build().unwrap();
        let call = pool.apply(die_with_an_heir, (began.0.clone(),));
        let error = within_ten_seconds(call).unwrap_err();
        assert!(error.to_string().contains("SIGABRT"), "{error}");
        assert_eq!(began.count(), 1);
        assert_eq!(block_on(pool.apply(square, (3,))), Ok(9));
    });
}

/// A task that always kills its worker ends when its retries do, and the pool lives.
#[test]
fn retries_end() {
    isolated(|| {
        async fn die(name: String) {
            raise(&name);
            std::process::exit(3);
        }
        let flag = Flag::new("always");
        let pool = Pool::builder().workers(2).retries(2).build().unwrap();
        let end = block_on(pool.apply(die, (flag.0.clone(),)));
        assert!(matches!(&end, Err(TaskError::WorkerDied { .. })), "{end:?}");
        assert_eq!(flag.count(), 3);
        assert_eq!(block_on(pool.apply(square, (3,))), Ok(9));
    });
}

/// Workers that cannot be started are an error for whoever waits, not a hang; and when they can
/// be again, the pool works again.
#[test]
fn no_worker_can_be_started() {
    isolated(|| {
        let initialize = |repaired: String| assert!(flag(&repaired).exists(), "out of order");
        let repaired = Flag::new("repaired");
        let hosts = common::pool::Pool::builder().initializer(initialize, (repaired.0.clone(),));
        let pool = Pool::builder().workers(2).hosts(hosts).build().unwrap();
        let end = block_on(pool.apply(square, (2,)));
        assert!(matches!(&end, Err(TaskError::NoWorkers { .. })), "{end:?}");
        assert!(end.unwrap_err().to_string().contains("out of order"));
        raise(&repaired.0);
        assert_eq!(block_on(pool.apply(square, (2,))), Ok(4));
    });
}

/// Anybody may connect to the socket, and say what he likes.
#[test]
fn strangers_at_the_socket_are_not_listened_to() {
    use std::io::Write;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(block_on(pool.apply(square, (2,))), Ok(4));
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let ours = format!("@common-aio-{}-", std::process::id());
        let name = sockets
            .split_whitespace()
            .find(|word| word.starts_with(&ours))
            .unwrap();
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let mut strangers = Vec::new();
        for garbage in [
            &b""[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 1_000],
            &[0; 1_000],
        ] {
            let mut stranger = UnixStream::connect_addr(&address).unwrap();
            let _ = stranger.write_all(garbage);
            strangers.push(stranger);
        }
        assert_eq!(block_on(pool.map(square, 0..100)).unwrap().len(), 100);
    });
}

/// Workers are killed at random under load; every call is answered once, with its value or with
/// the news of its worker's death.
#[test]
fn random_kills() {
    isolated(|| {
        async fn work(x: u64) -> u64 {
            sleep(Duration::from_millis(x % 7)).await;
            x
        }
        let pool = Pool::builder().workers(2).in_flight(20).build().unwrap();
        let end = Instant::now() + Duration::from_secs(1) * testkit::soak();
        let killer = std::thread::spawn(move || {
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(30));
                if let Some(child) = common::process::active_children().first() {
                    let pid = nix::unistd::Pid::from_raw(child.pid as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        });
        let mut values = 0;
        while !killer.is_finished() {
            let ends: Vec<_> = block_on(pool.imap(work, 0..500).collect());
            assert_eq!(ends.len(), 500);
            for (x, end) in (0..).zip(ends) {
                match end {
                    Ok(value) => assert_eq!(value, x),
                    Err(error) => assert!(matches!(error, TaskError::WorkerDied { .. }), "{error}"),
                }
                values += 1;
            }
        }
        killer.join().unwrap();
        assert!(values > 0);
        assert_eq!(block_on(pool.apply(square, (4,))), Ok(16));
    });
}

/// Prints the pids of its workers, once for each coroutine that has begun, and goes on for long.
fn maps_for_long() {
    async fn forever(_: u64) {
        println!("{}", std::process::id());
        sleep(Duration::from_secs(3_600)).await;
    }
    // So few that it takes both workers.
    let pool = Pool::builder().workers(2).in_flight(10).build().unwrap();
    let _ = block_on(pool.map(forever, 0..20));
}

#[test]
fn a_parent_killed_in_a_map_takes_its_workers_along() {
    isolated(|| {
        let builder = Process::builder().stdout(Stdio::piped());
        let mut parent = builder.spawn(maps_for_long, ()).unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pids: BTreeSet<u32> = lines
            .take(20)
            .map(|line| line.unwrap().parse().unwrap())
            .collect();
        assert_eq!(pids.len(), 2);
        let workers: Vec<_> = pids.into_iter().map(pidfd).collect();
        parent.kill().unwrap();
        ends_within(&workers, Duration::from_secs(1));
        parent.join().unwrap_err();
        // What it left in /dev/shm is swept by the next.
        drop(Pool::new(1).unwrap());
    });
}
