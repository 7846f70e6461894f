//! Managers at an address, for processes that were not given a proxy.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::connection::{Connection, Death};
use super::endpoint::Endpoint;
use super::error::{ConnectError, Refusal, StartError};
use super::hello::{self, Challenge, Verdict};
use super::{Address, Key, Manager, objects, socket};
use crate::deadline::Deadline;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a manager may take to let somebody in. It answers between two calls.
const PATIENCE: Duration = Duration::from_secs(10);

impl Manager {
    /// Starts a manager that processes of the same user and the same executable can
    /// [`connect`](Manager::connect) to: at a path, or at `@name` in the abstract namespace. The
    /// key is a new one, see [`Manager::key`]; [`Builder::key`](super::Builder::key) sets another.
    ///
    /// # Errors
    ///
    /// [`StartError::Address`] if somebody listens there already, and as [`Manager::new`].
    ///
    /// ```
    /// use common::manager::{ListProxy, Manager};
    ///
    /// let address = format!("@example-{}", std::process::id());
    /// let served = Manager::serve(address.as_str())?;
    /// served.publish("numbers", &served.list_of([1, 2])?)?;
    ///
    /// // In any process of this program that knows the address and the key:
    /// let manager = Manager::connect(address, served.key())?;
    /// let numbers: ListProxy<i32> = manager.get("numbers")?.unwrap();
    /// numbers.append(3)?;
    /// assert_eq!(numbers.to_string(), "[1, 2, 3]");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_server")]
    pub fn serve(address: impl Into<Address>) -> Result<Manager, StartError> {
        Manager::builder().address(address).start()
    }

    /// Connects to a manager that somebody else serves. Dropping this one leaves that as it is.
    ///
    /// A function that runs in the manager may do so, too: to host more values there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: nobody is there, the key is wrong, it is another user's or another
    /// build's. Waits at most ten seconds, should the manager be busy with a long call.
    pub fn connect(address: impl Into<Address>, key: &Key) -> Result<Manager, ConnectError> {
        Manager::connect_timeout(address, key, PATIENCE)
    }

    /// As [`connect`](Manager::connect), waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Manager::connect).
    pub fn connect_timeout(
        address: impl Into<Address>,
        key: &Key,
        timeout: Duration,
    ) -> Result<Manager, ConnectError> {
        let address = address.into().absolute();
        let call = Call {
            address: &address,
            limit: timeout,
            deadline: Deadline::after(timeout),
        };
        let connection = match call.own(key) {
            Some(own) => own?,
            None => call.connect(key)?,
        };
        Ok(Manager {
            connection,
            key: key.clone(),
            process: None,
            timeout: None,
        })
    }
}

struct Call<'a> {
    address: &'a Address,
    limit: Duration,
    deadline: Deadline,
}

impl Call<'_> {
    /// In a function of that very manager, which lets nobody in meanwhile, and need not: what it
    /// asks of itself is done on the spot.
    fn own(&self, key: &Key) -> Option<Result<Arc<Connection>, ConnectError>> {
        let endpoint = objects::endpoint().filter(|own| own.address == *self.address)?;
        Some(match key.for_proxies(&endpoint.id) == endpoint.key {
            true => Ok(Connection::later_to(&endpoint)),
            false => Err(self.failed(Death::Refused(Refusal::Key))),
        })
    }

    fn connect(&self, key: &Key) -> Result<Arc<Connection>, ConnectError> {
        let socket = self
            .address
            .socket_address()
            .and_then(|address| socket::connect_to(&address, self.deadline))
            .map_err(|error| match error {
                // Its queue was full until the deadline.
                Errno::EAGAIN => self.timeout(),
                error => self.failed(Death::Unreachable(error)),
            })?;
        let challenge = self.challenge(&socket)?;
        let endpoint = Endpoint {
            id: challenge.server,
            name: challenge.name.clone(),
            address: self.address.clone(),
            key: key.for_proxies(&challenge.server),
        };
        let connection = Arc::new(Connection::on(socket, &Arc::new(endpoint)));
        connection
            .begin(&challenge)
            .map_err(|death| self.failed(death))?;
        if connection.attach(self.deadline).is_err() {
            let death = connection.death();
            return Err(death.map_or(self.timeout(), |death| self.failed(death)));
        }
        // Who has a connection already needs no second one, now that the key is known to be right.
        Ok(connection.publish())
    }

    /// The server's first word.
    fn challenge(&self, socket: &OwnedFd) -> Result<Challenge, ConnectError> {
        loop {
            match socket::receive(socket.as_fd()) {
                Ok((packet, _)) if packet.is_empty() => return Err(self.failed(Death::Closed)),
                Ok((packet, _)) => {
                    if let Some(Verdict::Refused(refusal)) = hello::unpack(&packet) {
                        return Err(self.failed(Death::Refused(refusal)));
                    }
                    return hello::unpack(&packet).ok_or_else(|| {
                        let reason = "it does not speak as a manager does".into();
                        self.failed(Death::NotAManager(reason))
                    });
                }
                Err(Errno::EAGAIN) if self.deadline.passed() => return Err(self.timeout()),
                Err(Errno::EAGAIN) => socket::wait(&[socket.as_fd()], self.deadline),
                Err(_) => return Err(self.failed(Death::Closed)),
            }
        }
    }

    fn timeout(&self) -> ConnectError {
        ConnectError::Timeout {
            address: self.address.clone(),
            limit: self.limit,
        }
    }

    fn failed(&self, death: Death) -> ConnectError {
        let address = self.address.clone();
        match death {
            Death::Unreachable(error) => ConnectError::Unreachable { address, error },
            Death::Refused(refusal) => ConnectError::Refused { address, refusal },
            Death::NotAManager(reason) => ConnectError::NotAManager { address, reason },
            Death::Closed | Death::ShutDown | Death::Corrupt => ConnectError::NotAManager {
                address,
                reason: "it hung up".into(),
            },
        }
    }
}
