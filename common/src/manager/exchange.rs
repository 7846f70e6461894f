//! Waiting for answers: whoever waits reads everybody's.
//!
//! ```text
//!   thread A: takes the reader, spins, sleeps on the socket -> its own answer: leaves the reader
//!   thread B: waits for `answered` <---- delivered by A        to B (or to a future)
//!   future C: leaves its waker     <---- woken by A
//! ```
//!
//! So a lone caller gets its answer in the time that it takes another core to write it, and no
//! thread stands between. Where futures only wait, one of them (the driver) has the reactor watch
//! the socket for all.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::attach::Stage;
use super::channel::{Consumer, Corrupt};
use super::connection::{Connection, Death, State};
use super::error::CallError;
use super::message::Message;
use super::pending::{Reply, Request};
use super::socket;
use crate::deadline::Deadline;
use std::sync::{MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// A waiting thread looks this often whether somebody still reads.
const SLICE: Duration = Duration::from_millis(200);

impl Connection {
    /// Sends a request and waits for its answer.
    pub(super) fn request(&self, message: Message, deadline: Deadline) -> Result<Reply, CallError> {
        self.attach(deadline)?;
        let mut state = self.lock();
        let number = self.start(&mut state, message);
        self.wait_for(state, number, deadline)
    }

    /// Sends a request.
    pub(super) fn send(&self, message: Message) -> u64 {
        self.start(&mut self.lock(), message)
    }

    fn start(&self, state: &mut State, message: Message) -> u64 {
        let number = state.pending.add();
        let bytes = message.numbered(number).finish();
        self.transmit(state, &bytes);
        super::buffer::give(bytes);
        number
    }

    /// Waits for the answer to a request that was sent.
    pub(super) fn wait(&self, number: u64, deadline: Deadline) -> Result<Reply, CallError> {
        self.attach(deadline)?;
        self.wait_for(self.lock(), number, deadline)
    }

    fn wait_for<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        number: u64,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        let mut looked = false;
        let answer = loop {
            if let Some(reply) = state.pending.take_answer(number) {
                break Ok(reply);
            }
            if self.is_dead() {
                state.pending.remove(number);
                drop(state);
                return Err(self.disconnected());
            }
            // What has arrived by now counts, even if there is no time to wait.
            if deadline.passed() && (looked || state.reader.is_none()) {
                if let Some(request) = state.pending.get(number) {
                    *request = Request::Abandoned;
                }
                break Err(self.timed_out());
            }
            let Some(mut reader) = state.reader.take() else {
                state = self.sleep(state, deadline);
                continue;
            };
            looked = true;
            if state.driver.is_some()
                && let Some(channel) = self.channel.get()
            {
                channel.is_awake();
            }
            drop(state);
            let found = self.read_until(&mut reader, Some(number), deadline);
            state = self.lock();
            state.reader = Some(reader);
            if let Some(reply) = found {
                state.pending.remove(number);
                Connection::granted(&mut state, reply.grants());
                break Ok(reply);
            }
        };
        self.hand_over(state);
        answer
    }

    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Deadline,
    ) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let (mut state, _) = self
            .answered
            .wait_timeout(state, deadline.at_most(SLICE))
            .unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        state
    }

    /// Whoever leaves sees to it that somebody else reads.
    pub(super) fn hand_over(&self, mut state: MutexGuard<'_, State>) {
        // Before the server has let this process in there is none.
        if state.reader.is_none() && matches!(state.stage, Stage::Attached) {
            return;
        }
        if state.sleepers > 0 {
            self.answered.notify_all();
            return;
        }
        let driver = state.driver;
        if let Some((number, waker)) = state.pending.take_waker(driver) {
            // Should it be dropped instead of polled, it hands over in turn.
            state.driver.get_or_insert(number);
            drop(state);
            waker.wake();
        }
    }

    /// Reads and delivers answers until that of `number` comes, which it gives back.
    fn read_until(
        &self,
        reader: &mut Consumer,
        number: Option<u64>,
        deadline: Deadline,
    ) -> Option<Reply> {
        loop {
            match self.read_arrived(reader, number) {
                Ok(None) => {}
                Ok(found) => return found,
                Err(death) => {
                    self.die(death);
                    return None;
                }
            }
            if self.is_dead() || deadline.passed() {
                return None;
            }
            if !self.spin.until(|| !reader.is_empty()) && !self.doze(reader, deadline) {
                return None;
            }
        }
    }

    /// Delivers all that has arrived; stops at the answer of `number`.
    fn read_arrived(
        &self,
        reader: &mut Consumer,
        number: Option<u64>,
    ) -> Result<Option<Reply>, Death> {
        let mut found = None;
        loop {
            let mut message = super::buffer::take();
            match reader.next(&mut message) {
                Ok(true) => {}
                Ok(false) => {
                    super::buffer::give(message);
                    break;
                }
                Err(Corrupt) => return Err(Death::Corrupt),
            }
            let reply = Reply::new(message).ok_or(Death::Corrupt)?;
            if Some(reply.number()) == number {
                found = Some(reply);
                break;
            }
            self.deliver(reply);
        }
        // It may wait for room for what it has to say, and we for room in its lane.
        self.wake_server();
        Ok(found)
    }

    fn deliver(&self, reply: Reply) {
        let mut state = self.lock();
        let number = reply.number();
        let waker = match state.pending.get(number) {
            Some(request @ Request::Waiting(_)) => {
                let before = std::mem::replace(request, Request::Abandoned);
                Connection::granted(&mut state, reply.grants());
                if let Some(request) = state.pending.get(number) {
                    *request = Request::Answered(reply);
                }
                match before {
                    Request::Waiting(waker) => waker,
                    _ => None,
                }
            }
            _ => {
                let grants: Vec<u64> = reply.grants().collect();
                Connection::granted(&mut state, grants.iter().copied());
                self.forget(&mut state, &grants);
                state.pending.remove(number);
                None
            }
        };
        let sleepers = state.sleepers;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        } else if sleepers > 0 {
            self.answered.notify_all();
        }
    }

    /// Sleeps until something happens; false if the server is gone.
    fn doze(&self, reader: &Consumer, deadline: Deadline) -> bool {
        if self.prepare_to_sleep(reader) {
            socket::wait(self.socket().as_slice(), deadline);
        }
        self.wake_up(reader)
    }

    /// From now on the server sends a byte for whatever it does; false if it has done something.
    fn prepare_to_sleep(&self, reader: &Consumer) -> bool {
        let Some(channel) = self.channel.get() else {
            return true;
        };
        self.flush(&mut self.lock());
        channel.going_to_sleep();
        reader.is_empty() && !self.can_flush(&mut self.lock())
    }

    fn wake_up(&self, reader: &Consumer) -> bool {
        if let Some(channel) = self.channel.get() {
            channel.is_awake();
        }
        let alive = self.socket().is_some_and(socket::drain);
        self.flush(&mut self.lock());
        // What it said before it ended counts.
        if !alive && reader.is_empty() {
            self.die(Death::Closed);
            return false;
        }
        true
    }

    /// For futures: delivers what has arrived, waiting for a few microseconds at most. Says
    /// whether this one may now sleep: then it must watch the socket if that is its task.
    pub(super) fn poll(&self, number: u64, waker: &Waker) -> Polled {
        match self.attach_step() {
            Ok(false) => return self.leave_waker(self.lock(), number, waker),
            // Another call may fare better.
            Err(error) if !self.is_dead() => {
                self.abandon(number);
                return Polled::Ready(Err(error));
            }
            _ => {}
        }
        loop {
            let mut state = self.lock();
            if let Some(reply) = state.pending.take_answer(number) {
                self.hand_over(state);
                return Polled::Ready(Ok(reply));
            }
            if self.is_dead() {
                state.pending.remove(number);
                drop(state);
                return Polled::Ready(Err(self.disconnected()));
            }
            let Some(mut reader) = state.reader.take() else {
                // Its owner delivers, and hands over when it leaves; if that is a future which has
                // to go on waiting, it drives from now on.
                state.pending.set_waker(number, waker.clone());
                if state.driver == Some(number) {
                    state.driver = None;
                }
                return Polled::Asleep;
            };
            drop(state);
            let progress = self.poll_reader(&mut reader, number);
            let mut state = self.lock();
            state.reader = Some(reader);
            match progress {
                Ok(Some(reply)) => {
                    state.pending.remove(number);
                    Connection::granted(&mut state, reply.grants());
                    self.hand_over(state);
                    return Polled::Ready(Ok(reply));
                }
                Err(death) => {
                    drop(state);
                    self.die(death);
                }
                Ok(None) => {
                    if !matches!(state.pending.get(number), Some(Request::Waiting(_))) {
                        continue;
                    }
                    let polled = self.leave_waker(state, number, waker);
                    return polled;
                }
            }
        }
    }

    fn poll_reader(&self, reader: &mut Consumer, number: u64) -> Result<Option<Reply>, Death> {
        loop {
            let found = self.read_arrived(reader, Some(number))?;
            if found.is_some() || !self.spin.until(|| !reader.is_empty()) {
                if found.is_none() && !self.prepare_to_sleep(reader) {
                    continue;
                }
                return Ok(found);
            }
        }
    }

    fn leave_waker(&self, mut state: MutexGuard<'_, State>, number: u64, waker: &Waker) -> Polled {
        state.pending.set_waker(number, waker.clone());
        self.offer_reader(&state);
        match state.driver {
            Some(driver) if driver != number => Polled::Asleep,
            _ => {
                state.driver = Some(number);
                Polled::Drive
            }
        }
    }

    /// The reactor says that there is something on the socket.
    pub(super) fn socket_was_ready(&self) {
        if self.channel.get().is_none() {
            return;
        }
        let mut state = self.lock();
        let Some(reader) = state.reader.take() else {
            return;
        };
        drop(state);
        self.wake_up(&reader);
        let mut state = self.lock();
        state.reader = Some(reader);
        self.offer_reader(&state);
    }

    /// Threads that wait while a future had the reader wait with it rather than without.
    fn offer_reader(&self, state: &State) {
        if state.sleepers > 0 && state.reader.is_some() {
            self.answered.notify_all();
        }
    }

    /// The future that watched the socket is done; another that waits takes over.
    pub(super) fn stop_driving(&self, number: u64) {
        let mut state = self.lock();
        if state.driver == Some(number) {
            state.driver = None;
            self.hand_over(state);
        }
    }
}

