//! One client process, as the server sees it.

use super::dispatch::{self, Outcome};
use super::later::{Calls, Wakes};
use crate::manager::address::random;
use crate::manager::channel::{Channel, Consumer, Corrupt, Producer};
use crate::manager::endpoint::Endpoint;
use crate::manager::error::Refusal;
use crate::manager::fork::Private;
use crate::manager::hello::{self, Answer, Build, Challenge, FileDigest, Verdict};
use crate::manager::outbox::Outbox;
use crate::manager::{buffer, objects, socket, sys};
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Client {
    socket: Private,
    /// Tells of the process's end even if a fork of it keeps the socket open.
    process: Option<OwnedFd>,
    number: u32,
    stage: Stage,
    pub(super) holds: Holds,
}

/// The holds of one client process, by object.
#[derive(Default)]
pub(super) struct Holds(pub(super) HashMap<u64, u64>);

enum Stage {
    Challenged {
        nonce: [u8; 32],
        until: Instant,
    },
    AskedForDigest {
        nonce: [u8; 32],
        answer: Answer,
        until: Instant,
    },
    Attached(Box<Attached>),
}

struct Attached {
    channel: Arc<Channel>,
    producer: Producer,
    consumer: Consumer,
    /// Answers that did not fit yet. Meanwhile no request is taken: a client that does not read
    /// its answers waits, and nobody else.
    outbox: Outbox,
    calls: Calls,
}

pub(super) enum Progress {
    None,
    Some,
    Gone,
    Shutdown,
}

/// So long somebody may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests of one client before it is the next one's turn.
const TURN: usize = 32;

impl Client {
    /// Says hello; `None` if the client does not listen.
    pub(super) fn greet(
        socket: OwnedFd,
        pid: i32,
        number: u32,
        endpoint: &Endpoint,
    ) -> Option<Client> {
        let nonce = random();
        let challenge = hello::pack(&Challenge {
            server: endpoint.id,
            name: endpoint.name.chars().take(100).collect(),
            nonce,
        });
        socket::send(socket.as_fd(), &challenge, None).ok()?;
        Some(Client {
            // A client of another pid namespace has no pid here.
            process: sys::pidfd_open(pid),
            socket: Private::new(socket),
            number,
            stage: Stage::Challenged {
                nonce,
                until: Instant::now() + PATIENCE,
            },
            holds: Holds::default(),
        })
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let process = self.process.as_ref().map(AsFd::as_fd);
        [Some(self.socket.as_fd()), process].into_iter().flatten()
    }

    pub(super) fn must_attach_by(&self) -> Option<Instant> {
        match self.stage {
            Stage::Challenged { until, .. } | Stage::AskedForDigest { until, .. } => Some(until),
            Stage::Attached(_) => None,
        }
    }

    /// When it was asked who it is, if it has not said so yet.
    pub(super) fn asked(&self) -> Option<Instant> {
        match self.stage {
            Stage::Challenged { until, .. } => until.checked_sub(PATIENCE),
            _ => None,
        }
    }

    /// Something happened on its socket, or it has ended; false if it is to be removed.
    pub(super) fn hear(&mut self, endpoint: &Endpoint) -> bool {
        if self
            .process
            .as_ref()
            .is_some_and(|fd| sys::is_readable(fd.as_fd()))
        {
            return false;
        }
        if matches!(self.stage, Stage::Attached(_)) {
            return socket::drain(self.socket.as_fd());
        }
        match socket::receive(self.socket.as_fd()) {
            Ok((packet, _)) => self.understand(&packet, endpoint).is_some(),
            Err(error) => error == Errno::EAGAIN,
        }
    }

