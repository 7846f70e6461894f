//! Too much of something: memory, descriptors, bytes, tasks.

use super::{died, nap, pids, square};
use common::pool::{Pool, TaskError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::{isolated, isolated_for, soak};

/// O-027.
#[test]
fn a_pool_that_cannot_start_leaves_nothing() {
    isolated(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 40, hard).unwrap();
        let error = Pool::new(100).unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(error.to_string().contains("worker"), "{error}");
        assert_eq!(Pool::new(1).unwrap().apply(square, (2,)), Ok(4));
    });
}

#[test]
fn a_pool_without_descriptors_says_what_it_lacks() {
    isolated(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let next = File::open("/dev/null").unwrap().as_raw_fd();
        setrlimit(Resource::RLIMIT_NOFILE, next as u64, hard).unwrap();
        let error = Pool::new(1).unwrap_err().to_string();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(
            error.contains("pipe") && error.contains("ulimit -n"),
            "{error}"
        );
    });
}

#[test]
fn workers_that_cannot_be_replaced() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        pool.apply(square, (2,)).unwrap();
        let waiting: Vec<_> = (0..10).map(|_| pool.apply_async(nap, (60_000,))).collect();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let pid = pids(&pool)[0];
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        for nap in &waiting {
            let error = nap.get().unwrap_err();
            assert!(
                matches!(
                    error,
                    TaskError::NoWorkers { .. } | TaskError::WorkerDied { .. }
                ),
                "{error}"
            );
        }
        assert!(pool.apply(square, (3,)).is_err());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while pool.apply(square, (3,)) != Ok(9) {
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn messages_larger_than_the_ring() {
    isolated_for(Duration::from_secs(120), || {
        let pool = Pool::builder()
            .workers(2)
            .queue_bytes(1 << 20)
            .build()
            .unwrap();
        let sum = |bytes: ByteBuf| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
        let bytes = ByteBuf::from(vec![1; 100_000_000]);
        assert_eq!(pool.apply(sum, (bytes,)), Ok(100_000_000));
        // Once 1 GiB, where there is time for it.
        let size: usize = if soak() > 1 { 1 << 30 } else { 64 << 20 };
        let large = pool.apply_async(|size: usize| ByteBuf::from(vec![7; size]), (size,));
        let small = pool.apply_async(square, (3,));
        let large = large.get().unwrap();
        assert!(large.len() == size && large.iter().all(|&b| b == 7));
        assert_eq!(small.get(), Ok(9));
        let many = vec![ByteBuf::from(vec![1; 3_000_000]); 8];
        assert_eq!(pool.map(sum, many), Ok(vec![3_000_000; 8]));
    });
}

#[test]
fn a_hundred_thousand_queued_tasks_with_few_descriptors() {
    isolated(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        let pool = Pool::new(2).unwrap();
        let squares: Vec<_> = (0..100_000)
            .map(|x| pool.apply_async(square, (x,)))
            .collect();
        for (x, result) in (0..).zip(squares) {
            assert_eq!(result.get(), Ok(x * x));
        }
    });
}

#[test]
fn memory_limits() {
    isolated(|| {
        let fill = |bytes: usize| std::hint::black_box(vec![1u8; bytes]).len();
        let pool = Pool::builder()
            .workers(1)
            .memory_limit(1 << 30)
            .build()
            .unwrap();
        assert_eq!(pool.apply(fill, (1 << 20,)), Ok(1 << 20));
        let error = pool.apply(fill, (2 << 30,)).unwrap_err();
        assert_eq!(died(&error).1, Some(libc::SIGABRT));
        let leak = |bytes: usize| {
            std::mem::forget(std::hint::black_box(vec![1u8; bytes]));
            std::process::id()
        };
        let most = 64 << 20;
        let pool = Pool::builder()
            .workers(1)
            .max_memory_per_worker(most)
            .build()
            .unwrap();
        let pids: Result<HashSet<u32>, _> = pool.imap(leak, [20 << 20; 12]).collect();
        assert!(pids.unwrap().len() >= 3);
        // One that holds more from the beginning does one task.
        let pool = Pool::builder().workers(1).max_memory_per_worker(1);
        let pool = pool.build().unwrap();
        let pids: Result<HashSet<u32>, _> = pool.imap(leak, [1; 3]).collect();
        assert_eq!(pids.unwrap().len(), 3);
    });
}
