//! Queues, locks and signals in the manager's style.

use crate::eventually;
use common::Process;
use common::manager::{
    BarrierProxy, ConditionProxy, DictProxy, EventProxy, JoinableQueueProxy, ListProxy, LockProxy,
    Manager, QueueProxy, RLockProxy, SemaphoreProxy, ValueProxy,
};
use common::queue::GetError;
use common::sync::MutexError;
use std::time::Duration;
use testkit::isolated;

const SOON: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(30);

// G-010
#[test]
fn queues_inside_lists_and_dictionaries() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let queue: QueueProxy<u32> = manager.queue().unwrap();
        let list: ListProxy<QueueProxy<u32>> = manager.list().unwrap();
        let dict: DictProxy<u8, QueueProxy<u32>> = manager.dict().unwrap();
        list.append(queue.clone()).unwrap();
        dict.set(5, queue.clone()).unwrap();
        list.get(0).unwrap().unwrap().put(1).unwrap();
        dict.get(5).unwrap().unwrap().put(2).unwrap();
        assert_eq!((queue.get(), queue.get()), (Ok(1), Ok(2)));
        // The manager has copies; this process unlinks the memory when nobody has one.
        list.clear().unwrap();
        dict.clear().unwrap();
    });
}

// G-016, G-022
#[test]
fn queues_of_both_kinds() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let queue: QueueProxy<u32> = manager.bounded_queue(2).unwrap();
        let done: JoinableQueueProxy<u32> = manager.joinable_queue().unwrap();
        assert!(queue.is_empty() && !queue.is_full());
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        assert!(queue.len() == 2 && queue.is_full());
        assert!(queue.put_timeout(3, SOON).is_err());
        let pass_on = |queue: QueueProxy<u32>, done: JoinableQueueProxy<u32>| {
            for _ in 0..3 {
                done.put(queue.get_timeout(LONG).unwrap()).unwrap();
            }
        };
        let process = Process::spawn(pass_on, (queue.clone(), done.clone())).unwrap();
        queue.put_timeout(3, LONG).unwrap();
        for i in 1..=3 {
            assert_eq!(done.get_timeout(LONG), Ok(i));
        }
        process.join().unwrap();
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        assert_eq!(queue.get_timeout(SOON), Err(GetError::Empty));
        assert_eq!(done.join_timeout(SOON), None);
        for _ in 0..3 {
            done.task_done().unwrap();
        }
        assert_eq!(done.join(), 0);
        assert!(done.task_done().is_err());
    });
}

// G-017
#[test]
fn an_event_set_here_and_cleared_there() {
    isolated(|| {
        let event = Manager::new().unwrap().event().unwrap();
        assert!(!event.is_set() && !event.wait_timeout(SOON));
        let clear = |event: EventProxy| {
            assert!(event.wait_timeout(LONG));
            event.clear();
        };
        let process = Process::spawn(clear, (event.clone(),)).unwrap();
        event.set();
        process.join().unwrap();
        assert!(!event.is_set());
    });
}

// G-018, but for two things: who died does not stay the holder, and who does not hold the lock has
// nothing to release it with.
#[test]
fn locks_of_both_kinds() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (lock, rlock) = (manager.lock().unwrap(), manager.rlock().unwrap());
        let (guard, outer) = (lock.lock().unwrap(), rlock.lock().unwrap());
        let inner = rlock.lock().unwrap();
        let look = |lock: LockProxy, rlock: RLockProxy| {
            assert!(lock.is_locked() && rlock.is_locked());
            assert_eq!(lock.lock_timeout(SOON).err(), Some(MutexError::Locked));
            assert_eq!(rlock.lock_timeout(SOON).err(), Some(MutexError::Locked));
        };
        let process = Process::spawn(look, (lock.clone(), rlock.clone())).unwrap();
        process.join().unwrap();
        drop((guard, outer, inner));
        let hold = |lock: LockProxy, rlock: RLockProxy| -> u8 {
            let _guards = (lock.lock(), rlock.lock(), rlock.lock());
            std::process::abort();
        };
        let process = Process::spawn(hold, (lock.clone(), rlock.clone())).unwrap();
        assert!(process.join().is_err());
        assert!(!lock.is_locked() && !rlock.is_locked());
        assert!(lock.lock().unwrap().holder_died());
        assert!(rlock.lock().unwrap().holder_died());
    });
}

// G-019
#[test]
fn semaphores_and_conditions_in_a_child() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let (free, bounded) = (
            manager.semaphore(1).unwrap(),
            manager.bounded_semaphore(1).unwrap(),
        );
        let take = |free: SemaphoreProxy, bounded: SemaphoreProxy| {
            free.acquire().forget();
            bounded.acquire().forget();
            assert!(free.acquire_timeout(SOON).is_none() && bounded.try_acquire().is_none());
        };
        let process = Process::spawn(take, (free.clone(), bounded.clone())).unwrap();
        process.join().unwrap();
        assert_eq!((free.available(), bounded.available()), (0, 0));
        free.release(2).unwrap();
        bounded.release(1).unwrap();
        assert!(bounded.release(1).is_err());
        assert_eq!((free.available(), bounded.available()), (2, 1));

        let (lock, changed) = (manager.lock().unwrap(), manager.condition().unwrap());
        let value = manager.value(0).unwrap();
        let wait = |lock: LockProxy, changed: ConditionProxy, value: ValueProxy<u32>| {
            let guard = lock.lock().unwrap();
            value.set(1).unwrap();
            let (_guard, notified) = changed.wait_timeout(guard, LONG).unwrap();
            (notified, value.get().unwrap())
        };
        let args = (lock.clone(), changed.clone(), value.clone());
        let process = Process::spawn(wait, args).unwrap();
        eventually("it has the lock", || value.get().unwrap() == 1);
        // It waits: only then it lets the lock go.
        let mut guard = lock.lock().unwrap();
        value.set(2).unwrap();
        changed.notify_all(&mut guard).unwrap();
        drop(guard);
        assert_eq!(process.join().unwrap(), (true, 2));
    });
}

// G-020
#[test]
fn a_barrier_of_five() {
    isolated(|| {
        let barrier = Manager::new().unwrap().barrier(5).unwrap();
        assert_eq!(barrier.parties(), 5);
        let meet = |barrier: BarrierProxy| barrier.wait_timeout(LONG).map(|wait| wait.index).ok();
        let spawn = || Process::spawn(meet, (barrier.clone(),)).unwrap();
        let early = spawn();
        eventually("one waits", || barrier.waiting() == 1);
        barrier.reset();
        assert_eq!(early.join().unwrap(), None);
        let parties: Vec<_> = (0..5).map(|_| spawn()).collect();
        let mut came: Vec<_> = parties.iter().map(|p| p.join().unwrap()).collect();
        came.sort_unstable();
        assert_eq!(came, (0..5).map(Some).collect::<Vec<_>>());
        assert!(barrier.waiting() == 0 && !barrier.is_broken());
    });
}
