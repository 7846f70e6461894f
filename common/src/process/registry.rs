//! The children of this process that have not been waited for.
//!
//! To copy: the folder process/ and what its mod.rs names.

use super::record::Child;
use super::{lock, wait};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

static CHILDREN: Mutex<Vec<Arc<Child>>> = Mutex::new(Vec::new());

/// A child that still runs. Made by [`active_children`](super::active_children).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveChild {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a daemon.
    pub daemon: bool,
}

pub(super) fn add(child: Arc<Child>) {
    lock(&CHILDREN).push(child);
}

/// Reaps those that have ended; their handles keep the outcome.
pub(super) fn sweep() {
    let mut children = lock(&CHILDREN);
    // Most often none has; one call for all of them tells.
    let fds: Vec<BorrowedFd<'_>> = children.iter().map(|child| child.pidfd()).collect();
    if fds.is_empty() || !wait::any_readable_now(&fds) {
        return;
    }
    drop(fds);
    children.retain(|child| !child.has_ended());
}

pub(super) fn active() -> Vec<ActiveChild> {
    sweep();
    let active = |child: &Arc<Child>| ActiveChild {
        pid: child.pid(),
        name: child.name().to_owned(),
        daemon: child.daemon(),
    };
    lock(&CHILDREN).iter().map(active).collect()
}

/// In a process just forked: closes this copy of every link.
#[inline]
pub(super) fn forget_all() {
    for child in lock(&CHILDREN).drain(..) {
        child.close_link();
    }
}

/// Forgets one that has been waited for.
pub(super) fn remove(child: &Arc<Child>) {
    lock(&CHILDREN).retain(|other| !Arc::ptr_eq(child, other));
}
