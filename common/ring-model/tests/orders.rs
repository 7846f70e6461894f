//! The ring in random orders of everything that several processes do, some of which are killed at
//! a random step; under Miri in one order, for undefined behaviour and data races.
//!
//! `SOAK=10` tries ten times as many orders.

use ring_model::deadline::Deadline;
use ring_model::ring::{Batch, GetError, PutError, Ring, RingConfig};
use ring_model::{Process, check, lifetime, spawn};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn orders(few: u32) -> u32 {
    few * testkit::soak()
}

fn ring(capacity: usize, max_items: Option<u32>) -> Ring {
    let config = RingConfig {
        capacity,
        max_items,
        claims: 4,
    };
    Ring::create(config).unwrap()
}

/// A handle as another process has it.
fn other(ring: &Ring) -> Ring {
    Ring::attach(ring.segment().clone()).unwrap()
}

/// A message that says whose it is, and whether it is whole.
fn message(who: u8, number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![who ^ number.wrapping_mul(31); len.max(2)];
    (bytes[0], bytes[1]) = (who, number);
    bytes
}

/// What the consumers got: whose, and which.
type Books = Arc<Mutex<Vec<(u8, u8)>>>;

fn enter(books: &Books, bytes: &[u8]) {
    let (who, number) = (bytes[0], bytes[1]);
    assert!(
        bytes == message(who, number, bytes.len()),
        "torn: {who} {number}"
    );
    books.lock().unwrap().push((who, number));
}

