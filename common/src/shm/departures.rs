//! What is serialised counts as on its way until somebody opens it. Where the bytes then go
//! nowhere, because a queue is full for one, that is taken back.

use std::cell::{Cell, RefCell};

type Undo = Box<dyn FnOnce() + Send + Sync>;

thread_local! {
    /// How many were noted since somebody began to collect them; `None` while nobody does.
    static NOTING: Cell<Option<usize>> = const { Cell::new(None) };
    static NOTED: RefCell<Vec<Undo>> = const { RefCell::new(Vec::new()) };
}

/// What the serialisation of a value has counted: taken back when this is dropped, unless the
/// bytes were [`Departures::sent`]. Mostly that is nothing, which costs next to nothing.
#[derive(Default)]
pub(crate) struct Departures(Option<Box<Noted>>);

/// Takes back what was counted when it is dropped.
struct Noted(Vec<Undo>);

impl Departures {
    /// Collects what `encode` counts; takes it back if that panics.
    #[inline]
    pub(crate) fn of<R>(encode: impl FnOnce() -> R) -> (R, Departures) {
        let noting = Noting {
            outer: NOTING.replace(Some(0)),
        };
        let result = encode();
        (result, noting.take())
    }

    /// Notes how to take back what has just been counted, if somebody collects that.
    pub(crate) fn note(undo: impl FnOnce() + Send + Sync + 'static) {
        let Some(count) = NOTING.get() else {
            return;
        };
        // Not at the end of a thread, when there is no list any more: then it stays counted.
        let noted = NOTED.try_with(|noted| noted.borrow_mut().push(Box::new(undo)));
        NOTING.set(Some(count + usize::from(noted.is_ok())));
    }

    /// Whether nothing was counted.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes are on their way.
    #[inline]
    pub(crate) fn sent(mut self) {
        if let Some(noted) = &mut self.0 {
            noted.0.clear();
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|undo| undo());
    }
}

/// As long as somebody collects.
struct Noting {
    outer: Option<usize>,
}

impl Noting {
    #[inline]
    fn take(&self) -> Departures {
        match NOTING.replace(Some(0)) {
            None | Some(0) => Departures(None),
            Some(count) => Departures(Some(last(count))),
        }
    }
}

impl Drop for Noting {
    #[inline]
    fn drop(&mut self) {
        drop(self.take());
        NOTING.set(self.outer);
    }
}

#[cold]
fn last(count: usize) -> Box<Noted> {
    let last = NOTED.try_with(|noted| {
        let mut noted = noted.borrow_mut();
        let before = noted.len().saturating_sub(count);
        noted.split_off(before)
    });
    Box::new(Noted(last.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn each_takes_back_its_own_and_only_what_was_not_sent() {
        let undone = Arc::new(AtomicU32::new(0));
        let count = |number: u32| {
            let undone = Arc::clone(&undone);
            Departures::note(move || {
                undone.fetch_add(number, SeqCst);
            });
        };
        count(1); // Nobody collects.
        let (inner, outer) = Departures::of(|| {
            count(10);
            let ((), inner) = Departures::of(|| count(100));
            count(1_000);
            inner
        });
        assert!(!inner.is_empty() && !outer.is_empty());
        inner.sent();
        assert_eq!(undone.load(SeqCst), 0);
        drop(outer);
        assert_eq!(undone.load(SeqCst), 1_010);

        let panics = || {
            Departures::of(|| {
                count(1);
                panic!("on purpose")
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!((undone.load(SeqCst), NOTING.get()), (1_011, None));
    }
}
