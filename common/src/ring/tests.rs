use super::*;
use std::cell::RefCell;

/// What this thread does when it comes to a step for the n-th time from now.
struct Plan {
    step: String,
    coming: u32,
    act: Box<dyn FnOnce()>,
}

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

fn at(step: &str, coming: u32, act: impl FnOnce() + 'static) {
    let (step, act) = (step.to_owned(), Box::new(act));
    PLAN.set(Some(Plan { step, coming, act }));
}

/// The ring's steps come here.
pub(super) fn step(name: &'static str) {
    let is_due = |plan: &mut Plan| {
        let here = plan.step == name;
        let due = here && plan.coming == 0;
        plan.coming -= u32::from(here && !due);
        due
    };
    if let Some(plan) = PLAN.with_borrow_mut(|plan| plan.take_if(is_due)) {
        (plan.act)();
    }
}

/// Waits for what other threads do.
fn until(ready: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(std::time::Instant::now() < end, "it does not come");
        std::thread::yield_now();
    }
}

fn ring(capacity: usize) -> Ring {
    Ring::create(RingConfig {
        capacity,
        ..RingConfig::default()
    })
    .unwrap()
}

fn get(ring: &Ring) -> Result<Vec<u8>, GetError> {
    let mut out = Vec::new();
    ring.get(&mut out, Deadline::Now).map(|()| out)
}

#[test]
fn messages_come_in_order_and_whole() {
    let ring = ring(1 << 12);
    assert_eq!(get(&ring), Err(GetError::Empty));
    for round in 0..1000usize {
        let long = vec![round as u8; round % 600];
        ring.put(&[b"head", &long], Deadline::Now).unwrap();
        ring.put(&[], Deadline::Now).unwrap();
        assert_eq!(ring.len(), 2);
        assert_eq!(get(&ring).unwrap(), [&b"head"[..], &long].concat());
        assert_eq!(get(&ring).unwrap(), b"");
    }
    assert!(ring.is_empty());
}

#[test]
fn a_full_ring_refuses_and_a_closed_one_drains() {
    let ring = ring(256);
    let mut put = 0;
    while ring.put(&[&[put; 24]], Deadline::Now).is_ok() {
        put += 1;
    }
    assert_eq!(put, 8);
    assert_eq!(ring.put(&[&[0; 24]], Deadline::Now), Err(PutError::Full));
    ring.close();
    assert_eq!(ring.put(&[b"x"], Deadline::Never), Err(PutError::Closed));
    for index in 0..put {
        assert_eq!(get(&ring).unwrap(), [index; 24]);
    }
    assert_eq!(get(&ring), Err(GetError::Closed));
    let stats = ring.stats();
    assert_eq!((stats.messages, stats.bytes, stats.high_water), (0, 0, 256));
}

#[test]
fn no_more_messages_wait_than_may() {
    let ring = Ring::create(RingConfig {
        max_items: Some(1),
        ..RingConfig::default()
    })
    .unwrap();
    // What one sees who has looked at the head, and at the tail when others had got and put.
    let later = ring.0.tail().advance(2, 2);
    ring.0.header().tail.0.store(later.0, SeqCst);
    assert_eq!((ring.len(), ring.stats().messages), (1, 1));
}

#[test]
fn a_message_longer_than_the_ring_goes_through() {
    let ring = ring(1 << 14);
    let long: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    std::thread::scope(|scope| {
        let ring = &ring;
        let long = &long;
        scope.spawn(move || {
            for _ in 0..3 {
                ring.put(
                    &[&long[..10], &long[10..100_000], &long[100_000..]],
                    Deadline::Never,
                )
                .unwrap();
                ring.put(&[b"short"], Deadline::Never).unwrap();
            }
        });
        let mut out = Vec::new();
        for _ in 0..3 {
            ring.get(&mut out, Deadline::Never).unwrap();
            assert!(out == *long);
            ring.get(&mut out, Deadline::Never).unwrap();
            assert_eq!(out, b"short");
        }
    });
    assert_eq!(ring.put(&[&long], Deadline::Now), Err(PutError::Full));
    let soon = Deadline::after(Duration::from_millis(20));
    assert_eq!(ring.put(&[&long], soon), Err(PutError::Full));
    assert_eq!(ring.len(), 0);
    ring.close();
    assert_eq!(get(&ring), Err(GetError::Closed));
}

#[test]
fn a_long_message_goes_on_while_its_producer_looks_about() {
    let ring = ring(256);
    let long = vec![5; 100_000];
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let looks = std::cell::Cell::new(0);
            let look = || {
                looks.set(looks.get() + 1);
                false
            };
            let put = ring.put_looking(&long, Deadline::Never, Duration::from_nanos(1), &look);
            (put, looks.get() > 0)
        });
        let mut out = Vec::new();
        ring.get(&mut out, Deadline::after(Duration::from_secs(30)))
            .unwrap();
        assert!(out == long);
        assert_eq!(producer.join().unwrap(), (Ok(()), true));
    });
}

type Put = fn(&Ring, &[u8]) -> Result<(), PutError>;

/// All the ways to put with all the time there is.
const PATIENT_PUTS: [Put; 2] = [
    |ring, message| ring.put(&[message], Deadline::Never),
    |ring, message| {
        let mut batch = Batch::default();
        let write = |out: &mut Vec<u8>| {
            out.extend(message);
            Ok::<(), ()>(())
        };
        batch.push_with(write).unwrap();
        ring.put_many(&batch, 0, Deadline::Never).1
    },
];

