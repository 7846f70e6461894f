//! The client's side of the hello: see [`hello`](super::hello).
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::channel::Channel;
use super::connection::{Connection, Death, State};
use super::error::CallError;
use super::hello::{self, Answer, Build, Challenge, FileDigest, Verdict};
use super::socket;
use crate::deadline::Deadline;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How far the hello has got.
#[derive(Debug, Clone, Default)]
pub(super) enum Stage {
    /// Connected, or about to be: nothing was heard of the server.
    #[default]
    Outside,
    /// What the server sent, and what we sent.
    Answered([u8; 32], [u8; 32]),
    Attached,
}

/// Several threads may wait for the same hello; who sleeps looks again after this long whether
/// another has finished it.
const SLICE: Duration = Duration::from_millis(20);

/// A server hangs up on who is too busy to answer it, but not so soon: such a process comes again.
const SOON: Duration = Duration::from_millis(100);
/// Who hangs up at once more often than this wants nothing of us, or has ended.
const HANG_UPS: u32 = 3;
/// So long a look at the queue of a server takes in which there is no room.
const MOMENT: Duration = Duration::from_millis(1);

impl Connection {
    /// Waits until the server has let this process in.
    pub(super) fn attach(&self, deadline: Deadline) -> Result<(), CallError> {
        while self.channel.get().is_none() {
            if self.attach_step()? {
                // A future may watch the socket for what has just been read from it.
                self.hand_over(self.lock());
                break;
            }
            if deadline.passed() {
                return Err(self.timed_out());
            }
            let slice = Deadline::after(deadline.at_most(SLICE));
            socket::wait(self.socket().as_slice(), slice);
        }
        Ok(())
    }

    /// Goes on with the hello as far as possible without waiting; true when it is done.
    pub(super) fn attach_step(&self) -> Result<bool, CallError> {
        if self.is_dead() {
            return Err(self.disconnected());
        }
        let gone_on = self.go_on(&mut self.lock());
        gone_on.map_err(|death| match self.reconnects && death.is_temporary() {
            // The next call tries again.
            true => self.disconnected_by(&death),
            false => {
                self.die(death);
                self.disconnected()
            }
        })
    }

    fn go_on(&self, state: &mut State) -> Result<bool, Death> {
        while !matches!(state.stage, Stage::Attached) {
            let Some(socket) = self.socket() else {
                match self.connect(state)? {
                    true => continue,
                    false => return Ok(false),
                }
            };
            let heard = match socket::receive(socket.as_fd()) {
                Ok((packet, file)) if !packet.is_empty() => self.understand(state, &packet, file),
                Err(Errno::EAGAIN) => return Ok(false),
                _ => Err(Death::Closed),
            };
            if let Err(death) = heard {
                self.start_over(state, death)?;
            }
        }
        Ok(true)
    }

