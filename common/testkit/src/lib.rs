//! What the workspace's tests share: a process and a deadline for each test, a check that it left
//! nothing behind, and the programs run as a person runs them.

mod ending;
mod header;
mod isolated;
mod program;

pub use ending::{ends_within, pidfd};
pub use header::{every_example_is_named, prints_what_its_header_says};
pub use isolated::{DEADLINE, isolated, isolated_for};
pub use program::{Output, program, run};

use common::process::StartMethod;

/// All of them, for tests that hold for each.
pub const METHODS: [StartMethod; 3] = [
    StartMethod::Spawn,
    StartMethod::Fork,
    StartMethod::ForkServer,
];

/// How much longer than usual the long tests run: the number in the environment variable `SOAK`,
/// 1 if it is not set.
///
/// ```
/// for _ in 0..100 * testkit::soak() {
///     // one round
/// }
/// ```
pub fn soak() -> u32 {
    std::env::var("SOAK")
        .ok()
        .and_then(|times| times.parse().ok())
        .unwrap_or(1)
}
