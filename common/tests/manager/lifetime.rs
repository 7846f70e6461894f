//! How long values live: as long as somebody has a proxy.

use crate::eventually;
use common::Process;
use common::codec::{decode, encode};
use common::manager::{CallError, EventProxy, Hosted, ListProxy, Manager, PoolProxy, Proxy};
use common::pool::Pool;
use common::process::{self, StartMethod};
use common::queue::Queue;
use common::sync::Event;
use futures::executor::block_on;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;
use testkit::isolated;

const LONG: Duration = Duration::from_secs(10);

fn get(n: &mut u64) -> u64 {
    *n
}

fn add(n: &mut u64, by: u64) {
    *n += by;
}

// G-033
#[test]
fn a_value_is_dropped_with_its_last_proxy() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let a = manager.host(1u64).unwrap();
        let b = a.clone();
        drop(a);
        assert_eq!(manager.count().unwrap(), 1);
        assert_eq!(b.call(get, ()).unwrap(), 1);
        drop(b);
        assert_eq!(manager.count().unwrap(), 0);
    });
}

#[test]
fn a_killed_holder_holds_no_more() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (value, ready) = (manager.host(1u64).unwrap(), manager.event().unwrap());
        let hold = |value: Proxy<u64>, ready: EventProxy| {
            value.call(add, (1,)).unwrap();
            ready.set();
            std::thread::sleep(Duration::MAX);
            drop(value);
        };
        let process = Process::spawn(hold, (value.clone(), ready.clone())).unwrap();
        ready.wait();
        drop(value);
        assert_eq!(manager.count().unwrap(), 1);
        process.kill().unwrap();
        assert!(process.join().is_err());
        eventually("the value is dropped", || manager.count().unwrap() == 0);
    });
}

#[test]
fn a_proxy_in_a_queue_holds_its_value() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let queue: Queue<Proxy<u64>> = Queue::new().unwrap();
        let value = manager.host(5u64).unwrap();
        // Its sender has ended, and nobody else has one, before it is received.
        let send = |queue: Queue<Proxy<u64>>, value: Proxy<u64>| queue.put(value).unwrap();
        let process = Process::spawn(send, (queue.clone(), value.clone())).unwrap();
        process.join().unwrap();
        drop(value);
        assert_eq!(manager.count().unwrap(), 1);
        let value = queue.get().unwrap();
        assert_eq!(value.call(get, ()).unwrap(), 5);
        drop(value);
        eventually("the value is dropped", || manager.count().unwrap() == 0);
    });
}

#[test]
fn a_proxy_that_never_arrives_holds_its_value_for_a_while() {
    isolated(|| {
        let manager = Manager::builder()
            .transit(Duration::from_millis(300))
            .start()
            .unwrap();
        let value = manager.host(5u64).unwrap();
        let lose = |value: Proxy<u64>| {
            encode(&value).unwrap();
        };
        let process = Process::spawn(lose, (value.clone(),)).unwrap();
        process.join().unwrap();
        drop(value);
        eventually("the value is dropped", || manager.count().unwrap() == 0);
        // And one that this process lost itself lives as long as it.
        let value = manager.host(6u64).unwrap();
        let bytes = encode(&value).unwrap();
        drop(value);
        std::thread::sleep(Duration::from_millis(400));
        let value: Proxy<u64> = decode(&bytes).unwrap();
        assert_eq!(value.call(get, ()).unwrap(), 6);
        // A second one from the same bytes is one more handle on the same value.
        let again: Proxy<u64> = decode(&bytes).unwrap();
        drop(value);
        assert_eq!(again.call(get, ()).unwrap(), 6);
        drop(again);
        assert_eq!(manager.count().unwrap(), 0);
        let late: Proxy<u64> = decode(&bytes).unwrap();
        assert_eq!(late.call(get, ()).unwrap_err(), CallError::Gone);
    });
}

struct Node(Vec<Proxy<Node>>);

