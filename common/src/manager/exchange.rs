//! Waiting for answers: whoever waits reads everybody's.
//!
//! ```text
//!   thread A: takes the reader, spins, sleeps on the socket -> its own answer: leaves the reader
//!   thread B: waits for `answered` <---- delivered by A        to B (or to a future)
//!   future C: leaves its waker     <---- woken by A
//! ```
//!
//! So a lone caller gets its answer in the time that it takes another core to write it, and no
//! thread stands between. Where only futures wait, the reactor's thread reads for all of them: none
//! of them can, because each may be left unpolled for as long as its owner likes.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::channel::{Consumer, Corrupt};
use super::connection::{Connection, Death, State, wake};
use super::error::CallError;
use super::message::Message;
use super::pending::{Reply, Request};
use super::socket;
use crate::deadline::Deadline;
use crate::departures::Departures;
use crate::reactor::{self, Watch};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A waiting thread looks this often whether somebody still reads.
const SLICE: Duration = Duration::from_millis(200);

impl Connection {
    /// Sends a request and waits for its answer.
    pub(super) fn request(&self, message: Message, deadline: Deadline) -> Result<Reply, CallError> {
        self.attach(deadline)?;
        let mut state = self.lock();
        let (number, _departures) = self.start(&mut state, message);
        self.wait_for(state, number, deadline)
    }

    /// Sends a request.
    pub(super) fn send(&self, message: Message) -> u64 {
        let (number, _departures) = self.start(&mut self.lock(), message);
        number
    }

