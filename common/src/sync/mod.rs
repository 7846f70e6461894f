//! Locks and signals between processes.

mod robust;

pub(crate) use robust::{LockError, RobustGuard, RobustMutex};
