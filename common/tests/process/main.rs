//! Processes: what they return, how they end, who they are.
//!
//! Python's cases that cannot arise, because the types leave no room for them: P-006, P-041, P-042
//! (there is no process object before the start, and it is started once), P-021, P-022 (a handle is
//! closed by being dropped, which waits), P-032, P-033 (the fork server's socket has no name, so
//! nobody else can connect), P-036 (`exit` takes a number), P-040 (no default arguments). P-043 is
//! different on purpose: a daemon may start processes, for they end with it.

mod calls;
mod endings;
mod family;
mod names;
mod settings;
mod waiting;

use common::process::{Process, StartMethod};
use std::time::Duration;

const FOREVER: Duration = Duration::from_secs(3600);

fn nap(time: Duration) {
    std::thread::sleep(time);
}

fn sleeper(method: StartMethod) -> Process<()> {
    Process::builder()
        .start_method(method)
        .spawn(nap, (FOREVER,))
        .unwrap()
}
