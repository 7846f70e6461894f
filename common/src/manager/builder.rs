//! Everything that can be said about a manager before it is started.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::address::{Address, Key, random};
use super::connection::{Connection, Death};
use super::endpoint::Endpoint;
use super::error::{CallError, StartError};
use super::server::{self, NotReady, Ready};
use super::{Manager, socket};
use crate::codec;
use crate::deadline::Deadline;
use crate::departures::Departures;
use crate::function::{BadEntry, EntryRef, Failure, Function, Task};
use crate::process::Process;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Describes a manager, then starts it. Made by [`Manager::builder`].
///
/// ```
/// use common::manager::Manager;
///
/// fn set_level(level: String) {
///     unsafe { std::env::set_var("LEVEL", level) }
/// }
///
/// let manager = Manager::builder()
///     .name("cache")
///     .initializer(set_level, ("high".to_string(),))
///     .start()?;
/// let level = manager.host_with(|| std::env::var("LEVEL").unwrap(), ())?;
/// assert_eq!(level.call(|level: &mut String| level.clone(), ())?, "high");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct Builder {
    name: String,
    address: Option<Address>,
    key: Option<Key>,
    transit: Duration,
    initializer: Result<Option<(EntryRef, Vec<u8>)>, Failure>,
    /// What is counted for its arguments.
    departures: Departures,
}

/// What the manager's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) endpoint: Endpoint,
    /// Where the parent waits for the report.
    pub(super) ready: Address,
    pub(super) grace: Duration,
    initializer: Option<(EntryRef, Vec<u8>)>,
}

impl Start {
    pub(super) fn initialise(&self) -> Result<(), NotReady> {
        let Some((entry, args)) = &self.initializer else {
            return Ok(());
        };
        let task = entry.resolve::<Task>().map_err(Failure::Entry);
        task.and_then(|task| task.run(args, &mut Vec::new()))
            .map_err(|failure| NotReady::Initializer(shortened(failure.to_string())))
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            name: "Manager".into(),
            address: None,
            key: None,
            transit: Duration::from_secs(60),
            initializer: Ok(None),
            departures: Departures::default(),
        }
    }
}

impl Builder {
    /// What errors and `ps` call it. By default `Manager`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Where it listens, for processes that were not given a proxy. By default at a name that
    /// nobody else knows.
    pub fn address(mut self, address: impl Into<Address>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The key to it. By default a random one.
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// How long a serialised proxy that nobody has received keeps its value after the process
    /// that serialised it has ended. By default a minute.
    pub fn transit(mut self, time: Duration) -> Self {
        self.transit = time;
        self
    }

    /// A function that the manager's process runs first.
    pub fn initializer<F, A>(mut self, f: F, args: A) -> Self
    where
        F: Function<A, Output = ()>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let entry: Result<EntryRef, BadEntry> = Task::entry(f);
        let (args, departures) = Departures::of(|| codec::encode(&args));
        self.initializer = entry
            .map_err(Failure::Entry)
            .and_then(|entry| Ok(Some((entry, args.map_err(Failure::Result)?))));
        self.departures = departures;
        self
    }

    /// Starts it; returns when it is ready, its initialiser done.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(self) -> Result<Manager, StartError> {
        self.start_until(Deadline::Never)
    }

    /// As [`start`](Builder::start), waiting for at most `timeout`; a manager that is not ready
    /// then is killed.
    ///
    /// # Errors
    ///
    /// As [`start`](Builder::start); too late is [`StartError::NotUp`].
    pub fn start_timeout(self, timeout: Duration) -> Result<Manager, StartError> {
        self.start_until(Deadline::after(timeout))
    }

    fn start_until(self, deadline: Deadline) -> Result<Manager, StartError> {
        let id = random();
        let key = self.key.unwrap_or_else(Key::random);
        let initializer = self
            .initializer
            .map_err(|failure| StartError::Initializer {
                manager: self.name.clone(),
                reason: failure.to_string(),
            })?;
        let endpoint = Endpoint {
            id,
            key: key.for_proxies(&id),
            name: self.name,
            address: self.address.map_or_else(Address::unique, Address::absolute),
        };
        let start = Start {
            endpoint: endpoint.clone(),
            ready: Address::unique(),
            grace: self.transit,
            initializer,
        };
        let process = spawn(&start, self.departures, deadline)?;
        let connection = Connection::to(&Arc::new(endpoint), deadline);
        attach(&connection, &process, deadline)?;
        Ok(Manager::started(connection, key, process))
    }
}

