//! `TaskGroup`.

use crate::{Log, seconds};
use common::aio::{ChildError, TaskGroup};
use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::time::sleep;

//
#[tokio::test(start_paused = true)]
async fn a_group_waits_for_all_also_for_members_of_members() {
    let log = Log::default();
    let end = TaskGroup::run(async |group: TaskGroup<()>| {
        let (inner, log2) = (group.clone(), log.clone());
        let parent = async move {
            sleep(seconds(2)).await;
            inner.spawn(log2.clone().work("grandchild", 3)).unwrap();
            log2.work("child", 0).await
        };
        group.spawn(parent).unwrap();
        let cancelled = group.spawn(log.clone().work("alone", 9)).unwrap();
        sleep(seconds(1)).await;
        cancelled.abort();
        assert!(cancelled.await.is_err());
        log.note("body");
        Ok("value")
    });
    assert_eq!(end.await, Ok("value"));
    let order = ["alone cancelled", "body", "child", "grandchild"];
    assert_eq!(log.take(), order);
}

/// A group that is empty when a member comes from elsewhere notices it.
#[tokio::test(start_paused = true)]
async fn a_member_from_outside_of_an_empty_group_can_fail_it() {
    let (give, take) = futures::channel::oneshot::channel();
    let outside = tokio::spawn(async move {
        let group: TaskGroup<&str> = take.await.unwrap();
        sleep(seconds(1)).await;
        drop(group.spawn(async { Err::<(), _>("from outside") }));
    });
    let end = TaskGroup::run(async |group| {
        assert!(give.send(group).is_ok());
        pending::<Result<(), _>>().await
    });
    let error = end.await.unwrap_err();
    assert_eq!(error.errors, [ChildError::Failed("from outside")]);
    outside.await.unwrap();
}

//
#[tokio::test(start_paused = true)]
async fn a_members_error_cancels_the_others_and_the_body_and_all_errors_are_told() {
    let log = Log::default();
    let end = TaskGroup::run(async |group| {
        group.spawn(log.clone().work("a", 9)).unwrap();
        group.spawn(log.clone().fail("b", 1)).unwrap();
        group.spawn(log.clone().fail("c", 1)).unwrap();
        log.clone().work("body", 9).await?;
        log.note("after the await");
        Ok(())
    });
    let errors = end.await.unwrap_err().errors;
    assert_eq!(errors, [ChildError::Failed("b"), ChildError::Failed("c")]);
    let order = ["b fails", "c fails", "body cancelled", "a cancelled"];
    assert_eq!(log.take(), order);
}

#[tokio::test(start_paused = true)]
async fn a_members_panic_fails_the_group() {
    let end = TaskGroup::run(async |group: TaskGroup<String>| {
        let panics = async { panic!("boom") as Result<(), _> };
        group.spawn(panics).unwrap();
        pending::<Result<(), _>>().await
    });
    let error = end.await.unwrap_err();
    assert!(matches!(&error.errors[..], [ChildError::Panicked(panic)] if panic.message == "boom"));
    let start = "a task group failed: the coroutine panicked at";
    assert!(error.to_string().starts_with(start), "{error}");
}

//
#[tokio::test(start_paused = true)]
async fn cancelling_the_group_cancels_all_members_and_the_body() {
    let log = Log::default();
    let group = tokio::spawn({
        let log = log.clone();
        async move {
            TaskGroup::run(async |group: TaskGroup<()>| {
                for name in ["a", "b", "c", "d", "e"] {
                    // A member that holds its group must not keep it alive.
                    let (work, group2) = (log.clone().work(name, 9), group.clone());
                    let member = async move { work.await.inspect(|_| drop(group2)) };
                    group.spawn(member).unwrap();
                }
                log.clone().work("body", 9).await
            })
            .await
        }
    });
    sleep(seconds(1)).await;
    group.abort();
    assert!(group.await.unwrap_err().is_cancelled());
    sleep(seconds(10)).await;
    let mut cancelled = log.take();
    cancelled.sort();
    let all = ["a", "b", "body", "c", "d", "e"].map(|name| format!("{name} cancelled"));
    assert_eq!(cancelled, all);
}

//
#[tokio::test(start_paused = true)]
async fn the_bodys_error_cancels_the_members() {
    let log = Log::default();
    let end = TaskGroup::run(async |group| {
        group.spawn(log.clone().work("a", 9)).unwrap();
        log.clone().fail("body", 1).await
    });
    let error = end.await.unwrap_err();
    assert_eq!(error.errors, [ChildError::Failed("body")]);
    assert_eq!(log.take(), ["body fails", "a cancelled"]);

    let before_first_await = TaskGroup::run(async |group| {
        group.spawn(log.clone().work("b", 9)).unwrap();
        Err::<(), _>("at once")
    });
    let error = before_first_await.await.unwrap_err();
    assert_eq!(error.errors, [ChildError::Failed("at once")]);
    assert!(log.take().is_empty(), "b never ran");
}

