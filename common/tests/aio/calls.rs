//! What the calls give: values in order or as they come, and errors of their own item.

use super::{Flag, flag, raise, square};
use common::aio::pool::{Pool, TaskError};
use futures::StreamExt;
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use testkit::isolated;
use tokio::time::sleep;

#[test]
fn values_come_back_under_any_executor() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        assert_eq!(block_on(pool.apply(square, (7,))), Ok(49));
        assert_eq!(
            block_on(pool.apply(
                |a: String, n: usize| async move { a.repeat(n) },
                ("ab".into(), 2)
            )),
            Ok("abab".to_owned())
        );
        let squares: Vec<u64> = (0..1_000).map(|x| x * x).collect();
        assert_eq!(block_on(pool.map(square, 0..1_000)), Ok(squares.clone()));

        let current = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        assert_eq!(
            current.block_on(pool.map(square, 0..1_000)),
            Ok(squares.clone())
        );
        let several = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let spawned = several.spawn(pool.map(square, 0..1_000));
        assert_eq!(several.block_on(spawned).unwrap(), Ok(squares));
    });
}

#[test]
fn nothing_to_do_is_done_at_once() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(block_on(pool.map(square, [])), Ok(vec![]));
        assert_eq!(block_on(pool.imap_unordered(square, []).count()), 0);
    });
}

#[test]
fn zero_of_anything_is_refused() {
    let text = |built: Result<Pool, _>| {
        built
            .err()
            .map(|error: common::pool::PoolError| error.to_string())
    };
    for (built, name) in [
        (Pool::new(0), "workers"),
        (Pool::builder().threads(0).build(), "threads"),
        (Pool::builder().in_flight(0).build(), "in_flight"),
    ] {
        assert!(text(built).unwrap().contains(name));
    }
}

#[test]
fn streams_are_ordered_or_not_and_drawn_no_further_than_the_window() {
    isolated(|| {
        static DRAWN: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::builder()
            .workers(2)
            .in_flight(4)
            .window(8)
            .build()
            .unwrap();
        let endless = || {
            (0..).inspect(|_| {
                DRAWN.fetch_add(1, SeqCst);
            })
        };
        let first: Vec<_> = block_on(pool.imap(square, endless()).take(20).collect());
        assert_eq!(first, (0..20).map(|x| Ok(x * x)).collect::<Vec<_>>());
        assert!(DRAWN.load(SeqCst) <= 20 + 8 + 1, "{DRAWN:?}");

        let all: BTreeSet<_> = block_on(
            pool.imap_unordered(square, 0..100)
                .map(Result::unwrap)
                .collect(),
        );
        assert_eq!(all, (0..100).map(|x| x * x).collect());
    });
}

#[test]
fn a_worker_runs_many_at_the_same_time_and_no_more_than_told() {
    isolated(|| {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        async fn count(_: usize) -> usize {
            MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(Duration::from_millis(20)).await;
            RUNNING.fetch_sub(1, SeqCst);
            MOST.load(SeqCst)
        }
        let pool = Pool::builder().workers(1).in_flight(50).build().unwrap();
        let most = block_on(pool.map(count, 0..200)).unwrap();
        assert_eq!(
            most.into_iter().max(),
            Some(48),
            "four chunks of 12 fit in 50"
        );
        let most = block_on(
            pool.imap_unordered(count, 0..200)
                .map(Result::unwrap)
                .collect::<Vec<_>>(),
        );
        assert_eq!(most.into_iter().max(), Some(50));
    });
}

