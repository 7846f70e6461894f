//! A coroutine that takes too long is cancelled at its deadline: dropped at the await where it
//! stands, its destructors run, and only then does `timeout` return.
//!
//! ```text
//! $ cargo run -p async-gather --example timeout
//! connecting
//! connection closed
//! fast enough: Ok("page 1")
//! connecting
//! connection closed
//! too slow: Err(Elapsed(()))
//! both took 0.6 s
//! ```

use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

struct Connection;

impl Drop for Connection {
    fn drop(&mut self) {
        println!("connection closed");
    }
}

async fn fetch(page: u32, seconds: f64) -> String {
    println!("connecting");
    let _connection = Connection;
    sleep(Duration::from_secs_f64(seconds)).await;
    format!("page {page}")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let start = Instant::now();
    let limit = Duration::from_millis(500);
    println!("fast enough: {:?}", timeout(limit, fetch(1, 0.1)).await);
    println!("too slow: {:?}", timeout(limit, fetch(2, 30.0)).await);
    println!("both took {:.1} s", start.elapsed().as_secs_f64());
}
