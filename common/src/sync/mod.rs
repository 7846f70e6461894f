//! Locks and signals between processes.
//!
//! To copy: sync/, shm/, futex.rs, deadline.rs.

mod robust;

pub(crate) use robust::{LockError, RobustGuard, RobustMutex};
