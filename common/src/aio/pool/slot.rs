//! A place for a worker in a pool, and the worker that has it now.
//!
//! To copy: the folder aio/pool/ and what its mod.rs names.

use super::driver::Ending;
use super::host::Worker;
use super::wire::{self, ToWorker};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[derive(Default)]
pub(super) struct Slot {
    /// Counts the workers that had this place.
    pub(super) generation: u64,
    /// Whether there is one, at least on its way.
    pub(super) hosted: bool,
    pub(super) process: Option<Arc<Worker>>,
    /// To it, while it can be talked to.
    pub(super) outbox: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Whether it ever connected.
    pub(super) connected: bool,
    /// How many coroutines it has.
    pub(super) in_flight: usize,
    /// How many chunks it was sent, and how many of them it has taken.
    pub(super) sent: u64,
    pub(super) taken: u64,
    /// How its process ended.
    pub(super) ended: Option<Ending>,
    /// Nothing more will come from its socket.
    pub(super) silent: bool,
    /// When the one before ended.
    vacated: Option<Instant>,
}

/// What is to be known of a worker that died.
pub(super) struct Dead {
    pub(super) pid: u32,
    pub(super) connected: bool,
    pub(super) taken: u64,
}

impl Slot {
    pub(super) fn is_vacant(&self) -> bool {
        !self.hosted
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

    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            // It fails only where the process is not this one's child.
            let _ = process.kill();
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
            pid: self.process.as_ref().map_or(0, |process| process.pid()),
            connected: self.connected,
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
