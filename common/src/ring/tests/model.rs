//! The framing against a model: a queue of byte strings and the room they take.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Op {
    Put(usize, usize),
    PutMany(Vec<usize>),
    Get,
    GetMany(usize),
    InPlace,
    Reattach,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..300usize, 0..300usize).prop_map(|(first, second)| Op::Put(first, second)),
        3 => prop::collection::vec(0..100usize, 0..20).prop_map(Op::PutMany),
        8 => Just(Op::Get),
        3 => (0..20usize).prop_map(Op::GetMany),
        3 => Just(Op::InPlace),
        1 => Just(Op::Reattach),
        1 => (0..20u32).prop_map(|n| if n == 0 { Op::Close } else { Op::Get }),
    ]
}

#[derive(Default)]
struct Model {
    messages: VecDeque<Vec<u8>>,
    units: usize,
    capacity: usize,
    max_items: usize,
    closed: bool,
    next: u8,
    /// The lengths are multiplied by it.
    scale: usize,
}

impl Model {
    fn fits(&self, len: usize) -> bool {
        self.units + (len + 8).div_ceil(16) <= self.capacity / 16
            && (self.max_items == 0 || self.messages.len() < self.max_items)
    }

    fn put(&mut self, bytes: Vec<u8>) {
        self.units += (bytes.len() + 8).div_ceil(16);
        self.messages.push_back(bytes);
    }

    fn get(&mut self) -> Result<Vec<u8>, GetError> {
        let empty = match self.closed {
            true => GetError::Closed,
            false => GetError::Empty,
        };
        let bytes = self.messages.pop_front().ok_or(empty)?;
        self.units -= (bytes.len() + 8).div_ceil(16);
        Ok(bytes)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        (0..len)
            .map(|index| self.next.wrapping_mul(31).wrapping_add(index as u8))
            .collect()
    }

    /// Puts in the ring and here; the results must be the same.
    fn put_both(&mut self, ring: &Ring, first: usize, second: usize) {
        let (first, second) = (first * self.scale, second * self.scale);
        let bytes = self.bytes(first + second);
        let (one, two) = bytes.split_at(first);
        let expected = match (self.closed, self.fits(bytes.len())) {
            (true, _) => Err(PutError::Closed),
            (false, false) => Err(PutError::Full),
            (false, true) => Ok(()),
        };
        assert_eq!(ring.put(&[one, two], Deadline::Now), expected);
        if expected.is_ok() {
            self.put(bytes);
        }
    }

    fn put_many_both(&mut self, ring: &Ring, lens: &[usize]) {
        let mut batch = Batch::default();
        let mut put = 0;
        for len in lens {
            let bytes = self.bytes(*len * self.scale);
            batch
                .push_with(|out| {
                    out.extend(&bytes);
                    Ok::<(), ()>(())
                })
                .unwrap();
        }
        for bytes in batch.iter() {
            if self.closed || !self.fits(bytes.len()) {
                break;
            }
            self.put(bytes.to_vec());
            put += 1;
        }
        assert_eq!(ring.put_many(&batch, 0, Deadline::Now).0, put);
    }
}

/// As if so much had gone through it before.
fn begin_at(ring: &Ring, start: u64) {
    let header = ring.0.header();
    let (put, get) = (&header.put.0, &header.get.0);
    for place in [&header.tail.0, &header.head.0, &put.head, &get.tail] {
        place.store(start, SeqCst);
    }
}

/// Positions begin anew in 200 units, and counts of messages in 50.
const LATE: u64 = (1 << 62) - 1 - (50 << 32 | 200);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200 * testkit::soak()))]

    #[test]
    fn the_ring_is_the_model(
        ops in prop::collection::vec(op(), 1..200),
        log in 8..12u32,
        // The small ones are all in use from the start; the others come to use more memory and
        // less again.
        scale in prop_oneof![Just(0u32), Just(10)],
        max_items in prop_oneof![3 => Just(0u32), 1 => 1..10u32],
        start in prop_oneof![Just(0), Just(LATE)],
    ) {
        let mut ring = Ring::create(RingConfig {
            capacity: 1 << (log + scale),
            max_items: Some(max_items).filter(|items| *items > 0),
            claims: 0,
        })
        .unwrap();
        begin_at(&ring, start);
        let mut model = Model {
            capacity: 1 << (log + scale),
            max_items: max_items as usize,
            scale: 1 << (scale * 3 / 4),
            ..Model::default()
        };
        for op in ops {
            match op {
                Op::Put(first, second) => model.put_both(&ring, first, second),
                Op::PutMany(lens) => model.put_many_both(&ring, &lens),
                Op::Get => prop_assert_eq!(get(&ring), model.get()),
                Op::GetMany(most) => {
                    let mut batch = Batch::default();
                    let got = ring.get_many(&mut batch, most, Deadline::Now);
                    if most == 0 {
                        prop_assert!(got.is_ok_and(|got| got == 0));
                        continue;
                    }
                    for bytes in batch.iter() {
                        prop_assert_eq!(Ok(bytes.to_vec()), model.get());
                    }
                    prop_assert!(batch.len() == most || model.messages.is_empty());
                    prop_assert_eq!(got.ok().unwrap_or(0), batch.len());
                }
                Op::InPlace => {
                    let seen = ring.get_in_place(Deadline::Now, <[u8]>::to_vec);
                    prop_assert_eq!(seen, model.get());
                }
                Op::Reattach => {
                    let sent = crate::codec::encode(&ring).unwrap();
                    ring = crate::codec::decode(&sent).unwrap();
                }
                Op::Close => {
                    ring.close();
                    model.closed = true;
                }
            }
            prop_assert_eq!(ring.len(), model.messages.len());
            prop_assert_eq!(ring.stats().bytes, model.units * 16);
            prop_assert_eq!(ring.is_full(0), !model.fits(0));
        }
    }
}
