//! Producers and consumers killed at random instants, with books of what each did.

#![allow(unsafe_code)] // Shared anonymous memory for the books.

use super::LONG;
use common::process::{self, Process};
use common::queue::{GetError, Queue};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use testkit::isolated_for;
/// Words that this process and its forks share.
fn shared(words: usize) -> &'static [AtomicU32] {
    // SAFETY: a fresh anonymous mapping of that size, zero-filled and never unmapped.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            words * 4,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        std::slice::from_raw_parts(memory.cast(), words)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Message numbers are up to this; per number the number of times it was acknowledged and got.
const NUMBERS: usize = 1 << 23;

#[derive(Clone, Copy)]
struct Books {
    next: &'static AtomicU32,
    acknowledged: &'static [AtomicU32],
    got: &'static [AtomicU32],
    /// Consumers end once it is set and the queue is empty, producers at once.
    over: &'static AtomicU32,
}

impl Books {
    fn new() -> Books {
        let words = shared(2 * NUMBERS + 2);
        Books {
            next: &words[0],
            over: &words[1],
            acknowledged: &words[2..2 + NUMBERS],
            got: &words[2 + NUMBERS..],
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(17, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    })
}

fn produce(queue: &Queue<[u8]>, books: Books, largest: u64, seed: u64) {
    let mut random = Random(seed | 1);
    let mut message = Vec::new();
    while books.over.load(SeqCst) == 0 {
        let number = books.next.fetch_add(1, SeqCst);
        if number as usize >= NUMBERS {
            return;
        }
        // Mostly short ones.
        let most = (1 + largest) >> random.below(20);
        let len = random.below(most.max(1)) as usize;
        message.clear();
        message.extend(number.to_le_bytes());
        message.resize(8 + len, number as u8);
        let sum = checksum(&message[8..]) ^ len as u32;
        message[4..8].copy_from_slice(&sum.to_le_bytes());
        queue.put_bytes(&message).unwrap();
        books.acknowledged[number as usize].fetch_add(1, SeqCst);
    }
}

fn consume(queue: &Queue<[u8]>, books: Books) {
    let mut message = Vec::new();
    loop {
        match queue.get_into(&mut message) {
            Ok(()) => {}
            Err(GetError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
        let number = u32::from_le_bytes(message[..4].try_into().unwrap());
        let sum = u32::from_le_bytes(message[4..8].try_into().unwrap());
        let payload = &message[8..];
        assert_eq!(sum, checksum(payload) ^ payload.len() as u32, "torn");
        books.got[number as usize].fetch_add(1, SeqCst);
    }
}

/// Kills producers and consumers at random instants and looks into the books afterwards.
fn kill_at_random(kills: u32, capacity: usize, items: u32, largest: u64, seed: u64) {
    let books = Books::new();
    let queue: Queue<[u8]> = Queue::builder()
        .capacity(capacity)
        .items(items)
        .build()
        .unwrap();
    let mut random = Random(seed);
    let start = |slot: usize, seed: u64| {
        let queue = queue.clone();
        process::fork(move || match slot {
            0 | 1 => produce(&queue, books, largest, seed),
            _ => consume(&queue, books),
        })
        .unwrap()
    };
    let mut processes: Vec<Process<()>> =
        (0..4).map(|slot| start(slot, slot as u64 + seed)).collect();
    let mut killed = [0u32; 2];
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        let slot = random.below(4) as usize;
        processes[slot].kill().unwrap();
        let ended = processes[slot].join_timeout(LONG).expect("it was killed");
        let error = ended.expect_err("they do not end by themselves");
        assert!(error.to_string().contains("SIGKILL"), "{error}");
        killed[slot / 2] += 1;
        processes[slot] = start(slot, random.below(u64::MAX));
    }

    // Throughput continues.
    let count = || {
        books
            .got
            .iter()
            .take(books.next.load(SeqCst) as usize)
            .filter(|n| n.load(SeqCst) > 0)
            .count()
    };
    let (before, from) = (count(), Instant::now());
    while count() < before + 20 {
        assert!(
            from.elapsed() < LONG,
            "nothing goes through any more: {:?} after {:?}",
            queue.stats(),
            books.next
        );
        std::thread::sleep(Duration::from_millis(5));
    }

    books.over.store(1, SeqCst);
    for producer in &processes[..2] {
        producer
            .join_timeout(LONG)
            .expect("a producer hangs")
            .unwrap();
    }
    queue.close();
    for consumer in &processes[2..] {
        consumer
            .join_timeout(LONG)
            .expect("a consumer hangs")
            .unwrap();
    }
    let numbers = 0..(books.next.load(SeqCst) as usize).min(NUMBERS);
    let got = |number: &usize| books.got[*number].load(SeqCst);
    let acknowledged = |number: &usize| books.acknowledged[*number].load(SeqCst);
    let twice = numbers.clone().filter(|n| got(n) > 1).count();
    let lost = numbers
        .clone()
        .filter(|n| acknowledged(n) > 0 && got(n) == 0)
        .count();
    let extra = numbers
        .filter(|n| acknowledged(n) == 0 && got(n) > 0)
        .count();
    assert_eq!(twice, 0, "duplicated");
    assert!(
        lost <= killed[1] as usize,
        "{lost} lost by {killed:?} kills"
    );
    assert!(
        extra <= killed[0] as usize,
        "{extra} not acknowledged by {killed:?} kills"
    );
}

/// `SOAK=10` makes it more than two thousand kills.
#[test]
fn kills_at_random_instants() {
    isolated_for(Duration::from_secs(120) * testkit::soak(), || {
        for round in 0..testkit::soak().into() {
            let seed = 0x5eed + 977 * round;
            kill_at_random(80, 1 << 12, 0, 1 << 10, seed);
            kill_at_random(60, 1 << 16, 0, 1 << 18, seed + 1);
            kill_at_random(40, 1 << 20, 0, 5 << 20, seed + 2);
            kill_at_random(40, 1 << 20, 3, 1 << 10, seed + 3);
        }
    });
}
