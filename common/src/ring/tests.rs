use super::*;

pub(super) use deaths::step;

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

mod deaths;
mod fuzz;
mod model;
