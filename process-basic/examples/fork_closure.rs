//! `fork` runs a closure, captures and all, in a copy of this process: nothing is serialised but
//! the result, and what the child changes is changed in its copy alone.
//!
//! ```text
//! $ cargo run -p process-basic --example fork_closure
//! the child summed 1000000 numbers: 500000500000
//! the child's first number: 7
//! the parent's first number: 1
//! with a second thread: Process-3 was not started: fork needs a process with exactly one thread, this one has 2; start it before the other threads, or use StartMethod::Spawn or ForkServer
//! ```

use common::process;
use std::error::Error;
use std::thread;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers: Vec<u64> = (1..=1_000_000).collect();

    let child = process::fork(|| numbers.iter().sum::<u64>())?;
    let count = numbers.len();
    println!("the child summed {count} numbers: {}", child.join()?);

    let child = process::fork(|| {
        numbers[0] = 7;
        numbers[0]
    })?;
    println!("the child's first number: {}", child.join()?);
    println!("the parent's first number: {}", numbers[0]);

    // A lock that another thread holds at that moment would stay locked in the copy for ever.
    thread::scope(|scope| {
        let waits = scope.spawn(thread::park);
        if let Err(error) = process::fork(|| ()) {
            println!("with a second thread: {error}");
        }
        waits.thread().unpark();
    });
    Ok(())
}
