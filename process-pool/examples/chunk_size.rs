//! Items travel in chunks. A large one saves messages and may leave workers idle at the end: eight
//! naps of 0.1 s for two workers, by four and by six. Left to itself the pool measures the tasks
//! and sends slow ones alone and quick ones together.
//!
//! ```text
//! $ cargo run -p process-pool --example chunk_size
//! chunks of 4: 0.4 s
//! chunks of 6: 0.6 s
//! by itself: 0.4 s
//! 100000 quick ones in P messages
//! ```

use common::pool::{Event, Pool};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn nap(_: u32) {
    sleep(Duration::from_millis(100));
}

fn main() -> Result<(), Box<dyn Error>> {
    let messages = Arc::new(AtomicUsize::new(0));
    let count = messages.clone();
    let pool = Pool::builder().workers(2).on_event(move |event| {
        let starts = matches!(event, Event::TaskStarted { .. });
        count.fetch_add(starts.into(), Ordering::Relaxed);
    });
    let pool = pool.build()?;
    pool.map(|_: u32| sleep(Duration::from_millis(20)), 0..4)?; // The workers are up.

    for size in [4, 6] {
        let start = Instant::now();
        pool.map_chunked(nap, 0..8, size)?;
        println!("chunks of {size}: {:.1} s", start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    pool.map(nap, 0..8)?;
    println!("by itself: {:.1} s", start.elapsed().as_secs_f64());

    messages.store(0, Ordering::Relaxed);
    pool.map(|x: u64| x * x, 0..100_000)?;
    let messages = messages.load(Ordering::Relaxed);
    println!("100000 quick ones in {messages} messages");
    Ok(())
}
