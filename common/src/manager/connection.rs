//! A process's connection to a manager: one, shared by all its threads and proxies.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::attach::Stage;
use super::channel::{Channel, Consumer, Producer};
use super::endpoint::Endpoint;
use super::error::{CallError, Refusal, unreachable};
use super::message::{Kind, Message};
use super::outbox::Outbox;
use super::pending::Pending;
use super::spin::Spin;
use super::{fork, socket};
use crate::deadline::Deadline;
use crate::panic;
use crate::reactor::Watch;
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

pub(super) struct Connection {
    pub(super) endpoint: Arc<Endpoint>,
    /// There may be none yet. Until the server has let this process in, another may follow.
    socket: Mutex<Option<Arc<OwnedFd>>>,
    /// Whether it may connect by itself, again if need be.
    pub(super) reconnects: bool,
    /// Which process it belongs to; see [`fork`].
    generation: u32,
    /// There once the server has let this process in.
    pub(super) channel: OnceLock<Arc<Channel>>,
    dead: AtomicBool,
    pub(super) state: Mutex<State>,
    /// An answer arrived, or somebody else must read them.
    pub(super) answered: Condvar,
    pub(super) spin: Spin,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// When it connected by itself for the last time.
    pub(super) connected: Option<Instant>,
    /// How often the other side hung up at once since then.
    pub(super) hang_ups: u32,
    /// Why this process was not let in for now, which the reactor has heard: for a future.
    pub(super) sent_away: Option<CallError>,
    pub(super) producer: Option<Producer>,
    /// Whoever waits for an answer takes this, and reads everybody's answers.
    pub(super) reader: Option<Consumer>,
    /// What did not fit in the channel yet.
    outbox: Outbox,
    pub(super) pending: Pending,
    held: HashMap<u64, Held>,
    /// The connection's number at the server.
    pub(super) number: u32,
    tickets: u32,
    /// Threads that wait for `answered`.
    pub(super) sleepers: usize,
    /// There while futures wait.
    pub(super) watch: Option<Watch>,
    /// Whether the server sends a byte for what it does next, or has sent one that the reactor
    /// has not heard of yet.
    pub(super) armed: bool,
    death: Option<Death>,
}

/// An object that this process holds.
#[derive(Default)]
struct Held {
    /// Handles here.
    handles: u64,
    /// Holds that the server counts for us.
    granted: u64,
    /// One of each is for what this process inherited when it was forked.
    inherited: bool,
}

/// Why a connection works no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Death {
    Closed,
    ShutDown,
    Corrupt,
    Refused(Refusal),
    NotAManager(String),
    Unreachable(Errno),
}

impl Death {
    fn reason(&self) -> String {
        match self {
            Death::Closed => "its process has ended".into(),
            Death::ShutDown => "it was shut down".into(),
            Death::Corrupt => "what it sent is not understood".into(),
            Death::Refused(refusal) => format!("it refused the connection: {refusal}"),
            Death::NotAManager(reason) => reason.clone(),
            Death::Unreachable(error) => {
                format!("{} its address: {error}", unreachable(*error))
            }
        }
    }

    /// Whether it may work yet when this process, or the manager's, has descriptors and memory
    /// again.
    pub(super) fn is_temporary(&self) -> bool {
        use Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        matches!(
            self,
            Death::Unreachable(EMFILE | ENFILE | ENOBUFS | ENOMEM) | Death::Refused(Refusal::Full)
        )
    }
}

static CONNECTIONS: Mutex<Vec<Arc<Connection>>> = Mutex::new(Vec::new());

/// How long the making of a proxy waits for a server that is busy with a long call; after that
/// the first call on the proxy waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// That, for a call that must be over by `deadline`.
fn patience(deadline: Deadline) -> Deadline {
    Deadline::after(deadline.at_most(PATIENCE))
}

impl Connection {
    /// This process's connection to a manager. It may still have to be attached, and it may be
    /// dead: then every call on it says so.
    pub(super) fn to(endpoint: &Arc<Endpoint>, deadline: Deadline) -> Arc<Connection> {
        let all = lock(&CONNECTIONS);
        let mut living = all.iter().filter(|c| c.is_ours() && !c.is_dead());
        if let Some(found) = living.find(|c| c.endpoint.id == endpoint.id) {
            return found.clone();
        }
        drop(all);
        let connection = Connection::later_to(endpoint);
        // If it takes longer, the first call goes on from there.
        let _ = connection.attach(patience(deadline));
        connection
    }

