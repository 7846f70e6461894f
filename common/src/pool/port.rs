//! A worker's end of the pool: taking tasks and answering them.
//!
//! What runs the tasks stands on this: [`OneByOne`](super::worker::OneByOne) runs one chunk at a
//! time; something that runs several at once may [`take`](Port::take) several before it answers.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::claims::{ClaimId, Claims, Stage};
use super::error::Fault;
use super::message::{COUNT, HEADER, Kind, ResultHeader, TaskHeader, id_of};
use crate::codec;
use crate::deadline::Deadline;
use crate::function::{BadEntry, EntryRef, Failure, Signature};
use crate::ring::{GetError, PutError, Ring};
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// A worker's end of the two rings and the claims table. All of it may be used by several threads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(super) tasks: Ring,
    pub(super) results: Ring,
    pub(super) claims: Claims,
    /// Which worker of the pool this is.
    pub(super) index: usize,
    /// Whether the parent wants to know when each chunk begins.
    pub(super) observed: bool,
    /// Whether tasks have a deadline.
    pub(super) timed: bool,
}

/// A chunk of tasks that this worker has taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) id: ClaimId,
    pub(crate) header: TaskHeader,
}

impl Taken {
    /// How many tasks.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.header.count).unwrap_or(usize::MAX)
    }

    /// The function, as an entry of signature `S`.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] if the message names none.
    pub(crate) fn function<S: Signature>(&self) -> Result<S, Fault> {
        let entry: Result<EntryRef, _> = codec::decode(&self.header.entry);
        entry
            .map_err(|_| BadEntry::Unknown { offset: 0 })
            .and_then(EntryRef::resolve::<S>)
            .map_err(|error| Fault::Failed(Failure::Entry(error)))
    }

    /// The encoded `Vec` of argument tuples in its message.
    pub(crate) fn items<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        &message[COUNT..]
    }
}

impl Port {
    /// Takes the next chunk; its message is in `message` then. Blocks while there is none.
    ///
    /// The claim is made while the message is still in the ring, under its get lock, so that at
    /// no instant a task is nobody's.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] at the deadline, [`GetError::Closed`] when the pool is: the worker is
    /// to end then.
    pub(crate) fn take(
        &self,
        message: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<Taken, GetError> {
        if message.capacity() > LARGE {
            *message = Vec::new();
        }
        loop {
            let taken = Cell::new(false);
            let got = self.tasks.get_claiming(0, message, deadline, |message| {
                let id = id_of(message);
                taken.set(
                    self.claims
                        .step(ClaimId(id), self.index, Stage::Queued, Stage::Taken),
                );
                super::step("take: claimed");
                id.max(1)
            });
            super::step("take: got");
            match got {
                // A task that has been cancelled is not this worker's.
                Ok(()) if !taken.get() => {}
                Ok(()) => {
                    if let Some(header) = TaskHeader::of(message) {
                        let id = ClaimId(header.id);
                        return Ok(Taken { id, header });
                    }
                }
                Err(GetError::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The chunk begins. False if it has been cancelled meanwhile: then it is not to run.
    pub(crate) fn start(&self, taken: &Taken) -> bool {
        if self.timed
            && let Some(cell) = self.claims.cell(taken.id)
        {
            cell.begin(super::claims::now_nanos());
        }
        let started = self
            .claims
            .step(taken.id, self.index, Stage::Taken, Stage::Running);
        super::step("run: begun");
        if started && self.observed {
            let _ = self.send(taken.id, Kind::Started, 0, taken.count(), 0, &[]);
        }
        started
    }

    /// To be called before the last answer of a chunk is sent. If the chunk's time is over, this
    /// process is about to be killed and its answer must not be sent: `false`.
    pub(crate) fn finish(&self, id: ClaimId) -> bool {
        let finished = self
            .claims
            .step(id, self.index, Stage::Running, Stage::Sending);
        super::step("send: marked");
        finished
    }

    /// Sends results (encoded one after the other) of `count` items from `first` on.
    ///
    /// # Errors
    ///
    /// [`PutError`]; the worker cannot go on then.
    pub(crate) fn send_done(
        &self,
        id: ClaimId,
        first: usize,
        count: usize,
        nanos: u64,
        results: &[u8],
    ) -> Result<(), PutError> {
        self.send(id, Kind::Done, first, count, nanos, results)
    }

    /// Sends why `count` items from `first` on have no result.
    ///
    /// # Errors
    ///
    /// As [`Port::send_done`].
    pub(crate) fn send_fault(
        &self,
        id: ClaimId,
        first: usize,
        count: usize,
        nanos: u64,
        fault: &Fault,
    ) -> Result<(), PutError> {
        let body = codec::encode(fault).unwrap_or_default();
        let sent = self.send(id, Kind::Failed, first, count, nanos, &body);
        // A failure may end its job: it does not wait for others' results.
        self.results.kick();
        sent
    }

    pub(super) fn send_unready(&self, reason: &str) -> Result<(), PutError> {
        self.send(ClaimId(0), Kind::Unready, 0, 0, 0, reason.as_bytes())
    }

    fn send(
        &self,
        id: ClaimId,
        kind: Kind,
        first: usize,
        count: usize,
        nanos: u64,
        body: &[u8],
    ) -> Result<(), PutError> {
        let header = ResultHeader {
            id: id.0,
            worker: u32::try_from(self.index).unwrap_or(u32::MAX),
            kind,
            nanos,
            first: first as u64,
            count: count as u64,
        };
        let header: [u8; HEADER] = header.to_bytes();
        super::step("send: before");
        let sent = self.results.put(&[&header, body], Deadline::Never);
        super::step("send: after");
        sent
    }
}

/// Buffers that have grown larger than this are given back.
pub(super) const LARGE: usize = 8 << 20;
