//! Cancelling: the task ends at the await where it stands, and its destructors are its cleanup.
//!
//! ```text
//! $ cargo run -p async-gather --example cancel
//! tick 1
//! tick 2
//! cleaning up
//! cancelled: true
//! ```

use std::time::Duration;
use tokio::time::sleep;

struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        println!("cleaning up");
    }
}

async fn tick() {
    let _cleanup = Cleanup;
    for second in 1.. {
        println!("tick {second}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let task = tokio::spawn(tick());
    sleep(Duration::from_millis(1500)).await;
    task.abort();
    // Awaiting it waits for the cleanup, and says how the task ended.
    let end = task.await;
    println!("cancelled: {}", end.unwrap_err().is_cancelled());
}