    /// The same, but nothing is asked of the server yet.
    pub(super) fn later_to(endpoint: &Arc<Endpoint>) -> Arc<Connection> {
        Arc::new(Connection::with(None, endpoint)).publish()
    }

    /// One on a socket that is connected to the server, to be attached.
    pub(super) fn on(socket: OwnedFd, endpoint: &Arc<Endpoint>) -> Connection {
        Connection::with(Some(socket), endpoint)
    }

    fn with(socket: Option<OwnedFd>, endpoint: &Arc<Endpoint>) -> Connection {
        Connection {
            endpoint: endpoint.clone(),
            reconnects: socket.is_none(),
            socket: Mutex::new(socket.map(Arc::new)),
            generation: fork::generation(),
            channel: OnceLock::new(),
            dead: AtomicBool::new(false),
            state: Mutex::new(State::default()),
            answered: Condvar::new(),
            spin: Spin::new(),
        }
    }

    /// Makes it the one that [`Connection::to`] finds, and gives that: another one, if there was
    /// one already.
    pub(super) fn publish(self: Arc<Self>) -> Arc<Self> {
        let mut all = lock(&CONNECTIONS);
        all.retain(|other| other.is_ours() && !other.is_dead() && !other.is_left());
        if let Some(found) = all.iter().find(|c| c.endpoint.id == self.endpoint.id) {
            return found.clone();
        }
        all.push(self.clone());
        self
    }

    /// Whether nobody uses it and its manager has ended, which nobody would ever notice.
    fn is_left(self: &Arc<Self>) -> bool {
        // The list's.
        let unused = Arc::strong_count(self) == 1 && self.channel.get().is_some();
        unused && self.socket().is_none_or(socket::is_hung_up)
    }

    /// The manager that was connected to by hand is dropped. If nothing else uses the connection
    /// it is closed; but with it would end the tickets of this process, which lives.
    pub(super) fn unpublish_if_unused(self: &Arc<Self>) {
        if self.lock().tickets > 0 {
            return;
        }
        let mut all = lock(&CONNECTIONS);
        // The list's, and the caller's.
        if Arc::strong_count(self) <= 2 {
            all.retain(|other| !Arc::ptr_eq(self, other));
        }
    }

