use super::super::chunking::Chunking;
use super::super::job::Job;
use super::super::spares::Buffer;
use super::*;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Wake;

/// A waker that looks whether the lock is held when it is woken, and when it is dropped.
struct Probe {
    completions: Arc<Completions>,
    held: Arc<AtomicBool>,
}

impl Probe {
    fn look(&self) {
        let free = self.completions.waiter.try_lock().is_ok();
        self.held.fetch_or(!free, Relaxed);
    }
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.look();
    }
}

#[test]
fn wakers_are_woken_and_dropped_with_no_lock_held() {
    let completions = Arc::new(Completions::default());
    let held = Arc::new(AtomicBool::new(false));
    let waiter = || {
        let (completions, held) = (completions.clone(), held.clone());
        Waiter::Task(Waker::from(Arc::new(Probe { completions, held })))
    };
    completions.set_waiter(waiter());
    completions.push(1);
    assert!(!held.load(Relaxed), "woken");
    completions.set_waiter(waiter());
    completions.set_waiter(waiter());
    assert!(!held.load(Relaxed), "replaced");
    completions.clear_waiter();
    assert!(!held.load(Relaxed), "cleared");
    assert_eq!(Arc::strong_count(&completions), 1);
}

struct Still;

impl Wake for Still {
    fn wake(self: Arc<Self>) {}
}

/// Its future may be polled by many tasks, one after the other.
#[test]
fn a_job_keeps_the_last_waker_of_its_future() {
    let job = Job::new("f", [0; 16], Chunking::single(), false, Buffer::default());
    let wakers = [(); 3].map(|()| Arc::new(Still));
    for waker in &wakers {
        let waiter = Waiter::Task(Waker::from(waker.clone()));
        assert!(job.watch(waiter).is_none());
        assert!(job.watch(Waiter::Thread(std::thread::current())).is_none());
    }
    assert_eq!(wakers.each_ref().map(Arc::strong_count), [1, 1, 2]);
}

/// As those of some executors do on a thread that is not theirs.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("not on this thread");
    }
}

#[test]
fn a_waker_that_panics_stops_nobody_who_wakes_it() {
    let completions = Completions::default();
    completions.set_waiter(Waiter::Task(Arc::new(Panics).into()));
    completions.push(7);
    assert_eq!(completions.pop(), Some(7));
}
