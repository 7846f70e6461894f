//! `gather` and `gather_settled`.

use crate::{Log, seconds};
use common::aio::{ChildError, gather, gather_settled};
use futures::FutureExt;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

//
#[tokio::test(start_paused = true)]
async fn results_come_in_argument_order() {
    let log = Log::default();
    let start = Instant::now();
    let children = [("a", 3), ("b", 1), ("c", 2)];
    let all = gather(children.map(|(name, time)| log.clone().work::<()>(name, time)));
    assert_eq!(all.await, Ok(vec!["a", "b", "c"]));
    assert_eq!(log.take(), ["b", "c", "a"]);
    assert_eq!(start.elapsed().as_secs(), 3);
}

//
#[tokio::test(start_paused = true)]
async fn settled_with_all_successes_is_the_same() {
    let log = Log::default();
    let children = [("a", 2), ("b", 1)];
    let all = gather_settled(children.map(|(name, time)| log.clone().work::<()>(name, time)));
    assert_eq!(all.await, [Ok("a"), Ok("b")]);
}

// A-020 (FIRST_EXCEPTION): a second failure after the first is of no consequence.
#[tokio::test(start_paused = true)]
async fn the_first_error_ends_it_and_the_siblings_go_on() {
    let log = Log::default();
    let start = Instant::now();
    let all = gather([
        log.clone().work("a", 3).boxed(),
        log.clone().fail("b", 1).boxed(),
        log.clone().fail("c", 2).boxed(),
    ]);
    assert_eq!(all.await, Err(ChildError::Failed("b")));
    assert_eq!(start.elapsed().as_secs(), 1);
    sleep(seconds(5)).await;
    assert_eq!(log.take(), ["b fails", "c fails", "a"]);
}

//
#[tokio::test(start_paused = true)]
async fn settled_waits_for_all_with_errors_in_place() {
    let log = Log::default();
    let ends = gather_settled([
        log.clone().fail("a", 1).boxed(),
        log.clone().work("b", 3).boxed(),
        async { panic!("c panics") }.boxed(),
    ])
    .await;
    assert_eq!(ends[..2], [Err(ChildError::Failed("a")), Ok("b")]);
    let Err(ChildError::Panicked(panic)) = &ends[2] else {
        panic!("{ends:?}");
    };
    assert_eq!(panic.message, "c panics");
    let location = panic.location.as_ref().unwrap();
    assert!(location.contains("children.rs:"), "{panic}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_of_gather() {
    let end = gather([async { panic!("boom {}", 1) as Result<(), ()> }]).await;
    assert!(matches!(end, Err(ChildError::Panicked(panic)) if panic.message == "boom 1"));
}

/// A panic while a coroutine's variables are destroyed is told as well.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_is_an_error() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let bomb = Bomb;
    let ends = gather_settled([async move {
        let _bomb = &bomb;
        Ok::<_, ()>(1)
    }])
    .await;
    assert!(matches!(&ends[..], [Err(ChildError::Panicked(panic))] if panic.message == "in drop"));
}

//
#[tokio::test]
async fn nothing_to_wait_for_is_done_at_once() {
    let none: [std::future::Ready<Result<u8, ()>>; 0] = [];
    assert_eq!(gather(none.clone()).now_or_never(), Some(Ok(vec![])));
    assert_eq!(gather_settled(none).now_or_never(), Some(vec![]));
}

//
#[test]
#[should_panic(expected = "no reactor running")]
fn outside_a_runtime_it_panics_as_spawn_does() {
    let _all = gather([async { Ok::<_, ()>(1) }]);
}

//
#[tokio::test(start_paused = true)]
async fn a_cancelled_child_fails_the_gather() {
    let log = Log::default();
    let all = gather([log.clone().work::<()>("a", 1), log.clone().work("b", 2)]);
    all.abort_handles()[0].abort();
    assert_eq!(all.await, Err(ChildError::Cancelled));
    sleep(seconds(3)).await;
    assert_eq!(log.take(), ["b"]);
}

