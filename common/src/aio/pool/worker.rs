//! The worker's side: a tokio runtime that runs what comes over the socket.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::coroutine::Chunk;
use super::wire::{self, FromWorker, ToWorker};
use crate::aio::gather::catch;
use crate::function::{EntryRef, Failure};
use futures::future::{AbortHandle, Abortable};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream as StdUnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// What a worker has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    /// The abstract name of the pool's socket.
    pub(super) address: String,
    pub(super) key: u128,
    /// Which of the pool's workers it is, and which of those that had that place.
    pub(super) slot: u64,
    pub(super) generation: u64,
    /// Of its runtime; one means that everything runs in the main thread.
    pub(super) threads: usize,
}

/// The function that a worker process runs: until the pool closes the socket.
pub(super) fn serve(orders: Orders) -> Result<(), String> {
    let served = runtime(orders.threads).and_then(|runtime| {
        let served = runtime.block_on(serve_until_closed(&orders));
        // Coroutines that still run are dropped; blocking threads of theirs are not waited for.
        runtime.shutdown_background();
        served
    });
    served.map_err(|error| error.to_string())
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    }
}

async fn serve_until_closed(orders: &Orders) -> io::Result<()> {
    let (read, mut write) = connect(orders).await?.into_split();
    let mut hello = Vec::new();
    let head = FromWorker::Hello {
        key: orders.key,
        slot: orders.slot,
        generation: orders.generation,
    };
    wire::put(&head, &[], &mut hello).map_err(io::Error::other)?;
    write.write_all(&hello).await?;

    let write = Arc::new(AsyncMutex::new(write));
    let (done, ended) = mpsc::unbounded_channel();
    tokio::spawn(send_ends(ended, Arc::clone(&write)));
    let mut worker = Worker {
        write,
        done,
        running: Arc::default(),
        taken: 0,
    };
    worker.take_all(read).await
}

async fn connect(orders: &Orders) -> io::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(&orders.address)?;
    let stream = StdUnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// An end on its way to the pool.
struct Ended {
    id: u64,
    end: Result<Vec<u8>, Failure>,
}

/// Sends the ends; those that come together go in one write.
async fn send_ends(
    mut ended: mpsc::UnboundedReceiver<Ended>,
    write: Arc<AsyncMutex<OwnedWriteHalf>>,
) {
    let mut batch = Vec::new();
    let mut bytes = Vec::new();
    while ended.recv_many(&mut batch, 256).await > 0 {
        for Ended { id, end } in batch.drain(..) {
            let (end, body) = match end {
                Ok(body) => (Ok(()), body),
                Err(failure) => (Err(failure), Vec::new()),
            };
            // Numbers and strings: they always encode.
            let _ = wire::put(&FromWorker::Done { id, end }, &body, &mut bytes);
        }
        // If the pool has gone, the reading side notices as well and ends the worker.
        let _ = write.lock().await.write_all(&bytes).await;
        bytes.clear();
    }
}

struct Worker {
    write: Arc<AsyncMutex<OwnedWriteHalf>>,
    done: mpsc::UnboundedSender<Ended>,
    running: Arc<Mutex<HashMap<u64, AbortHandle>>>,
    taken: u64,
}

impl Worker {
    async fn take_all(&mut self, read: OwnedReadHalf) -> io::Result<()> {
        let mut read = BufReader::with_capacity(1 << 16, read);
        let mut batch = Vec::new();
        while let Some(message) = wire::get(&mut read).await? {
            batch.push(message);
            // What has arrived already is told as taken in one go.
            if read.buffer().is_empty() || batch.len() == 256 {
                self.tell_taken(&batch).await?;
                batch.drain(..).for_each(|message| self.follow(message));
            }
        }
        Ok(())
    }

    async fn tell_taken(&mut self, batch: &[(ToWorker, Vec<u8>)]) -> io::Result<()> {
        let is_run = |(head, _): &&(ToWorker, Vec<u8>)| matches!(head, ToWorker::Run { .. });
        self.taken += batch.iter().filter(is_run).count() as u64;
        let mut bytes = Vec::new();
        wire::put(&FromWorker::Taken { count: self.taken }, &[], &mut bytes)
            .map_err(io::Error::other)?;
        self.write.lock().await.write_all(&bytes).await
    }

    fn follow(&self, (head, body): (ToWorker, Vec<u8>)) {
        match head {
            ToWorker::Run { id, entry, timeout } => self.run(id, entry, &body, timeout),
            ToWorker::Cancel { id } => {
                if let Some(chunk) = lock(&self.running).get(&id) {
                    chunk.abort();
                }
            }
        }
    }

    fn run(&self, id: u64, entry: EntryRef, args: &[u8], timeout: Option<Duration>) {
        let done = self.done.clone();
        let started = entry
            .resolve::<Chunk>()
            .map_err(Failure::Entry)
            .and_then(|chunk| chunk.start(args, timeout));
        let chunk = match started {
            Ok(chunk) => chunk,
            Err(failure) => {
                let end = Err(failure);
                return drop(done.send(Ended { id, end }));
            }
        };
        let (abort, registration) = AbortHandle::new_pair();
        lock(&self.running).insert(id, abort);
        let running = Arc::clone(&self.running);
        tokio::spawn(async move {
            // A cancelled chunk answers as well, with nothing: so the pool knows it has gone.
            let end = match catch(Abortable::new(chunk, registration)).await {
                Ok(Ok(end)) => end.map_err(Failure::Result),
                Ok(Err(_)) => Ok(Vec::new()),
                Err(panic) => Err(Failure::Panicked(panic)),
            };
            lock(&running).remove(&id);
            let _ = done.send(Ended { id, end });
        });
    }
}

/// What it guards is changed in one step, so that a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
