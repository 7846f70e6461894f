//! A progress bar over `imap_unordered`: it moves as results come, in whatever order. The bar is
//! drawn on standard error, if that is a terminal.
//!
//! ```text
//! $ cargo run -p process-pool --example progress
//! 50 tasks, sum of squares 40425
//! ```

use common::pool::Pool;
use indicatif::ProgressIterator;
use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

fn slow_square(x: u64) -> u64 {
    sleep(Duration::from_millis(20));
    x * x
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(4)?;
    let squares = pool.imap_unordered(slow_square, 0..50).progress_count(50);
    let squares: Vec<u64> = squares.collect::<Result<_, _>>()?;
    let sum: u64 = squares.iter().sum();
    println!("{} tasks, sum of squares {sum}", squares.len());
    Ok(())
}
