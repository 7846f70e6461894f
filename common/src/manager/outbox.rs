//! What did not fit in a lane yet.
//!
//! To copy: outbox.rs, channel.rs, message.rs, departures.rs.

use super::channel::{Corrupt, Producer};

/// Bytes that wait for room in a lane.
#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// So many of them have been sent.
    sent: usize,
}

/// So much memory is kept for the next.
const KEPT: usize = 1 << 16;

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// After all that waits already.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Sends as much as there is room for, and says how much that was.
    pub(super) fn flush(&mut self, producer: &mut Producer) -> Result<usize, Corrupt> {
        let before = self.sent;
        while self.sent < self.bytes.len() {
            match producer.push(&self.bytes[self.sent..])? {
                0 => break,
                count => self.sent += count,
            }
        }
        let count = self.sent - before;
        self.forget_sent();
        Ok(count)
    }

    /// Where there is always more to send it never becomes empty. So what was sent goes as soon as
    /// it is the larger part: then each byte that stays is moved for one that was sent.
    fn forget_sent(&mut self) {
        let left = self.bytes.len() - self.sent;
        if self.sent < left {
            return;
        }
        self.bytes.drain(..self.sent);
        self.sent = 0;
        let wanted = left.max(KEPT);
        if self.bytes.capacity() / 4 > wanted {
            self.bytes.shrink_to(2 * wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::channel::{CAPACITY, Channel};
    use crate::manager::message::{Kind, Message};
    use std::os::fd::AsFd;

    #[test]
    fn what_was_sent_takes_no_memory_though_there_is_always_more() {
        let (lane, file) = Channel::create().unwrap();
        let (mut producer, mut outbox) = (lane.producer(), Outbox::default());
        let client = Channel::open(file.as_fd()).unwrap();
        let (mut consumer, mut message) = (client.consumer(), Vec::new());
        let bytes = |n: u64| Message::new(Kind::Call, n).bytes(&[0; 1000]).finish();
        // Twice what fits in the lane is on its way.
        let ahead = 2 * (CAPACITY / 1000) as u64;
        for n in 0..20 * ahead {
            outbox.add(&bytes(n));
            outbox.flush(&mut producer).unwrap();
            if let Some(first) = n.checked_sub(ahead) {
                assert!(consumer.next(&mut message).unwrap());
                assert_eq!(message, bytes(first));
                assert!(!outbox.is_empty());
            }
        }
        assert!(outbox.bytes.capacity() < 8 * CAPACITY);
        while consumer.next(&mut message).unwrap() {
            outbox.flush(&mut producer).unwrap();
        }
        assert_eq!(message, bytes(20 * ahead - 1));
        assert!(outbox.is_empty() && outbox.bytes.capacity() <= 8 * KEPT);
    }
}
