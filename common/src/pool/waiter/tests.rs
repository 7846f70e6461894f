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
