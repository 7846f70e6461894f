//! Buffers to be used again: memory that is new from the kernel costs more than filling it.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::lock;
use std::ops::{Deref, DerefMut, RangeInclusive};
use std::sync::{Arc, Mutex};

/// The buffers that nobody uses. Its lock is held for no other.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Vec<u8>>>);

/// How many are kept, and of which sizes in bytes.
const MOST: usize = 8;
const SIZES: RangeInclusive<usize> = 64 << 10..=8 << 20;

impl Spares {
    /// An empty buffer, which comes back here when it is dropped.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        Buffer {
            bytes: lock(&self.0).pop().unwrap_or_default(),
            home: Some(self.clone()),
        }
    }

    fn keep(&self, mut bytes: Vec<u8>) {
        let mut spares = lock(&self.0);
        if spares.len() < MOST {
            bytes.clear();
            spares.push(bytes);
        }
    }
}

/// Bytes in a buffer that may be used again. The default is one that is not.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Spares>>,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer { bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home
            && SIZES.contains(&self.bytes.capacity())
        {
            home.keep(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_unless_it_is_too_small_or_there_are_enough() {
        let spares = Arc::new(Spares::default());
        let mut small = spares.take();
        small.push(1);
        drop(small);
        assert_eq!(spares.take().capacity(), 0);
        let mut large: Vec<Buffer> = (0..MOST + 1).map(|_| spares.take()).collect();
        large
            .iter_mut()
            .for_each(|buffer| buffer.resize(100 << 10, 7));
        drop(large);
        assert_eq!(lock(&spares.0).len(), MOST);
        let again = spares.take();
        assert!(again.is_empty() && again.capacity() >= 100 << 10);
    }
}
