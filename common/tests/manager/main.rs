//! The manager: real processes, real SIGKILL.

mod calls;
mod faults;
mod lifetime;
mod pool;
mod remote;
mod typed;
mod waiting;

use std::time::{Duration, Instant};

/// Waits for something that happens soon, but in another process; fails after ten seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
