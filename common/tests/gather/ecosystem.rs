//! The lines of the module's table that name something of tokio's or futures'.

use crate::{Log, seconds};
use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::pending;
use std::time::Duration;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

//
#[tokio::test(start_paused = true)]
async fn shield_is_a_spawned_task() {
    let log = Log::default();
    let value = tokio::spawn(log.clone().work::<()>("a", 1));
    assert_eq!(value.await.unwrap(), Ok("a"));
    let error = tokio::spawn(log.clone().fail("b", 1));
    assert_eq!(error.await.unwrap(), Err("b"));
    let inner = tokio::spawn(log.clone().work::<()>("c", 1));
    inner.abort();
    assert!(inner.await.unwrap_err().is_cancelled());
    let done = tokio::spawn(async { 1 });
    yield_now().await;
    assert!(done.now_or_never().is_some());
}

//
#[tokio::test(start_paused = true)]
async fn three_counters_take_as_long_as_one() {
    let log = Log::default();
    let start = Instant::now();
    let count = async || {
        log.note("One");
        sleep(seconds(1)).await;
        log.note("Two");
    };
    tokio::join!(count(), count(), count());
    assert_eq!(log.take(), ["One", "One", "One", "Two", "Two", "Two"]);
    assert_eq!(start.elapsed().as_secs(), 1);
}

//
#[tokio::test(start_paused = true)]
async fn wait_for_the_first_or_with_a_timeout_cancels_nothing() {
    let log = Log::default();
    let mut tasks = JoinSet::new();
    for (name, time) in [("a", 1), ("b", 3)] {
        tasks.spawn(log.clone().work::<()>(name, time));
    }
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), Ok("a"));
    assert!(timeout(seconds(1), tasks.join_next()).await.is_err());
    assert_eq!(log.take(), ["a"]);
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), Ok("b"));

    let spawn = |(name, time)| tokio::spawn(log.clone().work::<()>(name, time));
    let mut handles = [("c", 1), ("d", 9)].map(spawn);
    let all = timeout(seconds(2), join_all(handles.iter_mut()));
    assert!(all.await.is_err());
    let finished = handles.each_ref().map(|task| task.is_finished());
    assert_eq!(finished, [true, false]);
    sleep(seconds(9)).await;
    assert_eq!(log.take(), ["b", "c", "d"]);
}

//
#[tokio::test(start_paused = true)]
async fn as_completed_gives_the_fastest_first_and_goes_on_after_a_timeout() {
    let log = Log::default();
    let mut all: FuturesUnordered<_> = [("a", 3), ("b", 1)]
        .map(|(name, time)| log.clone().work::<()>(name, time))
        .into_iter()
        .collect();
    assert_eq!(all.next().await, Some(Ok("b")));
    assert!(timeout(seconds(1), all.next()).await.is_err());
    assert_eq!(all.next().await, Some(Ok("a")));
    assert_eq!(all.next().await, None);
}

//
#[tokio::test(start_paused = true)]
async fn a_timeout_returns_after_the_cleanup_of_what_it_cancelled() {
    let log = Log::default();
    let late = timeout(seconds(1), log.clone().work::<()>("a", 2));
    assert!(late.await.is_err());
    assert_eq!(log.take(), ["a cancelled"]);
    // A result and the deadline in the same instant: the result wins.
    let race = timeout(seconds(1), log.clone().work::<()>("b", 1));
    assert_eq!(race.await, Ok(Ok("b")));
    let no_limit = timeout(Duration::MAX, log.clone().work::<()>("c", 100));
    assert_eq!(no_limit.await, Ok(Ok("c")));
}

// Python never starts the coroutine; tokio polls it once, so that what is ready counts.
#[tokio::test(start_paused = true)]
async fn a_timeout_of_zero_takes_what_is_ready() {
    assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
    assert!(timeout(Duration::ZERO, pending::<()>()).await.is_err());
}

// a task cannot swallow its cancellation; there is nothing to test.
//
#[tokio::test(start_paused = true)]
async fn cancelling_the_one_who_waits_with_a_timeout_cancels_the_work() {
    let log = Log::default();
    let waiter = tokio::spawn(timeout(seconds(9), log.clone().work::<()>("a", 5)));
    sleep(seconds(1)).await;
    waiter.abort();
    assert!(waiter.await.is_err());
    assert_eq!(log.take(), ["a cancelled"]);
    // Not what is shielded.
    let shielded = tokio::spawn(log.clone().work::<()>("b", 5));
    assert!(timeout(seconds(1), shielded).await.is_err());
    sleep(seconds(9)).await;
    assert_eq!(log.take(), ["b"]);
}

//
#[tokio::test(start_paused = true)]
async fn timeouts_nest_and_can_be_rescheduled() {
    let inner = timeout(seconds(5), timeout(seconds(1), pending::<()>())).await;
    assert!(matches!(inner, Ok(Err(_))));
    let outer = timeout(seconds(1), timeout(seconds(5), pending::<()>())).await;
    assert!(outer.is_err());
    let own_error = timeout(seconds(1), async { Err::<(), _>("its own") });
    assert_eq!(own_error.await, Ok(Err("its own")));

    let start = Instant::now();
    let deadline = sleep(seconds(1));
    tokio::pin!(deadline);
    deadline.as_mut().reset(start + seconds(3));
    tokio::select! {
        () = &mut deadline => {}
        () = sleep(seconds(2)) => deadline.as_mut().reset(start + seconds(7)),
    }
    deadline.await;
    assert_eq!(start.elapsed().as_secs(), 7);
}

//
#[tokio::test(start_paused = true)]
async fn sleep_ends_on_time_and_zero_yields_once() {
    let start = Instant::now();
    sleep(seconds(2)).await;
    assert_eq!(start.elapsed().as_secs(), 2);

    let log = Log::default();
    let other = tokio::spawn({
        let log = log.clone();
        async move { log.note("other") }
    });
    yield_now().await;
    assert_eq!(log.take(), ["other"]);
    other.await.unwrap();

    let sleeper = tokio::spawn(sleep(seconds(9)));
    yield_now().await;
    sleeper.abort();
    assert!(sleeper.await.unwrap_err().is_cancelled());
}
