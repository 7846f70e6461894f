//! Processes that kill themselves at every step of a put and a get.

use super::*;
use crate::process::{JoinError, Process};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

static ARMED: AtomicBool = AtomicBool::new(false);
static POINT: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

/// Kills this process, if a test has asked for that, at its n-th coming to this step.
pub(in super::super) fn step(name: &'static str) {
    if !ARMED.load(Relaxed) {
        return;
    }
    let mut point = POINT.lock().unwrap();
    if point.0 == name {
        match point.1 {
            0 => nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap(),
            _ => point.1 -= 1,
        }
    }
}

fn die_at(point: String, coming: u32) {
    *POINT.lock().unwrap() = (point, coming);
    ARMED.store(true, Relaxed);
}

const LONG: usize = 100_000;

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 % 253) as u8).collect()
}

fn put_and_die(ring: Ring, len: usize, point: String, coming: u32) {
    die_at(point, coming);
    let _ = ring.put(&[&message(len)], Deadline::after(Duration::from_secs(30)));
}

fn get_and_die(ring: Ring, slot: usize, point: String, coming: u32) {
    die_at(point, coming);
    let until = Deadline::after(Duration::from_secs(30));
    let _ = ring.get_claiming(slot, &mut Vec::new(), until, |bytes| bytes.len() as u64);
}

/// Waits for the child; says whether it came to the step and died there.
fn died(child: &Process<()>) -> bool {
    match child.join() {
        Ok(()) => false,
        Err(JoinError::Signaled { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn drain(ring: &Ring) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| get(ring).ok()).collect()
}

/// Everything still works, for everybody, at once.
fn works(ring: &Ring) {
    let start = Instant::now();
    for len in [0, 1, 500] {
        ring.put(&[&message(len)], soon()).unwrap();
        let mut out = Vec::new();
        ring.get(&mut out, soon()).unwrap();
        assert_eq!(out, message(len));
    }
    assert!(ring.is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "somebody waited for the dead"
    );
}

fn claiming_ring(capacity: usize) -> Ring {
    Ring::create(RingConfig {
        capacity,
        claims: 4,
        ..RingConfig::default()
    })
    .unwrap()
}

#[test]
fn a_producer_dies_at_each_step() {
    let steps = [
        ("put: locked", false),
        ("put: frame begun", false),
        ("put: payload written", false),
        ("put: committed", true),
    ];
    for (point, is_in) in steps {
        let ring = claiming_ring(1 << 12);
        ring.put(&[b"before"], soon()).unwrap();
        let args = (ring.clone(), 1000, point.to_string(), 0);
        assert!(died(&Process::spawn(put_and_die, args).unwrap()), "{point}");
        let mut expected = vec![b"before".to_vec()];
        expected.extend(is_in.then(|| message(1000)));
        assert_eq!(ring.len(), expected.len(), "{point}");
        assert_eq!(drain(&ring), expected, "{point}");
        works(&ring);
    }
}

#[test]
fn a_consumer_dies_at_each_step_and_its_claim_is_exact() {
    let steps = [
        ("get: locked", false),
        ("get: copied", false),
        ("get: claiming", false),
        ("get: claimed", false),
        ("get: before the commit", false),
        ("get: committed", true),
    ];
    for (point, is_out) in steps {
        let ring = claiming_ring(1 << 12);
        ring.put(&[&message(77)], soon()).unwrap();
        ring.put(&[b"next"], soon()).unwrap();
        let args = (ring.clone(), 2, point.to_string(), 0);
        assert!(died(&Process::spawn(get_and_die, args).unwrap()), "{point}");
        let claim = ring.claim(2, soon()).unwrap();
        assert_eq!(claim, is_out.then_some(77), "{point}");
        let mut expected = vec![message(77), b"next".to_vec()];
        if is_out {
            expected.remove(0);
        }
        assert_eq!(drain(&ring), expected, "{point}");
        works(&ring);
    }
}

#[test]
fn a_producer_of_a_long_message_dies_half_way() {
    for coming in [0, 1, 3, 20] {
        for point in ["put: payload written", "put: committed"] {
            let ring = claiming_ring(1 << 12);
            let args = (ring.clone(), LONG, point.to_string(), coming);
            let child = Process::spawn(put_and_die, args).unwrap();
            let mut out = Vec::new();
            // Gets nothing, or what comes after.
            let first = ring.get(&mut out, Deadline::after(Duration::from_millis(300)));
            assert_eq!(first, Err(GetError::Empty), "{point} {coming}");
            assert!(died(&child), "{point} {coming}");
            ring.put(&[b"after"], soon()).unwrap();
            ring.get(&mut out, soon()).unwrap();
            assert_eq!(out, b"after", "{point} {coming}");
            works(&ring);
        }
    }
}

#[test]
fn a_consumer_of_a_long_message_dies_half_way() {
    for coming in [0, 1, 3, 20] {
        let ring = claiming_ring(1 << 12);
        let args = (ring.clone(), 0, "get: committed".to_string(), coming);
        let child: Process<()> = Process::spawn(get_and_die, args).unwrap();
        std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                ring.put(&[&message(LONG)], soon()).unwrap();
                ring.put(&[b"after"], soon()).unwrap();
            });
            assert!(died(&child), "{coming}");
            let mut out = Vec::new();
            ring.get(&mut out, soon()).unwrap();
            assert_eq!(out, b"after", "{coming}");
            producer.join().unwrap();
        });
        assert_eq!(ring.claim(0, soon()), Ok(None), "{coming}");
        works(&ring);
    }
}

#[test]
fn a_consumer_that_gives_up_a_long_message_loses_nothing() {
    let ring = ring(1 << 12);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| ring.put(&[&message(LONG * 3)], soon()));
        for _ in 0..20 {
            ring.kick();
            std::thread::yield_now();
        }
        let mut out = Vec::new();
        let got = loop {
            match ring.get(&mut out, soon()) {
                Err(GetError::Interrupted) => {}
                other => break other,
            }
        };
        assert_eq!(got, Ok(()));
        assert!(out == message(LONG * 3));
        producer.join().unwrap().unwrap();
    });
    works(&ring);
}