/// Waits until the new manager has let this process in; kills one that does not.
fn attach(
    connection: &Connection,
    process: &Process<()>,
    deadline: Deadline,
) -> Result<(), StartError> {
    connection.attach(deadline).map_err(|error| {
        // Being asked to end first would take a stopped one a second more than the caller gave.
        let _ = process.kill();
        connection.die(Death::Closed);
        StartError::NotUp {
            manager: connection.endpoint.name.clone(),
            reason: match error {
                // Its remedy is for a manager that was there once.
                CallError::Disconnected { reason, .. } => reason,
                other => other.to_string(),
            },
        }
    })
}

/// The report must fit in a packet.
fn shortened(mut text: String) -> String {
    if text.len() > socket::PACKET / 2 {
        text.truncate(text.floor_char_boundary(socket::PACKET / 2));
        text.push('…');
    }
    text
}

fn spawn(
    start: &Start,
    departures: Departures,
    deadline: Deadline,
) -> Result<Process<()>, StartError> {
    let manager = || start.endpoint.name.clone();
    let os = |error| StartError::Os {
        manager: manager(),
        error,
    };
    let ready = start.ready.socket_address().map_err(os)?;
    let listener = socket::listen_at(&ready).map_err(os)?;
    let process = Process::builder()
        .name(manager())
        .daemon(true)
        .spawn(server::serve, (start.clone(),))?;
    departures.sent();
    let not_up = |reason: String| StartError::NotUp {
        manager: manager(),
        reason,
    };
    let report = wait_for_report(&listener, &process, deadline).map_err(|error| {
        let _ = process.kill();
        match error {
            Errno::ETIMEDOUT => {
                not_up("it was not ready in time; its initialiser may be slow".into())
            }
            error => os(error),
        }
    })?;
    let report = report.ok_or_else(|| {
        let end = process.join().err().map(|error| error.to_string());
        not_up(end.unwrap_or_else(|| "its process ended".into()))
    })?;
    let report: Ready = codec::decode(&report).map_err(|error| not_up(error.to_string()))?;
    match report {
        Ok(()) => Ok(process),
        Err(NotReady::Os(error)) => Err(os(Errno::from_raw(error))),
        Err(NotReady::Address(error)) => Err(StartError::Address {
            manager: manager(),
            address: start.endpoint.address.clone(),
            error: Errno::from_raw(error),
        }),
        Err(NotReady::Initializer(reason)) => Err(StartError::Initializer {
            manager: manager(),
            reason,
        }),
    }
}

/// What the new process says; `None` if it ended without a word. `ETIMEDOUT` if the deadline came
/// first.
fn wait_for_report(
    listener: &OwnedFd,
    process: &Process<()>,
    deadline: Deadline,
) -> Result<Option<Vec<u8>>, Errno> {
    let mut connection: Option<OwnedFd> = None;
    loop {
        // In this order: what it said before it ended counts.
        let ended = !process.is_alive();
        if connection.is_none() {
            connection = accept(listener, process)?;
        }
        if let Some(connection) = &connection {
            match socket::receive(connection.as_fd()) {
                Err(Errno::EAGAIN) => {}
                other => return other.map(|(packet, _)| Some(packet)),
            }
        }
        if ended {
            return Ok(None);
        }
        if deadline.passed() {
            return Err(Errno::ETIMEDOUT);
        }
        let speaker = connection.as_ref().unwrap_or(listener);
        socket::wait(&[speaker.as_fd(), process.as_fd()], deadline);
    }
}

/// The new process, if it has connected. An abstract name is open to every user.
fn accept(listener: &OwnedFd, process: &Process<()>) -> Result<Option<OwnedFd>, Errno> {
    loop {
        match socket::accept(listener.as_fd()) {
            Ok(socket) => {
                let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
                // An initialiser may have made it another user's.
                let known = peer.pid() == process.pid().cast_signed();
                if known || peer.uid() == geteuid().as_raw() {
                    return Ok(Some(socket));
                }
            }
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use testkit::isolated;

    #[test]
    fn a_manager_that_lets_nobody_in_is_killed() {
        isolated(|| {
            let process = Process::spawn(|| std::thread::sleep(Duration::MAX), ()).unwrap();
            let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
            let (ours, _theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let connection = Connection::on(ours, &Arc::new(Endpoint::of_nobody()));
            let error = attach(&connection, &process, Deadline::Now).unwrap_err();
            assert!(error.to_string().contains("in time"), "{error}");
            process
                .join_timeout(Duration::from_secs(30))
                .unwrap()
                .unwrap_err();
            assert_eq!(process.exit_code(), Some(-9));
            assert!(connection.is_dead());
        });
    }
}
