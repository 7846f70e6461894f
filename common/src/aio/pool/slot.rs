//! A place for a worker in a pool, and the worker that has it now.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::driver::Ending;
use super::wire::{self, ToWorker};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

#[derive(Default)]
pub(super) struct Slot {
    /// Counts the workers that had this place.
    pub(super) generation: u64,
    /// There is one, at least on its way; kills it, if it has not ended by itself so long after.
    pub(super) host: Option<oneshot::Sender<Duration>>,
    /// Its process id, once it has connected.
    pub(super) pid: Option<u32>,
    /// To it, while it can be talked to.
    pub(super) outbox: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// How many coroutines it has.
    pub(super) in_flight: usize,
    /// How many chunks it was sent, and how many of them it has taken.
    pub(super) sent: u64,
    pub(super) taken: u64,
    /// How it ended.
    pub(super) ended: Option<Ending>,
    /// Nothing more will come from its socket.
    pub(super) silent: bool,
    /// When the one before ended.
    vacated: Option<Instant>,
}

/// What is to be known of a worker that died.
pub(super) struct Dead {
    pub(super) pid: Option<u32>,
    pub(super) taken: u64,
}

impl Slot {
    pub(super) fn is_vacant(&self) -> bool {
        self.host.is_none()
    }

    /// Whether a second has passed since the last one ended.
    pub(super) fn has_rested(&self) -> bool {
        self.vacated
            .is_none_or(|at| at.elapsed() > Duration::from_secs(1))
    }

    pub(super) fn send(&self, head: &ToWorker, body: &[u8]) {
        let mut frame = Vec::new();
        // A head of numbers always encodes; a worker that has gone is answered for elsewhere.
        if let Some(outbox) = &self.outbox
            && wire::put(head, body, &mut frame).is_ok()
        {
            let _ = outbox.send(frame);
        }
    }

    /// Kills it, if it has not ended by itself after `grace`. The first to say so decides.
    pub(super) fn kill_after(&mut self, grace: Duration) {
        if let Some(host) = &mut self.host {
            let (spent, _) = oneshot::channel();
            // If nobody listens, it has ended already.
            let _ = std::mem::replace(host, spent).send(grace);
        }
    }

    /// How it ended, once its process has ended and everything it said is known.
    pub(super) fn take_end(&mut self) -> Option<Ending> {
        match self.silent {
            true => self.ended.take(),
            false => None,
        }
    }

    /// Makes the place free for the next.
    pub(super) fn replace(&mut self) -> Dead {
        let dead = Dead {
            pid: self.pid,
            taken: self.taken,
        };
        *self = Slot {
            generation: self.generation + 1,
            vacated: Some(Instant::now()),
            ..Slot::default()
        };
        dead
    }
}
