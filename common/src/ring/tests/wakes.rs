//! Who is told of what: futures, sleepers, and those who are patient.

use super::*;
use std::sync::mpsc;
use std::task::{Wake, Waker};
use std::time::Instant;

#[test]
fn a_waker_may_use_the_ring() {
    struct Gives {
        ring: Ring,
        told: mpsc::Sender<()>,
    }
    impl Wake for Gives {
        fn wake(self: Arc<Self>) {
            self.ring.unwatch(End::Get, 0);
            self.told.send(()).unwrap();
        }
    }
    let ring = ring(256);
    let (told, hears) = mpsc::channel();
    let gives = Gives {
        ring: ring.clone(),
        told,
    };
    ring.watch(End::Get, &Arc::new(gives).into());
    ring.put(&[b"news"], Deadline::Now).unwrap();
    hears.recv_timeout(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_wake_for_a_future_that_is_gone_goes_to_another_sleeper() {
    // Who is not told looks again after half a second.
    let quick = || {
        let ring = ring(256);
        let number = ring.watch(End::Get, Waker::noop());
        let signal = &ring.0.header().news.0.signal;
        until(|| signal.is_awaited());
        std::thread::sleep(Duration::from_millis(10));
        std::thread::scope(|scope| {
            let getter = scope.spawn(|| ring.get(&mut Vec::new(), Deadline::Never));
            std::thread::sleep(Duration::from_millis(10));
            ring.unwatch(End::Get, number);
            let start = Instant::now();
            ring.put(&[b"news"], Deadline::Now).unwrap();
            getter.join().unwrap().unwrap();
            start.elapsed() < Duration::from_millis(250)
        })
    };
    // On a busy machine anything may take long once.
    assert!((0..5).any(|_| quick()));
}

/// As those of some executors do on a thread that is not theirs.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

struct Tells(mpsc::Sender<()>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_waker_that_panics_keeps_no_news_from_others() {
    let ring = ring(256);
    let (told, hears) = mpsc::channel();
    for _ in 0..2 {
        ring.watch(End::Get, &Arc::new(Panics).into());
        ring.watch(End::Get, &Arc::new(Tells(told.clone())).into());
        ring.put(&[b"news"], Deadline::Now).unwrap();
        hears.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(get(&ring).unwrap(), b"news");
    }
}

#[test]
fn a_wake_for_one_who_does_not_get_the_lock_in_time_goes_to_another() {
    // Who is not told looks again after half a second.
    let quick = || {
        let (ring, hasty) = (ring(256), Deadline::after(Duration::from_millis(60)));
        std::thread::scope(|scope| {
            let hasty = scope.spawn(|| ring.get(&mut Vec::new(), hasty));
            std::thread::sleep(Duration::from_millis(10));
            let patient = scope.spawn(|| ring.get(&mut Vec::new(), Deadline::Never));
            std::thread::sleep(Duration::from_millis(10));
            let lock = ring.0.lock_get(Deadline::Now).ok().unwrap();
            ring.put(&[b"news"], Deadline::Now).unwrap();
            assert_eq!(hasty.join().unwrap(), Err(GetError::Empty));
            let start = Instant::now();
            drop(lock);
            patient.join().unwrap().unwrap();
            start.elapsed() < Duration::from_millis(250)
        })
    };
    assert!((0..5).any(|_| quick()));
}

#[test]
fn nobody_is_patient_while_there_is_much_to_copy() {
    let ring = ring(1 << 20);
    ring.put(&[&[1; 64 << 10]], Deadline::Now).unwrap();
    let soon = Deadline::after(Duration::from_millis(20));
    assert_eq!(ring.wait_readable(9, soon, || false), Ok(()));
}