// G-002, G-005, G-009
#[test]
fn nested_proxies_are_the_values_themselves() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let inner = manager.list_of([1u32]).unwrap();
        let outer: ListProxy<ListProxy<u32>> = manager.list().unwrap();
        outer.append(inner.clone()).unwrap();
        outer.append(manager.list().unwrap()).unwrap();
        inner.append(2).unwrap();
        let seen = outer.get(0).unwrap().unwrap();
        seen.append(3).unwrap();
        assert_eq!(inner.to_string(), "[1, 2, 3]");
        assert!(outer.get(1).unwrap().unwrap().is_empty().unwrap());
        drop((inner, seen));
        assert_eq!(manager.count().unwrap(), 3);
        let kept = outer.get(0).unwrap().unwrap();
        outer.clear().unwrap();
        assert_eq!(manager.count().unwrap(), 2);
        assert_eq!(kept.to_string(), "[1, 2, 3]");
        // In a circle: dropped at the latest with the manager.
        let circle = manager.host_with(|| Node(Vec::new()), ()).unwrap();
        let push = |node: &mut Node, next: Proxy<Node>| node.0.push(next);
        circle.call(push, (circle.clone(),)).unwrap();
        drop(circle);
        assert_eq!(manager.count().unwrap(), 3);
    });
}

#[test]
fn functions_use_other_values_of_their_manager() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (a, b) = (manager.host(1u64).unwrap(), manager.host(10u64).unwrap());
        let both = |a: &mut u64, b: Proxy<u64>| {
            b.call(add, (*a,)).unwrap();
            *a += b.call(get, ()).unwrap();
            *a
        };
        assert_eq!(a.call(both, (b.clone(),)).unwrap(), 12);
        assert_eq!(b.call(get, ()).unwrap(), 11);
        // Its own is in use.
        let own = |_: &mut u64, own: Proxy<u64>| own.call(get, ());
        assert_eq!(a.call(own, (a.clone(),)).unwrap(), Err(CallError::Busy));
        drop((a, b));
        assert_eq!(manager.count().unwrap(), 0);
    });
}

#[test]
fn values_of_other_managers_may_be_inside() {
    isolated(|| {
        let (one, two) = (Manager::new().unwrap(), Manager::new().unwrap());
        let list: ListProxy<Proxy<u64>> = one.list().unwrap();
        let value = two.host(3u64).unwrap();
        list.append(value.clone()).unwrap();
        drop(value);
        assert_eq!(two.count().unwrap(), 1);
        let value = list.pop().unwrap().unwrap();
        assert_eq!(value.call(get, ()).unwrap(), 3);
        drop(value);
        eventually("the value is dropped", || two.count().unwrap() == 0);
    });
}

#[test]
fn nested_proxies_come_and_go_without_growth() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list: ListProxy<Proxy<u64>> = manager.list().unwrap();
        let round = |times: u64| {
            for i in 0..times {
                list.append(manager.host(i).unwrap()).unwrap();
                assert_eq!(list.pop().unwrap().unwrap().call(get, ()).unwrap(), i);
            }
        };
        round(500);
        let before = rss(manager.pid().unwrap());
        round(10_000);
        assert_eq!(manager.count().unwrap(), 1);
        let grown = rss(manager.pid().unwrap()).saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes");
    });
}

fn rss(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_forked_child_uses_what_it_inherits() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        value.call(add, (1,)).unwrap();
        let child = process::fork(|| {
            value.call(add, (10,)).unwrap();
            let own = value.clone();
            own.call(get, ()).unwrap()
        });
        assert_eq!(child.unwrap().join().unwrap(), 12);
        assert_eq!(value.call(get, ()).unwrap(), 12);
        drop(value);
        eventually("the value is dropped", || manager.count().unwrap() == 0);
    });
}

