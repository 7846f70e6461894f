//! A dictionary as a cache: the first process to ask computes the value, the others find it.
//!
//! ```text
//! $ cargo run -p process-manager --example cache
//! asked 12 times, computed 3 times
//! ```

use common::manager::{DictProxy, Manager};
use common::process::Process;
use std::error::Error;

/// The squares, and how often one was computed.
type Cache = DictProxy<u64, (u64, u32)>;

fn square(cache: Cache, n: u64) -> u64 {
    // Runs in the manager, alone: two processes that ask at once do not both compute.
    let compute = |(square, times): &mut (u64, u32), n: u64| {
        if *times == 0 {
            *square = n * n;
            *times += 1;
        }
        *square
    };
    cache
        .entry(n, (0, 0), compute, (n,))
        .expect("the manager is there")
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let cache: Cache = manager.dict()?;

    let mut processes = Vec::new();
    for n in [1, 2, 3].into_iter().cycle().take(12) {
        processes.push(Process::spawn(square, (cache.clone(), n))?);
    }
    for process in &processes {
        process.join()?;
    }

    let computed: u32 = cache.values()?.iter().map(|(_, times)| times).sum();
    println!("asked {} times, computed {computed} times", processes.len());
    Ok(())
}
