//! A panic as a value: what it said and where, caught in one process and told in another.
//!
//! `catch_unwind` gives the message but not the place; the place is known to the panic hook alone.
//! So [`catch`] puts a hook in front of the program's own, which notes the place for the thread
//! and then lets the program's hook print as usual.
//!
//! To copy: panic.rs.

use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::thread;

/// What a panic said and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The text given to `panic!`; a fixed text where the payload was not a string.
    pub message: String,
    /// `file:line:column`; `None` if the program replaced the panic hook meanwhile, or if the first
    /// [`catch`] of the process was in a destructor while a panic went on.
    pub location: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "panicked at {location}: {}", self.message),
            None => write!(f, "panicked: {}", self.message),
        }
    }
}

/// Runs `f`; a panic in it is printed as usual and becomes an error.
///
/// # Errors
///
/// [`Panic`] if `f` panicked. With `panic = "abort"` in the profile there is nothing to catch: the
/// process ends by SIGABRT.
///
/// ```
/// let panic = common::panic::catch(|| -> u8 { panic!("no {}", "luck") }).unwrap_err();
/// assert_eq!(panic.message, "no luck");
/// assert!(panic.location.unwrap().contains(".rs:"));
/// ```
#[inline]
pub fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    note_locations();
    // What a panic elsewhere has left there is not this one's place.
    let earlier = if NOTED.get() { note(None) } else { None };
    // What a panic may leave half-done is the caller's to judge: the callers in this crate either
    // end the process, drop what the closure held, or poison it.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    let location = match result.is_err() || earlier.is_some() {
        true => note(earlier),
        false => None,
    };
    result.map_err(|payload| {
        let message = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(text) => (*text).to_owned(),
                Err(payload) => {
                    // Its destructor may panic too, with a payload that does so again.
                    let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
                    std::mem::forget(dropped);
                    "a panic whose payload is not a string".to_owned()
                }
            },
        };
        Panic { message, location }
    })
}

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether there is one: quickly asked, and most often there is none.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

/// Leaves a place for whoever catches the panic; what was there before.
fn note(place: Option<String>) -> Option<String> {
    NOTED.set(place.is_some());
    // While the thread's locals are destroyed there is nowhere to leave it.
    LOCATION
        .try_with(|slot| slot.replace(place))
        .unwrap_or_default()
}

/// Puts the hook in place that notes where a panic happens; [`catch`] does so by itself.
#[inline]
pub(crate) fn note_locations() {
    static HOOK: Once = Once::new();
    // A thread that panics already may not change the hook.
    if HOOK.is_completed() || thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info.location().map(ToString::to_string));
            print(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_that_of_the_panic_that_is_caught() {
        let elsewhere = || panic::catch_unwind(|| panic!("caught elsewhere")).unwrap_err();
        drop(elsewhere());
        // No hook sees this one.
        let silent = catch(|| panic::resume_unwind(Box::new("silent"))).unwrap_err();
        assert_eq!((silent.message.as_str(), silent.location), ("silent", None));
    }

    #[test]
    fn a_destructor_that_catches_panics_leaves_the_place_of_the_first() {
        struct Catches;
        impl Drop for Catches {
            fn drop(&mut self) {
                catch(|| ()).unwrap();
                catch(|| panic!("the second")).unwrap_err();
            }
        }
        let line = line!() + 3;
        let first = catch(|| {
            let _catches = Catches;
            panic!("the first");
        });
        let place = first.unwrap_err().location.unwrap();
        assert!(place.contains(&format!(":{line}:")), "{place}");
    }

    #[test]
    fn it_may_be_used_first_in_a_destructor() {
        struct Catches;
        impl Drop for Catches {
            fn drop(&mut self) {
                let inner = catch(|| panic!("the inner")).unwrap_err();
                assert_eq!(inner.message, "the inner");
            }
        }
        // In a process of its own, where nothing was caught before.
        const FIRST: &str = "COMMON_PANIC_TEST_FIRST";
        if std::env::var_os(FIRST).is_none() {
            let mut this = std::process::Command::new(std::env::current_exe().unwrap());
            let test = "panic::tests::it_may_be_used_first_in_a_destructor";
            let output = this.args(["--exact", test]).env(FIRST, "1").output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let passed = output.status.success() && said.contains("1 passed");
            return assert!(passed, "{output:?}");
        }
        let outer = panic::catch_unwind(|| {
            let _catches = Catches;
            panic!("the outer");
        });
        assert_eq!(outer.unwrap_err().downcast_ref(), Some(&"the outer"));
        assert!(catch(|| panic!("later")).unwrap_err().location.is_some());
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_caught_too() {
        struct Again(u32);
        impl Drop for Again {
            fn drop(&mut self) {
                if self.0 > 0 {
                    panic::panic_any(Again(self.0 - 1));
                }
            }
        }
        let caught = catch(|| panic::panic_any(Again(3))).unwrap_err();
        assert!(caught.message.contains("not a string"), "{caught}");
    }
}
