//! Several producers and several consumers on one queue. It closes when the last producer has
//! dropped its sender, and then the consumers end.
//!
//! ```text
//! $ cargo run -p process-queue --example many_to_many
//! 3 producers, 2 consumers, 3000 messages, sum 4498500
//! ```

use common::process::Process;
use common::queue::{Queue, Receiver, Sender};
use std::error::Error;

fn producer(sender: Sender<u64>, first: u64) {
    for number in first..first + 1000 {
        sender.put(number).expect("somebody receives");
    }
}

fn consumer(receiver: Receiver<u64>) -> (usize, u64) {
    let numbers: Vec<u64> = receiver.iter().map(|n| n.expect("a number")).collect();
    (numbers.len(), numbers.iter().sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (sender, receiver) = Queue::new()?.split();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        consumers.push(Process::spawn(consumer, (receiver.clone(),))?);
    }
    for first in [0, 1000, 2000] {
        // Detached: the consumers end when all of these have.
        Process::spawn(producer, (sender.clone(), first))?.detach();
    }
    drop(sender); // only the producers have one now

    let (mut count, mut sum) = (0, 0);
    for consumer in &consumers {
        let (got, part) = consumer.join()?;
        count += got;
        sum += part;
    }
    println!("3 producers, 2 consumers, {count} messages, sum {sum}");
    Ok(())
}
