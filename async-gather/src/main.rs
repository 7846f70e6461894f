//! Three coroutines wait at the same time, in one thread: 1.0 s in all, not 3.
//!
//! ```text
//! $ cargo run -p async-gather
//! One
//! One
//! One
//! Two
//! Two
//! Two
//! ```
//!
//! In a project of your own: `cargo add tokio --features macros,rt,time`.

use std::time::Duration;
use tokio::time::sleep;

async fn count() {
    println!("One");
    sleep(Duration::from_secs(1)).await;
    println!("Two");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tokio::join!(count(), count(), count());
}
