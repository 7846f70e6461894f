//! A gigabyte goes through a queue of one megabyte, in messages of four: a message may be longer
//! than the whole queue.
//!
//! ```text
//! $ cargo run -p process-queue --example large_transfer
//! 256 messages, 1073741824 bytes, queue of 1048576 bytes
//! ```

use common::process::Process;
use common::queue::Queue;
use std::error::Error;

const MESSAGE: usize = 4 << 20;

fn sender(queue: Queue<[u8]>) {
    let message = vec![7; MESSAGE];
    for _ in 0..256 {
        queue.put_bytes(&message).expect("the queue is open");
    }
    queue.close();
}

fn main() -> Result<(), Box<dyn Error>> {
    let queue: Queue<[u8]> = Queue::builder().capacity(1 << 20).build()?;
    let sender = Process::spawn(sender, (queue.clone(),))?;
    let (mut count, mut bytes) = (0, 0);
    let mut message = Vec::new();
    while queue.get_into(&mut message).is_ok() {
        count += 1;
        bytes += message.len();
    }
    sender.join()?;
    let capacity = queue.stats().capacity;
    println!("{count} messages, {bytes} bytes, queue of {capacity} bytes");
    Ok(())
}