/// How it stands with a request that a future waits for.
pub(super) enum Polled {
    Ready(Result<Reply, CallError>),
    /// Somebody else will wake it.
    Asleep,
    /// It must have the reactor watch the socket, and then come again.
    Drive,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::channel::Channel;
    use crate::manager::endpoint::Endpoint;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request whose future is polled by hand.
    struct Polling {
        number: u64,
        woken: Arc<Woken>,
    }

    impl Polling {
        fn new(connection: &Connection) -> Polling {
            Polling {
                number: connection.lock().pending.add(),
                woken: Arc::default(),
            }
        }

        fn poll(&self, connection: &Connection) -> Polled {
            connection.poll(self.number, &self.woken.clone().into())
        }

        fn woken(&self) -> u32 {
            self.woken.0.load(Ordering::Relaxed)
        }

        fn drop(&self, connection: &Connection) {
            connection.abandon(self.number);
            connection.stop_driving(self.number);
        }
    }

    /// Connected, to nobody, and not attached yet; and the server's socket.
    fn connection() -> (Connection, OwnedFd) {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let endpoint = Endpoint::of_nobody();
        (Connection::on(ours, &Arc::new(endpoint)), theirs)
    }

    #[test]
    fn a_future_that_finds_the_reader_taken_drives_no_longer() {
        let (connection, _socket) = connection();
        let (_server, file) = Channel::create().unwrap();
        assert!(connection.enter(&mut connection.lock(), 1, file).is_ok());
        let [first, second] = [(); 2].map(|()| Polling::new(&connection));
        assert!(matches!(first.poll(&connection), Polled::Drive));
        // Another thread polls the second, and has the reader meanwhile.
        let reader = connection.lock().reader.take();
        assert!(matches!(first.poll(&connection), Polled::Asleep));
        connection.lock().reader = reader;
        assert!(matches!(second.poll(&connection), Polled::Drive));
        second.drop(&connection);
        assert_eq!(first.woken(), 1);
    }

    #[test]
    fn a_driver_that_is_dropped_hands_over_before_the_server_has_answered() {
        let (connection, _socket) = connection();
        let futures = [(); 3].map(|()| Polling::new(&connection));
        assert!(matches!(futures[0].poll(&connection), Polled::Drive));
        for asleep in &futures[1..] {
            assert!(matches!(asleep.poll(&connection), Polled::Asleep));
        }
        futures[0].drop(&connection);
        assert_eq!(futures[1].woken(), 1);
        // It is dropped instead of polled.
        futures[1].drop(&connection);
        assert_eq!(futures[2].woken(), 1);
        assert!(matches!(futures[2].poll(&connection), Polled::Drive));
    }
}
