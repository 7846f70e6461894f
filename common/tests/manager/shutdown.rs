//! The end of a manager: what it leaves, which is nothing, and how its process ends.

use crate::{eventually, is_alive, kill, workers};
use common::Process;
use common::manager::{CallError, DictProxy, EventProxy, Manager, Proxy, QueueProxy};
use common::queue::Queue;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::isolated;

fn get(n: &mut u64) -> u64 {
    *n
}

fn gated(_: &mut u64, started: EventProxy, go: EventProxy) {
    started.set();
    go.wait();
}

/// The names in shared memory of things that these processes made.
fn segments(pids: &[u32]) -> Vec<String> {
    let its = |name: &String| pids.iter().any(|pid| name.contains(&format!("-{pid}-")));
    let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(its).collect()
}

// H-012
#[test]
fn an_interrupt_is_for_the_program_and_not_for_its_manager() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let pid = nix::unistd::Pid::from_raw(manager.pid().unwrap().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(value.call(get, ()), Ok(1));
    });
}

// G-013
#[test]
fn a_manager_lives_as_long_as_its_scope_and_exits_with_0() {
    isolated(|| {
        let (pid, value) = {
            let manager = Manager::new().unwrap();
            let dict: DictProxy<String, u32> = manager.dict().unwrap();
            dict.set("a".into(), 1).unwrap();
            let pid = manager.pid().unwrap();
            assert!(is_alive(pid) && manager.exit_code().is_none());
            (pid, manager.host(1u64).unwrap())
        };
        assert!(!is_alive(pid));
        let error = value.call(get, ()).unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        // With clients, values and a pool; and one who only connected ends nothing.
        let mut manager = Manager::new().unwrap();
        let pool = manager.pool(1).unwrap();
        let value = manager.host(1u64).unwrap();
        let call = |value: Proxy<u64>| value.call(get, ()).unwrap();
        let child = Process::spawn(call, (value.clone(),)).unwrap();
        assert_eq!(child.join().unwrap(), 1);
        let mut other = Manager::connect(manager.address(), manager.key()).unwrap();
        other.shutdown();
        assert_eq!((other.pid(), other.exit_code()), (None, None));
        assert_eq!(value.call(get, ()).unwrap(), 1);
        drop(other);
        manager.shutdown();
        assert_eq!(manager.exit_code(), Some(0));
        assert!(pool.apply(|| 1, ()).is_err());
    });
}

fn path() -> PathBuf {
    std::env::temp_dir().join(format!("common-end-{}.sock", std::process::id()))
}

// G-013: if it is slow
#[test]
fn a_busy_manager_is_terminated() {
    isolated(|| {
        let mut manager = Manager::serve(path()).unwrap();
        let value = manager.host(0u64).unwrap();
        let (started, go) = (manager.event().unwrap(), manager.event().unwrap());
        let call = value.call_async(gated, (started.clone(), go));
        started.wait();
        let start = Instant::now();
        manager.shutdown();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(manager.exit_code(), Some(-libc::SIGTERM));
        assert!(!path().exists());
        assert!(matches!(call.wait(), Err(CallError::Disconnected { .. })));
    });
}

// G-028; of this process `isolated` looks for children, files and segments
#[test]
fn nothing_is_left_after_a_shutdown() {
    isolated(|| {
        let path = path();
        let serve = |path: PathBuf| {
            let manager = Manager::serve(path).unwrap();
            let pool = manager.pool(2).unwrap();
            assert_eq!(pool.apply(|x: u8| x + 1, (1,)).unwrap(), Ok(2));
            // A queue that the manager made, and one that it only has a proxy of.
            let make = || Queue::<u32>::new().unwrap();
            let made = manager.host_with(make, ()).unwrap();
            let queue: QueueProxy<u32> = manager.queue().unwrap();
            let queue = manager.host(queue).unwrap();
            let mut pids = workers(&pool);
            pids.push(manager.pid().unwrap());
            assert!(pids.iter().all(|&pid| is_alive(pid)));
            assert!(!segments(&pids).is_empty());
            (manager, (pool, made, queue), pids)
        };
        let (manager, proxies, pids) = serve(path.clone());
        drop(manager);
        assert!(!path.exists());
        assert_eq!(segments(&pids), [""; 0]);
        eventually("all have ended", || !pids.iter().any(|&pid| is_alive(pid)));
        drop(proxies);

        // Killed: the processes go at once, the memory with the next that is made.
        let (manager, proxies, pids) = serve(path.clone());
        kill(manager.pid().unwrap());
        eventually("all have ended", || !pids.iter().any(|&pid| is_alive(pid)));
        drop(manager);
        assert!(!path.exists());
        drop(Queue::<u32>::new().unwrap());
        assert_eq!(segments(&pids), [""; 0]);
        drop(proxies);
    });
}

#[test]
fn calls_that_were_dropped_are_made_before_the_end() {
    isolated(|| {
        let mut manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let done: Queue<usize> = Queue::new().unwrap();
        let put = |_: &mut u64, bytes: Vec<u8>, done: Queue<usize>| done.put(bytes.len()).unwrap();
        for _ in 0..5 {
            // Longer than the channel: it has to wait in this process's memory.
            drop(value.call_async(put, (vec![0; 1 << 20], done.clone())));
        }
        manager.shutdown();
        assert_eq!(manager.exit_code(), Some(0));
        for _ in 0..5 {
            assert_eq!(done.get_timeout(Duration::ZERO).unwrap(), 1 << 20);
        }
        let error = value.call(get, ()).unwrap_err();
        assert!(error.to_string().contains("it was shut down"), "{error}");
    });
}
