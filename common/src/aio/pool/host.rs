//! One worker as the pool sees it: its task in the pool of hosts, its socket, and what it says.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::driver::{Ending, Event, FromSlot};
use super::wire::{self, FromWorker};
use super::worker::{self, Orders};
use crate::pool::{Pool, TaskError};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// How long a worker's end is waited for when half of it has been seen. The socket of one that has
/// ended is still read: what it had sent is there at once, but a process that it had forked may
/// hold the socket open for ever. And of one whose socket has ended it is known a moment later how
/// its process did, but it may live on for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Has a worker of `hosts` run coroutines, and tells `events` when that has ended. Kills the worker
/// when told to, if it has not ended by itself so long after.
pub(super) async fn host(
    orders: Orders,
    hosts: Arc<Pool>,
    killed: oneshot::Receiver<Duration>,
    events: mpsc::UnboundedSender<Event>,
) {
    let (slot, generation) = (orders.slot as usize, orders.generation);
    let tell = |what| {
        let _ = events.send(Event::Slot {
            slot,
            generation,
            what,
        });
    };
    let mut served = hosts.apply_async(worker::serve, (orders,));
    drop(hosts);
    let ending = tokio::select! {
        end = &mut served => Ending::of(end),
        Ok(grace) = killed => match tokio::time::timeout(grace, &mut served).await {
            Ok(end) => Ending::of(end),
            Err(_) => {
                served.cancel();
                Ending::killed()
            }
        }
    };
    tell(FromSlot::Ended(ending));
    // It keeps the pool's descriptors open.
    drop(served);
    tokio::time::sleep(LAST_WORDS).await;
    tell(FromSlot::Silent {
        grace: Duration::ZERO,
    });
}

impl Ending {
    fn killed() -> Self {
        Ending {
            status: Some(ExitStatus::from_raw(libc::SIGKILL)),
            reason: "it was killed".to_owned(),
        }
    }

    fn of(end: Result<Result<(), String>, TaskError>) -> Self {
        let (status, reason) = match end {
            Ok(Ok(())) => (None, "it ended by itself".to_owned()),
            Ok(Err(error)) => (None, format!("it could not serve: {error}")),
            Err(TaskError::NoWorkers { reason }) => (None, reason),
            Err(TaskError::WorkerDied { status, .. }) => (status, "it died".to_owned()),
            Err(error) => (None, error.to_string()),
        };
        Ending { status, reason }
    }
}

/// Takes the workers' connections, as long as the pool lives.
pub(super) async fn accept(
    listener: UnixListener,
    key: u128,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = events.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(greet(stream, key, events.clone()))),
            // No descriptors left, say: the next worker may have better luck.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Anybody on this machine can connect to an abstract name: only this user's processes that know
/// the key are listened to.
async fn greet(stream: UnixStream, key: u128, events: mpsc::UnboundedSender<Event>) {
    let us = nix::unistd::geteuid().as_raw();
    let Some(peer) = stream.peer_cred().ok().filter(|peer| peer.uid() == us) else {
        return;
    };
    let pid = peer.pid().map_or(0, i32::unsigned_abs);
    let (read, write) = stream.into_split();
    let mut read = BufReader::with_capacity(1 << 16, read);
    let hello = tokio::time::timeout(Duration::from_secs(5), wire::get(&mut read)).await;
    let Ok(Ok(Some((head, _)))) = hello else {
        return;
    };
    if let FromWorker::Hello {
        key: said,
        slot,
        generation,
    } = head
        && said == key
    {
        let tell = |what| {
            let slot = slot as usize;
            events.send(Event::Slot {
                slot,
                generation,
                what,
            })
        };
        listen(pid, read, write, tell).await;
    }
}

async fn listen(
    pid: u32,
    mut read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    tell: impl Fn(FromSlot) -> Result<(), mpsc::error::SendError<Event>>,
) {
    let (outbox, frames) = mpsc::unbounded_channel();
    tokio::spawn(send_frames(frames, write));
    let mut told = tell(FromSlot::Connected(outbox, pid));
    let mut grace = LAST_WORDS;
    // Until the pool has gone, or the worker has.
    while told.is_ok() {
        told = match wire::get(&mut read).await {
            Ok(Some((FromWorker::Taken { count }, _))) => tell(FromSlot::Taken(count)),
            Ok(Some((FromWorker::Done { id, end }, body))) => {
                tell(FromSlot::Done(id, end.map(|()| body)))
            }
            Ok(None) => break,
            // The socket failed, or ended within a frame.
            Err(error) if error.kind() != io::ErrorKind::Other => break,
            // A worker that says something unintelligible is one that must not go on.
            Ok(Some(_)) | Err(_) => {
                grace = Duration::ZERO;
                break;
            }
        };
    }
    let _ = tell(FromSlot::Silent { grace });
}

/// Sends what the pool has for a worker; frames that come together go in one write.
async fn send_frames(mut frames: mpsc::UnboundedReceiver<Vec<u8>>, mut write: OwnedWriteHalf) {
    let mut batch = Vec::new();
    while frames.recv_many(&mut batch, 64).await > 0 {
        // If the worker has gone, its end is told by those who wait for its process.
        let _ = write.write_all(&batch.concat()).await;
        batch.clear();
    }
}
