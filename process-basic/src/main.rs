//! One process starts another, which runs a function, and waits for it to end.
//!
//! ```text
//! $ cargo run -p process-basic
//! Main process ID: N
//! Worker process ID: M
//! ```

use common::process::Process;
use std::error::Error;

fn worker() {
    println!("Worker process ID: {}", std::process::id());
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("Main process ID: {}", std::process::id());

    let process = Process::spawn(worker, ())?;
    process.join()?;
    Ok(())
}
