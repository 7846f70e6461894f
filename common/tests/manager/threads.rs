//! Threads that functions of the manager begin, which use its values as well.

use crate::eventually;
use common::codec::{decode, encode};
use common::manager::{EventProxy, Manager, Proxy};
use common::sync::Event;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::isolated;

const LONG: Duration = Duration::from_secs(10);

fn get(n: &mut u64) -> u64 {
    *n
}

fn add(n: &mut u64, by: u64) {
    *n += by;
}

/// In the manager: its other thread.
static THREAD: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

fn begin_thread(run: impl FnOnce() + Send + 'static) {
    *THREAD.lock().unwrap() = Some(std::thread::spawn(run));
}

/// A thread that is cut short by the manager's end leaves open what it has.
fn join_thread(_: &mut ()) {
    let thread = THREAD.lock().unwrap().take();
    thread.unwrap().join().unwrap();
}

#[test]
fn a_thread_of_the_manager_holds_a_value_for_as_long_as_it_has_the_proxy() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (value, host) = (manager.host(1u64).unwrap(), manager.host(()).unwrap());
        let used = manager.event().unwrap();
        let begin = |_: &mut (), value: Proxy<u64>, used: EventProxy| {
            begin_thread(move || {
                value.call(add, (1,)).unwrap();
                drop(value);
                used.set();
            });
        };
        host.call(begin, (value.clone(), used.clone())).unwrap();
        used.wait();
        assert_eq!(value.call(get, ()).unwrap(), 2);
        drop(value);
        eventually("the value is dropped", || manager.count().unwrap() == 1);
        host.call(join_thread, ()).unwrap();
    });
}

/// Though nobody says anything to the manager, which sleeps.
#[test]
fn a_thread_of_the_manager_drops_the_last_proxy() {
    struct Told(Event);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set();
        }
    }
    isolated(|| {
        // They outlive the manager, which has let go of them when it has ended.
        let (dropped, go) = (Event::new().unwrap(), Event::new().unwrap());
        let manager = Manager::new().unwrap();
        let value = manager.host_with(Told, (dropped.clone(),)).unwrap();
        let keep = |_: &mut (), value: Proxy<Told>, go: Event| {
            begin_thread(move || {
                go.wait();
                drop(value);
            });
        };
        let host = manager.host(()).unwrap();
        host.call(keep, (value.clone(), go.clone())).unwrap();
        drop(value);
        assert_eq!(manager.count().unwrap(), 2);
        go.set();
        assert!(dropped.wait_timeout(LONG));
        host.call(join_thread, ()).unwrap();
    });
}

/// It does not wait for itself.
#[test]
fn a_function_uses_a_proxy_that_another_thread_of_the_manager_received() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (value, host) = (manager.host(7u64).unwrap(), manager.host(()).unwrap());
        let receive = |_: &mut (), bytes: Vec<u8>| {
            let receiver = std::thread::spawn(move || decode::<Proxy<u64>>(&bytes).unwrap());
            receiver.join().unwrap().call(get, ()).unwrap()
        };
        let received = host.call_timeout(receive, (encode(&value).unwrap(),), LONG);
        assert_eq!(received, Ok(7));
    });
}
