//! What the calls give: values in order, and whose error is whose.

use super::{nap, pool, refuse_odd, square};
use common::pool::{Pool, TaskError};
use common::sync::Event;
use serde_bytes::ByteBuf;
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use testkit::isolated;

/// O-001, O-002, O-003, O-015.
#[test]
fn apply_map_and_starmap() {
    isolated(|| {
        let pool = pool(3);
        assert_eq!(pool.apply(square, (5,)), Ok(25));
        assert_eq!(pool.apply(|| (), ()), Ok(()));
        let serial = |n: u64| (0..n).map(square).collect::<Vec<_>>();
        assert_eq!(pool.map(square, 0..10), Ok(serial(10)));
        assert_eq!(pool.map_chunked(square, 0..100, 20), Ok(serial(100)));
        assert_eq!(pool.map(square, 0..20_000), Ok(serial(20_000)));
        let add = |a: u64, b: u64| a + b;
        let pairs = || (0..100).map(|n| (n, 2 * n));
        let sums: Vec<u64> = (0..100).map(|n| 3 * n).collect();
        assert_eq!(pool.starmap(add, pairs()), Ok(sums.clone()));
        assert_eq!(pool.starmap_chunked(add, pairs(), 10), Ok(sums.clone()));
        let chunked = pool.starmap_async_chunked(add, pairs(), 10);
        assert_eq!(chunked.get(), Ok(sums.clone()));
        assert_eq!(pool.starmap_async(add, pairs()).get(), Ok(sums));
        assert_eq!(pool.map(square, []), Ok(vec![]));
        assert_eq!(pool.map_async(square, []).get(), Ok(vec![]));
        assert_eq!(pool.imap(square, []).count(), 0);
        assert_eq!(pool.imap_unordered(square, []).count(), 0);
        pool.finish().unwrap();
    });
}

/// O-006: it completes at once.
#[test]
fn an_empty_map_needs_no_worker() {
    isolated(|| {
        let pool = pool(1);
        let busy = pool.apply_async(nap, (60_000,));
        assert!(pool.map_async_chunked(square, [], 1).is_ready());
        drop(busy);
    });
}

/// O-010.
#[test]
fn imap_is_in_order_and_lazy() {
    isolated(|| {
        let pool = pool(2);
        let mut squares = pool.imap(square, 0..10);
        for n in 0..10 {
            assert_eq!(squares.next(), Some(Ok(n * n)));
        }
        assert_eq!(squares.next(), None);
        assert_eq!(squares.next(), None);
        let thousand: Result<Vec<u64>, _> = pool.imap(square, 0..1000).chunk_size(100).collect();
        assert_eq!(thousand, Ok((0..1000).map(square).collect()));
        let drawn = Arc::new(AtomicUsize::new(0));
        let seen = drawn.clone();
        let endless = (0..).inspect(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mut squares = pool.imap(square, endless).window(3);
        assert_eq!(squares.next(), Some(Ok(0)));
        assert_eq!(squares.next(), Some(Ok(1)));
        assert!(drawn.load(Ordering::Relaxed) <= 5);
        drop(squares);
        let before = drawn.load(Ordering::Relaxed);
        let seen = drawn.clone();
        let endless = (0..).inspect(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let some = pool.imap_unordered(square, endless).window(3).take(2);
        assert_eq!(some.filter(Result::is_ok).count(), 2);
        assert!(drawn.load(Ordering::Relaxed) <= before + 5);
        let mut slow = pool.imap(nap, [60_000]);
        assert_eq!(slow.next_timeout(Duration::from_millis(20)), None);
    });
}

/// O-012.
#[test]
fn imap_unordered_gives_each_once() {
    isolated(|| {
        let pool = pool(3);
        for chunk in [1, 53] {
            let got: Result<BTreeSet<u64>, _> = pool
                .imap_unordered(square, 0..1000)
                .chunk_size(chunk)
                .collect();
            assert_eq!(got, Ok((0..1000).map(square).collect()));
        }
        let first = pool.imap_unordered(nap, [2000, 1]).next();
        assert_eq!(first, Some(Ok(1)));
    });
}

#[test]
fn imap_unordered_is_a_stream() {
    isolated(|| {
        use futures::StreamExt;
        let pool = pool(2);
        let stream = StreamExt::map(pool.imap_unordered(square, 0..100), Result::unwrap);
        let sum = futures::executor::block_on(stream.fold(0, |a, b| async move { a + b }));
        assert_eq!(sum, (0..100).map(square).sum::<u64>());
    });
}

struct Refuses;
impl serde::Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}
impl<'de> serde::Deserialize<'de> for Refuses {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Refuses)
    }
}

