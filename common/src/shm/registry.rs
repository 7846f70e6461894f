//! What this process has open, what it still has to unlink, and what dead processes left.

use super::mapping::{Mapping, unlink};
use super::{Owner, Segment, ShmError, name};
use std::collections::{HashMap, HashSet};
use std::mem::{self, ManuallyDrop};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError, TryLockError, Weak};
use std::time::Duration;
use std::{fs, process, thread};

#[derive(Default)]
struct Registry {
    /// A forked child inherits a copy, none of which it has created.
    pid: u32,
    open: HashMap<String, Weak<Mapping>>,
    /// Created here and not unlinked yet.
    owned: HashSet<String>,
    /// Created here and not held here any more, but needed by others when they were dropped.
    parked: Vec<Mapping>,
    /// The process ends: what is created from here on is unlinked at once.
    ended: bool,
}

/// How long the end of the process waits for a thread that is in here, and a thread that would make
/// a segment for the end.
const PATIENCE: Duration = Duration::from_millis(100);

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// The registry, and as a courtesy of a forked child, what it must not unlink.
fn registry() -> MutexGuard<'static, Registry> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    if registry.pid != process::id() {
        registry.pid = process::id();
        registry.owned.clear();
        registry.parked.clear();
        registry.ended = false;
    }
    registry
}

/// The registry, if it is to be had within about [`PATIENCE`]: other threads may be in it, but one that
/// is ended by `exit` in the middle of something must not hang it.
fn registry_soon() -> Option<MutexGuard<'static, Registry>> {
    for _ in 0..PATIENCE.as_millis() {
        match REGISTRY.try_lock() {
            Ok(registry) => return Some(registry),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// The segment of this name if this process has it open.
pub(super) fn find(name: &str) -> Option<Segment> {
    registry().find(name)
}

/// Notes a mapping that was opened. Should another thread have opened the same one meanwhile, gives
/// that.
pub(super) fn add(mapping: Mapping) -> Segment {
    let mut registry = registry();
    match registry.find(&mapping.name) {
        Some(segment) => segment,
        None => registry.insert(mapping),
    }
}

/// Makes a segment. Under the lock, so that the end of the process knows of each that there is.
pub(super) fn create(
    make: impl FnOnce() -> Result<Mapping, ShmError>,
) -> Result<Segment, ShmError> {
    let mut registry = registry();
    if registry.ended {
        // In the middle of it the process could end and leave a file: better before, as it will.
        drop(registry);
        thread::sleep(PATIENCE);
        registry = self::registry();
    }
    let mapping = make()?;
    if registry.ended {
        let _ = unlink(&mapping.name);
    } else {
        unlink_at_exit();
        registry.owned.insert(mapping.name.clone());
    }
    Ok(registry.insert(mapping))
}

/// The last handle of this process is gone.
pub(super) fn remove(mut mapping: Mapping) {
    let mut registry = registry();
    // Unless it has been opened anew under the same name just now. (A handle on that, made here to
    // see, could turn out to be the last one and come here as well.)
    let open = registry.open.get(&mapping.name);
    if open.is_some_and(|weak| weak.strong_count() == 0) {
        registry.open.remove(&mapping.name);
    }
    if mapping.creator == Some(process::id()) && registry.owned.contains(&mapping.name) {
        mapping.let_go();
        registry.parked.push(mapping);
    } else {
        // Before the look: it may be a second one of what this process has parked.
        drop(mapping);
    }
    registry.unlink_unneeded();
}

/// The name is not this process's to unlink any more: its mapping goes with its last handle.
pub(super) fn disown(name: &str) {
    registry().owned.remove(name);
}

/// Removes the segments of dead processes, and those of this process that nobody needs any more.
pub(super) fn sweep() {
    registry().unlink_unneeded();
    unlink_dead();
}

/// Unlinks what processes have created that have ended without doing so.
fn unlink_dead() {
    let Ok(entries) = fs::read_dir(name::DIRECTORY) else {
        return;
    };
    let mut judged: HashMap<Owner, bool> = HashMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(owner) = Owner::of(name) else {
            continue;
        };
        if *judged.entry(owner).or_insert_with(|| owner.is_dead()) {
            // Another user's stay: the directory is sticky.
            let _ = unlink(name);
        }
    }
}

/// Unlinks all that this process has created.
pub(super) fn unlink_owned() {
    let Some(mut registry) = registry_soon() else {
        return;
    };
    if registry.pid == process::id() {
        registry.ended = true;
        for name in mem::take(&mut registry.owned) {
            let _ = unlink(&name);
        }
    }
}

impl Registry {
    fn find(&self, name: &str) -> Option<Segment> {
        let mapping = self.open.get(name)?.upgrade()?;
        Some(Segment(ManuallyDrop::new(mapping)))
    }

    fn insert(&mut self, mapping: Mapping) -> Segment {
        let mapping = Arc::new(mapping);
        let weak = Arc::downgrade(&mapping);
        self.open.insert(mapping.name.clone(), weak);
        Segment(ManuallyDrop::new(mapping))
    }

    fn unlink_unneeded(&mut self) {
        let owned = &mut self.owned;
        self.parked.retain(|mapping| {
            let needed = mapping.needed();
            if !needed {
                let _ = unlink(&mapping.name);
                owned.remove(&mapping.name);
            }
            needed
        });
    }
}

/// Handles in statics, leaked ones and those of a `main` that calls `process::exit` are never
/// dropped.
#[allow(unsafe_code)]
fn unlink_at_exit() {
    extern "C" fn at_exit() {
        unlink_owned();
        // A child that was killed, the worker of a pool for one, could not.
        unlink_dead();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of this program that unwinds never: everything in
        // it that can fail is ignored.
        unsafe { libc::atexit(at_exit) };
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file_of, forked};
    use super::*;
    use std::sync::mpsc;
    use testkit::isolated;

    #[test]
    fn an_end_while_another_thread_is_in_here_leaves_nothing() {
        isolated(|| {
            // A process to end, with one thread at first.
            forked(|| {
                let segment = Segment::create(1).unwrap();
                let (inside, is_inside) = mpsc::channel();
                thread::spawn(move || {
                    let _registry = registry();
                    inside.send(()).unwrap();
                    thread::sleep(Duration::from_millis(5));
                });
                is_inside.recv().unwrap();
                unlink_owned();
                // The other thread may go on until the very end.
                let late = Segment::create(1).unwrap();
                late.write(0, &[7]).unwrap();
                !file_of(&segment).exists() && !file_of(&late).exists()
            });
        });
    }
}
