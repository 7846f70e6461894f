//! Five processes append their index to one list.
//!
//! Run: `cargo run -p process-manager`. It prints, in an order that varies:
//!
//! ```text
//! Process 0: [0]
//! Process 2: [0, 2]
//! Process 1: [0, 2, 1]
//! Process 4: [0, 2, 1, 4]
//! Process 3: [0, 2, 1, 4, 3]
//! Final shared list: [0, 2, 1, 4, 3]
//! ```

use common::Process;
use common::manager::{ListProxy, Manager};
use std::error::Error;

fn worker(shared_list: ListProxy<u32>, value: u32) {
    shared_list.append(value).unwrap();
    println!("Process {value}: {shared_list}");
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let shared_list = manager.list()?;

    let processes = (0..5)
        .map(|i| Process::spawn(worker, (shared_list.clone(), i)))
        .collect::<Result<Vec<_>, _>>()?;
    for process in &processes {
        process.join()?;
    }

    println!("Final shared list: {shared_list}");
    Ok(())
}
