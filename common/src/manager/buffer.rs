//! Memory that is used for one message after the other: allocating it costs as much as sending.
//!
//! To copy: buffer.rs.

use std::cell::RefCell;

/// Larger ones go back to the system.
const LARGEST: usize = 1 << 16;
const MOST: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty vector, with memory if there is some.
pub(super) fn take() -> Vec<u8> {
    let free = FREE.try_with(|free| free.borrow_mut().pop());
    free.ok().flatten().unwrap_or_default()
}

/// Gives memory back.
pub(super) fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > LARGEST {
        return;
    }
    buffer.clear();
    // While the thread ends there is nobody to keep it for.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < MOST {
            free.push(buffer);
        }
    });
}
