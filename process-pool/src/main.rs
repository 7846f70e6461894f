//! A pool of four worker processes runs one task, then ten.
//!
//! ```text
//! $ cargo run -p process-pool
//! 25
//! [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
//! ```
//!
//! It takes four seconds: one for the first task, and three for the ten, because four workers
//! need three rounds for them.

use common::pool::Pool;
use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

fn worker(x: u64) -> u64 {
    sleep(Duration::from_secs(1));
    x * x
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(4)?;
    println!("{}", pool.apply(worker, (5,))?);
    println!("{:?}", pool.map(worker, 0..10)?);
    Ok(())
}