    /// `None`: send it away.
    fn understand(&mut self, packet: &[u8], endpoint: &Endpoint) -> Option<()> {
        match &self.stage {
            Stage::Attached(_) => None,
            Stage::Challenged { nonce, .. } => {
                let nonce = *nonce;
                let answer: Answer = hello::unpack(packet)?;
                if !hello::check_client(&endpoint.key, &nonce, &answer) {
                    return self.refuse(Refusal::Key);
                }
                if answer.build == Build::current() {
                    return self.welcome(&nonce, &answer, endpoint);
                }
                self.say(&Verdict::Digest, None)?;
                self.stage = Stage::AskedForDigest {
                    nonce,
                    answer,
                    until: Instant::now() + PATIENCE,
                };
                Some(())
            }
            Stage::AskedForDigest { nonce, answer, .. } => {
                let (nonce, answer) = (*nonce, answer.clone());
                let FileDigest(digest) = hello::unpack(packet)?;
                match hello::digest() {
                    Ok(ours) if ours == digest => self.welcome(&nonce, &answer, endpoint),
                    _ => self.refuse(Refusal::Build),
                }
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> Option<()> {
        let _ = self.say(&Verdict::Refused(refusal), None);
        None
    }

    fn say(&self, verdict: &Verdict, file: Option<BorrowedFd<'_>>) -> Option<()> {
        socket::send(self.socket.as_fd(), &hello::pack(verdict), file).ok()
    }

    fn welcome(&mut self, nonce: &[u8; 32], answer: &Answer, endpoint: &Endpoint) -> Option<()> {
        let Ok((channel, file)) = Channel::create() else {
            return self.refuse(Refusal::Full);
        };
        let welcome = Verdict::Welcome {
            proof: hello::servers_proof(&endpoint.key, nonce, &answer.nonce),
            number: self.number,
        };
        self.say(&welcome, Some(file.as_fd()))?;
        self.stage = Stage::Attached(Box::new(Attached::new(channel)));
        Some(())
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Runs the next requests.
    pub(super) fn serve(&mut self, wakes: &Arc<Wakes>) -> Progress {
        let Stage::Attached(attached) = &mut self.stage else {
            return Progress::None;
        };
        if attached.consumer.is_empty() && attached.outbox.is_empty() {
            return Progress::None;
        }
        match attached.serve(self.socket.as_fd(), self.number, &mut self.holds, wakes) {
            Ok(progress) => progress,
            Err(Corrupt) => Progress::Gone,
        }
    }

    /// Answers a call that was begun earlier, if it has come so far; false if the client is to be
    /// removed.
    pub(super) fn go_on(&mut self, call: u64) -> bool {
        let Stage::Attached(attached) = &mut self.stage else {
            return true;
        };
        match attached.calls.poll(call, &mut self.holds) {
            Outcome::Answer(answer) => attached.send(answer, self.socket.as_fd()).is_ok(),
            _ => true,
        }
    }

    /// Whether [`Client::serve`] would get any further.
    pub(super) fn can_go_on(&mut self) -> bool {
        match &mut self.stage {
            Stage::Attached(a) if !a.outbox.is_empty() => a.producer.has_room() != Ok(false),
            Stage::Attached(a) => !a.consumer.is_empty(),
            _ => false,
        }
    }

    pub(super) fn going_to_sleep(&self) {
        if let Stage::Attached(attached) = &self.stage {
            attached.channel.going_to_sleep();
        }
    }

    pub(super) fn is_awake(&self) {
        if let Stage::Attached(attached) = &self.stage {
            attached.channel.is_awake();
        }
    }

    /// The client has ended; what it had said before counts.
    pub(super) fn read_last(&mut self) {
        if let Stage::Attached(attached) = &mut self.stage {
            attached.read_last(self.number, &mut self.holds);
        }
    }

    /// Its holds are over.
    pub(super) fn leave(&mut self) {
        objects::with(|objects| objects.sender_gone(self.number.into()));
        for (object, count) in self.holds.0.drain() {
            objects::release(object, count);
        }
    }
}

impl Attached {
    fn new(channel: Arc<Channel>) -> Attached {
        Attached {
            producer: channel.producer(),
            consumer: channel.consumer(),
            channel,
            outbox: Outbox::default(),
            calls: Calls::default(),
        }
    }

    fn serve(
        &mut self,
        socket: BorrowedFd<'_>,
        number: u32,
        holds: &mut Holds,
        wakes: &Arc<Wakes>,
    ) -> Result<Progress, Corrupt> {
        let mut any = self.flush(socket)?;
        for _ in 0..TURN {
            if !self.outbox.is_empty() {
                break;
            }
            let mut request = buffer::take();
            if !self.consumer.next(&mut request)? {
                buffer::give(request);
                break;
            }
            any = true;
            let mut outcome = dispatch::handle(&request, number, holds);
            buffer::give(request);
            if let Outcome::Later(call, later) = outcome {
                self.calls.add(call, later, number, wakes);
                outcome = self.calls.poll(call, holds);
            }
            match outcome {
                Outcome::Nothing | Outcome::Later(..) => {}
                Outcome::Answer(answer) => self.send(answer, socket)?,
                Outcome::Shutdown => return Ok(Progress::Shutdown),
                Outcome::Nonsense => return Err(Corrupt),
            }
        }
        // It may wait for room in its lane.
        self.wake(socket);
        Ok(
            if any || !self.consumer.is_empty() && self.outbox.is_empty() {
                Progress::Some
            } else {
                Progress::None
            },
        )
    }

    fn send(&mut self, answer: Vec<u8>, socket: BorrowedFd<'_>) -> Result<(), Corrupt> {
        let sent = match self.outbox.is_empty() {
            true => self.producer.push(&answer)?,
            false => 0,
        };
        self.outbox.add(&answer[sent..]);
        buffer::give(answer);
        self.wake(socket);
        Ok(())
    }

    fn wake(&self, socket: BorrowedFd<'_>) {
        if self.channel.must_wake() {
            socket::wake(socket);
        }
    }

    /// Sends on what did not fit before; whether that got any further.
    fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Corrupt> {
        if self.outbox.is_empty() {
            return Ok(false);
        }
        let sent = self.outbox.flush(&mut self.producer)?;
        if sent > 0 {
            self.wake(socket);
        }
        Ok(sent > 0)
    }

    /// The requests that a client made before it ended: its answers are nobody's.
    fn read_last(&mut self, number: u32, holds: &mut Holds) {
        let mut request = Vec::new();
        while let Ok(true) = self.consumer.next(&mut request) {
            if let Outcome::Nonsense = dispatch::handle(&request, number, holds) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::message::{Kind, Message};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    /// An attached client, and its end of the requests' lane.
    fn client() -> (Client, Producer) {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (socket, _) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (channel, file) = Channel::create().unwrap();
        let producer = Channel::open(file.as_fd()).unwrap().producer();
        let attached = Attached::new(channel);
        let client = Client {
            socket: Private::new(socket),
            process: None,
            number: 1,
            stage: Stage::Attached(Box::new(attached)),
            holds: Holds::default(),
        };
        (client, producer)
    }

    #[test]
    fn what_follows_nonsense_is_not_done() {
        let endpoint = Endpoint::of_nobody();
        objects::install(endpoint.into(), Duration::ZERO);
        let object = objects::with(|objects| objects.add(Box::new(1u64), "u64")).unwrap();
        let claim = Message::new(Kind::Claim, 0).u64(object).u64(0).finish();
        let nonsense = Message::new(Kind::Returned, 0).finish();
        let claims = |client: &Client| client.holds.0.get(&object).copied().unwrap_or(0);
        let wakes = Wakes::new().unwrap();

        let (mut broken, mut producer) = client();
        for message in [&claim, &nonsense, &claim] {
            producer.push(message).unwrap();
        }
        assert!(matches!(broken.serve(&wakes), Progress::Gone));
        assert_eq!(claims(&broken), 1);
        broken.leave();
        let Stage::Attached(attached) = &broken.stage else {
            panic!("it was attached");
        };
        assert!(!attached.consumer.is_empty());

        let (mut ended, mut producer) = client();
        producer.push(&claim).unwrap();
        ended.read_last();
        assert_eq!(claims(&ended), 1);
    }
}
