//! The manager's own process: one thread that lets clients in and runs their functions, one at a
//! time.
//!
//! ```text
//!   loop:  each client's lane -> run -> its answer     (hot: no system call at all)
//!          calls begun earlier whose answer has come   (later.rs)
//!          now and then, and before sleeping: new clients, hellos, hang-ups   (epoll)
//! ```
//!
//! To copy: the folder manager/ and what its mod.rs names.

mod client;
mod dispatch;
mod door;
mod later;

use super::builder::Start;
use super::objects;
use super::spin::Spin;
use crate::deadline::Deadline;
use client::{Client, Progress};
use door::Door;
use later::Wakes;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use dispatch::with_values;
pub(super) use door::{NotReady, Ready, remove_abandoned};

/// The function of the manager's process.
pub(super) fn serve(start: Start) {
    super::sys::ignore_interrupt();
    let ready = start.ready.clone();
    let server = Server::new(start);
    let (report, server) = match server {
        Ok(server) => (Ok(()), Some(server)),
        Err(error) => (Err(error), None),
    };
    // If the parent does not listen any more, it has ended, and this process is about to.
    if door::report(&ready, &report).is_err() {
        return;
    }
    if let Some(mut server) = server {
        server.run();
        objects::drop_all();
    }
}

struct Server {
    door: Door,
    epoll: Epoll,
    /// By place; the place is what epoll tells.
    clients: Vec<Option<Client>>,
    spin: Spin,
    connected: u32,
    wakes: Arc<Wakes>,
}

/// What epoll tells of the listener.
const LISTENER: u64 = u64::MAX;
/// What epoll tells of calls that can be answered now.
const WAKES: u64 = u64::MAX - 1;
/// Rounds over all lanes between two looks at the sockets, while there is always something to do.
const ROUNDS: u32 = 256;

