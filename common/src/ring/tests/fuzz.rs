//! Shared memory that some process has overwritten: errors, no panic, no hang, no giant
//! allocation. `SOAK=5` makes it a million rings.

use super::*;

/// A small generator: the same rings on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// What a live process could find overwritten, all but the futex words of the two locks (their
/// garbage costs a wait, so that it is tried apart): in bytes of the segment.
fn places(ring: &Ring) -> Vec<usize> {
    let header = std::ptr::from_ref(ring.0.header()).cast::<u8>();
    let place = |word: *const u8| (word as usize) - (header as usize);
    let sides = [
        place(std::ptr::from_ref(&ring.0.header().put).cast()),
        place(std::ptr::from_ref(&ring.0.header().get).cast()),
    ];
    let locked = |at: &usize| sides.iter().any(|side| (*side..side + 4).contains(at));
    (0..ring.segment().len()).filter(|at| !locked(at)).collect()
}

fn try_everything(ring: &Ring, random: &mut Random) {
    let mut out = Vec::new();
    let mut batch = Batch::default();
    for _ in 0..4 {
        match random.below(8) {
            0 => drop(ring.put(&[&[1; 40]], Deadline::Now)),
            1 => drop(ring.put(&[&[1; 5000]], Deadline::Now)),
            2 => drop(ring.get_many(&mut batch, 3, Deadline::Now)),
            3 => drop(ring.get_in_place(Deadline::Now, <[u8]>::to_vec)),
            4 => drop(ring.get_claiming(1, &mut out, Deadline::Now, |_| 9)),
            5 => drop(ring.put_many(&batch, 0, Deadline::Now)),
            _ => drop(ring.get(&mut out, Deadline::Now)),
        }
        let stats = ring.stats();
        assert!(stats.bytes <= stats.capacity && stats.messages <= stats.capacity / 16);
    }
    assert!(out.capacity() <= 64 << 20);
}

#[test]
fn overwritten_rings_are_errors() {
    let ring = Ring::create(RingConfig {
        capacity: 1 << 10,
        claims: 2,
        ..RingConfig::default()
    })
    .unwrap();
    for len in [3, 100, 0, 200, 17] {
        ring.put(&[&vec![5; len]], Deadline::Now).unwrap();
    }
    let mut image = vec![0; ring.segment().len()];
    ring.segment().read(0, &mut image).unwrap();
    let (places, header) = (places(&ring), size_of::<Header>());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200_000 * testkit::soak() {
        ring.segment().write(0, &image).unwrap();
        for _ in 0..=random.below(6) {
            let near = random.below(3) > 0;
            let at = places[random.below(if near { header } else { places.len() })];
            let bytes = random.next().to_ne_bytes();
            let len = (1 + random.below(8)).min(image.len() - at);
            // A run of bytes may reach into a lock from its left.
            let len = (0..len)
                .take_while(|i| places.binary_search(&(at + i)).is_ok())
                .count();
            ring.segment().write(at, &bytes[..len]).unwrap();
        }
        try_everything(&ring, &mut random);
        let _ = Ring::attach(ring.segment().clone());
    }
    ring.segment().write(0, &image).unwrap();
    assert_eq!(get(&ring).unwrap(), [5; 3]);
}

#[test]
fn overwritten_locks_are_errors() {
    let ring = ring(1 << 10);
    let mut image = vec![0; size_of::<Header>()];
    ring.segment().read(0, &mut image).unwrap();
    let mut random = Random(42);
    for _ in 0..20 {
        let mut bad = image.clone();
        let noise = bad.iter_mut().skip(128);
        noise.for_each(|byte| *byte ^= random.next() as u8);
        ring.segment().write(0, &bad).unwrap();
        let mut out = Vec::new();
        assert!(ring.get(&mut out, Deadline::Never).is_err());
        assert!(ring.put(&[b"x"], Deadline::Never).is_err());
        ring.close();
        ring.kick();
    }
    ring.segment().write(0, &image).unwrap();
}
