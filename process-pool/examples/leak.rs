//! A function that leaks (a C library, say) cannot be mended here; `max_tasks_per_worker` replaces
//! the worker before it hurts.
//!
//! ```text
//! $ cargo run -p process-pool --example leak
//! without: the worker grew beyond 100 MB: true
//! replaced after 5 tasks: the largest of 8 workers grew beyond 100 MB: false
//! ```

use common::pool::Pool;
use std::collections::HashMap;
use std::error::Error;

/// Loses 4 MB; the worker's pid and its memory in bytes.
fn leaks(_: u32) -> (u32, u64) {
    std::mem::forget(std::hint::black_box(vec![1u8; 4_000_000]));
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    (std::process::id(), pages.unwrap_or(0) * 4096)
}

const LIMIT: u64 = 100_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(1)?;
    let (_, grown) = pool.map(leaks, 0..40)?.pop().unwrap_or_default();
    println!("without: the worker grew beyond 100 MB: {}", grown > LIMIT);

    let pool = Pool::builder().workers(1).max_tasks_per_worker(5).build()?;
    let sizes: HashMap<u32, u64> = pool.map_chunked(leaks, 0..40, 1)?.into_iter().collect();
    let largest = sizes.values().max().copied().unwrap_or_default();
    let (workers, large) = (sizes.len(), largest > LIMIT);
    println!(
        "replaced after 5 tasks: the largest of {workers} workers grew beyond 100 MB: {large}"
    );
    Ok(())
}
