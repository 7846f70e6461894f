//! Locks and signals between processes.

mod robust;

#[allow(unused_imports)] // The ring is next.
pub(crate) use robust::{LockError, RobustGuard, RobustMutex};
