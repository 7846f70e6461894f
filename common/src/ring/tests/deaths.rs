//! Processes that kill themselves at every step of a put and a get.

use super::*;
use crate::process::{JoinError, Process};
use crate::queue::{JoinableQueue, Queue};
use std::time::Instant;

/// Kills this process at its n-th coming to a step.
fn die_at(point: &str, coming: u32) {
    let die = || nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    at(point, coming, die);
}

const LONG: usize = 100_000;

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 % 253) as u8).collect()
}

fn put_and_die(ring: Ring, len: usize, point: String, coming: u32) {
    die_at(&point, coming);
    let _ = ring.put(&[&message(len)], Deadline::after(Duration::from_secs(30)));
}

fn get_and_die(ring: Ring, slot: usize, point: String, coming: u32) {
    die_at(&point, coming);
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
fn who_dies_while_it_repairs_leaves_that_to_the_next_one() {
    let ring = claiming_ring(1 << 12);
    ring.put(&[&message(77)], soon()).unwrap();
    for (slot, point) in [(2, "get: claimed"), (1, "get: repairing")] {
        let args = (ring.clone(), slot, point.to_string(), 0);
        assert!(died(&Process::spawn(get_and_die, args).unwrap()), "{point}");
    }
    for slot in [1, 2] {
        assert_eq!(ring.claim(slot, soon()), Ok(None), "{slot}");
    }
    assert_eq!(drain(&ring), [message(77)]);
    works(&ring);
}

const LENS: [usize; 3] = [20, 0, 300];

fn put_many_and_die(ring: Ring, point: String) {
    let mut batch = Batch::default();
    for len in LENS {
        let write = |out: &mut Vec<u8>| {
            out.extend(message(len));
            Ok::<(), ()>(())
        };
        batch.push_with(write).unwrap();
    }
    die_at(&point, 0);
    let _ = ring.put_many(&batch, 0, soon());
}

fn take_and_die(ring: Ring, point: String, in_place: bool) {
    die_at(&point, 0);
    match in_place {
        true => drop(ring.get_in_place(soon(), <[u8]>::len)),
        false => drop(ring.get_many(&mut Batch::default(), 2, soon())),
    }
}

/// Of the batch all but the first so many are in the ring, and everything works.
fn all_but(taken: usize, ring: &Ring, point: &str) {
    let expected: Vec<_> = LENS[taken..].iter().map(|len| message(*len)).collect();
    assert_eq!(drain(ring), expected, "{point}");
    works(ring);
}

#[test]
fn a_batch_is_put_whole_or_not_at_all() {
    let steps = [
        ("put: locked", LENS.len()),
        ("put: payload written", LENS.len()),
        ("put: committed", 0),
    ];
    for (point, missing) in steps {
        let ring = ring(1 << 12);
        let args = (ring.clone(), point.to_string());
        let child = Process::spawn(put_many_and_die, args).unwrap();
        assert!(died(&child), "{point}");
        all_but(missing, &ring, point);
    }
}

#[test]
fn several_are_taken_together_and_what_is_read_in_place_afterwards() {
    let steps = [
        ("get: locked", false, 0),
        ("get: copied", false, 0),
        ("get: before the commit", false, 0),
        ("get: committed", false, 2),
        ("get: locked", true, 0),
        ("get: before the commit", true, 0),
        ("get: committed", true, 1),
    ];
    for (point, in_place, taken) in steps {
        let ring = ring(1 << 12);
        for len in LENS {
            ring.put(&[&message(len)], soon()).unwrap();
        }
        let args = (ring.clone(), point.to_string(), in_place);
        let child = Process::spawn(take_and_die, args).unwrap();
        assert!(died(&child), "{point}");
        all_but(taken, &ring, point);
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
        assert_eq!([ring.take_dropped(), ring.take_dropped()], [1, 0]);
        works(&ring);
    }
}

fn get_task_and_die(tasks: JoinableQueue<String>) {
    die_at("get: committed", 1);
    let _ = tasks.get_timeout(Duration::from_secs(30));
}

#[test]
fn a_long_task_that_is_lost_with_half_of_it_in_hands_is_told_of() {
    let tasks = JoinableQueue::build(Queue::builder().capacity(1 << 12)).unwrap();
    let child = Process::spawn(get_task_and_die, (tasks.clone(),)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tasks.put("x".repeat(LONG)).unwrap();
            tasks.put("after".into()).unwrap();
        });
        assert!(died(&child));
        let task = tasks.get_guard_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(*task, "after");
    });
    assert_eq!([tasks.join(), tasks.join()], [1, 0]);
}

/// Where others want to see what the dead have left.
#[test]
fn who_has_half_of_a_message_does_not_wait_for_a_dead_producer_with_the_lock() {
    for deadline in [Deadline::Never, Deadline::after(Duration::from_secs(3600))] {
        let ring = claiming_ring(256);
        die(&ring);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| ring.get(&mut Vec::new(), deadline));
            until(|| ring.stats().bytes == 0);
            let claim = ring.claim(0, Deadline::after(Duration::from_secs(20)));
            ring.close();
            assert_eq!(claim, Ok(None));
            assert_eq!(consumer.join().unwrap(), Err(GetError::Closed));
        });
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

/// Leaves the beginning of a long message in the ring, which is full then, so that there is no
/// room to say that it was given up.
fn give_up(ring: &Ring) {
    let soon = Deadline::after(Duration::from_millis(20));
    assert_eq!(ring.put(&[&message(LONG)], soon), Err(PutError::Full));
    assert_eq!(ring.stats().bytes, 256);
}

/// Leaves the beginning of a long message in the ring and the put lock to the next one.
fn die(ring: &Ring) {
    let args = (ring.clone(), LONG, "put: committed".to_string(), 0);
    assert!(died(&Process::spawn(put_and_die, args).unwrap()));
}

/// A consumer has waited for the rest of a message that was given up, or whose producer has died,
/// and stops doing so between the write and the commit of the next one who puts.
#[test]
fn a_put_is_not_refused_because_a_consumer_gives_up() {
    let given_up: fn(&Ring) = give_up;
    for (left_by, leave) in [("one who gave up", given_up), ("a dead one", die)] {
        for (put, len) in PATIENT_PUTS.iter().flat_map(|put| [(put, 10), (put, 1000)]) {
            let ring = ring(256);
            leave(&ring);
            std::thread::scope(|scope| {
                let consumer = scope.spawn(|| {
                    let mut out = Vec::new();
                    let interrupted = ring.get(&mut out, soon());
                    assert_eq!(interrupted, Err(GetError::Interrupted));
                    ring.get(&mut out, soon()).map(|()| out)
                });
                until(|| ring.stats().bytes == 0);
                let theirs = ring.clone();
                at("put: payload written", 0, move || {
                    theirs.kick();
                    until(|| theirs.0.tail().rejected());
                });
                assert_eq!(put(&ring, &message(len)), Ok(()), "{left_by}, {len}");
                assert!(consumer.join().unwrap() == Ok(message(len)));
            });
        }
    }
}
