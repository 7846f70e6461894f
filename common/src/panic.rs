//! A panic as a value: what it said and where, caught in one process and told in another.
//!
//! `catch_unwind` gives the message but not the place; the place is known to the panic hook alone.
//! So [`catch`] puts a hook in front of the program's own, which notes the place for the thread
//! and then lets the program's hook print as usual.
//!
//! To copy: panic.rs.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// What a panic said and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The text given to `panic!`; a fixed text where the payload was not a string.
    pub message: String,
    /// `file:line:column`; `None` if the program replaced the panic hook meanwhile.
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
    // What a panic may leave half-done is the caller's to judge: the callers in this crate either
    // end the process, drop what the closure held, or poison it.
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let message = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => match payload.downcast::<&'static str>() {
                Ok(text) => (*text).to_owned(),
                Err(_) => "a panic whose payload is not a string".to_owned(),
            },
        };
        Panic {
            message,
            location: LOCATION.take(),
        }
    })
}

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Puts the hook in place that notes where a panic happens; [`catch`] does so by itself.
#[inline]
pub(crate) fn note_locations() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string);
            // A panic while the thread's locals are destroyed has nowhere to leave its place.
            let _ = LOCATION.try_with(|slot| slot.replace(place));
            print(info);
        }));
    });
}
