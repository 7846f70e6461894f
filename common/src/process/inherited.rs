//! What a fork server has from the process that uses it, and gives to each process that it forks.
//!
//! To copy: inherited.rs.

use nix::unistd::{Gid, ResGid, ResUid, getgroups, getresgid, getresuid};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;

pub(super) struct Inherited {
    environment: Vec<(OsString, OsString)>,
    rights: Rights,
}

impl Inherited {
    /// What a process has that this one spawns now.
    pub(super) fn now() -> Self {
        Inherited {
            environment: std::env::vars_os().collect(),
            rights: Rights::now(),
        }
    }

    /// Whether a process with that may do what this one may, no more and no less.
    pub(super) fn has_our_rights(&self) -> bool {
        self.rights == Rights::now()
    }

    /// How its environment must be changed to be this process's.
    pub(super) fn environment_changes(&self) -> Vec<(OsString, Option<OsString>)> {
        differences(&self.environment, std::env::vars_os().collect())
    }
}

/// Who a process is for the kernel (credentials(7)), and which directory is its root (chroot(2)).
#[derive(PartialEq)]
struct Rights {
    user: Option<ResUid>,
    group: Option<ResGid>,
    groups: Option<Vec<Gid>>,
    root: Option<(u64, u64)>,
}

impl Rights {
    fn now() -> Self {
        Rights {
            user: getresuid().ok(),
            group: getresgid().ok(),
            groups: getgroups().ok(),
            root: std::fs::metadata("/")
                .map(|root| (root.dev(), root.ino()))
                .ok(),
        }
    }
}

/// Compares two environments: what to change to get from `from` to `to`.
fn differences(
    from: &[(OsString, OsString)],
    to: Vec<(OsString, OsString)>,
) -> Vec<(OsString, Option<OsString>)> {
    // As a rule nothing has changed, not even the order.
    if from == to {
        return Vec::new();
    }
    let mut from: BTreeMap<&OsStr, &OsStr> = from
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let mut changes = Vec::new();
    for (name, value) in to {
        if from.remove(&*name) != Some(&*value) {
            changes.push((name, Some(value)));
        }
    }
    changes.extend(from.into_keys().map(|name| (name.to_owned(), None)));
    changes
}
