//! Numbers in shared memory.

use common::codec;
use common::process::{self, Process};
use common::shared::{Array, ArrayError, Value};
use common::shm::{Segment, ShmError};
use common::sync::{Event, Mutex, MutexError};
use std::cell::Cell;
use std::time::Duration;
use testkit::isolated;

#[test]
fn values_are_shared() {
    // V-001, V-003, V-008, V-009, V-012. Each value has a lock of its own, and no change can be
    // made without it.
    isolated(|| {
        fn change(number: Value<i64>, pair: Value<(f64, char)>, counter: Value<u32>) {
            number.set(-7).unwrap();
            pair.update(|(float, letter)| (*float, *letter) = (*float * 2.0, 'z'))
                .unwrap();
            for _ in 0..20_000 {
                counter.update(|n| *n += 1).unwrap();
            }
        }
        let (number, pair) = (Value::new(5).unwrap(), Value::new((1.5, 'a')).unwrap());
        let counter = Value::new(0).unwrap();
        let copy = pair.get().unwrap();
        assert_eq!((number.get(), copy), (Ok(5), (1.5, 'a')));
        let children: Vec<Process<()>> = (0..4)
            .map(|_| {
                let args = (number.clone(), pair.clone(), counter.clone());
                Process::spawn(change, args).unwrap()
            })
            .collect();
        children.iter().for_each(|one| one.join().unwrap());
        assert_eq!(number.get(), Ok(-7));
        assert_eq!(pair.get(), Ok((24.0, 'z')));
        assert_eq!(copy, (1.5, 'a'));
        assert_eq!(counter.get(), Ok(80_000));
    });
}

#[test]
fn arrays_are_shared() {
    // V-004, V-005, V-007, V-008. As for a value, the lock is the array's own.
    isolated(|| {
        fn sums(array: Array<i32>) {
            let guard = array.lock().unwrap();
            for index in 1..array.len() {
                let sum = guard.get(index).unwrap() + guard.get(index - 1).unwrap();
                guard.write(index, &[sum]).unwrap();
            }
        }
        let array = Array::new(&[1, 2, 3, 4, 5]).unwrap();
        Process::<()>::spawn(sums, (array.clone(),))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(array.read(0..5).unwrap(), [1, 3, 6, 10, 15]);
        array.write(1, &[0, 0]).unwrap();
        assert_eq!(array.read(0..4).unwrap(), [1, 0, 0, 10]);
        let error = array.get(5).unwrap_err();
        assert!(matches!(error, ArrayError::OutOfRange { .. }));
        assert_eq!(format!("{error:?}"), error.to_string());
        assert!(matches!(
            array.write(4, &[1, 2]),
            Err(ArrayError::OutOfRange { .. })
        ));
        for _ in 0..3 {
            let zeroes = Array::<f64>::zeroed(1000).unwrap();
            assert_eq!(zeroes.read(0..1000).unwrap(), vec![0.0; 1000]);
            zeroes.write(0, &vec![1.0; 1000]).unwrap();
        }
        let texts = Array::new(&["ab".to_string(), "cd".to_string()]).unwrap();
        texts.set(0, "ef".into()).unwrap();
        assert_eq!(texts.read(0..2).unwrap(), ["ef", "cd"]);
        assert!(matches!(
            texts.set(0, "long".into()),
            Err(ArrayError::Uneven { .. })
        ));
    });
}

#[test]
fn an_array_that_claims_too_much_is_refused() {
    isolated(|| {
        let sent = |bytes, len: u64, stride: u64| {
            let segment = Segment::create(bytes).unwrap();
            let parts = (segment, Mutex::with_capacity((), 0).unwrap(), len, stride);
            codec::decode::<Array<u32>>(&codec::encode(&parts).unwrap())
        };
        assert_eq!(sent(8, 2, 4).unwrap().read(0..2), Ok(vec![0, 0]));
        for (len, stride) in [(3, 4), (u64::MAX, 4), (1 << 62, 4), (2, u64::MAX), (9, 0)] {
            let error = sent(8, len, stride).unwrap_err().to_string();
            assert!(error.contains("too short for"), "{error}");
        }
        assert!(matches!(
            sent(8, 8, 0).unwrap().get(7),
            Err(ArrayError::Decode(_))
        ));
        // A segment may be longer than there is memory, as long as nobody uses it.
        let vast = sent(1 << 40, 1, 1 << 40).unwrap();
        let no_space = |result| matches!(result, Err(ArrayError::Memory(ShmError::NoSpace { .. })));
        assert!(no_space(vast.read(0..1).map(drop)) && no_space(vast.set(0, 1)));
    });
}

#[test]
fn a_fork_of_an_arrays_holder_writes_nothing() {
    isolated(|| {
        let array = Array::new(&[1, 2]).unwrap();
        let guard = Cell::new(Some(array.lock().unwrap()));
        let child = process::fork(|| {
            let copy = guard.take().unwrap();
            let locked = ArrayError::Lock(MutexError::Locked);
            copy.write(0, &[9]) == Err(locked.clone()) && copy.get(0) == Err(locked)
        });
        assert_eq!(child.unwrap().join(), Ok(true));
        let guard = guard.take().unwrap();
        assert_eq!(guard.read(0..2), Ok(vec![1, 2]));
        guard.write(0, &[3]).unwrap();
        assert_eq!(guard.get(0), Ok(3));
    });
}

#[test]
fn the_array_of_a_killed_holder_is_handed_on_with_a_word() {
    isolated(|| {
        fn hold(array: Array<u8>, holds: Event) {
            let guard = array.lock().unwrap();
            guard.write(0, &[9]).unwrap();
            holds.set();
            std::thread::sleep(Duration::MAX);
        }
        let (array, holds) = (Array::new(&[1, 2]).unwrap(), Event::new().unwrap());
        let child: Process<()> = Process::spawn(hold, (array.clone(), holds.clone())).unwrap();
        holds.wait();
        let late = array.lock_timeout(Duration::from_millis(20));
        assert_eq!(late.map(drop), Err(ArrayError::Lock(MutexError::Locked)));
        child.kill().unwrap();
        // These cannot say it.
        assert_eq!(array.get(1), Ok(2));
        array.set(1, 3).unwrap();
        array.update(1, |number| *number += 1).unwrap();
        let guard = array.lock().unwrap();
        assert!(guard.holder_died());
        assert_eq!(guard.read(0..2).unwrap(), [9, 4]);
        drop(guard);
        assert!(!array.lock().unwrap().holder_died());
        child.join().unwrap_err();
    });
}
