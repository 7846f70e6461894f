//! Limits bound the whole of a call.

use common::manager::{CallError, EventProxy, Manager, PoolProxy, Proxy};
use common::process;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use testkit::isolated;

fn stop(manager: &Manager) -> impl Fn() {
    let pid = Pid::from_raw(manager.pid().unwrap().cast_signed());
    signal::kill(pid, Signal::SIGSTOP).unwrap();
    move || signal::kill(pid, Signal::SIGCONT).unwrap()
}

fn get(n: &mut u64) -> u64 {
    *n
}

/// The fastest of a few, each in a fork, which has to connect anew. `None` does not count.
fn fastest(mut call: impl FnMut() -> Option<Duration>) -> Duration {
    let calls = (0..4).filter_map(|_| process::fork(&mut call).unwrap().join().unwrap());
    calls.min().unwrap()
}

fn late<T>(call: impl FnOnce() -> Result<T, CallError>) -> Option<Duration> {
    let start = Instant::now();
    let result = call();
    let took = start.elapsed();
    matches!(result, Err(CallError::Timeout { .. })).then_some(took)
}

#[test]
fn a_proxy_of_another_manager_in_a_result_is_connected_within_the_limit() {
    isolated(|| {
        let (manager, other) = (Manager::new().unwrap(), Manager::new().unwrap());
        let value = manager.host(other.host(5u64).unwrap()).unwrap();
        let go_on = stop(&other);
        let took = fastest(|| {
            // This much is connected.
            value.call(|_: &mut Proxy<u64>| (), ()).unwrap();
            let start = Instant::now();
            let clone = |proxy: &mut Proxy<u64>| proxy.clone();
            let proxy = value.call_timeout(clone, (), Duration::from_millis(20));
            let took = start.elapsed();
            proxy.is_ok().then_some(took)
        });
        go_on();
        assert!(took < Duration::from_millis(80), "{took:?}");
        let proxy = value.call(|proxy: &mut Proxy<u64>| proxy.clone(), ());
        assert_eq!(proxy.unwrap().call(get, ()).unwrap(), 5);
    });
}

#[test]
fn connecting_and_waiting_share_one_limit() {
    isolated(|| {
        let limit = Duration::from_millis(50);
        let mut manager = Manager::new().unwrap();
        manager.set_timeout(limit);
        let pool: PoolProxy = manager.pool(1).unwrap();
        let go_on = stop(&manager);
        let applied = fastest(|| late(|| pool.apply(|| (), ())));
        let counted = fastest(|| late(|| manager.count()));
        go_on();
        for took in [applied, counted] {
            assert!(took < limit * 2 - limit / 5, "{took:?}");
        }
    });
}

#[test]
fn an_answer_that_has_arrived_takes_no_time() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(5u64).unwrap();
        let (gate, answered) = (manager.event().unwrap(), manager.event().unwrap());
        let first = value.call_async(get, ());
        let wait = |_: &mut u64, gate: EventProxy| gate.wait();
        let second = value.call_async(
            move |_: &mut u64, answered: EventProxy| answered.set(),
            (answered.clone(),),
        );
        answered.wait();
        // The manager runs the second one when it has answered the first.
        assert_eq!(first.wait_timeout(Duration::ZERO), Ok(5));
        second.wait().unwrap();
        let third = value.call_async(wait, (gate.clone(),));
        let error = third.wait_timeout(Duration::ZERO).unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
        gate.set();
        assert_eq!(value.call(get, ()), Ok(5));
    });
}