    /// False if the server's queue is full for now.
    fn connect(&self, state: &mut State) -> Result<bool, Death> {
        let address = self.endpoint.address.socket_address();
        let moment = Deadline::after(MOMENT);
        let socket = match address.and_then(|address| socket::connect_to(&address, moment)) {
            Ok(socket) => socket,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) if state.connected.is_some() => {
                return Err(Death::Closed);
            }
            Err(error) => return Err(Death::Unreachable(error)),
        };
        state.connected = Some(Instant::now());
        state.sent_away = None;
        self.set_socket(Some(socket));
        Ok(true)
    }

    /// The server may have hung up only because this process was too busy to answer it. Nothing is
    /// lost with the socket: what there is to say is said when this process has been let in.
    fn start_over(&self, state: &mut State, death: Death) -> Result<(), Death> {
        if !self.reconnects || !(death == Death::Closed || death.is_temporary()) {
            return Err(death);
        }
        self.set_socket(None);
        state.stage = Stage::Outside;
        if death.is_temporary() {
            return Err(death);
        }
        let soon = state.connected.is_some_and(|at| at.elapsed() < SOON);
        state.hang_ups = if soon { state.hang_ups + 1 } else { 0 };
        match state.hang_ups > HANG_UPS {
            true => Err(death),
            false => Ok(()),
        }
    }

    fn understand(
        &self,
        state: &mut State,
        packet: &[u8],
        file: Option<OwnedFd>,
    ) -> Result<(), Death> {
        let strange = || Death::NotAManager("it does not speak as a manager does".into());
        match state.stage {
            Stage::Attached => Ok(()),
            Stage::Outside => {
                if let Some(Verdict::Refused(refusal)) = hello::unpack(packet) {
                    return Err(Death::Refused(refusal));
                }
                let challenge: Challenge = hello::unpack(packet).ok_or_else(strange)?;
                self.answer(state, &challenge)
            }
            Stage::Answered(theirs, ours) => match hello::unpack(packet).ok_or_else(strange)? {
                Verdict::Refused(refusal) => Err(Death::Refused(refusal)),
                Verdict::Digest => {
                    let digest = hello::digest().map_err(|error| {
                        Death::NotAManager(format!("this executable cannot be read: {error}"))
                    })?;
                    self.say(&hello::pack(&FileDigest(digest)))
                }
                Verdict::Welcome { proof, number } => {
                    if !hello::check_server(&self.endpoint.key, &theirs, &ours, &proof) {
                        let reason = "it does not know the key".into();
                        return Err(Death::NotAManager(reason));
                    }
                    // The kernel leaves it out where there is no descriptor left for it.
                    let file = file.ok_or(Death::Unreachable(Errno::EMFILE))?;
                    self.enter(state, number, file)
                }
            },
        }
    }

    /// The hello, where somebody else has read the challenge.
    pub(super) fn begin(&self, challenge: &Challenge) -> Result<(), Death> {
        self.answer(&mut self.lock(), challenge)
    }

    fn answer(&self, state: &mut State, challenge: &Challenge) -> Result<(), Death> {
        if challenge.server != self.endpoint.id {
            return Err(Death::NotAManager(format!(
                "another manager, {}, listens there now",
                challenge.name
            )));
        }
        let mut answer = Answer {
            nonce: super::address::random(),
            build: Build::current(),
            proof: [0; 32],
        };
        answer.proof = hello::clients_proof(&self.endpoint.key, &challenge.nonce, &answer);
        state.stage = Stage::Answered(challenge.nonce, answer.nonce);
        self.say(&hello::pack(&answer))
    }

    fn say(&self, packet: &[u8]) -> Result<(), Death> {
        let socket = self.socket().ok_or(Death::Closed)?;
        socket::send(socket.as_fd(), packet, None).map_err(|_| Death::Closed)
    }

    pub(super) fn enter(&self, state: &mut State, number: u32, file: OwnedFd) -> Result<(), Death> {
        let channel = Channel::open(file.as_fd())
            .map_err(|error| Death::NotAManager(format!("its memory cannot be mapped: {error}")))?;
        state.number = number;
        state.producer = Some(channel.producer());
        state.reader = Some(channel.consumer());
        state.stage = Stage::Attached;
        let _ = self.channel.set(channel);
        self.flush(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::address::{Address, random};
    use crate::manager::endpoint::Endpoint;
    use nix::sys::socket::{Backlog, UnixAddr, listen};
    use std::sync::Arc;

    /// Of a server that has room for one in its queue, and its listener.
    fn server() -> (Arc<Endpoint>, UnixAddr, OwnedFd) {
        let endpoint = Endpoint {
            id: random(),
            address: Address::unique(),
            ..Endpoint::of_nobody()
        };
        let address = endpoint.address.socket_address().unwrap();
        let listener = socket::listen_at(&address).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        (Arc::new(endpoint), address, listener)
    }

    fn waits(connection: &Connection) -> bool {
        matches!(
            connection.attach(Deadline::Now),
            Err(CallError::Timeout { .. })
        )
    }

    #[test]
    fn who_finds_the_queue_full_comes_in_later() {
        let (endpoint, address, listener) = server();
        let other = socket::connect_to(&address, Deadline::Now).unwrap();
        let connection = Connection::to(&endpoint, Deadline::Now);
        assert!(waits(&connection) && connection.socket().is_none());
        socket::accept(listener.as_fd()).unwrap();
        drop(other);
        assert!(waits(&connection) && connection.socket().is_some());
        socket::accept(listener.as_fd()).unwrap();
    }

    #[test]
    fn who_was_sent_away_connects_again() {
        let (endpoint, _, listener) = server();
        let connection = Connection::to(&endpoint, Deadline::Now);
        assert!(waits(&connection));
        for _ in 0..HANG_UPS {
            drop(socket::accept(listener.as_fd()).unwrap());
            assert!(waits(&connection));
        }
        // But not for ever, unless it takes so long that nobody is kept busy by it.
        while !connection.is_dead() {
            drop(socket::accept(listener.as_fd()).unwrap());
            let _ = connection.attach(Deadline::Now);
        }
    }

    #[test]
    fn who_was_sent_away_by_a_server_that_ends_is_told() {
        let (endpoint, _, listener) = server();
        let connection = Connection::to(&endpoint, Deadline::Now);
        assert!(waits(&connection));
        drop(listener);
        let error = connection.attach(Deadline::Never).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        assert!(connection.is_dead());
    }
}
