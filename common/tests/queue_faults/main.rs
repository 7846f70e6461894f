//! What a queue promises when processes die, stop, or run out of memory.

mod kills;
mod resources;

use common::process::{self, Process};
use common::queue::{GetError, JoinableQueue, PutReason, Queue};
use std::time::{Duration, Instant};
use testkit::isolated;
const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

fn stop() {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
}

fn stopped(process: &Process<()>) {
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let is_stopped = || {
        state()
            .rsplit_once(')')
            .unwrap()
            .1
            .trim_start()
            .starts_with('T')
    };
    let start = Instant::now();
    while !is_stopped() {
        assert!(start.elapsed() < LONG, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn timeouts_hold(queue: &Queue<[u8]>) {
    use common::deadline::Deadline;
    let start = Instant::now();
    let got = queue.get_into_until(&mut Vec::new(), Deadline::after(SOON));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    let got = queue.get_with_until(|_| (), Deadline::after(SOON));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    let put = queue.put_bytes_until(&[0; 8000], Deadline::after(SOON));
    assert_eq!(put, Err(PutReason::Full));
    assert!(start.elapsed() >= SOON && start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stopped_process_does_not_hold_up_timeouts() {
    isolated(|| {
        let queue: Queue<[u8]> = Queue::builder().capacity(1 << 13).build().unwrap();
        // Stopped with the get lock in its hands.
        queue.put_bytes(&[1; 500]).unwrap();
        let theirs = queue.clone();
        let consumer: Process<()> =
            process::fork(move || theirs.get_with(|_| stop()).unwrap()).unwrap();
        stopped(&consumer);
        timeouts_hold(&queue);
        consumer.kill().unwrap();
        assert!(consumer.join().is_err());
        let mut message = Vec::new();
        queue.get_into(&mut message).unwrap();
        assert_eq!(message, [1; 500], "it had not been taken");

        // Stopped with the put lock in its hands: half of a long message is in the ring.
        let theirs = queue.clone();
        let producer: Process<()> =
            process::fork(move || theirs.put_bytes(&vec![2; 100_000]).unwrap()).unwrap();
        while queue.stats().bytes == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(producer.pid().cast_signed()),
            nix::sys::signal::Signal::SIGSTOP,
        )
        .unwrap();
        stopped(&producer);
        timeouts_hold(&queue);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(producer.pid().cast_signed()),
            nix::sys::signal::Signal::SIGCONT,
        )
        .unwrap();
        // It starts over: nothing is lost.
        queue.get_into(&mut message).unwrap();
        assert!(message == [2; 100_000]);
        producer.join().unwrap();
    });
}

#[test]
fn what_a_killed_consumer_held_is_counted() {
    isolated(|| {
        let tasks = JoinableQueue::new().unwrap();
        for task in 0..5 {
            tasks.put(task).unwrap();
        }
        let (theirs, ready) = (tasks.clone(), Queue::new().unwrap());
        let told = ready.clone();
        let consumer: Process<()> = process::fork(move || {
            for _ in 0..3 {
                theirs.get().unwrap();
            }
            theirs.task_done().unwrap();
            told.put(()).unwrap();
            std::thread::sleep(LONG);
        })
        .unwrap();
        ready.get().unwrap();
        assert_eq!(tasks.unfinished(), 4);
        consumer.kill().unwrap();
        assert!(consumer.join().is_err());
        while let Ok(task) = tasks.try_get() {
            assert!(task >= 3);
            tasks.task_done().unwrap();
        }
        assert_eq!(tasks.join_timeout(LONG), Some(2));
        assert_eq!(tasks.join(), 0);
    });
}
