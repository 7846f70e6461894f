//! A process can be ended at its deadline, wherever it is; a thread cannot be ended at all.
//!
//! ```text
//! $ cargo run -p process-basic --example deadline
//! still running after 0.2 s
//! hangs was ended by SIGKILL: often the kernel's out-of-memory killer, or `kill`
//! its exit code: -9
//! ```

use common::process::Process;
use std::error::Error;
use std::time::Duration;

fn hangs() -> u64 {
    let mut rounds = 0_u64;
    loop {
        rounds = std::hint::black_box(rounds.wrapping_add(1)); // computes and asks nobody
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let process = Process::builder().name("hangs").spawn(hangs, ())?;
    let deadline = Duration::from_millis(200);

    match process.join_timeout(deadline) {
        Some(result) => println!("it returned {}", result?),
        None => {
            println!("still running after {:.1} s", deadline.as_secs_f64());
            process.kill()?;
            if let Err(error) = process.join() {
                println!("{error}");
            }
        }
    }
    println!("its exit code: {}", process.exit_code().ok_or("it runs")?);
    Ok(())
}
