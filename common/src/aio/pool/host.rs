//! One worker as the pool sees it: its process, its socket, and what it says.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::driver::{Ending, Event, FromSlot};
use super::wire::{self, FromWorker};
use super::worker::{self, Orders};
use crate::process::{Builder, Process};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// A worker's process.
pub(super) type Worker = Process<Result<(), String>>;

/// How long the socket of a process that has ended is still read: what it had sent is there at
/// once, but a process that it had forked may hold the socket open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Starts a worker and tells `events` how it goes, to its end.
pub(super) async fn host(
    slot: usize,
    orders: Orders,
    builder: Builder,
    events: mpsc::UnboundedSender<Event>,
) {
    let generation = orders.generation;
    let tell = |what| {
        let _ = events.send(Event::Slot {
            slot,
            generation,
            what,
        });
    };
    // Starting a process blocks for about a millisecond.
    let started = tokio::task::spawn_blocking(move || builder.spawn(worker::serve, (orders,)));
    let process = match started.await {
        Ok(Ok(process)) => Arc::new(process),
        Ok(Err(error)) => return tell(FromSlot::NotStarted(error.to_string())),
        Err(error) => return tell(FromSlot::NotStarted(error.to_string())),
    };
    tell(FromSlot::Started(Arc::clone(&process)));
    let reason = match (&*process).await {
        Ok(Ok(())) => "it ended by itself".to_owned(),
        Ok(Err(error)) => format!("it could not serve: {error}"),
        Err(error) => error.to_string(),
    };
    let status = process.exit_status();
    drop(process);
    tell(FromSlot::Ended(Ending { status, reason }));
    tokio::time::sleep(LAST_WORDS).await;
    tell(FromSlot::Silent);
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
    let same_user = stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
    if !same_user {
        return;
    }
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
        listen(slot as usize, generation, read, write, &events).await;
    }
}

async fn listen(
    slot: usize,
    generation: u64,
    mut read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    events: &mpsc::UnboundedSender<Event>,
) {
    let tell = |what| {
        events.send(Event::Slot {
            slot,
            generation,
            what,
        })
    };
    let (outbox, frames) = mpsc::unbounded_channel();
    tokio::spawn(send_frames(frames, write));
    let mut told = tell(FromSlot::Connected(outbox));
    // Until the pool has gone, or the worker has.
    while told.is_ok() {
        told = match wire::get(&mut read).await {
            Ok(Some((FromWorker::Taken { count }, _))) => tell(FromSlot::Taken(count)),
            Ok(Some((FromWorker::Done { id, end }, body))) => {
                tell(FromSlot::Done(id, end.map(|()| body)))
            }
            _ => break,
        };
    }
    // A worker that says something unintelligible is one that cannot go on.
    let _ = tell(FromSlot::Silent);
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
