//! What is serialised counts as on its way until somebody opens it. Where the bytes then go
//! nowhere, because a queue is full or a process cannot be started, that is taken back.
//!
//! To copy: departures.rs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::process;
use std::sync::Arc;

/// A handle of which serialised copies are counted.
pub(crate) trait Counted: Send + Sync {
    /// One more is on its way.
    fn depart(&self);

    /// One less, which nobody has opened and nobody will.
    fn take_back(&self);
}

thread_local! {
    /// One more than were noted since somebody began to collect them; 0 while nobody does.
    static NOTING: Cell<usize> = const { Cell::new(0) };
    static NOTED: RefCell<Vec<Arc<dyn Counted>>> = const { RefCell::new(Vec::new()) };
}

/// What the serialisation of a value has counted: taken back when this is dropped, unless the
/// bytes are away by then. Mostly that is nothing, which costs next to nothing.
#[derive(Default)]
pub(crate) struct Departures(Option<ManuallyDrop<Box<Noted>>>);

struct Noted {
    handles: Vec<Arc<dyn Counted>>,
    /// Somebody may have opened them.
    away: bool,
    /// The process that has counted; a fork of it has a copy of this, which changes nothing.
    owner: u32,
}

impl Departures {
    /// Collects what `encode` counts; takes it back if that panics.
    #[inline]
    pub(crate) fn of<R>(encode: impl FnOnce() -> R) -> (R, Departures) {
        let noting = Noting {
            outer: NOTING.replace(1),
        };
        let result = encode();
        let departures = noted();
        noting.end();
        (result, departures)
    }

    /// Counts a handle that is serialised, so that it can be taken back if somebody collects that.
    pub(crate) fn count(handle: impl Counted + 'static) {
        handle.depart();
        if NOTING.get() == 0 {
            return;
        }
        // Not at the end of a thread, when there is no list any more: then it stays counted.
        let noted = NOTED.try_with(|noted| noted.borrow_mut().push(Arc::new(handle)));
        NOTING.set(NOTING.get() + usize::from(noted.is_ok()));
    }

    /// Whether nothing was counted.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes are on their way, for good.
    #[inline]
    pub(crate) fn sent(mut self) {
        self.away();
    }

    /// The bytes are on their way; see [`Departures::back`].
    #[inline]
    pub(crate) fn away(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.away = true;
        }
    }

    /// The bytes that were away are here again, and nobody has read them.
    pub(crate) fn back(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.away = false;
        }
    }

    /// The same bytes are sent once more, to be read by somebody else: all is counted once more.
    pub(crate) fn again(&self) -> Departures {
        let again = |noted: &Noted| {
            let handles = noted.handles.clone();
            handles.iter().for_each(|handle| handle.depart());
            Noted::boxed(handles)
        };
        Departures(self.0.as_ref().map(|noted| again(noted)))
    }
}

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.0.as_ref().map_or(0, |noted| noted.handles.len());
        f.debug_tuple("Departures").field(&counted).finish()
    }
}

/// Inlined, for it is done at each item of a `map`: mostly it is nothing.
impl Drop for Departures {
    #[inline]
    fn drop(&mut self) {
        if let Some(noted) = self.0.take() {
            end(noted);
        }
    }
}

#[cold]
fn end(noted: ManuallyDrop<Box<Noted>>) {
    drop(ManuallyDrop::into_inner(noted));
}

impl Noted {
    fn boxed(handles: Vec<Arc<dyn Counted>>) -> ManuallyDrop<Box<Self>> {
        ManuallyDrop::new(Box::new(Noted {
            handles,
            away: false,
            owner: process::id(),
        }))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.away && self.owner == process::id() {
            self.handles.iter().for_each(|handle| handle.take_back());
        }
    }
}

/// As long as somebody collects.
struct Noting {
    outer: usize,
}

impl Noting {
    #[inline]
    fn end(self) {
        NOTING.set(self.outer);
        std::mem::forget(self);
    }
}

/// What was being collected has panicked.
impl Drop for Noting {
    fn drop(&mut self) {
        drop(noted());
        NOTING.set(self.outer);
    }
}

/// What was noted since somebody began to collect it.
#[inline]
fn noted() -> Departures {
    match NOTING.get() {
        0 | 1 => Departures(None),
        more => Departures(Some(last(more - 1))),
    }
}

#[cold]
fn last(count: usize) -> ManuallyDrop<Box<Noted>> {
    let last = NOTED.try_with(|noted| {
        let mut noted = noted.borrow_mut();
        let before = noted.len().saturating_sub(count);
        noted.split_off(before)
    });
    Noted::boxed(last.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

    struct Handle(i32, Arc<AtomicI32>);

    impl Counted for Handle {
        fn depart(&self) {
            self.1.fetch_add(self.0, SeqCst);
        }

        fn take_back(&self) {
            self.1.fetch_sub(self.0, SeqCst);
        }
    }

    #[test]
    fn each_takes_back_its_own_and_only_what_was_not_sent() {
        let counted = Arc::new(AtomicI32::new(0));
        let count = |number: i32| Departures::count(Handle(number, Arc::clone(&counted)));
        count(1); // Nobody collects.
        let (inner, outer) = Departures::of(|| {
            count(10);
            let ((), inner) = Departures::of(|| count(100));
            count(1_000);
            inner
        });
        assert!(!inner.is_empty() && !outer.is_empty());
        inner.sent();
        assert_eq!(counted.load(SeqCst), 1_111);
        drop(outer);
        assert_eq!(counted.load(SeqCst), 101);

        let panics = || {
            Departures::of(|| {
                count(1);
                panic!("on purpose")
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!((counted.load(SeqCst), NOTING.get()), (101, 0));
    }

    #[test]
    fn what_is_sent_twice_counts_twice_and_what_comes_back_does_not() {
        let counted = Arc::new(AtomicI32::new(0));
        let handle = Handle(1, Arc::clone(&counted));
        let ((), mut first) = Departures::of(|| Departures::count(handle));
        first.away();
        let second = first.again();
        drop(first);
        assert_eq!(counted.load(SeqCst), 2);
        let mut third = second.again();
        third.away();
        third.back();
        drop((second, third));
        assert_eq!(counted.load(SeqCst), 1);
    }
}