#[test]
fn a_forked_child_holds_what_it_inherits_beside_what_it_is_sent() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let sent = encode(&value).unwrap();
        let (used, gone) = (Event::new().unwrap(), Event::new().unwrap());
        let child = process::fork(|| {
            let other: Proxy<u64> = decode(&sent).unwrap();
            value.call(add, (1,)).unwrap();
            drop(other);
            used.set();
            gone.wait();
            value.call(get, ())
        });
        used.wait();
        drop(value);
        // One process's messages stay in order: its hold is over when this is answered.
        assert_eq!(manager.count().unwrap(), 1);
        gone.set();
        assert_eq!(child.unwrap().join().unwrap(), Ok(2));
        eventually("the value is dropped", || manager.count().unwrap() == 0);
    });
}

/// What a function of the manager starts by a fork has a copy of the manager's memory.
#[test]
fn a_fork_of_the_manager_changes_the_managers_own_values() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        // A proxy that the manager itself held when it was forked.
        let value = manager.host(1u64).unwrap();
        type Parent = (Proxy<u64>, Option<Process<u64>>);
        let parent = |value: Proxy<u64>| -> Parent { (value, None) };
        let parent = manager.host_with(parent, (value.clone(),)).unwrap();
        let fork = |parent: &mut Parent| {
            let add = || {
                parent.0.call(add, (10,)).unwrap();
                parent.0.call(get, ()).unwrap()
            };
            parent.1 = Some(process::fork(add).unwrap());
        };
        parent.call(fork, ()).unwrap();
        eventually("it is added", || value.call(get, ()).unwrap() == 11);

        // One that was sent to the fork.
        let list = manager.list_of([1u8]).unwrap();
        let pool = || {
            let pool = Pool::builder().start_method(StartMethod::Fork);
            pool.workers(1).build().unwrap()
        };
        let pool = PoolProxy::from_proxy(manager.host_with(pool, ()).unwrap());
        let append = |list: ListProxy<u8>| {
            list.append(2).unwrap();
            list.len().unwrap()
        };
        assert_eq!(pool.apply(append, (list.clone(),)).unwrap(), Ok(2));
        assert_eq!(list.len().unwrap(), 2);
    });
}

#[test]
fn abandoned_answers_give_back_what_they_grant() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list: ListProxy<Proxy<u64>> = manager.list().unwrap();
        for i in 0..100 {
            list.append(manager.host(i).unwrap()).unwrap();
            let pop = |list: &mut Vec<Proxy<u64>>| list.pop();
            drop(list.proxy().call_async(pop, ()));
        }
        eventually("the values are dropped", || manager.count().unwrap() == 1);
    });
}

#[test]
fn the_answer_to_a_call_is_not_for_a_fork() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let get = |n: &mut u64| *n;
        let (call, other) = (value.call_async(get, ()), value.call_async(get, ()));
        let mut calls = Some((call, other));
        let child = process::fork(|| {
            let (call, other) = calls.take().unwrap();
            let waited = call.wait().unwrap_err().to_string();
            [waited, block_on(other).unwrap_err().to_string()]
        });
        for error in child.unwrap().join().unwrap() {
            assert!(error.contains("forked from"), "{error}");
        }
        let (call, other) = calls.unwrap();
        assert_eq!((call.wait(), block_on(other)), (Ok(1), Ok(1)));
    });
}

/// Arrives nowhere: its reading panics.
#[derive(Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("it cannot be read")
    }
}

#[test]
fn a_proxy_beside_something_whose_reading_panics_holds_nothing() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let holder = manager.host(Some(value)).unwrap();
        let show = |value: &mut Option<Proxy<u64>>| (value.clone(), Unreadable);
        common::panic::catch(|| holder.call(show, ()).is_ok()).unwrap_err();
        assert_eq!(manager.count().unwrap(), 2);
        let clear = |value: &mut Option<Proxy<u64>>| *value = None;
        holder.call(clear, ()).unwrap();
        assert_eq!(manager.count().unwrap(), 1);
    });
}

/// Goes nowhere: its writing panics.
#[derive(Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("it cannot be written")
    }
}