    /// Whether it was made by this process, rather than by the one that this one was forked from.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(super) fn socket(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.socket).clone()
    }

    pub(super) fn set_socket(&self, socket: Option<OwnedFd>) {
        *lock(&self.socket) = socket.map(Arc::new);
    }

    /// Wakes the server, should it sleep: something was put in the channel, or taken out.
    pub(super) fn wake_server(&self) {
        if let Some(channel) = self.channel.get()
            && channel.must_wake()
            && let Some(socket) = self.socket()
        {
            socket::wake(socket.as_fd());
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Nothing works any more; whoever waits is told.
    pub(super) fn die(&self, death: Death) {
        let wakers = {
            let mut state = self.lock();
            // The manager that is shut down hangs up first.
            if death == Death::ShutDown || state.death.is_none() {
                state.death = Some(death);
            }
            state.outbox = Outbox::default();
            // Proxies may keep this for long, but descriptors are few.
            state.watch = None;
            self.set_socket(None);
            self.dead.store(true, Ordering::Release);
            state.pending.take_wakers()
        };
        self.answered.notify_all();
        wakers.into_iter().for_each(wake);
        let mut all = lock(&CONNECTIONS);
        all.retain(|other| !std::ptr::eq(&**other, self));
    }

    pub(super) fn death(&self) -> Option<Death> {
        self.lock().death.clone()
    }

    pub(super) fn disconnected(&self) -> CallError {
        self.disconnected_by(&self.death().unwrap_or(Death::Closed))
    }

    pub(super) fn disconnected_by(&self, death: &Death) -> CallError {
        CallError::Disconnected {
            manager: self.endpoint.name.clone(),
            reason: death.reason(),
        }
    }

    pub(super) fn timed_out(&self) -> CallError {
        CallError::Timeout {
            manager: self.endpoint.name.clone(),
        }
    }

    /// Sends a message, after all that were sent before; keeps what does not fit yet.
    pub(super) fn transmit(&self, state: &mut State, message: &[u8]) {
        if self.is_dead() {
            return;
        }
        let sent = match (&mut state.producer, state.outbox.is_empty()) {
            (Some(producer), true) => producer.push(message),
            _ => Ok(0),
        };
        // A server that breaks the lane is noticed by whoever reads its answers.
        let sent = sent.unwrap_or(0);
        state.outbox.add(&message[sent..]);
        self.wake_server();
    }

    /// Sends what did not fit before.
    pub(super) fn flush(&self, state: &mut State) {
        let Some(producer) = &mut state.producer else {
            return;
        };
        // A server that breaks the lane is noticed by whoever reads its answers.
        let _ = state.outbox.flush(producer);
        self.wake_server();
    }

    /// Whether something waits to be sent and could be.
    pub(super) fn can_flush(&self, state: &mut State) -> bool {
        let producer = state.producer.as_mut();
        !state.outbox.is_empty()
            && producer.is_some_and(|producer| producer.has_room().unwrap_or(false))
    }

    fn tell(&self, state: &mut State, kind: Kind, object: u64, number: u64) {
        let message = Message::new(kind, 0).u64(object).u64(number).finish();
        self.transmit(state, &message);
    }

    /// One handle more in this process, made from a proxy that arrived with this ticket.
    pub(super) fn claim(&self, object: u64, ticket: u64) {
        self.claim_in(&mut self.lock(), object, ticket);
    }

    fn claim_in(&self, state: &mut State, object: u64, ticket: u64) {
        let held = state.held.entry(object).or_default();
        held.handles += 1;
        held.granted += 1;
        self.tell(state, Kind::Claim, object, ticket);
    }

    /// One handle more, if this process has one already.
    pub(super) fn hold(&self, object: u64) -> bool {
        let mut state = self.lock();
        let held = state.held.get_mut(&object);
        held.map(|held| held.handles += 1).is_some()
    }

    /// After a fork: the child holds what its parent's proxies stand for, for good.
    pub(super) fn inherit(&self, object: u64) {
        let mut state = self.lock();
        let held = state.held.entry(object).or_default();
        if !std::mem::replace(&mut held.inherited, true) {
            self.claim_in(&mut state, object, 0);
        }
    }

    /// A ticket for a proxy of this process that is about to be sent to anybody.
    pub(super) fn new_ticket(&self, deadline: Deadline) -> u64 {
        // The number that makes tickets unique comes with the server's welcome. A server that is
        // too busy to say it for so long is given a number that is very probably nobody's.
        let _ = self.attach(patience(deadline));
        let mut state = self.lock();
        match state.number {
            0 => u64::from_le_bytes(super::address::random()),
            number => {
                state.tickets = state.tickets.wrapping_add(1);
                u64::from(number) << 32 | u64::from(state.tickets)
            }
        }
    }

    /// From now on the ticket holds the object, once more if it does so already.
    pub(super) fn depart(&self, object: u64, ticket: u64) {
        self.tell(&mut self.lock(), Kind::Ticket, object, ticket);
    }

    /// A ticket that nobody will use holds the object no more.
    pub(super) fn take_back(&self, object: u64, ticket: u64) {
        let mut state = self.lock();
        self.claim_in(&mut state, object, ticket);
        self.release_in(&mut state, object);
    }

    /// The server says that this process holds these objects, because their proxies are in an
    /// answer. Each is held until [`Connection::release`].
    pub(super) fn granted(state: &mut State, objects: impl Iterator<Item = u64>) {
        for object in objects {
            let held = state.held.entry(object).or_default();
            held.handles += 1;
            held.granted += 1;
        }
    }

    /// A handle is gone.
    pub(super) fn release(&self, object: u64) {
        self.release_in(&mut self.lock(), object);
    }

    pub(super) fn release_in(&self, state: &mut State, object: u64) {
        let Some(held) = state.held.get_mut(&object) else {
            return;
        };
        held.handles -= 1;
        if held.handles == 0 {
            let granted = held.granted;
            state.held.remove(&object);
            self.tell(state, Kind::Release, object, granted);
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn abandon(&self, number: u64) {
        let mut state = self.lock();
        let gone = match state.pending.take_answer(number) {
            Some(reply) => {
                self.forget(&mut state, &reply.grants().collect::<Vec<_>>());
                None
            }
            // No answer will come that its place would have to be kept for.
            None if self.is_dead() => state.pending.remove(number),
            None => state.pending.abandon(number),
        };
        drop(state);
        // To drop a waker may be to drop its task, and other calls with it, which come here.
        drop(gone);
    }

    /// An answer that nobody decodes: what it grants is given back.
    pub(super) fn forget(&self, state: &mut State, grants: &[u64]) {
        for &object in grants {
            self.release_in(state, object);
        }
    }
}

/// A waker is foreign code: should it panic, the others are woken all the same.
pub(super) fn wake(waker: Waker) {
    // The panic has been printed.
    let _ = panic::catch(|| waker.wake());
}

/// What these mutexes guard is changed in one step, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