impl Server {
    fn new(start: Start) -> Result<Server, NotReady> {
        start.initialise()?;
        let os = |error: Errno| NotReady::Os(error as i32);
        objects::install(start.endpoint.clone().into(), start.grace);
        super::names::install();
        let door = Door::open(&start.endpoint)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os)?;
        let listener = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        epoll.add(door.listener(), listener).map_err(os)?;
        let wakes = Wakes::new().map_err(os)?;
        let woken = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKES);
        epoll.add(wakes.event(), woken).map_err(os)?;
        objects::set_waker(wakes.waker());
        Ok(Server {
            door,
            epoll,
            clients: Vec::new(),
            spin: Spin::new(),
            connected: 0,
            wakes,
        })
    }

    fn run(&mut self) {
        let mut rounds = 0;
        loop {
            let progress = match self.serve_all() {
                Some(progress) => progress,
                None => return,
            };
            rounds += 1;
            if progress && rounds < ROUNDS {
                continue;
            }
            if !progress && self.something_soon() {
                continue;
            }
            rounds = 0;
            self.look_at_sockets(!progress);
            self.housekeeping();
        }
    }

    /// One round over all clients; whether there was anything, `None` if one asked for the end.
    fn serve_all(&mut self) -> Option<bool> {
        let mut any = self.answer_begun();
        for place in 0..self.clients.len() {
            let Some(client) = &mut self.clients[place] else {
                continue;
            };
            match client.serve(&self.wakes) {
                Progress::None => {}
                Progress::Some => any = true,
                Progress::Gone => self.remove(place),
                Progress::Shutdown => return None,
            }
        }
        objects::release_elsewhere();
        Some(any)
    }

    /// Answers the calls of which something was heard; whether there were any.
    fn answer_begun(&mut self) -> bool {
        let woken = self.wakes.take();
        for &(number, call) in &woken {
            let its = |client: &Option<Client>| client.as_ref().map(Client::number) == Some(number);
            // None: it has ended meanwhile.
            let place = self.clients.iter().position(its);
            let client = place.and_then(|place| self.clients[place].as_mut());
            if let (Some(place), Some(client)) = (place, client)
                && !client.go_on(call)
            {
                self.remove(place);
            }
        }
        !woken.is_empty()
    }

    fn something_soon(&mut self) -> bool {
        let (clients, wakes) = (&mut self.clients, &self.wakes);
        self.spin
            .until(|| wakes.any() || clients.iter_mut().flatten().any(Client::can_go_on))
    }

    /// Handles what happened on the sockets; sleeps until something does if `idle`.
    fn look_at_sockets(&mut self, idle: bool) {
        let mut sleep = idle;
        if idle {
            let clients = || self.clients.iter().flatten();
            clients().for_each(Client::going_to_sleep);
            // Somebody may have said something just before that.
            sleep = !self.clients.iter_mut().flatten().any(Client::can_go_on);
        }
        let timeout = match sleep {
            true => self.next_date().map_or(EpollTimeout::NONE, |date| {
                let left = date.saturating_duration_since(Instant::now());
                EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
            }),
            false => EpollTimeout::ZERO,
        };
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        if idle {
            self.clients.iter().flatten().for_each(Client::is_awake);
        }
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.let_in(),
                // Answered at the beginning of the next round.
                WAKES => {}
                place => self.hear(place as usize),
            }
        }
    }

    /// When something must be done even if nobody says anything.
    fn next_date(&self) -> Option<Instant> {
        let clients = self.clients.iter().flatten();
        let dates = clients.filter_map(Client::must_attach_by);
        let tickets = objects::with(|objects| objects.next_expiry()).flatten();
        dates.chain(tickets).chain(self.door.closed_until()).min()
    }

    fn housekeeping(&mut self) {
        let now = Instant::now();
        for place in 0..self.clients.len() {
            let client = self.clients[place].as_ref();
            if client.is_some_and(|c| c.must_attach_by().is_some_and(|date| date <= now)) {
                self.send_away(place);
            }
        }
        if self.door.closed_until().is_some_and(|until| until <= now) {
            let listener = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            if self.epoll.add(self.door.listener(), listener).is_ok() {
                self.door.open_again();
            }
        }
        let late = objects::with(|objects| objects.expire());
        for (object, count) in late.into_iter().flatten() {
            objects::release(object, count);
        }
    }

    fn let_in(&mut self) {
        while self.make_room() {
            match self.door.accept(self.connected + 1) {
                Ok(Some(client)) => self.add(client),
                Ok(None) => {}
                Err(Errno::EAGAIN) => return,
                // No descriptors.
                Err(_) => break,
            }
        }
        // A listener that stays readable would keep this process busy.
        let _ = self.epoll.delete(self.door.listener());
        self.door.close_for_a_while();
    }

    /// So many may be at the door at a time, and who was asked first goes; but each has a chance to
    /// answer. False if nobody has had it yet: the others wait outside.
    fn make_room(&mut self) -> bool {
        const MOST: usize = 256;
        const CHANCE: Duration = Duration::from_millis(250);
        loop {
            let asked = |client: &Option<Client>| client.as_ref().and_then(Client::asked);
            let clients = self.clients.iter().zip(0..);
            let silent = clients.filter_map(|(client, place)| Some((asked(client)?, place)));
            if silent.clone().count() < MOST {
                return true;
            }
            match silent.min() {
                Some((asked, place)) if asked.elapsed() >= CHANCE => self.send_away(place),
                _ => return false,
            }
        }
    }

    /// Removes one who takes too long to answer. What it said while this process was busy counts.
    fn send_away(&mut self, place: usize) {
        let date = |server: &Server| server.clients[place].as_ref()?.must_attach_by();
        let before = date(self);
        self.hear(place);
        if before.is_some() && date(self) == before {
            self.remove(place);
        }
    }

    fn add(&mut self, client: Client) {
        self.connected += 1;
        let free = self.clients.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        for fd in client.fds() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, place as u64);
            if self.epoll.add(fd, event).is_err() {
                return;
            }
        }
        self.clients[place] = Some(client);
    }

    fn hear(&mut self, place: usize) {
        let endpoint = self.door.endpoint();
        let Some(Some(client)) = self.clients.get_mut(place) else {
            return;
        };
        if !client.hear(&endpoint) {
            client.read_last();
            self.remove(place);
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(mut client) = self.clients[place].take() else {
            return;
        };
        for fd in client.fds() {
            let _ = self.epoll.delete(fd);
        }
        client.leave();
    }
}

/// For waits that must not be for ever.
pub(super) fn deadline_of_reports() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}