#[test]
fn a_proxy_beside_something_whose_writing_panics_holds_nothing() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(1u64).unwrap();
        let holder = manager.host(Some(value)).unwrap();
        let show = |value: &mut Option<Proxy<u64>>| (value.clone(), Unwritable);
        let error = holder.call(show, ()).err().unwrap();
        assert!(matches!(error, CallError::Server(_)), "{error}");
        let clear = |value: &mut Option<Proxy<u64>>| *value = None;
        holder.call(clear, ()).unwrap();
        assert_eq!(manager.count().unwrap(), 1);
    });
}

#[test]
fn a_proxy_that_could_not_be_sent_holds_nothing() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let queue: Queue<Proxy<u64>> = Queue::builder().items(1).build().unwrap();
        queue.put(manager.host(1u64).unwrap()).unwrap();
        for _ in 0..3 {
            let back = queue.try_put(manager.host(2u64).unwrap());
            drop(back.unwrap_err());
            assert_eq!(manager.count().unwrap(), 1);
        }
        drop(queue.get().unwrap());
        assert_eq!(manager.count().unwrap(), 0);
        // The same in a function of the manager.
        let keep = |value: &mut u64, queue: Queue<Proxy<u64>>, proxy: Proxy<u64>| {
            queue.put(proxy.clone()).unwrap();
            queue.try_put(proxy).unwrap_err();
            *value
        };
        let (host, value) = (manager.host(5u64).unwrap(), manager.host(6u64).unwrap());
        let kept = host.call(keep, (queue.clone(), value));
        assert_eq!((kept, manager.count().unwrap()), (Ok(5), 2));
        drop(queue.get().unwrap());
        assert_eq!(manager.count().unwrap(), 1);
    });
}

#[test]
fn a_proxy_for_every_worker_of_a_pool_holds_its_value_as_long_as_the_pool() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let told: Queue<u64> = Queue::new().unwrap();
        let begin = |value: Proxy<u64>, told: Queue<u64>| {
            value.call(add, (1,)).unwrap();
            told.put(value.call(get, ()).unwrap()).unwrap();
        };
        let pool = Pool::builder().workers(1);
        let pool = pool.initializer(begin, (manager.host(0u64).unwrap(), told.clone()));
        let pool = pool.build().unwrap();
        assert_eq!(told.get_timeout(LONG), Ok(1));
        // The first has had its own by now, and dropped it; here comes the next.
        pool.apply(|| -> u8 { std::process::abort() }, ())
            .unwrap_err();
        assert_eq!(told.get_timeout(LONG), Ok(2));
        assert_eq!(manager.count().unwrap(), 1);
        drop(pool);
        eventually("the value is dropped", || manager.count().unwrap() == 0);
    });
}

#[test]
fn connections_to_managers_that_have_ended_do_not_add_up() {
    isolated(|| {
        let proxies: Queue<Proxy<u64>> = Queue::new().unwrap();
        let serve = |proxies: Queue<Proxy<u64>>, used: Event| {
            let manager = Manager::new().unwrap();
            proxies.put(manager.host(1u64).unwrap()).unwrap();
            used.wait();
        };
        let round = || {
            let used = Event::new().unwrap();
            let process = Process::spawn(serve, (proxies.clone(), used.clone())).unwrap();
            assert_eq!(proxies.get().unwrap().call(get, ()).unwrap(), 1);
            used.set();
            process.join().unwrap();
        };
        let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        round();
        let before = files();
        (0..3).for_each(|_| round());
        assert!(files() <= before);
        // With the next one the last one goes, too.
        drop(Manager::new().unwrap());
    });
}

/// `isolated` looks for open files.
#[test]
fn a_proxy_whose_manager_has_ended_keeps_no_file_open() {
    isolated(|| {
        let value = Manager::new().unwrap().host(1u64).unwrap();
        assert!(block_on(value.call_async(get, ())).is_err());
        std::mem::forget(value);
    });
}
