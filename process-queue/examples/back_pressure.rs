//! A bounded queue holds a fast producer back: it is never more than three messages ahead.
//!
//! ```text
//! $ cargo run -p process-queue --example back_pressure
//! the queue is full: put_timeout gives 3 back
//! got 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
//! never more than 3 waited
//! ```

use common::process::Process;
use common::queue::{PutReason, Queue};
use std::error::Error;
use std::time::Duration;

fn producer(queue: Queue<u32>) {
    for number in 3..10 {
        queue.put(number).expect("the queue is open"); // waits while three are there
    }
    queue.close();
}

fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::bounded(3)?;
    queue.put_many([0, 1, 2])?;
    if let Err(error) = queue.put_timeout(3, Duration::from_millis(20)) {
        assert_eq!(error.reason, PutReason::Full);
        println!("the queue is full: put_timeout gives {} back", error.value);
    }

    let producer = Process::spawn(producer, (queue.clone(),))?;
    let mut most = 0;
    let mut got = Vec::new();
    loop {
        most = most.max(queue.len());
        match queue.get() {
            Ok(number) => got.push(number.to_string()),
            Err(_closed) => break,
        }
    }
    producer.join()?;
    println!("got {}", got.join(", "));
    println!("never more than {most} waited");
    Ok(())
}