    /// What it counts is to be dropped with no lock held: to take it back may need one.
    fn start(&self, state: &mut State, mut message: Message) -> (u64, Departures) {
        let number = state.pending.add();
        let mut departures = std::mem::take(&mut message.departures);
        let bytes = message.numbered(number).finish();
        // What a dead connection is given goes nowhere. What waits for room may arrive.
        if !self.is_dead() {
            departures.away();
        }
        self.transmit(state, &bytes);
        super::buffer::give(bytes);
        (number, departures)
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
        // What is left of the request, a future's waker perhaps, is dropped with no lock held.
        let (answer, _gone) = loop {
            if let Some(reply) = state.pending.take_answer(number) {
                break (Ok(reply), None);
            }
            if self.is_dead() {
                let _gone = state.pending.remove(number);
                drop(state);
                return Err(self.disconnected());
            }
            // What has arrived by now counts, even if there is no time to wait.
            if deadline.passed() && (looked || state.reader.is_none()) {
                break (Err(self.timed_out()), state.pending.abandon(number));
            }
            let Some(mut reader) = state.reader.take() else {
                state = self.sleep(state, deadline);
                continue;
            };
            looked = true;
            if std::mem::take(&mut state.armed)
                && let Some(channel) = self.channel.get()
            {
                channel.is_awake();
            }
            drop(state);
            let found = self.read_until(&mut reader, Some(number), deadline);
            state = self.lock();
            state.reader = Some(reader);
            if let Some(reply) = found {
                let gone = state.pending.remove(number);
                Connection::granted(&mut state, reply.grants());
                break (Ok(reply), gone);
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

    /// Whoever leaves sees to it that somebody else reads: a thread that waits, or the reactor.
    pub(super) fn hand_over<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        // Before the server has let this process in there is no reader; and whoever has it hands
        // over in turn.
        if state.reader.is_none() {
            return;
        }
        if state.sleepers > 0 {
            self.answered.notify_all();
        } else if !state.armed && state.pending.any_waker() {
            self.arm(state);
        }
    }

    /// Delivers what has arrived, and has the server send a byte for what it does next: that calls
    /// the reactor.
    fn arm<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        while let Some(mut reader) = state.reader.take() {
            state.armed = true;
            drop(state);
            let caught_up = self.catch_up(&mut reader);
            state = self.lock();
            state.reader = Some(reader);
            if let Err(death) = caught_up {
                drop(state);
                return self.die(death);
            }
            if state.sleepers > 0 {
                self.answered.notify_all();
                return;
            }
            // Otherwise the reactor came meanwhile and found no reader.
            if state.armed {
                return;
            }
        }
    }

    /// Delivers until nothing is left to do but to wait for the server's byte.
    fn catch_up(&self, reader: &mut Consumer) -> Result<(), Death> {
        loop {
            // In this order: what the server said before it ended counts.
            let alive = self.socket().is_some_and(socket::drain);
            self.read_arrived(reader, None)?;
            if !alive {
                return Err(Death::Closed);
            }
            if self.prepare_to_sleep(reader) {
                return Ok(());
            }
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
            wake(waker);
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

    /// For futures: delivers what has arrived, waiting for a few microseconds at most. Wakes this
    /// one later if its answer is not among it, whether or not any other is polled meanwhile.
    pub(super) fn poll(
        self: &Arc<Self>,
        number: u64,
        waker: &Waker,
    ) -> Poll<Result<Reply, CallError>> {
        if let Err(error) = self.go_on_with_hello()
            && !self.is_dead()
        {
            // Another call may fare better.
            self.abandon(number);
            return Poll::Ready(Err(error));
        }
        loop {
            let mut state = self.lock();
            if let Some(reply) = state.pending.take_answer(number) {
                self.hand_over(state);
                return Poll::Ready(Ok(reply));
            }
            if self.is_dead() {
                let _gone = state.pending.remove(number);
                drop(state);
                return Poll::Ready(Err(self.disconnected()));
            }
            let Some(mut reader) = state.reader.take() else {
                // Its owner delivers, or the server has yet to let this process in.
                self.leave_waker(state, number, waker);
                return Poll::Pending;
            };
            drop(state);
            let progress = self.poll_reader(&mut reader, number);
            let mut state = self.lock();
            state.reader = Some(reader);
            match progress {
                Ok(Some(reply)) => {
                    let _gone = state.pending.remove(number);
                    Connection::granted(&mut state, reply.grants());
                    self.hand_over(state);
                    return Poll::Ready(Ok(reply));
                }
                Err(death) => {
                    drop(state);
                    self.die(death);
                }
                Ok(None) => {
                    self.leave_waker(state, number, waker);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Gives also the error that the reactor has heard.
    fn go_on_with_hello(&self) -> Result<bool, CallError> {
        if self.channel.get().is_some() {
            return self.attach_step();
        }
        let heard = self.lock().sent_away.take();
        heard.map_or_else(|| self.attach_step(), Err)
    }

    fn poll_reader(&self, reader: &mut Consumer, number: u64) -> Result<Option<Reply>, Death> {
        loop {
            let found = self.read_arrived(reader, Some(number))?;
            if found.is_some() || !self.spin.until(|| !reader.is_empty()) {
                return Ok(found);
            }
        }
    }

    fn leave_waker(self: &Arc<Self>, mut state: MutexGuard<'_, State>, number: u64, waker: &Waker) {
        let _before = state.pending.set_waker(number, waker);
        self.flush(&mut state);
        if state.watch.is_none() {
            state.watch = self.watch().ok();
        }
        // Where no descriptor or thread is left it asks again and again: busy, but right. And it
        // may have died since it was asked, and woken those who waited then.
        let again = state.watch.is_none() || self.is_dead();
        self.hand_over(state);
        if again {
            waker.wake_by_ref();
        }
    }

    /// Has the reactor watch the socket, for as long as futures wait.
    fn watch(self: &Arc<Self>) -> io::Result<Watch> {
        let socket = self.socket().ok_or(io::ErrorKind::NotConnected)?;
        let (connection, watched) = (Arc::downgrade(self), Arc::downgrade(&socket));
        reactor::watch(socket.try_clone()?, move || {
            let connection = connection.upgrade();
            connection.is_some_and(|connection| connection.socket_was_ready(&watched))
        })
    }

    /// The reactor says that there is something on the socket. False if it need not look again.
    fn socket_was_ready(&self, watched: &Weak<OwnedFd>) -> bool {
        let attached = self.attach_step();
        if let Err(error) = &attached {
            self.lock().sent_away = Some(error.clone());
        }
        let socket = self.socket();
        if socket.is_none_or(|socket| Arc::as_ptr(&socket) != watched.as_ptr()) {
            // The server hung up, and this process has connected again, or will.
            self.stop_watching();
            return false;
        }
        match attached {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
        let mut state = self.lock();
        // Should somebody have the reader, they find this when they put it back.
        state.armed = false;
        if !state.pending.any_waker() {
            state.watch = None;
            return false;
        }
        self.arm(state);
        !self.is_dead()
    }

    /// All futures look for themselves, and begin another watch.
    fn stop_watching(&self) {
        let mut state = self.lock();
        state.watch = None;
        state.armed = false;
        let wakers = state.pending.take_wakers();
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}

#[cfg(test)]
mod tests;