/// The numbers that came from one producer, sorted.
fn of(books: &Books, who: u8) -> Vec<u8> {
    let books = books.lock().unwrap();
    let mut numbers: Vec<u8> = books
        .iter()
        .filter(|one| one.0 == who)
        .map(|one| one.1)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// How many messages a producer knows to be put.
type Put = Arc<AtomicU8>;

/// Puts messages of these lengths.
fn producer(
    ring: &Ring,
    who: u8,
    lens: &'static [usize],
    put: &Put,
) -> impl FnOnce() + Send + use<> {
    let (ring, put) = (other(ring), Arc::clone(put));
    move || {
        for (number, len) in (0..).zip(lens) {
            let message = message(who, number, *len);
            let (head, tail) = message.split_at(message.len() / 3);
            ring.put(&[head, tail], Deadline::Never).unwrap();
            put.fetch_add(1, SeqCst);
        }
    }
}

/// Gets until the ring is closed and drained, however often it is interrupted.
fn consumer(ring: &Ring, books: &Books) -> impl FnOnce() + Send + use<> {
    let (ring, books) = (other(ring), Arc::clone(books));
    move || {
        let mut out = Vec::new();
        let mut last = BTreeMap::new();
        loop {
            match ring.get(&mut out, Deadline::Never) {
                Err(GetError::Interrupted) => continue,
                Err(GetError::Closed) => return,
                got => got.unwrap(),
            }
            enter(&books, &out);
            let before = last.insert(out[0], out[1]);
            assert!(before.is_none_or(|before| before < out[1]), "out of order");
        }
    }
}

fn got<T>(result: Result<T, GetError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(GetError::Closed) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Interrupts whoever gets.
fn kicker(ring: &Ring, kicks: u32) -> impl FnOnce() + Send + use<> {
    let ring = other(ring);
    move || (0..kicks).for_each(|_| ring.kick())
}

fn join<const N: usize>(processes: [Process<()>; N]) {
    for process in processes {
        process.join().expect("nobody was to be killed");
    }
}

/// Each message of two producers comes to one of two consumers.
fn all_come(few: u32, max_items: Option<u32>, lens: &'static [usize]) {
    check(orders(few), move || {
        let (ring, books) = (ring(256, max_items), Books::default());
        let producers = [1, 2].map(|who| spawn(None, producer(&ring, who, lens, &Put::default())));
        let consumers = [0; 2].map(|_| spawn(None, consumer(&ring, &books)));
        join(producers);
        ring.close();
        join(consumers);
        for who in [1, 2] {
            assert_eq!(of(&books, who), (0..lens.len() as u8).collect::<Vec<_>>());
        }
        assert_eq!(ring.stats().bytes, 0);
    });
}

#[test]
fn no_message_and_no_wake_is_lost() {
    for max_items in [None, Some(1), Some(3)] {
        all_come(700, max_items, &[40, 0, 100, 3]);
    }
}

/// One who sleeps for several messages is woken when they are there, and when there is no room for
/// so many.
#[test]
fn a_patient_consumer_is_woken_in_time() {
    for capacity in [4096, 256] {
        check(orders(1500), move || {
            let ring = ring(capacity, None);
            let producers = [1, 2].map(|who| {
                let put = Put::default();
                spawn(None, producer(&ring, who, &[40, 60, 50], &put))
            });
            let mut batch = Batch::default();
            while batch.len() < 6 {
                let left = 6 - batch.len() as u32;
                ring.wait_readable(left, Deadline::Never, || false).unwrap();
                match ring.get_many(&mut batch, 6, Deadline::Now) {
                    Ok(_) | Err(GetError::Empty) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            join(producers);
            assert!(
                batch
                    .iter()
                    .all(|bytes| bytes == message(bytes[0], bytes[1], bytes.len()))
            );
        });
    }
}

#[test]
fn closing_ends_everybody() {
    check(orders(1000), || {
        let (ring, books) = (ring(256, None), Books::default());
        let ours = other(&ring);
        let putter = spawn(None, move || {
            let put = |number: &u8| ours.put(&[&message(1, *number, 50)], Deadline::Never);
            (0..)
                .take_while(|number| put(number) != Err(PutError::Closed))
                .count()
        });
        let getters = [0; 2].map(|_| spawn(None, consumer(&ring, &books)));
        let ours = other(&ring);
        spawn(None, move || ours.close()).join().unwrap();
        let put = putter.join().unwrap();
        join(getters);
        assert_eq!(of(&books, 1).len(), put);
    });
}

#[test]
fn batches_come_whole_and_in_order() {
    check(orders(1000), || {
        let (ring, books) = (ring(256, Some(5)), Books::default());
        let producers = [1, 2].map(|who| {
            let ring = other(&ring);
            spawn(None, move || {
                let mut batch = Batch::default();
                for number in 0..7 {
                    let bytes = message(who, number, usize::from(number) * 11);
                    let write = |out: &mut Vec<u8>| {
                        out.extend(&bytes);
                        Ok::<(), ()>(())
                    };
                    batch.push_with(write).unwrap();
                }
                assert_eq!(ring.put_many(&batch, 0, Deadline::Never), (7, Ok(())));
            })
        });
        let consumers = [1, 4].map(|most| {
            let (ring, books) = (other(&ring), Arc::clone(&books));
            spawn(None, move || {
                let mut batch = Batch::default();
                while let Some(count) = got(ring.get_many(&mut batch, most, Deadline::Never)) {
                    assert!(count == batch.len() && (1..=most).contains(&count));
                    batch.iter().for_each(|bytes| enter(&books, bytes));
                    batch.clear();
                }
            })
        });
        join(producers);
        ring.close();
        join(consumers);
        for who in [1, 2] {
            assert_eq!(of(&books, who), (0..7).collect::<Vec<_>>());
        }
    });
}

/// Lengths of which the second goes through a ring of 256 bytes in fragments.
const LONG: &[usize] = &[30, 500, 5];

#[test]
fn long_messages_go_through_in_fragments() {
    for max_items in [None, Some(1)] {
        all_come(600, max_items, LONG);
    }
}

#[test]
fn who_gives_up_a_long_message_tears_and_loses_nothing() {
    check(orders(1000), || {
        let (ring, books) = (ring(256, None), Books::default());
        // A producer whose time is up when it first has to wait.
        let ours = other(&ring);
        let hasty = spawn(None, move || {
            let soon = Deadline::after(Duration::from_nanos(1));
            (0..3)
                .filter(|number| ours.put(&[&message(9, *number, 400)], soon).is_ok())
                .collect()
        });
        let producer = spawn(None, producer(&ring, 1, LONG, &Put::default()));
        // A consumer that is interrupted again and again, at any fragment.
        let patient = spawn(None, consumer(&ring, &books));
        let kicker = spawn(None, kicker(&ring, 3));
        let hasty: Vec<u8> = hasty.join().unwrap();
        join([producer, kicker]);
        ring.close();
        join([patient]);
        assert_eq!((of(&books, 1), of(&books, 9)), (vec![0, 1, 2], hasty));
    });
}

/// Kills one of three producers at any step. The others' messages all come, and of the dead one's
/// those that it knows to be put and perhaps one more. What it left half done may be given up by
/// its consumer (for a kick) just when the next producer does so.
fn a_producer_dies(few: u32, capacity: usize, lens: &'static [usize], most: u32, kicks: u32) {
    check(orders(few), move || {
        let (ring, books, put) = (ring(capacity, None), Books::default(), Put::default());
        let mortal = spawn(Some(lifetime(most)), producer(&ring, 1, lens, &put));
        let others = [2, 3].map(|who| spawn(None, producer(&ring, who, lens, &Put::default())));
        let consumers = [0; 2].map(|_| spawn(None, consumer(&ring, &books)));
        let kicker = spawn(None, kicker(&ring, kicks));
        mortal.join();
        join(others);
        join([kicker]);
        // What it left half done is finished by the next one who puts.
        ring.put(&[&message(4, 0, 2)], Deadline::Never).unwrap();
        ring.close();
        join(consumers);
        let (got, known) = (of(&books, 1), put.load(SeqCst));
        assert!(got == (0..known).collect::<Vec<_>>() || got == (0..=known).collect::<Vec<_>>());
        for who in [2, 3] {
            assert_eq!(of(&books, who), (0..lens.len() as u8).collect::<Vec<_>>());
        }
        assert_eq!(of(&books, 4), [0]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "nobody is killed under Miri")]
fn a_producer_dies_at_any_step() {
    a_producer_dies(2000, 256, &[40, 0, 100, 3], 100, 0);
}

#[test]
#[cfg_attr(miri, ignore = "nobody is killed under Miri")]
fn a_producer_dies_at_any_step_of_a_long_message() {
    a_producer_dies(2000, 256, LONG, 300, 3);
}

/// Kills one of two consumers, which claims what it takes, at any step: nothing is lost, nothing
/// comes twice, and the claim says exactly what was in its hands.
fn a_consumer_dies(few: u32, lens: &'static [usize], most: u32) {
    check(orders(few), move || {
        let (ring, books) = (ring(256, None), Books::default());
        let (ours, theirs) = (other(&ring), Arc::clone(&books));
        let mortal = spawn(Some(lifetime(most)), move || {
            let (mut out, number) = (Vec::new(), |bytes: &[u8]| u64::from(bytes[1]) + 1);
            while let Some(()) = got(ours.get_claiming(2, &mut out, Deadline::Never, number)) {
                enter(&theirs, &out);
                ours.release_claim(2);
            }
        });
        let producer = spawn(None, producer(&ring, 1, lens, &Put::default()));
        let other = spawn(None, consumer(&ring, &books));
        join([producer]);
        ring.close();
        join([other]);
        let claim = match mortal.join() {
            Some(()) => None,
            None => ring.claim(2, Deadline::Never).unwrap(),
        };
        let mut got = of(&books, 1);
        // Entered in the books and not released yet, or not even entered.
        let claimed = claim.map(|number| number as u8 - 1);
        got.extend(claimed.filter(|number| !got.contains(number)));
        got.sort_unstable();
        assert_eq!(got, (0..lens.len() as u8).collect::<Vec<_>>());
    });
}

#[test]
#[cfg_attr(miri, ignore = "nobody is killed under Miri")]
fn a_consumer_dies_at_any_step_and_its_claim_is_exact() {
    a_consumer_dies(4000, &[40, 0, 100, 3, 17], 120);
}

/// So long that a ring of a MiB, which uses a quarter of that at first, comes to use all.
const WIDE: &[usize] = &[60_000; 6];

#[test]
fn the_memory_in_use_grows_and_shrinks() {
    check(orders(60), || {
        let (ring, books) = (ring(1 << 20, None), Books::default());
        for round in 0..3 {
            let producers = [1, 2].map(|who| {
                spawn(
                    None,
                    producer(&ring, who + 10 * round, WIDE, &Put::default()),
                )
            });
            let (ours, theirs) = (other(&ring), Arc::clone(&books));
            let consumer = spawn(None, move || {
                let mut out = Vec::new();
                for _ in 0..2 * WIDE.len() {
                    ours.get(&mut out, Deadline::Never).unwrap();
                    enter(&theirs, &out);
                }
            });
            join(producers);
            join([consumer]);
            for who in [1, 2] {
                assert_eq!(of(&books, who + 10 * round), [0, 1, 2, 3, 4, 5]);
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "nobody is killed under Miri")]
fn a_producer_dies_while_the_memory_grows() {
    a_producer_dies(300, 1 << 20, WIDE, 200, 0);
}

#[test]
fn messages_are_read_in_place() {
    check(orders(500), || {
        let (ring, books) = (ring(256, None), Books::default());
        let producer = spawn(
            None,
            producer(&ring, 1, &[40, 100, 60, 500, 0, 100], &Put::default()),
        );
        let (ours, theirs) = (other(&ring), Arc::clone(&books));
        let consumer = spawn(None, move || {
            let read = || ours.get_in_place(Deadline::Never, |bytes| enter(&theirs, bytes));
            while let Some(()) = got(read()) {}
        });
        join([producer]);
        ring.close();
        join([consumer]);
        assert_eq!(of(&books, 1), [0, 1, 2, 3, 4, 5]);
    });
}
