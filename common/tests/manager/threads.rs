//! Threads that functions of the manager begin, which use its values as well.

use crate::eventually;
use common::codec::{decode, encode};
use common::manager::{Address, CallError, CallFuture, EventProxy, Key, Manager, Proxy};
use common::sync::Event;
use std::cell::RefCell;
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

/// In the manager: what its other thread has made.
static CONNECTED: Mutex<Option<Manager>> = Mutex::new(None);
static CALL: Mutex<Option<CallFuture<u64>>> = Mutex::new(None);

/// A function of the manager hosts another value there, and gives back the proxy.
fn host(_: &mut (), address: Address, key: Key) -> Proxy<u64> {
    let connected = CONNECTED.lock().unwrap().take();
    let manager = connected.unwrap_or_else(|| Manager::connect(address, &key).unwrap());
    let value = manager.host(6u64).unwrap();
    manager.publish("value", &value).unwrap();
    let found: Proxy<u64> = manager.get("value").unwrap().unwrap();
    found.call(add, (1,)).unwrap();
    assert!(manager.withdraw("value").unwrap());
    let panics = manager.host_with(|| -> u64 { panic!("no value") }, ());
    assert!(matches!(panics, Err(CallError::Server(_))));
    value
}

#[test]
fn a_function_hosts_another_value_in_its_manager() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (address, key) = (manager.address().clone(), manager.key().clone());
        let object = manager.host(()).unwrap();
        let value = object.call_timeout(host, (address.clone(), key.clone()), LONG);
        assert_eq!(value.unwrap().call(get, ()), Ok(7));
        // Through what another thread has connected.
        let connect = |_: &mut (), address: Address, key: Key| {
            begin_thread(move || {
                let manager = Manager::connect(address, &key).unwrap();
                *CONNECTED.lock().unwrap() = Some(manager);
            });
        };
        let args = (address.clone(), key.clone());
        object.call(connect, args.clone()).unwrap();
        object.call(|_: &mut ()| (), ()).unwrap();
        eventually("it is connected", || {
            let connected = |_: &mut ()| CONNECTED.lock().unwrap().is_some();
            object.call(connected, ()).unwrap()
        });
        let value = object.call_timeout(host, args, LONG).unwrap();
        assert_eq!(value.call(get, ()), Ok(7));
        object.call(join_thread, ()).unwrap();
        drop(value);
        assert_eq!(manager.count(), Ok(1));
        let wrong = |_: &mut (), address: Address| {
            let refused = Manager::connect(address, &Key::random());
            refused.unwrap_err().to_string()
        };
        let refused = object.call_timeout(wrong, (address,), LONG).unwrap();
        assert!(refused.contains("the key is wrong"), "{refused}");
    });
}

#[test]
fn a_function_does_not_wait_for_what_another_thread_of_the_manager_has_called() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (value, object) = (manager.host(7u64).unwrap(), manager.host(()).unwrap());
        let begin = |_: &mut (), value: Proxy<u64>| {
            begin_thread(move || *CALL.lock().unwrap() = Some(value.call_async(get, ())));
        };
        object.call(begin, (value.clone(),)).unwrap();
        object.call(join_thread, ()).unwrap();
        let wait = |_: &mut ()| CALL.lock().unwrap().take().unwrap().wait();
        let waited = object.call_timeout(wait, (), LONG);
        assert_eq!(waited, Ok(Err(CallError::WouldBlock)));
    });
}

/// Calls when its thread ends.
struct Leaves(Proxy<u64>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.call(add, (1,)).unwrap();
        let other: Proxy<u64> = decode(&encode(&self.0).unwrap()).unwrap();
        let by = |n: &mut u64, other: Proxy<u64>| drop((*n += 1, other));
        self.0.call(by, (other,)).unwrap();
    }
}

thread_local! {
    static LEAVES: RefCell<Option<Leaves>> = const { RefCell::new(None) };
}

/// Its locals are destroyed in the reverse order of their first use: the library's go first.
#[test]
fn a_thread_that_ends_calls_from_a_destructor_of_its_locals() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(0u64).unwrap();
        let leaves = value.clone();
        let thread = std::thread::spawn(move || {
            LEAVES.set(Some(Leaves(leaves.clone())));
            leaves.call(add, (1,)).unwrap();
        });
        thread.join().unwrap();
        assert_eq!(value.call(get, ()), Ok(3));
        drop(value);
        eventually("the value is dropped", || manager.count() == Ok(0));
    });
}
