//! Futures that are polled once and then left alone, as the arms of a `select!` are while another
//! arm's handler runs: the other futures of the process must not depend on them.

use common::Process;
use common::manager::{EventProxy, Manager, PoolProxy, Proxy};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use testkit::isolated;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2).enable_time().build().unwrap()
}

async fn poll_once(mut future: Pin<&mut impl Future>) {
    let is_pending = |future: Poll<_>| Poll::Ready(future.is_pending());
    assert!(poll_fn(|context| is_pending(future.as_mut().poll(context))).await);
}

fn never() {
    std::thread::sleep(Duration::MAX);
}

fn get(n: &mut u64) -> u64 {
    *n
}

#[test]
fn a_task_gets_its_answer_while_another_ones_future_is_left_unpolled() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(1).unwrap();
        let value = manager.host(0u64).unwrap();
        // Longer than a future that is polled looks for its answer.
        let slow = |n: &mut u64| {
            std::thread::sleep(Duration::from_millis(20));
            *n += 1;
            *n
        };
        runtime().block_on(async {
            let mut unpolled = pin!(pool.apply_async(never, ()));
            poll_once(unpolled.as_mut()).await;
            for i in 1..=2 {
                let other = tokio::spawn(value.call_async(slow, ()));
                let answer = timeout(LONG, other).await.expect("it is held up");
                assert_eq!(answer.unwrap().unwrap(), i);
                // A thread that had the reader gives it back to nobody who is polled.
                assert_eq!(value.call(get, ()).unwrap(), i);
            }
        });
    });
}

#[test]
fn and_before_the_manager_has_let_the_process_in() {
    let client = |pool: PoolProxy, value: Proxy<u64>, go: EventProxy| {
        runtime().block_on(async {
            let mut unpolled = pin!(pool.apply_async(never, ()));
            poll_once(unpolled.as_mut()).await;
            let mut other = pin!(value.call_async(get, ()));
            poll_once(other.as_mut()).await;
            go.set();
            let answer = timeout(LONG, other).await.expect("it is held up");
            answer.unwrap()
        })
    };
    isolated(move || {
        let manager = Manager::new().unwrap();
        let pool = manager.pool(1).unwrap();
        let (busy, value) = (manager.host(0u64).unwrap(), manager.host(7u64).unwrap());
        let (started, go) = (manager.event().unwrap(), manager.event().unwrap());
        let gated = |_: &mut u64, started: EventProxy, go: EventProxy| {
            started.set();
            go.wait();
        };
        let waiting = busy.call_async(gated, (started.clone(), go.clone()));
        started.wait();
        let process = Process::spawn(client, (pool.clone(), value.clone(), go.clone()));
        assert_eq!(process.unwrap().join().unwrap(), 7);
        waiting.wait().unwrap();
    });
}

/// Its answer has been taken: there will be no other.
#[test]
fn a_call_that_was_ready_cannot_be_waited_for() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(7u64).unwrap();
        let mut call = value.call_async(get, ());
        assert_eq!(futures::executor::block_on(&mut call).unwrap(), 7);
        let late = common::panic::catch(|| call.wait_timeout(LONG));
        assert!(late.unwrap_err().message.contains("after it was ready"));
    });
}
