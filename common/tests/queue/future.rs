//! Waiting for a queue in futures.

use super::SOON;
use common::process::Process;
use common::queue::{PutReason, Queue};
use std::time::Duration;
use testkit::isolated;

#[test]
fn futures_get_and_put_and_lose_nothing() {
    isolated(|| {
        use futures::{FutureExt, StreamExt};
        fn child(questions: Queue<u32>, answers: Queue<u32>) {
            for question in questions.iter() {
                answers.put(question.unwrap() + 1).unwrap();
            }
            answers.close();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (questions, answers) = (Queue::bounded(1).unwrap(), Queue::bounded(1).unwrap());
        let process: Process<()> =
            Process::spawn(child, (questions.clone(), answers.clone())).unwrap();
        runtime.block_on(async {
            for number in 0..300 {
                // Given up while it waits: the answer goes to the next one.
                let mut given_up = Box::pin(answers.get_async());
                assert!((&mut given_up).now_or_never().is_none());
                questions.put_async(number).await.unwrap();
                drop(given_up);
                assert_eq!(answers.get_async().await, Ok(number + 1));
            }
            let feed = async {
                for number in 0..300 {
                    questions.put_async(number).await.unwrap();
                }
                questions.close();
            };
            let collect = answers.stream().map(Result::unwrap).collect::<Vec<_>>();
            let ((), got) = tokio::join!(feed, collect);
            assert_eq!(got, (1..=300).collect::<Vec<_>>());
        });
        process.join().unwrap();
        // The waiter threads hold the rings for a moment longer.
        let queue = questions.clone();
        drop((questions, answers, queue));
    });
}

#[test]
fn futures_put_and_get_what_is_longer_than_the_queue() {
    isolated(|| {
        use futures::FutureExt;
        fn echo(questions: Queue<String>, answers: Queue<String>) {
            for question in questions.iter() {
                answers.put(question.unwrap()).unwrap();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let small = || {
            Queue::builder()
                .capacity(1 << 12)
                .build::<String>()
                .unwrap()
        };
        let (questions, answers) = (small(), small());
        let process: Process<()> =
            Process::spawn(echo, (questions.clone(), answers.clone())).unwrap();
        runtime.block_on(async {
            for round in 0..20 {
                let long = "x".repeat(50_000 * (1 + round % 3));
                // Nobody gets here: given up at any stage, it leaves nothing.
                let mut given_up = Box::pin(answers.put_async("y".repeat(100_000)));
                assert!((&mut given_up).now_or_never().is_none());
                for _ in 0..round % 4 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                drop(given_up);
                let put = questions.put_async(long.clone());
                let (put, got) = tokio::join!(put, answers.get_async());
                put.unwrap();
                assert!(got.unwrap() == long);
            }
            assert!(answers.is_empty());
            // Others are not held up by one that was given up.
            let given_up = answers.put_async("y".repeat(100_000));
            assert!(tokio::time::timeout(SOON, given_up).await.is_err());
            let put = answers.put_async("short".into());
            let (put, got) = tokio::join!(put, answers.get_async());
            assert_eq!((put.is_ok(), got.as_deref()), (true, Ok("short")));
            // Closed while it waits: the value comes back.
            let (put, ()) = tokio::join!(answers.put_async("z".repeat(100_000)), async {
                tokio::time::sleep(SOON / 10).await;
                answers.close();
            });
            let error = put.unwrap_err();
            assert_eq!(
                (error.value.len(), error.reason),
                (100_000, PutReason::Closed)
            );
        });
        questions.close();
        process.join().unwrap();
    });
}
