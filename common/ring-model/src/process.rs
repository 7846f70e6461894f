//! Processes that may die at any step.

use std::panic::{self, AssertUnwindSafe};

#[cfg(miri)]
use std::thread;

#[cfg(not(miri))]
use crate::futex;
#[cfg(not(miri))]
use shuttle::rand::Rng;
#[cfg(not(miri))]
use shuttle::thread;

/// A process of the model.
#[derive(Debug)]
pub struct Process<R>(thread::JoinHandle<Option<R>>);

impl<R> Process<R> {
    /// Waits for its end; `None` if it was killed.
    ///
    /// # Panics
    ///
    /// If the process did.
    pub fn join(self) -> Option<R> {
        self.0
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// What unwinds a process that is killed. Nothing runs on its way but the drop of a lock's guard,
/// which notes that the holder is dead.
struct Killed;

#[cfg(not(miri))]
shuttle::thread_local! {
    /// The steps that this process has left; `None` is for ever.
    static LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Tries `body` in so many random orders. Under Miri once, in whatever order comes.
#[cfg(not(miri))]
pub fn check(orders: u32, body: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true; // That it knows no weak memory: that is Miri's part.
    let orders = shuttle::scheduler::RandomScheduler::new(orders as usize);
    shuttle::Runner::new(orders, config).run(move || {
        futex::forget();
        body();
    });
}

/// As above.
#[cfg(miri)]
pub fn check(_: u32, body: impl Fn()) {
    body();
}

/// How many steps a process is to live: any number up to `most`.
#[must_use]
pub fn lifetime(most: u32) -> u32 {
    #[cfg(not(miri))]
    return shuttle::rand::thread_rng().gen_range(0..=most);
    #[cfg(miri)]
    return most;
}

/// Starts a process that is killed after so many steps, if it has not ended before. (Under Miri
/// nobody is killed.)
pub fn spawn<R: Send + 'static>(
    steps: Option<u32>,
    body: impl FnOnce() -> R + Send + 'static,
) -> Process<R> {
    Process(thread::spawn(move || {
        live(steps);
        let ended = panic::catch_unwind(AssertUnwindSafe(body));
        live(None);
        match ended {
            Ok(result) => Some(result),
            Err(panic) if panic.is::<Killed>() => {
                // Outside, sleepers look again after a while: now is as good as any time.
                #[cfg(not(miri))]
                futex::wake_all();
                None
            }
            Err(panic) => panic::resume_unwind(panic),
        }
    }))
}

/// Lives so many steps from now on.
fn live(steps: Option<u32>) {
    #[cfg(not(miri))]
    LEFT.with(|left| left.set(steps));
    #[cfg(miri)]
    let _ = steps;
}

/// Others may run now, or this process may die.
#[cfg(not(miri))]
pub(crate) fn step() {
    if is_dying() {
        return;
    }
    turn();
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => panic::resume_unwind(Box::new(Killed)),
        Some(steps) => left.set(Some(steps - 1)),
    });
}

/// Others may run now.
#[cfg(not(miri))]
pub(crate) fn turn() {
    // Any access to one of shuttle's words is a place to switch.
    shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
}

/// As above, of the machine's own threads.
#[cfg(miri)]
pub(crate) use std::thread::{yield_now as step, yield_now as turn};

/// Whether this process is being killed.
pub(crate) fn is_dying() -> bool {
    #[cfg(not(miri))]
    return LEFT.with(std::cell::Cell::get) == Some(0) && std::thread::panicking();
    #[cfg(miri)]
    return false;
}

/// A choice that the machine would make by its speed.
pub(crate) fn perhaps() -> bool {
    #[cfg(not(miri))]
    return shuttle::rand::thread_rng().r#gen();
    #[cfg(miri)]
    return true;
}
