use super::*;
use crate::manager::address::{Address, random};
use crate::manager::channel::{Channel, Producer};
use crate::manager::endpoint::Endpoint;
use crate::manager::message::Kind;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;

const LONG: Duration = Duration::from_secs(30);

/// Tells of each wake-up.
struct Woken(Sender<()>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// A request whose future is polled by hand.
struct Polling {
    number: u64,
    waker: Waker,
    woken: Receiver<()>,
}

impl Polling {
    fn new(connection: &Connection) -> Polling {
        let (tell, woken) = channel();
        Polling {
            number: connection.lock().pending.add(),
            waker: Arc::new(Woken(tell)).into(),
            woken,
        }
    }

    fn is_ready(&self, connection: &Arc<Connection>) -> bool {
        connection.poll(self.number, &self.waker).is_ready()
    }

    fn is_woken(&self) -> bool {
        self.woken.recv_timeout(LONG).is_ok()
    }
}

/// The other end.
struct Server {
    socket: OwnedFd,
    lane: Arc<Channel>,
    producer: Producer,
}

impl Server {
    /// Says whether the client had to be woken.
    fn answer(&mut self, number: u64) -> bool {
        let answer = Message::new(Kind::Returned, number).finish();
        assert_eq!(self.producer.push(&answer), Ok(answer.len()));
        let wake = self.lane.must_wake();
        if wake {
            socket::wake(self.socket.as_fd());
        }
        wake
    }
}

/// Connected, to nobody, and not attached yet; and the server's socket.
fn connection() -> (Arc<Connection>, OwnedFd) {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let endpoint = Arc::new(Endpoint::of_nobody());
    (Arc::new(Connection::on(ours, &endpoint)), theirs)
}

fn attached() -> (Arc<Connection>, Server) {
    let (connection, socket) = connection();
    let (lane, file) = Channel::create().unwrap();
    assert!(connection.enter(&mut connection.lock(), 1, file).is_ok());
    let producer = lane.producer();
    let server = Server {
        socket,
        lane,
        producer,
    };
    (connection, server)
}

#[test]
fn a_future_that_is_left_unpolled_holds_up_no_other() {
    let (connection, mut server) = attached();
    let futures = [(); 3].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    assert!(server.answer(futures[1].number));
    assert!(futures[1].is_woken());
    // The reactor may still be awake.
    server.answer(futures[2].number);
    assert!(futures[2].is_woken());
    assert!(futures[2].is_ready(&connection) && futures[1].is_ready(&connection));
    drop(server);
    assert!(futures[0].is_woken() && futures[0].is_ready(&connection));
}

#[test]
fn a_thread_that_leaves_hands_over_to_the_reactor() {
    let (connection, mut server) = attached();
    let futures = [(); 2].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    let request = connection.lock().pending.add();
    // The thread finds the answer itself.
    let answer = Message::new(Kind::Returned, request).finish();
    assert_eq!(server.producer.push(&answer), Ok(answer.len()));
    assert!(connection.wait(request, Deadline::after(LONG)).is_ok());
    assert!(server.answer(futures[1].number));
    assert!(futures[1].is_woken());
}

#[test]
fn a_reader_that_is_put_back_is_read_if_the_reactor_came_in_vain() {
    let (connection, mut server) = attached();
    let futures = [(); 2].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    let reader = connection.lock().reader.take();
    assert!(server.answer(futures[1].number));
    while connection.lock().armed {
        std::thread::yield_now();
    }
    let mut state = connection.lock();
    state.reader = reader;
    connection.hand_over(state);
    assert!(futures[1].is_woken() && futures[1].is_ready(&connection));
}

#[test]
fn before_the_server_has_answered_all_futures_learn_of_its_end() {
    let (connection, socket) = connection();
    let futures = [(); 2].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    drop(socket);
    assert!(futures.iter().all(Polling::is_woken));
    assert!(futures.iter().all(|future| future.is_ready(&connection)));
}

/// While somebody looks at the socket, for one.
#[test]
fn a_new_socket_is_watched_even_if_the_old_one_is_still_in_use() {
    let endpoint = Endpoint {
        id: random(),
        address: Address::unique(),
        ..Endpoint::of_nobody()
    };
    let address = endpoint.address.socket_address().unwrap();
    let listener = socket::listen_at(&address).unwrap();
    let connection = Connection::to(&Arc::new(endpoint), Deadline::Now);
    let accept = || socket::accept(listener.as_fd()).unwrap();
    let futures = [(); 2].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    let in_use = connection.socket();
    drop(accept());
    assert!(futures.iter().all(Polling::is_woken));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    let again = accept();
    drop(listener);
    drop(again);
    assert!(futures.iter().all(Polling::is_woken));
    assert!(futures.iter().all(|future| future.is_ready(&connection)));
    drop(in_use);
}

/// A waker that panics, as those of some executors do on a thread that is not theirs.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("not on this thread");
    }
}