/// O-005, O-022.
#[test]
fn what_cannot_be_sent_is_an_error_and_no_more() {
    isolated(|| {
        let pool = pool(2);
        for _ in 0..20 {
            let arg = pool.apply(|_: Refuses| 1, (Refuses,));
            assert!(matches!(&arg, Err(TaskError::Encode(e)) if e.reason.contains("not today")));
            let result = pool.apply(|| Refuses, ());
            let Err(error) = result else { panic!() };
            assert!(error.to_string().contains("Refuses"), "{error}");
        }
        let map = pool.map(|_: Refuses| 1, [Refuses, Refuses]);
        assert!(matches!(map, Err(TaskError::Encode(_))));
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

struct OneWay;
impl serde::Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}
impl<'de> serde::Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("no way back"))
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_more() {
    isolated(|| {
        let pool = pool(2);
        let argument = pool.apply(|_: OneWay| 1, (OneWay,));
        let result = pool.apply(|| OneWay, ()).map(|_| 1);
        let several = pool.map(|_: u8| OneWay, 0..4).map(|_| 1);
        for told in [argument, result, several] {
            let error = told.unwrap_err();
            assert!(matches!(error, TaskError::Decode(_)), "{error}");
            assert!(error.to_string().contains("no way back"), "{error}");
        }
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

#[test]
fn an_item_that_cannot_be_sent_is_an_error_in_its_place() {
    isolated(|| {
        #[derive(Clone, PartialEq, Debug, serde::Deserialize)]
        struct Picky(u64);
        impl serde::Serialize for Picky {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    5 | 6 => Err(serde::ser::Error::custom("neither 5 nor 6")),
                    x => serializer.serialize_newtype_struct("Picky", &x),
                }
            }
        }
        let pool = pool(2);
        for chunk in [1, 2, 3, 5, 10] {
            let items = (0..10).map(Picky);
            let each: Vec<_> = pool.imap(|x: Picky| x.0, items).chunk_size(chunk).collect();
            assert_eq!(each.len(), 10);
            for (item, result) in (0..10).zip(each) {
                match result {
                    Err(TaskError::Encode(_)) => assert!(item == 5 || item == 6),
                    result => assert_eq!(result, Ok(item)),
                }
            }
        }
    });
}

/// O-007: a panic of the input is the caller's, twice in a row.
#[test]
fn a_panic_in_the_input_iterator() {
    isolated(|| {
        let pool = pool(2);
        let input = |fails_at: u64| {
            (0..10_000u64).map(move |n| match n == fails_at {
                true => panic!("input {n}"),
                false => n,
            })
        };
        for fails_at in [0, 0, 3, 5000] {
            let map = std::panic::AssertUnwindSafe(|| pool.map(square, input(fails_at)));
            assert!(std::panic::catch_unwind(map).is_err());
        }
        assert_eq!(pool.map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

/// O-011, O-012: what came before the chunk that fails is delivered first.
#[test]
fn a_panic_in_the_input_of_imap() {
    isolated(|| {
        let pool = pool(2);
        for (chunk, before) in [(1, 7), (2, 6), (4, 4)] {
            let input = (0..10u64).map(|n| if n == 7 { panic!("input") } else { n });
            let mut squares = pool.imap(square, input.clone()).chunk_size(chunk);
            let got: Vec<u64> = (0..before)
                .map(|_| squares.next().unwrap().unwrap())
                .collect();
            assert_eq!(got, (0..before).map(square).collect::<Vec<_>>());
            let next = std::panic::AssertUnwindSafe(|| squares.next());
            assert!(std::panic::catch_unwind(next).is_err());
            let mut squares = pool.imap_unordered(square, input).chunk_size(chunk);
            let got: HashSet<u64> = (0..before)
                .map(|_| squares.next().unwrap().unwrap())
                .collect();
            assert_eq!(got, (0..before).map(square).collect::<HashSet<_>>());
            let next = std::panic::AssertUnwindSafe(|| squares.next());
            assert!(std::panic::catch_unwind(next).is_err());
        }
        assert_eq!(pool.apply(square, (2,)), Ok(4));
    });
}

/// O-017: type, place and index of the failure come along.
#[test]
fn a_panic_is_told_with_its_place() {
    isolated(|| {
        let pool = pool(2);
        let Err(TaskError::Panicked {
            message,
            location,
            task,
        }) = pool.map(refuse_odd, 0..4)
        else {
            panic!()
        };
        assert_eq!(message, "1 is odd");
        assert!(location.unwrap().contains("pool/main.rs"));
        assert_eq!(task.index, Some(1));
        assert!(task.function.ends_with("refuse_odd"));
        let own: Result<Result<u8, String>, _> = pool.apply(
            |text: String| text.parse().map_err(|_| text),
            ("x".to_string(),),
        );
        assert_eq!(own, Ok(Err("x".to_string())));
    });
}

fn slow_panic(millis: u64) {
    // A megabyte on the terminal helps nobody.
    std::panic::set_hook(Box::new(|_| ()));
    nap(millis);
    panic!("{}", "x".repeat(1 << 20));
}

/// O-018.
#[test]
fn map_does_not_fail_fast_and_try_map_does() {
    isolated(|| {
        let pool = pool(2);
        let start = Instant::now();
        assert!(pool.map(slow_panic, [0, 1000]).is_err());
        assert!(start.elapsed() >= Duration::from_millis(1000));
        let start = Instant::now();
        assert!(pool.try_map(slow_panic, [0, 600_000]).is_err());
        assert!(start.elapsed() < Duration::from_secs(300));
        assert_eq!(pool.try_map(square, 0..3), Ok(vec![0, 1, 4]));
    });
}

/// Who waits for them takes no answers while it waits for an item, and there is room for so many
/// tasks only that have not been answered.
#[test]
fn tasks_go_on_while_the_items_of_a_map_are_long_in_coming() {
    isolated(|| {
        let pool = pool(1);
        let (last, done) = (Event::new().unwrap(), Event::new().unwrap());
        let (drawn, draws) = mpsc::channel();
        thread::scope(|scope| {
            let (pool, more) = (&pool, last.clone());
            let map = scope.spawn(move || {
                let items = (0..70).inspect(|&n| {
                    // Those before are handed over together.
                    if n == 69 {
                        drawn.send(()).unwrap();
                        more.wait();
                    }
                });
                pool.map(square, items).unwrap().len()
            });
            draws.recv().unwrap();
            for _ in 0..1500 {
                drop(pool.apply_async(square, (3,)));
            }
            drop(pool.apply_async(|done: Event| done.set(), (done.clone(),)));
            let gone_on = done.wait_timeout(Duration::from_secs(10));
            last.set();
            assert_eq!((gone_on, map.join().unwrap()), (true, 70));
        });
    });
}

/// An item that comes when those before are done, whose answers are longer than the ring.
#[test]
fn items_may_wait_for_what_comes_of_those_before() {
    isolated(|| {
        let pool = Pool::builder().workers(1).queue_bytes(1 << 16);
        let pool = pool.build().unwrap();
        let answer = |(n, last, done): (u64, u64, Event)| {
            if n == last {
                done.set();
            }
            ByteBuf::from(vec![0; 1 << 17])
        };
        let items = |many: u64| {
            let done = Event::new().unwrap();
            (0..=many).map(move |n| {
                let waited = n < many || done.wait_timeout(Duration::from_secs(30));
                assert!(waited, "the items before are not done");
                (n, many - 1, done.clone())
            })
        };
        let in_order = pool.imap(answer, items(3)).window(5);
        let unordered = pool.imap_unordered(answer, items(3)).window(5);
        assert!(in_order.chain(unordered).all(|one| one.is_ok()));
    });
}

/// An input may be endless where something else ends the call.
#[test]
fn no_more_is_drawn_when_it_is_over() {
    isolated(|| {
        let pool = pool(2);
        let error = pool.try_map(refuse_odd, 0..).unwrap_err();
        assert!(matches!(error, TaskError::Panicked { .. }), "{error}");

        let mut squares = pool.imap(square, 0..);
        let mut unordered = pool.imap_unordered(square, 0..);
        assert_eq!(squares.next(), Some(Ok(0)));
        assert!(unordered.next().unwrap().is_ok());
        thread::scope(|scope| {
            let (begun, begins) = mpsc::channel();
            let drawn = (0..).inspect(move |n| {
                if *n == 1000 {
                    begun.send(()).unwrap()
                }
            });
            let mapping = scope.spawn(|| pool.map(square, drawn));
            begins.recv().unwrap();
            pool.terminate();
            let error = mapping.join().unwrap().unwrap_err();
            assert!(
                matches!(error, TaskError::Cancelled | TaskError::Closed),
                "{error}"
            );
        });
        // What was drawn before, and the reason once.
        assert_eq!(squares.last(), Some(Err(TaskError::Closed)));
        assert_eq!(unordered.last(), Some(Err(TaskError::Closed)));
    });
}
