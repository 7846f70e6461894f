//! The memory in use grows and shrinks, whatever the others are at.

use super::*;
use std::sync::Barrier;

/// One that does not fit the memory that is in use at first.
fn wide() -> Vec<u8> {
    vec![3; memory::START + 1]
}

/// A producer gives up a long message when the memory in use is full to the last byte, so that it
/// cannot say so. Its consumer, once it is let `go`, waits for the rest with the get lock held; the
/// next producer, which is to `put` a wide one, needs that lock to take more memory into use.
fn behind_half_a_message(put: impl FnOnce(&Ring, &Barrier) -> Result<(), PutError>) {
    let ring = ring(1 << 20);
    // As long as a fragment: a quarter of the memory in use at first.
    let quarter = vec![1; memory::START / 4 - layout::FRAME];
    ring.put(&[&quarter], Deadline::Now).unwrap();
    let (reads, go) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let (ring, reads, go) = (&ring, &reads, &go);
        let consumer = scope.spawn(move || {
            let wait = |_: &[u8]| (reads.wait(), go.wait());
            ring.get_in_place(Deadline::Never, wait).unwrap();
            let mut out = Vec::new();
            ring.get(&mut out, Deadline::Never).map(|()| out)
        });
        reads.wait();
        let soon = Deadline::after(Duration::from_millis(20));
        assert_eq!(ring.put(&[&vec![2; 2 << 20]], soon), Err(PutError::Full));
        assert_eq!(ring.stats().bytes, memory::START);
        let put = put(ring, go);
        ring.close();
        assert_eq!(put, Ok(()));
        assert!(consumer.join().unwrap() == Ok(wide()));
    });
}

#[test]
fn half_a_message_does_not_keep_the_memory_from_growing() {
    behind_half_a_message(|ring, go| {
        go.wait();
        until(|| ring.stats().bytes == 0);
        ring.put(&[&wide()], Deadline::after(Duration::from_secs(20)))
    });
}

#[test]
fn nor_does_one_whose_consumer_is_still_reading() {
    behind_half_a_message(|ring, go| {
        std::thread::scope(|scope| {
            let put = scope.spawn(|| {
                let soon = Deadline::after(Duration::from_secs(20));
                ring.put(&[&wide()], soon)
            });
            until(|| ring.0.header().put.0.mutex.holder().is_some());
            // It has looked once in vain by then, most likely; it is right if not.
            std::thread::sleep(Duration::from_millis(10));
            go.wait();
            put.join().unwrap()
        })
    });
}

#[test]
fn nor_from_growing_for_one_who_only_tries() {
    behind_half_a_message(|ring, go| {
        go.wait();
        until(|| ring.stats().bytes == 0);
        let put = || ring.put(&[&wide()], Deadline::Now);
        (0..20).fold(put(), |told, _| told.or_else(|_| put()))
    });
}

/// The memory in use is full and the capacity is not, and who holds the get lock is in the way of
/// more memory.
#[test]
fn a_put_of_several_ends_at_its_deadline_while_the_get_lock_is_held() {
    let ring = ring(1 << 20);
    let quarter = vec![1; memory::START / 4 - layout::FRAME];
    (0..4).for_each(|_| ring.put(&[&quarter], Deadline::Now).unwrap());
    assert_eq!(ring.stats().bytes, memory::START);
    let mut batch = Batch::default();
    batch.push_with(|_| Ok::<(), ()>(())).unwrap();
    let (reads, go) = (Barrier::new(2), Barrier::new(2));
    let (tell, hears) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let wait = |_: &[u8]| (reads.wait(), go.wait());
            ring.get_in_place(Deadline::Never, wait).unwrap();
        });
        reads.wait();
        scope.spawn(|| {
            let soon = Deadline::after(Duration::from_millis(20));
            tell.send(ring.put_many(&batch, 0, soon)).unwrap();
        });
        let told = hears.recv_timeout(Duration::from_secs(20));
        go.wait();
        assert_eq!(told, Ok((0, Err(PutError::Full))));
    });
}

/// As above, and all the time there is, but for the ring's end.
#[test]
fn a_put_that_waits_for_more_memory_ends_with_the_ring() {
    let ring = ring(1 << 20);
    ring.put(&[b"read in place"], Deadline::Now).unwrap();
    let (reads, go) = (Barrier::new(2), Barrier::new(2));
    let (tell, hears) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let wait = |_: &[u8]| (reads.wait(), go.wait());
            ring.get_in_place(Deadline::Never, wait).unwrap();
        });
        reads.wait();
        scope.spawn(|| tell.send(ring.put(&[&wide()], Deadline::Never)).unwrap());
        until(|| ring.0.header().put.0.mutex.holder().is_some());
        ring.close();
        let told = hears.recv_timeout(Duration::from_secs(20));
        go.wait();
        assert_eq!(told, Ok(Err(PutError::Closed)));
    });
}

/// A consumer takes a message whenever somebody looks whether it makes room.
fn take_at_each_look(ring: Ring) {
    let take = move || {
        get(&ring).unwrap();
        take_at_each_look(ring);
    };
    at("put: waiting for a consumer", 0, take);
}

#[test]
fn a_large_put_does_not_wait_until_all_is_taken() {
    let ring = ring(4 << 20);
    let all = ring.0.units() as usize;
    let mut batch = Batch::default();
    (0..all).for_each(|_| batch.push_with(|_| Ok::<(), ()>(())).unwrap());
    assert_eq!(ring.put_many(&batch, 0, Deadline::Now), (all, Ok(())));
    let got = ring.get_many(&mut Batch::default(), 6000, Deadline::Now);
    assert_eq!(got, Ok(6000));
    // The first one where the memory begins anew learns that there is room.
    ring.put(&[], Deadline::Now).unwrap();
    take_at_each_look(ring.clone());
    ring.put(&[&[1; 64 << 10]], Deadline::Now).unwrap();
    PLAN.take();
    assert!(ring.len() > all / 4, "{} of {all} were left", ring.len());
}
