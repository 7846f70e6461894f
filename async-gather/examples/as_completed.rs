//! Results as they come in, the fastest first. Python's `as_completed`.
//!
//! ```text
//! $ cargo run -p async-gather --example as_completed
//! mirror 3 answered
//! mirror 1 answered
//! mirror 2 answered
//! ```

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::time::Duration;
use tokio::time::sleep;

async fn ask(mirror: u32, seconds: f64) -> u32 {
    sleep(Duration::from_secs_f64(seconds)).await;
    mirror
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut answers: FuturesUnordered<_> = [ask(1, 0.4), ask(2, 0.6), ask(3, 0.2)]
        .into_iter()
        .collect();
    while let Some(mirror) = answers.next().await {
        println!("mirror {mirror} answered");
    }
}
