//! The load: tasks that compute and tasks that wait.

use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What one task does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Task {
    /// So many rounds of arithmetic.
    Compute(u64),
    /// For a server's answer, say.
    Wait(Duration),
}

/// What [`mixed`] gives.
pub const DESCRIPTION: &str = "16 tasks compute for 0.1 s, 32 wait for 0.1 s";
const EACH: Duration = Duration::from_millis(100);

/// The tasks, in the order in which they came in: every third computes.
pub fn mixed() -> Vec<Task> {
    let rounds = rounds_in(EACH);
    let one = [Task::Wait(EACH), Task::Compute(rounds), Task::Wait(EACH)];
    one.repeat(16)
}

/// A task as a plain function.
pub fn work(task: Task) {
    match task {
        Task::Compute(rounds) => compute(rounds),
        Task::Wait(time) => std::thread::sleep(time),
    }
}

/// The same as a coroutine.
pub async fn work_async(task: Task) {
    match task {
        Task::Compute(rounds) => compute(rounds),
        Task::Wait(time) => tokio::time::sleep(time).await,
    }
}

fn compute(rounds: u64) {
    let mut state = 1;
    for round in 0..rounds {
        state = black_box((state ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// How many rounds this machine computes in that time, by the quickest of some tries.
fn rounds_in(time: Duration) -> u64 {
    const ROUNDS: u64 = 2_000_000;
    let one_try = |_| {
        let start = Instant::now();
        compute(ROUNDS);
        start.elapsed().as_secs_f64()
    };
    let quickest = (0..5).map(one_try).fold(f64::INFINITY, f64::min);
    (ROUNDS as f64 / quickest * time.as_secs_f64()) as u64
}
