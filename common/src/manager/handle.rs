//! A hold on an object, and how it travels.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::connection::Connection;
use super::context::{self, Link};
use super::endpoint::Endpoint;
use super::fork;
use super::method::Value;
use super::objects::{self, Objects};
use crate::deadline::Deadline;
use crate::departures::{Counted, Departures};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::sync::{Arc, OnceLock};

/// What all proxies of one object in one process share, until the last of them is dropped.
pub(super) struct Handle {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) object: u64,
    hold: Hold,
}

/// Who counts the hold.
enum Hold {
    /// The server, whose own process this is.
    Own(Own),
    There(Arc<Connection>),
}

struct Own {
    /// The server's process; see [`fork`].
    generation: u32,
    /// Through which other threads than the server's one use the object. From the first time on it
    /// is held there as well.
    elsewhere: OnceLock<Arc<Connection>>,
}

/// How to get at the object.
pub(super) enum Route {
    /// This is the server's thread.
    Here,
    There(Arc<Connection>),
}

impl Handle {
    /// For an object that an answer on this connection has granted.
    pub(super) fn granted(connection: &Arc<Connection>, object: u64) -> Handle {
        connection.hold(object);
        Handle {
            endpoint: connection.endpoint.clone(),
            object,
            hold: Hold::There(connection.clone()),
        }
    }

    /// For an object that is there as long as its server: nobody counts.
    pub(super) fn uncounted(connection: &Arc<Connection>, object: u64) -> Handle {
        Handle {
            endpoint: connection.endpoint.clone(),
            object,
            hold: Hold::There(connection.clone()),
        }
    }

    /// The server's own, for an object that it holds once more.
    pub(super) fn own(object: u64) -> Option<Handle> {
        let endpoint = objects::endpoint()?;
        objects::with(|objects| objects.hold(object))?
            .then_some(Handle::in_server(endpoint, object))
    }

    /// The server's own, for a value that it hosts from now on.
    pub(super) fn of_new(value: Value, type_name: &'static str) -> Option<Handle> {
        let endpoint = objects::endpoint()?;
        let object = objects::with(|objects| objects.add(value, type_name))?;
        Some(Handle::in_server(endpoint, object))
    }

    fn in_server(endpoint: Arc<Endpoint>, object: u64) -> Handle {
        Handle {
            endpoint,
            object,
            hold: Hold::Own(Own {
                generation: fork::generation(),
                elsewhere: OnceLock::new(),
            }),
        }
    }

    #[inline]
    pub(super) fn route(&self, deadline: Deadline) -> Route {
        // Also where another thread of the server made a connection: this one would wait for
        // itself.
        match objects::serves(&self.endpoint.id) {
            true => Route::Here,
            false => Route::There(self.through(deadline)),
        }
    }

    /// A connection of this process that holds the object.
    #[inline]
    fn through(&self, deadline: Deadline) -> Arc<Connection> {
        match &self.hold {
            Hold::There(connection) if connection.is_ours() => connection.clone(),
            Hold::Own(own) if own.generation == fork::generation() => {
                let claim = || {
                    let connection = Connection::to(&self.endpoint, deadline);
                    connection.claim(self.object, 0);
                    connection
                };
                own.elsewhere.get_or_init(claim).clone()
            }
            // A fork of the process that had the connection, or of the server.
            _ => {
                let connection = Connection::to(&self.endpoint, deadline);
                connection.inherit(self.object);
                connection
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        match &self.hold {
            Hold::Own(own) => {
                objects::release_own(&self.endpoint.id, self.object);
                if let Some(connection) = own.elsewhere.get().filter(|c| c.is_ours()) {
                    connection.release(self.object);
                }
            }
            // A fork's copies are not counted one by one.
            Hold::There(connection) if connection.is_ours() => connection.release(self.object),
            Hold::There(_) => {}
        }
    }
}

/// A proxy as bytes.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// Of the manager at one of the ends of the connection that these bytes are on.
    Near(u64),
    /// Of any manager, for anybody.
    Far(Endpoint, u64, u64),
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = match self.near() {
            true => Wire::Near(self.object),
            false => Wire::Far((*self.endpoint).clone(), self.object, self.depart()),
        };
        wire.serialize(serializer)
    }
}

impl Handle {
    /// Whether these bytes go to somebody who holds the object while they are on their way.
    fn near(&self) -> bool {
        context::with_link(|link| match link {
            Link::None => false,
            Link::Server => {
                let near = objects::serves(&self.endpoint.id)
                    && objects::with(|objects| objects.hold(self.object)).unwrap_or(false);
                if near {
                    context::grant(self.object);
                }
                near
            }
            Link::Client(connection, deadline) => {
                let near = connection.endpoint.id == self.endpoint.id;
                if near && !Arc::ptr_eq(&self.through(*deadline), connection) {
                    connection.inherit(self.object);
                }
                near
            }
        })
    }

    /// The ticket that holds the object from now on.
    fn depart(&self) -> u64 {
        let deadline = context::deadline();
        let route = self.route(deadline);
        let ticket = match &route {
            Route::Here => objects::with(Objects::new_ticket).unwrap_or(0),
            Route::There(connection) => connection.new_ticket(deadline),
        };
        Departures::count(OnItsWay {
            route,
            object: self.object,
            ticket,
        });
        ticket
    }
}

/// A proxy on its way to anybody.
struct OnItsWay {
    route: Route,
    object: u64,
    ticket: u64,
}

impl Counted for OnItsWay {
    fn depart(&self) {
        match &self.route {
            Route::Here => {
                objects::with(|objects| objects.add_ticket(self.object, self.ticket, None));
            }
            // A fork has no say in it.
            Route::There(connection) if connection.is_ours() => {
                connection.depart(self.object, self.ticket);
            }
            Route::There(_) => {}
        }
    }

    fn take_back(&self) {
        match &self.route {
            Route::Here => use_own_ticket(self.object, self.ticket),
            Route::There(connection) => connection.take_back(self.object, self.ticket),
        }
    }
}

fn use_own_ticket(object: u64, ticket: u64) {
    if objects::with(|objects| objects.use_ticket(object, ticket)) == Some(true) {
        objects::release(object, 1);
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Wire::deserialize(deserializer)? {
            Wire::Near(object) => near(object).ok_or_else(|| {
                de::Error::custom("a proxy to an object that is not held at this connection")
            }),
            Wire::Far(endpoint, object, ticket) => Ok(far(endpoint, object, ticket)),
        }
    }
}

fn near(object: u64) -> Option<Handle> {
    let client = context::with_link(|link| match link {
        Link::Client(connection, _) => Some(connection.clone()),
        _ => None,
    });
    match client {
        Some(connection) => connection.hold(object).then(|| Handle {
            endpoint: connection.endpoint.clone(),
            object,
            hold: Hold::There(connection),
        }),
        None => Handle::own(object),
    }
}

/// Never fails: a proxy whose manager is gone says so when it is used.
fn far(endpoint: Endpoint, object: u64, ticket: u64) -> Handle {
    if objects::serves(&endpoint.id) {
        let handle = Handle::own(object);
        use_own_ticket(object, ticket);
        if let Some(handle) = handle {
            return handle;
        }
        // Held by nobody: for the calls to say so, without a hold to give back.
        return Handle::in_server(Arc::new(endpoint), u64::MAX);
    }
    let endpoint = Arc::new(endpoint);
    let connection = Connection::to(&endpoint, context::deadline());
    connection.claim(object, ticket);
    Handle {
        endpoint,
        object,
        hold: Hold::There(connection),
    }
}
