//! Six downloads, never more than two at a time: three rounds. In Python a `Semaphore` around each.
//!
//! ```text
//! $ cargo run -p async-gather --example limited_concurrency
//! start 1
//! start 2
//! done 1, at most 2 at a time
//! start 3
//! done 2, at most 2 at a time
//! start 4
//! done 3, at most 2 at a time
//! start 5
//! done 4, at most 2 at a time
//! start 6
//! done 5, at most 2 at a time
//! done 6, at most 2 at a time
//! [1, 2, 3, 4, 5, 6] in 0.6 s
//! ```

use futures::{StreamExt, stream};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::time::sleep;

static RUNNING: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);

async fn download(file: u32) -> u32 {
    println!("start {file}");
    MOST.fetch_max(RUNNING.fetch_add(1, Relaxed) + 1, Relaxed);
    // The odd ones take a little less, so that the order printed is always the same.
    sleep(Duration::from_millis(200 - u64::from(file % 2) * 20)).await;
    RUNNING.fetch_sub(1, Relaxed);
    println!("done {file}, at most {} at a time", MOST.load(Relaxed));
    file
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let start = Instant::now();
    // `buffered` keeps the order; `buffer_unordered` gives each result as it comes.
    let files: Vec<u32> = stream::iter(1..=6)
        .map(download)
        .buffered(2)
        .collect()
        .await;
    println!("{files:?} in {:.1} s", start.elapsed().as_secs_f64());
}
