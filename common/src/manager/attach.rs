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
use std::time::Duration;

/// How far the hello has got.
#[derive(Debug, Clone, Default)]
pub(super) enum Stage {
    #[default]
    Connected,
    /// What the server sent, and what we sent.
    Answered([u8; 32], [u8; 32]),
    Attached,
}

/// Several threads may wait for the same hello; who sleeps looks again after this long whether
/// another has finished it.
const SLICE: Duration = Duration::from_millis(20);

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
        let Some(socket) = self.socket().filter(|_| !self.is_dead()) else {
            return Err(self.disconnected());
        };
        let mut state = self.lock();
        while !matches!(state.stage, Stage::Attached) {
            let (packet, file) = match socket::receive(socket) {
                Ok((packet, file)) if !packet.is_empty() => (packet, file),
                Err(Errno::EAGAIN) => return Ok(false),
                _ => {
                    drop(state);
                    self.die(Death::Closed);
                    return Err(self.disconnected());
                }
            };
            if let Err(death) = self.understand(&mut state, &packet, file) {
                drop(state);
                self.die(death);
                return Err(self.disconnected());
            }
        }
        Ok(true)
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
            Stage::Connected => {
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
                    self.enter(state, number, file.ok_or_else(strange)?)
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
        socket::send(socket, packet, None).map_err(|_| Death::Closed)
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