#[tokio::test(start_paused = true)]
async fn the_bodys_panic_cancels_the_members() {
    let log = Log::default();
    let end = TaskGroup::run(async |group: TaskGroup<()>| {
        group.spawn(log.clone().work("a", 9)).unwrap();
        sleep(seconds(1)).await;
        panic!("body") as Result<(), ()>
    });
    let error = end.await.unwrap_err();
    assert!(matches!(&error.errors[..], [ChildError::Panicked(_)]));
    assert_eq!(log.take(), ["a cancelled"]);
}

//
#[tokio::test(start_paused = true)]
async fn groups_nest() {
    let log = Log::default();
    let inner_fails = TaskGroup::run(async |_| {
        TaskGroup::run(async |inner| {
            inner.spawn(log.clone().fail("inner", 1)).unwrap();
            Ok(())
        })
        .await
    });
    let error = inner_fails.await.unwrap_err();
    let told = "a task group failed: a task group failed: inner";
    assert_eq!(error.to_string(), told);
    log.take();

    let outer_fails = TaskGroup::run(async |outer| {
        outer.spawn(log.clone().fail("outer", 1)).unwrap();
        TaskGroup::run(async |inner| {
            inner.spawn(log.clone().work("member", 9)).unwrap();
            log.clone().work("body", 9).await
        })
        .await
        .map_err(|_: common::aio::GroupError<()>| "inner")
    });
    let error = outer_fails.await.unwrap_err();
    assert_eq!(error.errors, [ChildError::Failed("outer")]);
    sleep(seconds(1)).await;
    let order = ["outer fails", "body cancelled", "member cancelled"];
    assert_eq!(log.take(), order);
}

// that it cannot be entered twice, or used before it is entered, is the type's doing.
#[tokio::test(start_paused = true)]
async fn no_member_after_the_end() {
    let mut kept = None;
    let done = TaskGroup::run(async |group: TaskGroup<&str>| {
        kept = Some(group);
        Ok(())
    });
    done.await.unwrap();
    let closed = kept.unwrap().spawn(async { Ok(5) }).unwrap_err();
    let given_back: Result<_, &str> = closed.0.await;
    assert_eq!(given_back, Ok(5));
}

//
#[tokio::test(start_paused = true)]
async fn no_member_after_a_failure() {
    struct SpawnsOnDrop(TaskGroup<&'static str>, Rc<Cell<bool>>);
    impl Drop for SpawnsOnDrop {
        fn drop(&mut self) {
            self.1.set(self.0.spawn(async { Ok(()) }).is_err());
        }
    }
    let refused = Rc::new(Cell::new(false));
    let failed = TaskGroup::run(async |group: TaskGroup<&'static str>| {
        let _cleanup = SpawnsOnDrop(group.clone(), Rc::clone(&refused));
        group.spawn(async { Err::<(), _>("failed") }).unwrap();
        pending::<Result<(), _>>().await
    });
    failed.await.unwrap_err();
    assert!(refused.get());
}

/// Destructors may use the group, also those of a coroutine that was never started.
#[test]
fn a_coroutine_that_its_runtime_refuses_may_use_its_group() {
    struct SpawnsOnDrop(TaskGroup<&'static str>);
    impl Drop for SpawnsOnDrop {
        fn drop(&mut self) {
            drop(self.0.spawn(async { Ok(()) }));
        }
    }
    let (told, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Of this kind, for it has been shut down entirely when it has been dropped.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _context = handle.enter();
        let group = TaskGroup::run(async |group: TaskGroup<&'static str>| {
            let cleanup = SpawnsOnDrop(group.clone());
            let member = async move {
                let _cleanup = cleanup;
                Ok(())
            };
            Ok(group.spawn(member).unwrap().await.is_err())
        });
        told.send(futures::executor::block_on(group)).unwrap();
    });
    // It would wait for a lock of its own.
    let end = hear.recv_timeout(seconds(10)).unwrap();
    assert_eq!(end, Ok(true));
}

/// The value of a member whose handle is gone is dropped within the group.
#[tokio::test(start_paused = true)]
async fn a_panic_while_a_members_value_is_dropped_fails_the_group() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let end = TaskGroup::run(async |group: TaskGroup<String>| {
        drop(group.spawn(async { Ok(Bomb) }).unwrap());
        Ok(())
    });
    let errors = end.await.unwrap_err().errors;
    assert!(matches!(&errors[..], [ChildError::Panicked(panic)] if panic.message == "in drop"));
}

/// On several threads nothing differs, and what `run` returns may be spawned itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_members_on_several_threads() {
    let sum = Arc::new(AtomicUsize::new(0));
    let group = tokio::spawn({
        let sum = Arc::clone(&sum);
        async move {
            TaskGroup::run(async |group: TaskGroup<()>| {
                for x in 0..1_000 {
                    let sum = Arc::clone(&sum);
                    let member = async move {
                        tokio::task::yield_now().await;
                        sum.fetch_add(x, SeqCst);
                        Ok(())
                    };
                    group.spawn(member).unwrap();
                }
                Ok(())
            })
            .await
        }
    });
    group.await.unwrap().unwrap();
    assert_eq!(sum.load(SeqCst), 499_500);
}
