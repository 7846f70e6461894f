//! `imap` gives the results in the order of the items, so a slow one holds the others up;
//! `imap_unordered` gives them as they come. Both draw from the input as they go: an endless one
//! will do.
//!
//! ```text
//! $ cargo run -p process-pool --example imap
//! imap: 600 10 300
//! imap_unordered: 10 300 600
//! of an endless input: 0 1 4 9 16
//! ```

use common::pool::Pool;
use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(3)?;
    pool.map(nap, [50; 3])?; // The workers are up.

    print!("imap:");
    for millis in pool.imap(nap, [600, 10, 300]) {
        print!(" {}", millis?);
    }
    print!("\nimap_unordered:");
    for millis in pool.imap_unordered(nap, [600, 10, 300]) {
        print!(" {}", millis?);
    }
    print!("\nof an endless input:");
    for square in pool.imap(|x: u64| x * x, 0..).take(5) {
        print!(" {}", square?);
    }
    println!();
    Ok(())
}
