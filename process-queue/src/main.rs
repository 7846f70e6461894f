//! One process puts a message into a queue, another gets it; they never run at the same time.
//!
//! ```text
//! $ cargo run -p process-queue
//! Received: Hello!
//! ```

use common::process::Process;
use common::queue::Queue;
use std::error::Error;

fn sender(queue: Queue<Option<String>>, message: String) {
    queue.put(Some(message)).expect("the queue is open");
}

fn receiver(queue: Queue<Option<String>>) {
    while let Some(message) = queue.get().expect("the queue is open") {
        println!("Received: {message}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::new()?;

    let message = "Hello!".to_string();
    Process::spawn(sender, (queue.clone(), message))?.join()?;

    let receiver = Process::spawn(receiver, (queue.clone(),))?;
    queue.put(None)?; // the end
    receiver.join()?;
    Ok(())
}
