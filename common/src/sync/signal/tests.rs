//! The sleeping and waking of a ring's two ends under shuttle: many random orders of everything
//! that several processes do. In the model a sleeper sleeps until it is woken, so that a lost
//! wake is a deadlock, which shuttle reports. (Outside it would cost half a second.)

use super::*;
use shuttle::sync::atomic::AtomicU64;
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;

/// A futex: one step each, as in the kernel.
#[derive(Default)]
struct Model {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    word: u32,
    sleepers: Vec<u64>,
    next: u64,
}

impl Word for Model {
    fn load(&self) -> u32 {
        self.state.lock().unwrap().word
    }

    fn compare_exchange(&self, old: u32, new: u32) -> Result<u32, u32> {
        let mut state = self.state.lock().unwrap();
        match state.word == old {
            true => Ok(std::mem::replace(&mut state.word, new)),
            false => Err(state.word),
        }
    }

    fn fetch_add(&self, more: u32) -> u32 {
        let mut state = self.state.lock().unwrap();
        let old = state.word;
        state.word = old.wrapping_add(more);
        old
    }

    fn wait(&self, expected: u32, _: Duration) {
        let mut state = self.state.lock().unwrap();
        if state.word != expected {
            return;
        }
        let me = state.next;
        state.next += 1;
        state.sleepers.push(me);
        while state.sleepers.contains(&me) {
            state = self.woken.wait(state).unwrap();
        }
    }

    fn wake(&self, count: u32) -> u32 {
        let mut state = self.state.lock().unwrap();
        let woken = state.sleepers.len().min(count as usize);
        state.sleepers.drain(..woken);
        self.woken.notify_all();
        woken as u32
    }
}

/// A ring's two positions and locks: the payload is copied before the store to the tail, and out
/// before the store to the head.
#[derive(Default)]
struct Ring {
    put: Mutex<()>,
    get: Mutex<()>,
    tail: AtomicU64,
    head: AtomicU64,
    news: Signal<Model>,
    room: Signal<Model>,
    slots: [AtomicU64; CAPACITY as usize],
}

const CAPACITY: u64 = 2;
const CLOSED: u64 = 1 << 63;

impl<W: Default> Default for Signal<W> {
    fn default() -> Self {
        Signal(W::default())
    }
}

fn sleep_unless(signal: &Signal<Model>, ready: impl Fn() -> bool) {
    let ticket = signal.prepare();
    if !ready() {
        signal.sleep(ticket, SLICE);
    }
}

impl Ring {
    fn put(&self, value: u64) -> bool {
        loop {
            let guard = self.put.lock().unwrap();
            let tail = self.tail.load(SeqCst);
            if tail & CLOSED != 0 {
                return false;
            }
            if tail - self.head.load(SeqCst) < CAPACITY {
                self.slots[(tail % CAPACITY) as usize].store(value, SeqCst);
                let done = self.tail.compare_exchange(tail, tail + 1, SeqCst, SeqCst);
                drop(guard);
                self.news.notify(1);
                return done.is_ok();
            }
            drop(guard);
            sleep_unless(&self.room, || {
                // The head first: it cannot overtake the tail that is read after it.
                let head = self.head.load(SeqCst);
                let tail = self.tail.load(SeqCst);
                tail & CLOSED != 0 || tail - head < CAPACITY
            });
        }
    }

    fn get(&self) -> Option<u64> {
        loop {
            let guard = self.get.lock().unwrap();
            let (head, tail) = (self.head.load(SeqCst), self.tail.load(SeqCst));
            if tail & !CLOSED != head {
                let value = self.slots[(head % CAPACITY) as usize].load(SeqCst);
                self.head.store(head + 1, SeqCst);
                drop(guard);
                self.room.notify(u32::MAX);
                return Some(value);
            }
            drop(guard);
            if tail & CLOSED != 0 {
                return None;
            }
            sleep_unless(&self.news, || {
                self.tail.load(SeqCst) != self.head.load(SeqCst)
            });
        }
    }

    fn close(&self) {
        self.tail.fetch_or(CLOSED, SeqCst);
        self.news.wake(u32::MAX);
        self.room.wake(u32::MAX);
    }
}

#[test]
fn no_message_and_no_wake_is_lost_in_any_order() {
    let orders = 3000 * testkit::soak() as usize;
    shuttle::check_random(
        || {
            let ring = Arc::new(Ring::default());
            let spawn = |put: Option<u64>| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || match put {
                    Some(base) => (0..3).filter(|n| ring.put(base + n)).count() as u64,
                    None => std::iter::from_fn(|| ring.get()).sum(),
                })
            };
            let producers = [spawn(Some(1)), spawn(Some(100))];
            let consumers = [spawn(None), spawn(None)];
            for producer in producers {
                assert_eq!(producer.join().unwrap(), 3);
            }
            ring.close();
            let sum: u64 = consumers.into_iter().map(|one| one.join().unwrap()).sum();
            assert_eq!(sum, 1 + 2 + 3 + 100 + 101 + 102);
        },
        orders,
    );
}

#[test]
fn closing_ends_everybody_in_any_order() {
    let orders = 1000 * testkit::soak() as usize;
    shuttle::check_random(
        || {
            let ring = Arc::new(Ring::default());
            let (putter, getter) = (Arc::clone(&ring), Arc::clone(&ring));
            let putter = thread::spawn(move || (0..).take_while(|n| putter.put(*n)).count());
            let getter = thread::spawn(move || {
                let first = getter.get();
                getter.close();
                usize::from(first.is_some()) + std::iter::from_fn(|| getter.get()).count()
            });
            assert_eq!(putter.join().unwrap(), getter.join().unwrap());
        },
        orders,
    );
}