#[test]
fn a_put_with_all_its_time_waits_until_there_is_room() {
    // No more messages than one; no room for it; more of it than the ring can hold.
    for (max_items, len) in [(Some(1), 10), (None, 10), (None, 200), (None, 2000)] {
        for put in PATIENT_PUTS {
            let ring = Ring::create(RingConfig {
                capacity: 256,
                max_items,
                claims: 0,
            })
            .unwrap();
            while ring.put(&[&[1; 10]], Deadline::Now).is_ok() {}
            // Not scoped, so that it holds nobody up if it waits in vain.
            let putter = std::thread::spawn({
                let ring = ring.clone();
                move || put(&ring, &vec![2; len])
            });
            let (mut out, room) = (Vec::new(), &ring.0.header().room.0);
            while out != vec![2; len] {
                until(|| room.is_awaited() || putter.is_finished());
                ring.get(&mut out, Deadline::after(Duration::from_secs(30)))
                    .unwrap();
            }
            assert_eq!(putter.join().unwrap(), Ok(()));
        }
    }
}

#[test]
fn a_kick_is_seen_once_by_every_handle() {
    let ring = ring(256);
    let other = Ring::attach(Segment::open(ring.name()).unwrap()).unwrap();
    ring.kick();
    assert_eq!(get(&other), Err(GetError::Interrupted));
    assert_eq!(get(&other), Err(GetError::Empty));
    assert_eq!(get(&ring), Err(GetError::Interrupted));
}

#[test]
fn claims_follow_the_messages() {
    let ring = Ring::create(RingConfig {
        claims: 2,
        ..RingConfig::default()
    })
    .unwrap();
    ring.put(&[b"\x07"], Deadline::Now).unwrap();
    let mut out = Vec::new();
    ring.get_claiming(1, &mut out, Deadline::Now, |bytes| bytes[0].into())
        .unwrap();
    assert_eq!(ring.claim(1, Deadline::Never), Ok(Some(7)));
    assert_eq!(ring.claim(0, Deadline::Never), Ok(None));
    ring.release_claim(1);
    assert_eq!(ring.claim(1, Deadline::Never), Ok(None));
}

#[test]
fn batches_go_under_one_lock() {
    let ring = ring(1 << 12);
    let mut batch = Batch::default();
    for index in 0..100u8 {
        batch
            .push_with(|out| {
                out.extend([index; 20]);
                Ok::<(), ()>(())
            })
            .unwrap();
    }
    assert_eq!(ring.put_many(&batch, 0, Deadline::Now), (100, Ok(())));
    let (put, full) = ring.put_many(&batch, 0, Deadline::Now);
    assert_eq!((put, full), (28, Err(PutError::Full)));
    let mut got = Batch::default();
    assert_eq!(ring.get_many(&mut got, 100, Deadline::Now), Ok(100));
    assert_eq!(got, batch);
    let seen = ring.get_in_place(Deadline::Now, |bytes| bytes.to_vec());
    assert_eq!(seen, Ok(vec![0; 20]));
    assert_eq!(ring.len(), 27);
}

#[test]
fn a_write_that_panics_adds_nothing_to_a_batch() {
    let mut batch = Batch::default();
    let mut push = |panics: bool| {
        let write = |out: &mut Vec<u8>| {
            out.extend([7; 40]);
            assert!(!panics, "on purpose");
            Ok::<(), ()>(())
        };
        let push = || batch.push_with(write).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)).is_ok()
    };
    assert_eq!([push(false), push(true), push(false)], [true, false, true]);
    assert!(batch.iter().eq([&[7; 40]; 2]));
    let ring = ring(1 << 12);
    assert_eq!(ring.put_many(&batch, 0, Deadline::Now), (2, Ok(())));
    assert_eq!(get(&ring).unwrap(), [7; 40]);
    assert_eq!(get(&ring).unwrap(), [7; 40]);
}

#[test]
fn a_read_that_panics_takes_nothing() {
    let ring = ring(256);
    ring.put(&[b"stays"], Deadline::Now).unwrap();
    let read = || ring.get_in_place(Deadline::Now, |_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err());
    assert_eq!(get(&ring).unwrap(), b"stays");
}

#[test]
fn a_long_message_in_a_batch_can_be_passed_on() {
    let (small, large) = (ring(256), ring(1 << 12));
    let mut batch = Batch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| small.put(&[&[7; 1000]], Deadline::Never).unwrap());
        let soon = Deadline::after(Duration::from_secs(30));
        assert_eq!(small.get_many(&mut batch, 5, soon), Ok(1));
    });
    assert_eq!(large.put_many(&batch, 0, Deadline::Now), (1, Ok(())));
    assert_eq!(get(&large).unwrap(), [7; 1000]);
}

#[test]
fn more_claims_than_there_can_be_are_an_error() {
    for claims in [u32::MAX as usize + 1, usize::MAX / 8, usize::MAX] {
        let config = RingConfig {
            claims,
            ..RingConfig::default()
        };
        assert!(matches!(Ring::create(config), Err(ShmError::Size { .. })));
    }
}

mod deaths;
mod fuzz;
mod model;
mod room;
mod wakes;
