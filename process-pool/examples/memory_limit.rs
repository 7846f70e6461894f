//! A limit on each worker's memory: the task that wants too much fails, and neither the machine
//! nor the other tasks notice. (The worker says on standard error that an allocation failed.)
//!
//! ```text
//! $ cargo run -p process-pool --example memory_limit
//! 10 MB: 10000000 bytes
//! 4000 MB: worker P died with item 1 of `memory_limit::fill`: SIGABRT (it called `abort`; a failed allocation or a double panic does so too)
//! 20 MB: 20000000 bytes
//! ```

use common::pool::Pool;
use std::error::Error;

fn fill(megabytes: usize) -> usize {
    std::hint::black_box(vec![1u8; megabytes * 1_000_000]).len()
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder()
        .workers(2)
        .memory_limit(1_000_000_000)
        .build()?;
    let wanted = [10, 4000, 20];
    for (megabytes, result) in wanted.into_iter().zip(pool.imap(fill, wanted)) {
        match result {
            Ok(bytes) => println!("{megabytes} MB: {bytes} bytes"),
            Err(error) => println!("{megabytes} MB: {error}"),
        }
    }
    Ok(())
}
