//! A task that runs too long is killed at its deadline, whatever it does (this one never looks
//! up); its worker is replaced, and the others go on. No thread can be stopped like that.
//!
//! ```text
//! $ cargo run -p process-pool --example task_deadline
//! 10 -> 55
//! 20 -> 6765
//! 0 -> `fibonacci` was killed at its deadline, after 300ms
//! 30 -> 832040
//! ```

use common::pool::{Pool, TaskError};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

/// Never returns for 0.
fn fibonacci(n: u64) -> u64 {
    let (mut a, mut b, mut left) = (0u64, 1u64, n.wrapping_sub(1));
    while black_box(left) != 0 {
        (a, b) = (b, a.wrapping_add(b));
        left = left.wrapping_sub(1);
    }
    b
}

fn main() -> Result<(), Box<dyn Error>> {
    let timeout = Duration::from_millis(300);
    let pool = Pool::builder().workers(2).task_timeout(timeout).build()?;
    let places = [10, 20, 0, 30];
    for (n, result) in places.into_iter().zip(pool.imap(fibonacci, places)) {
        match result {
            Ok(number) => println!("{n} -> {number}"),
            Err(TaskError::TimedOut { after, .. }) => {
                println!("{n} -> `fibonacci` was killed at its deadline, after {after:?}");
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}
