//! A counter that never loses an update, beside one that does: there each process reads the value,
//! and writes it back one higher, in two calls.
//!
//! ```text
//! $ cargo run -p process-manager --example counter
//! one call for each update: 4000 of 4000
//! two calls lost updates: true
//! ```

use common::manager::{EventProxy, Manager, ValueProxy};
use common::process::Process;
use std::error::Error;

fn count(safe: ValueProxy<u32>, unsafe_: ValueProxy<u32>, go: EventProxy) {
    go.wait();
    for _ in 0..1000 {
        safe.update(|n: &mut u32| *n += 1, ()).expect("the manager");
        let n = unsafe_.get().expect("the manager");
        unsafe_.set(n + 1).expect("the manager");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let (safe, unsafe_) = (manager.value(0)?, manager.value(0)?);
    let go = manager.event()?;

    let mut processes = Vec::new();
    for _ in 0..4 {
        let args = (safe.clone(), unsafe_.clone(), go.clone());
        processes.push(Process::spawn(count, args)?);
    }
    go.set();
    for process in &processes {
        process.join()?;
    }

    println!("one call for each update: {safe} of 4000");
    println!("two calls lost updates: {}", unsafe_.get()? < 4000);
    Ok(())
}
