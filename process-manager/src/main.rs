//! Five processes append their index to a list that a manager owns. The order varies.
//!
//! ```text
//! $ cargo run -p process-manager
//! Process 0: [0]
//! Process 2: [0, 2]
//! Process 1: [0, 2, 1]
//! Process 3: [0, 2, 1, 3]
//! Process 4: [0, 2, 1, 3, 4]
//! Final shared list: [0, 2, 1, 3, 4]
//! ```

use common::manager::{ListProxy, Manager};
use common::process::Process;
use std::error::Error;

fn worker(shared_list: ListProxy<u32>, value: u32) {
    shared_list.append(value).expect("the manager is there");
    println!("Process {value}: {shared_list}");
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let shared_list = manager.list()?;

    let mut processes = Vec::new();
    for value in 0..5 {
        processes.push(Process::spawn(worker, (shared_list.clone(), value))?);
    }
    for process in &processes {
        process.join()?;
    }

    println!("Final shared list: {shared_list}");
    Ok(())
}
