//! A joinable queue: `join` waits until every task has been got and is done.
//!
//! ```text
//! $ cargo run -p process-queue --example joinable
//! all 10 tasks are done, 0 were lost
//! ```

use common::process::Process;
use common::queue::{JoinableQueue, Queue};
use std::error::Error;

fn worker(tasks: JoinableQueue<u32>, done: Queue<u32>) {
    // The guard marks its task done when it is dropped.
    while let Ok(task) = tasks.get_guard() {
        done.put(*task * 10).expect("the queue is open");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (tasks, done) = (JoinableQueue::new()?, Queue::new()?);
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(Process::spawn(worker, (tasks.clone(), done.clone()))?);
    }
    for task in 0..10 {
        tasks.put(task)?;
    }
    let lost = tasks.join();
    println!("all {} tasks are done, {lost} were lost", done.len());

    tasks.close(); // the workers' gets fail now
    for worker in &workers {
        worker.join()?;
    }
    Ok(())
}