#[test]
fn several_threads_a_worker() {
    isolated(|| {
        let pool = Pool::builder().workers(1).threads(2).build().unwrap();
        // One blocks its thread; the other has to run meanwhile.
        async fn meet(name: String, other: String) {
            raise(&name);
            while !flag(&other).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let (a, b) = (Flag::new("meet-a"), Flag::new("meet-b"));
        let both = futures::future::join(
            pool.apply(meet, (a.0.clone(), b.0.clone())),
            pool.apply(meet, (b.0.clone(), a.0.clone())),
        );
        assert_eq!(block_on(both), (Ok(()), Ok(())));
    });
}

#[test]
fn panics_and_results_that_do_not_serialise_are_errors_of_their_own_item() {
    isolated(|| {
        struct Picky(u64);
        impl serde::Serialize for Picky {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    2 => Err(serde::ser::Error::custom("not 2")),
                    x => serializer.serialize_u64(x),
                }
            }
        }
        impl<'de> serde::Deserialize<'de> for Picky {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                u64::deserialize(d).map(Picky)
            }
        }
        async fn picky(x: u64) -> Picky {
            assert_ne!(x, 1, "not 1");
            Picky(x)
        }
        let pool = Pool::builder().workers(1).chunk_size(4).build().unwrap();
        let ends: Vec<_> = block_on(pool.imap(picky, 0..4).collect());
        assert!(matches!(&ends[0], Ok(Picky(0))));
        assert!(matches!(&ends[1], Err(TaskError::Panicked { .. })));
        assert!(
            matches!(&ends[2], Err(TaskError::Encode(error)) if error.reason.contains("not 2"))
        );
        assert!(matches!(&ends[3], Ok(Picky(3))));
        let first = block_on(pool.map(picky, 0..4)).err();
        assert!(matches!(first, Some(TaskError::Panicked { .. })));
    });
}

/// A value that panics, be it while it is turned into bytes or dropped, is alone in that.
#[test]
fn a_value_that_panics_leaves_its_chunk_alone() {
    isolated(|| {
        struct Picky {
            x: u64,
            _bomb: Option<Bomb>,
        }
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("not to be dropped");
            }
        }
        impl serde::Serialize for Picky {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                assert_ne!(self.x, 1, "not to be sent");
                serializer.serialize_u64(self.x)
            }
        }
        impl<'de> serde::Deserialize<'de> for Picky {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                u64::deserialize(d).map(|x| Picky { x, _bomb: None })
            }
        }
        let pool = Pool::builder().workers(1).chunk_size(5).build().unwrap();
        let picky = |x: u64| async move {
            Picky {
                x,
                _bomb: (x > 2).then(|| Bomb),
            }
        };
        let ends: Vec<_> = block_on(pool.imap(picky, 0..5).collect());
        for (x, end) in (0..).zip(&ends) {
            match (x, end) {
                (1, Err(TaskError::Panicked { message, .. })) => {
                    assert!(message.contains("not to be sent"), "{message}");
                }
                (_, Ok(value)) => assert_eq!(value.x, x),
                (_, Err(error)) => panic!("{x}: {error}"),
            }
        }
    });
}

/// An iterator that would go on after its end is not asked to.
#[test]
fn the_first_end_of_an_iterator_is_its_end() {
    isolated(|| {
        let pool = Pool::builder().workers(1).chunk_size(2).build().unwrap();
        let mut left = 0..10;
        let stutters = std::iter::from_fn(move || left.next().filter(|x| x % 4 != 3));
        let all: Vec<_> = block_on(pool.imap(square, stutters).collect());
        assert_eq!(all, [Ok(0), Ok(1), Ok(4)]);
    });
}

#[test]
fn a_panic_while_arguments_are_read_is_their_calls_own() {
    isolated(|| {
        struct Bomb;
        impl serde::Serialize for Bomb {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_unit()
            }
        }
        impl<'de> serde::Deserialize<'de> for Bomb {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("not to be read")
            }
        }
        let pool = Pool::new(1).unwrap();
        let other = pool.apply(
            async |millis| tokio::time::sleep(Duration::from_millis(millis)).await,
            (200u64,),
        );
        let bomb = pool.apply(async |_: Bomb| (), (Bomb,));
        let (other, bomb) = block_on(async { tokio::join!(other, bomb) });
        assert_eq!(other, Ok(()));
        assert!(matches!(&bomb, Err(TaskError::Panicked { .. })), "{bomb:?}");
    });
}

#[test]
fn large_arguments_and_results_cross() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let text = "x".repeat(20 << 20);
        let twice = block_on(pool.apply(|text: String| async move { text + "y" }, (text.clone(),)));
        assert_eq!(twice.unwrap().len(), text.len() + 1);
    });
}
