//! A spawned task survives those who wait for it: Python's `shield`. A plain future does not.
//!
//! ```text
//! $ cargo run -p async-gather --example shield
//! not shielded: gave up waiting
//! shielded: gave up waiting
//! saved shielded
//! the task's result: 8
//! ```

use std::time::Duration;
use tokio::time::{sleep, timeout};

async fn save(name: &'static str) -> usize {
    sleep(Duration::from_millis(500)).await;
    println!("saved {name}");
    name.len()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let limit = Duration::from_millis(100);
    if timeout(limit, save("unshielded")).await.is_err() {
        println!("not shielded: gave up waiting");
    }

    let mut task = tokio::spawn(save("shielded"));
    if timeout(limit, &mut task).await.is_err() {
        println!("shielded: gave up waiting");
    }
    println!("the task's result: {}", task.await.unwrap());
}
