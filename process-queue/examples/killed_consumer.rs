//! A consumer is killed in the middle of its work, and the rest go on: of a hundred tasks only
//! the one in its hands is lost, and `join` says so.
//!
//! ```text
//! $ cargo run -p process-queue --example killed_consumer
//! killed one of 3 consumers
//! 99 tasks are done, 1 was lost
//! ```

use common::process::{self, Process};
use common::queue::{JoinableQueue, Queue};
use std::error::Error;
use std::time::Duration;

fn consumer(tasks: JoinableQueue<u32>, done: Queue<u32>, stuck: Queue<u32>) {
    while let Ok(task) = tasks.get_guard() {
        if *task == 50 {
            stuck
                .put(process::current().pid())
                .expect("the queue is open");
            std::thread::sleep(Duration::from_secs(3600));
        }
        done.put(*task).expect("the queue is open");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (tasks, done, stuck) = (JoinableQueue::new()?, Queue::new()?, Queue::new()?);
    let mut consumers = Vec::new();
    for _ in 0..3 {
        let queues = (tasks.clone(), done.clone(), stuck.clone());
        consumers.push(Process::spawn(consumer, queues)?);
    }
    for task in 0..100 {
        tasks.put(task)?;
    }

    let pid = stuck.get()?;
    for consumer in consumers.iter().filter(|one| one.pid() == pid) {
        consumer.kill()?;
        println!("killed one of 3 consumers");
    }
    let lost = tasks.join();
    println!("{} tasks are done, {lost} was lost", done.len());
    tasks.close();
    Ok(())
}
