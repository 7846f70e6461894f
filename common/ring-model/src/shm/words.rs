//! Atomic words each access to which is a step of the model.

use crate::process::step;
use std::sync::atomic::Ordering::{self, SeqCst};

macro_rules! word {
    ($name:ident, $int:ty) => {
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(std::sync::atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $int) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            /// Looks without a step.
            pub(crate) fn peek(&self) -> $int {
                self.0.load(SeqCst)
            }

            pub(crate) fn as_ptr(&self) -> *mut $int {
                self.0.as_ptr()
            }

            pub(crate) fn load(&self, _: Ordering) -> $int {
                step();
                self.peek()
            }

            pub(crate) fn store(&self, value: $int, _: Ordering) {
                step();
                self.0.store(value, SeqCst);
            }

            pub(crate) fn swap(&self, value: $int, _: Ordering) -> $int {
                step();
                self.0.swap(value, SeqCst)
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $int,
                new: $int,
                _: Ordering,
                _: Ordering,
            ) -> Result<$int, $int> {
                step();
                self.0.compare_exchange(old, new, SeqCst, SeqCst)
            }

            pub(crate) fn fetch_add(&self, more: $int, _: Ordering) -> $int {
                step();
                self.0.fetch_add(more, SeqCst)
            }

            pub(crate) fn fetch_or(&self, bits: $int, _: Ordering) -> $int {
                step();
                self.0.fetch_or(bits, SeqCst)
            }

            pub(crate) fn fetch_max(&self, value: $int, _: Ordering) -> $int {
                step();
                self.0.fetch_max(value, SeqCst)
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
