//! A sender with a long message is joined before anybody reads it: when `put` returns the message
//! is in the queue. (Python deadlocks here from about 65 kB on.)
//!
//! ```text
//! $ cargo run -p process-queue --example long_message
//! the sender has ended
//! received 100000 bytes
//! ```

use common::process::Process;
use common::queue::Queue;
use std::error::Error;

fn sender(queue: Queue<String>, length: usize) {
    queue.put("x".repeat(length)).expect("the queue is open");
}

fn receiver(queue: Queue<String>) -> usize {
    queue.get().expect("a message").len()
}

fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::new()?;
    Process::spawn(sender, (queue.clone(), 100_000))?.join()?;
    println!("the sender has ended");

    let length = Process::spawn(receiver, (queue,))?.join()?;
    println!("received {length} bytes");
    Ok(())
}