//
#[tokio::test(start_paused = true)]
async fn settled_has_cancelled_children_in_place() {
    let log = Log::default();
    let all = gather_settled([
        log.clone().work("a", 1).boxed(),
        log.clone().work("b", 2).boxed(),
        log.clone().fail("c", 2).boxed(),
    ]);
    all.abort_handles()[0].abort();
    let cancelled = Err(ChildError::Cancelled);
    let failed = Err(ChildError::Failed("c"));
    assert_eq!(all.await, [cancelled, Ok("b"), failed]);
}

//
#[tokio::test(start_paused = true)]
async fn one_awaitable_given_thrice_runs_once() {
    let log = Log::default();
    let shared = log.clone().work::<()>("a", 1).boxed().shared();
    let all = gather([shared.clone(), shared.clone(), shared]).await;
    assert_eq!(all, Ok(vec!["a", "a", "a"]));
    assert_eq!(log.take(), ["a"]);
}

//
#[tokio::test(start_paused = true)]
async fn cancelling_the_waiter_cancels_every_child() {
    let log = Log::default();
    let waiter = tokio::spawn({
        let log = log.clone();
        async move {
            let children = ["a", "b", "c"].map(|name| log.clone().work::<()>(name, 5));
            let _ = gather(children).await;
            log.note("after the await");
        }
    });
    sleep(seconds(1)).await;
    waiter.abort();
    assert!(waiter.await.unwrap_err().is_cancelled());
    sleep(seconds(10)).await;
    let mut cancelled = log.take();
    cancelled.sort();
    assert_eq!(cancelled, ["a cancelled", "b cancelled", "c cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_settled_cancels_every_child() {
    let log = Log::default();
    let children = ["a", "b"].map(|name| log.clone().work::<()>(name, 5));
    assert!(timeout(seconds(1), gather_settled(children)).await.is_err());
    sleep(seconds(10)).await;
    let mut cancelled = log.take();
    cancelled.sort();
    assert_eq!(cancelled, ["a cancelled", "b cancelled"]);
}

// a bad argument is a compile error.
//
#[tokio::test(start_paused = true)]
async fn cancelling_after_all_are_done_keeps_the_result() {
    let log = Log::default();
    let all = gather([log.clone().work::<()>("a", 1), log.clone().work("b", 1)]);
    sleep(seconds(2)).await;
    for child in all.abort_handles() {
        assert!(child.is_finished());
        child.abort();
    }
    assert_eq!(all.now_or_never(), Some(Ok(vec!["a", "b"])));
}

//
#[tokio::test(start_paused = true)]
async fn cancelling_a_loop_over_settled_ends_it() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn({
        let rounds = Arc::clone(&rounds);
        async move {
            loop {
                let _ = gather_settled([sleep(seconds(1)).map(Ok::<_, Infallible>)]).await;
                rounds.fetch_add(1, SeqCst);
            }
        }
    });
    sleep(Duration::from_millis(2_500)).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(rounds.load(SeqCst), 2);
}

//
#[tokio::test(start_paused = true)]
async fn a_shielded_gather_completes() {
    let log = Log::default();
    let children = ["a", "b"].map(|name| log.clone().work::<()>(name, 2));
    let inner = tokio::spawn(gather(children));
    assert!(timeout(seconds(1), inner).await.is_err());
    sleep(seconds(2)).await;
    assert_eq!(log.take(), ["a", "b"]);
}

//
#[tokio::test(start_paused = true)]
async fn a_gather_of_shields_leaves_the_shielded_alone() {
    let log = Log::default();
    let shields = ["a", "b"].map(|name| tokio::spawn(log.clone().work::<()>(name, 2)));
    assert!(timeout(seconds(1), gather(shields)).await.is_err());
    sleep(seconds(2)).await;
    assert_eq!(log.take(), ["a", "b"]);
}

/// On several threads nothing differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_children_on_several_threads() {
    let values = gather((0..1_000).map(|x| async move {
        tokio::task::yield_now().await;
        Ok::<_, ()>(x)
    }));
    assert_eq!(values.await, Ok((0..1_000).collect()));
}
