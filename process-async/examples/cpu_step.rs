//! A step that computes inside an async service. Done in place it stops everything else that the
//! service does; handed to a pool of processes it does not.
//!
//! ```text
//! $ cargo run -p process-async --example cpu_step
//! in place: fibonacci(38) = 39088169, others were answered meanwhile: false
//! in a pool: fibonacci(38) = 39088169, others were answered meanwhile: true
//! ```

use common::aio::run_in_pool;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::sleep;

/// As slow as can be: about half a second.
fn fibonacci(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    fibonacci(n - 1) + fibonacci(n - 2)
}

static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// The rest of the service.
async fn answer_others() {
    loop {
        sleep(Duration::from_millis(1)).await;
        ANSWERED.fetch_add(1, Relaxed);
    }
}

fn report(how: &str, number: u64, before: u32) {
    let meanwhile = ANSWERED.load(Relaxed) > before;
    println!("{how}: fibonacci(38) = {number}, others were answered meanwhile: {meanwhile}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::spawn(answer_others());

    let before = ANSWERED.load(Relaxed);
    let number = fibonacci(38);
    report("in place", number, before);

    let before = ANSWERED.load(Relaxed);
    let number = run_in_pool(fibonacci, (38,)).await?;
    report("in a pool", number, before);
    Ok(())
}
