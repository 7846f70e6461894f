//! `apply` waits for its task, so three naps of 0.2 s one after another take 0.6 s. `apply_async`
//! does not: three workers sleep at the same time, for 0.2 s in all.
//!
//! ```text
//! $ cargo run -p process-pool --example apply_async
//! apply: 1 4 9 in 0.6 s
//! apply_async: 1 4 9 in 0.2 s
//! ```

use common::pool::{AsyncResult, Pool};
use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

fn slow_square(x: u64) -> u64 {
    sleep(Duration::from_millis(200));
    x * x
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(3)?;
    pool.map(|x: u64| x, 0..100)?; // The workers are up.

    let start = Instant::now();
    let [a, b, c] = [1, 2, 3].map(|x| pool.apply(slow_square, (x,)));
    print!("apply: {} {} {}", a?, b?, c?);
    println!(" in {:.1} s", start.elapsed().as_secs_f64());

    let start = Instant::now();
    let tasks: [AsyncResult<u64>; 3] = [1, 2, 3].map(|x| pool.apply_async(slow_square, (x,)));
    let [a, b, c] = tasks.map(|task| task.get());
    print!("apply_async: {} {} {}", a?, b?, c?);
    println!(" in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
