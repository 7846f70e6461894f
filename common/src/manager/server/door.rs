//! Where clients come in.

use super::client::Client;
use crate::codec;
use crate::deadline::Deadline;
use crate::manager::address::Address;
use crate::manager::endpoint::Endpoint;
use crate::manager::error::Refusal;
use crate::manager::fork::Private;
use crate::manager::hello::{self, Verdict};
use crate::manager::socket;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the server does not listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::manager) enum NotReady {
    Address(i32),
    Os(i32),
    Initializer(String),
}

/// What the server says to the process that started it.
pub(in crate::manager) type Ready = Result<(), NotReady>;

/// Says it, to whoever listens at `address`.
pub(super) fn report(address: &Address, ready: &Ready) -> Result<(), Errno> {
    let connection = socket::connect_to(&address.socket_address()?, super::deadline_of_reports())?;
    let packet = codec::encode(ready).unwrap_or_default();
    socket::send(connection.as_fd(), &packet, None)
}

/// The listening socket.
pub(super) struct Door {
    listener: Private,
    endpoint: Arc<Endpoint>,
    /// Removed at the end; only if it is still ours.
    file: Option<(u64, u64)>,
    closed_until: Option<Instant>,
}

impl Door {
    pub(super) fn open(endpoint: &Endpoint) -> Result<Door, NotReady> {
        let address = |error: Errno| NotReady::Address(error as i32);
        let listener = listen(&endpoint.address).map_err(address)?;
        let file = match &endpoint.address {
            Address::Path(path) => identity(path),
            Address::Abstract(_) => None,
        };
        Ok(Door {
            listener: Private::new(listener),
            endpoint: Arc::new(endpoint.clone()),
            file,
            closed_until: None,
        })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
    }

    /// The next who connected; `None` if it was sent away.
    pub(super) fn accept(&self, number: u32) -> Result<Option<Client>, Errno> {
        let socket = match socket::accept(self.listener.as_fd()) {
            Err(Errno::ECONNABORTED | Errno::EINTR) => return Ok(None),
            other => other?,
        };
        let Ok(peer) = getsockopt(&socket, sockopt::PeerCredentials) else {
            return Ok(None);
        };
        if peer.uid() != nix::unistd::geteuid().as_raw() {
            let no = hello::pack(&Verdict::Refused(Refusal::User));
            let _ = socket::send(socket.as_fd(), &no, None);
            return Ok(None);
        }
        Ok(Client::greet(socket, peer.pid(), number, &self.endpoint))
    }

    /// Until then nobody is let in: there were no descriptors left.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.closed_until
    }

    pub(super) fn close_for_a_while(&mut self) {
        self.closed_until = Some(Instant::now() + Duration::from_millis(100));
    }

    pub(super) fn open_again(&mut self) {
        self.closed_until = None;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Address::Path(path) = &self.endpoint.address
            && self.file.is_some()
            && self.file == identity(path)
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn listen(address: &Address) -> Result<OwnedFd, Errno> {
    let socket_address = address.socket_address()?;
    match (socket::listen_at(&socket_address), address) {
        (Err(Errno::EADDRINUSE), Address::Path(path)) if is_abandoned(path, address) => {
            fs::remove_file(path)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
            socket::listen_at(&socket_address)
        }
        (listener, _) => listener,
    }
}

/// Removes the socket file of a manager that had no time to do so.
pub(in crate::manager) fn remove_abandoned(address: &Address) {
    if let Address::Path(path) = address
        && is_abandoned(path, address)
    {
        let _ = fs::remove_file(path);
    }
}

/// Whether a killed manager left the socket file: nobody listens to it.
fn is_abandoned(path: &Path, address: &Address) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let connected = address
        .socket_address()
        .and_then(|address| socket::connect_to(&address, Deadline::Now));
    is_socket && connected.err() == Some(Errno::ECONNREFUSED)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}
