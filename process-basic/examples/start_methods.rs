//! The three ways to start a process, and what each costs: to start it and to wait for its end,
//! in a small process, then in one with 256 MiB of its own.
//!
//! On a machine with two cores: about 800, 300 and 400 us in the small one; in the large one a fork
//! takes ten milliseconds and more, as it copies the tables of all the memory there is, and the
//! others as long as before.
//!
//! ```text
//! $ cargo run --release -p process-basic --example start_methods
//! small: Spawn takes N us
//! small: Fork takes N us
//! small: ForkServer takes N us
//! 256 MiB: Spawn takes N us
//! 256 MiB: Fork takes N us
//! 256 MiB: ForkServer takes N us
//! ```

use common::process::{Process, StartMethod};
use std::error::Error;
use std::time::{Duration, Instant};

fn nothing() {}

fn start_and_join(method: StartMethod) -> Result<Duration, Box<dyn Error>> {
    let start = Instant::now();
    let process = Process::builder().start_method(method).spawn(nothing, ())?;
    process.join()?;
    Ok(start.elapsed())
}

/// The median of 21: the first one of all also starts the fork server.
fn median(method: StartMethod) -> Result<Duration, Box<dyn Error>> {
    let mut times = (0..21)
        .map(|_| start_and_join(method))
        .collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    Ok(times[10])
}

fn table(size: &str) -> Result<(), Box<dyn Error>> {
    for method in [
        StartMethod::Spawn,
        StartMethod::Fork,
        StartMethod::ForkServer,
    ] {
        let took = median(method)?.as_micros();
        println!("{size}: {method:?} takes {took} us");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    table("small")?;
    let ballast = vec![1_u8; 256 << 20];
    table("256 MiB")?;
    drop(std::hint::black_box(ballast));
    Ok(())
}
