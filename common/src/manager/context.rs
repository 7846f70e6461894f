//! What a proxy's `Serialize` and `Deserialize` must know: for whom these bytes are.
//!
//! A proxy inside the arguments or the result of a call is written as the object's number alone:
//! the two sides of a connection know which manager is meant, and messages on it stay in order, so
//! nobody can lose hold of the object meanwhile. A proxy written for anything else (a queue, the
//! arguments of a new process, a file) carries the manager's address, and a ticket that holds the
//! object until it is received.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::connection::Connection;
use crate::deadline::Deadline;
use std::cell::RefCell;
use std::sync::Arc;

/// For whom this thread is encoding, or from whom it is decoding.
pub(super) enum Link {
    /// Anybody.
    None,
    /// The client at the other end of what the server is handling. It holds the objects whose
    /// proxies are encoded: see [`grant`].
    Server,
    /// The server at the other end of this connection; the call must be over by then.
    Client(Arc<Connection>, Deadline),
}

thread_local! {
    static LINK: RefCell<Link> = const { RefCell::new(Link::None) };
    static GRANTED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Puts back what was there before, also if `Serialize` panics.
struct Restore(Option<Link>);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            // A destructor of the thread's locals may come too late for this one.
            let _ = LINK.try_with(|link| link.replace(before));
        }
    }
}

/// A thread that destroys its locals has nowhere to note the link: there proxies are for anybody.
fn scope<R>(link: Link, f: impl FnOnce() -> R) -> R {
    let before = LINK.try_with(|place| place.replace(link));
    let _restore = Restore(before.ok());
    f()
}

/// Lets `f` look at the link.
pub(super) fn with_link<R>(f: impl FnOnce(&mut Link) -> R) -> R {
    match LINK.try_with(|_| ()) {
        Ok(()) => LINK.with_borrow_mut(f),
        Err(_) => f(&mut Link::None),
    }
}

/// On the server: the arguments come from a client.
pub(super) fn decoding_request<R>(f: impl FnOnce() -> R) -> R {
    scope(Link::Server, f)
}

/// On the server: the result goes to a client. What it grants is to be taken with
/// [`take_grants`].
pub(super) fn encoding_reply<R>(f: impl FnOnce() -> R) -> R {
    scope(Link::Server, f)
}

/// On the server: the client holds this object from now on, even if what is encoded after it
/// panics.
pub(super) fn grant(object: u64) {
    GRANTED.with_borrow_mut(|granted| granted.push(object));
}

/// The objects whose proxies the last replies contained.
pub(super) fn take_grants() -> Vec<u64> {
    GRANTED.take()
}

/// On a client: the bytes go to, or come from, the server; the call must be over by `deadline`.
pub(super) fn of_connection<R>(
    connection: &Arc<Connection>,
    deadline: Deadline,
    f: impl FnOnce() -> R,
) -> R {
    scope(Link::Client(connection.clone(), deadline), f)
}

/// Until when a proxy that is encoded or decoded may wait for its manager.
pub(super) fn deadline() -> Deadline {
    with_link(|link| match link {
        Link::Client(_, deadline) => *deadline,
        _ => Deadline::Never,
    })
}