#[test]
fn a_waker_that_panics_holds_up_no_other() {
    let (connection, mut server) = attached();
    let futures = [(); 3].map(|()| Polling::new(&connection));
    assert!(!futures.iter().any(|future| future.is_ready(&connection)));
    let panics: Waker = Arc::new(Panics).into();
    assert!(connection.poll(futures[0].number, &panics).is_pending());
    server.answer(futures[0].number);
    server.answer(futures[1].number);
    assert!(futures[1].is_woken() && futures[1].is_ready(&connection));
    assert!(connection.poll(futures[2].number, &panics).is_pending());
    connection.die(Death::Corrupt);
    assert!(futures[2].is_ready(&connection));
}

/// A waker that looks whether the connection is locked when it is dropped.
struct Probe {
    connection: Arc<Connection>,
    held: Arc<AtomicBool>,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Probe {
    fn drop(&mut self) {
        let free = self.connection.state.try_lock().is_ok();
        self.held.fetch_or(!free, Relaxed);
    }
}

#[test]
fn wakers_are_dropped_with_no_lock_held() {
    let (connection, mut server) = attached();
    let held = Arc::new(AtomicBool::new(false));
    let dropped = |how| assert!(!held.load(Relaxed), "{how}");
    let probe = || {
        let (connection, held) = (connection.clone(), held.clone());
        Waker::from(Arc::new(Probe { connection, held }))
    };
    // A request whose only waker is the one that is left in the connection.
    let polled = || {
        let number = connection.lock().pending.add();
        assert!(connection.poll(number, &probe()).is_pending());
        number
    };
    let mut answered = || {
        let number = polled();
        let answer = Message::new(Kind::Returned, number).finish();
        assert_eq!(server.producer.push(&answer), Ok(answer.len()));
        number
    };
    let other = Polling::new(&connection);
    connection.abandon(polled());
    dropped("abandoned");
    assert!(connection.poll(polled(), &other.waker).is_pending());
    dropped("replaced");
    assert!(connection.wait(polled(), Deadline::Now).is_err());
    dropped("too late");
    assert!(connection.wait(answered(), Deadline::after(LONG)).is_ok());
    dropped("answered to a thread");
    assert!(connection.poll(answered(), &other.waker).is_ready());
    dropped("answered to a future");
    let late = connection.lock().pending.add();
    connection.die(Death::Corrupt);
    connection.leave_waker(connection.lock(), late, &probe());
    assert!(connection.wait(late, Deadline::Never).is_err());
    dropped("too late for one that is dead");
}

#[test]
fn calls_that_are_forgotten_take_no_memory_when_the_manager_has_ended() {
    let (connection, _server) = attached();
    connection.die(Death::Closed);
    for _ in 0..3 {
        let number = connection.send(Message::new(Kind::Poison, 0));
        connection.abandon(number);
        // The place is used again.
        assert_eq!(number as u32, 0);
    }
}
