//! `await` alone makes it sequential: a coroutine does nothing until it is awaited.
//!
//! ```text
//! $ cargo run -p async-gather --example sequential
//! One
//! Two
//! One
//! Two
//! One
//! Two
//! one after another: 3.0 s
//! ```

use std::time::{Duration, Instant};
use tokio::time::sleep;

async fn count() {
    println!("One");
    sleep(Duration::from_secs(1)).await;
    println!("Two");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let start = Instant::now();
    // Unlike Python's tasks, these do not start here ...
    let (first, second, third) = (count(), count(), count());
    // ... but here, each when the one before has ended.
    first.await;
    second.await;
    third.await;
    println!("one after another: {:.1} s", start.elapsed().as_secs_f64());
}
