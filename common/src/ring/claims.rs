//! Who has taken what: for a parent that wants to know which task died with a worker.
//!
//! ```text
//!   worker, under the get lock             recovery, by who gets the lock after a dead worker
//!   claimant = slot, with the head         claimant set and the head still the same?
//!   claims[slot] = id                        then nothing was taken: claims[slot] as before
//!   head = next   <- taken from here on
//!   claimant = none
//! ```
//!
//! So once the get lock has been had after a worker's death, its slot says exactly what it took.

use super::get::Getter;
use super::layout::Header;
use super::{GetError, Inner, Ring};
use crate::deadline::Deadline;
use crate::shm::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// No claim.
const NONE: u64 = 0;

impl Ring {
    /// Gets a message as [`Ring::get`], and notes in slot `slot` of the claims the number that
    /// `id` finds in it (not 0), in one step: at no instant is the message out of the ring and
    /// not claimed, or claimed (for who asks [`Ring::claim`]) and still in the ring. (One longer
    /// than the ring is claimed with its last piece: a consumer that dies before that has taken it
    /// without a claim.)
    ///
    /// # Errors
    ///
    /// [`GetError`]; then nothing was got or claimed.
    ///
    /// # Panics
    ///
    /// If the ring was made with fewer claims, or `id` panics: then the message stays.
    pub fn get_claiming(
        &self,
        slot: usize,
        out: &mut Vec<u8>,
        deadline: Deadline,
        id: impl Fn(&[u8]) -> u64,
    ) -> Result<(), GetError> {
        self.get_changing(slot, out, deadline, |bytes, _| id(bytes))
    }

    /// As [`Ring::get_claiming`], with the slot's old value given to `change`.
    pub(crate) fn get_changing(
        &self,
        slot: usize,
        out: &mut Vec<u8>,
        deadline: Deadline,
        change: impl Fn(&[u8], u64) -> u64,
    ) -> Result<(), GetError> {
        let claim = self.0.slot(slot);
        self.0.receive(deadline, |getter| {
            out.clear();
            let Some(next) = getter.message(out, deadline)? else {
                return Ok(None);
            };
            let before = claim.load(SeqCst);
            let id = change(out, before);
            let side = &self.0.header().get.0;
            side.claim_before.store(before, SeqCst);
            side.claim_head.store(getter.head.0, SeqCst);
            side.claimant.store(slot as u64 + 1, SeqCst);
            super::step("get: claiming");
            claim.store(id, SeqCst);
            super::step("get: claimed");
            getter.commit(next);
            side.claimant.store(0, SeqCst);
            Ok(Some(()))
        })
    }

    /// What the holder of slot `slot` has taken and not given up. Exact, whatever happened to it:
    /// takes the get lock.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] if the lock was not to be had until the deadline.
    ///
    /// # Panics
    ///
    /// If the ring was made with fewer claims.
    pub fn claim(&self, slot: usize, deadline: Deadline) -> Result<Option<u64>, GetError> {
        let claim = self.0.slot(slot);
        let _getter: Getter<'_> = self.0.lock_get(deadline)?;
        let id = claim.load(SeqCst);
        Ok((id != NONE).then_some(id))
    }

    /// Messages longer than the ring whose consumer died before it had the whole, so that they were
    /// never claimed: those of which nobody has been told yet.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.0.header().get.0.dropped.swap(0, SeqCst)
    }

    /// Gives up what slot `slot` has claimed: it has been dealt with.
    ///
    /// # Panics
    ///
    /// If the ring was made with fewer claims.
    pub fn release_claim(&self, slot: usize) {
        self.0.slot(slot).store(NONE, SeqCst);
    }
}

impl Inner {
    /// Repairs what a dead holder of the get lock left.
    #[cold]
    pub(super) fn recover_get(&self) {
        let side = &self.header().get.0;
        let claimant = side.claimant.load(SeqCst);
        let taken = side.claim_head.load(SeqCst) != self.header().head.0.load(SeqCst);
        let slot = usize::try_from(claimant).unwrap_or(0);
        super::step("get: repairing");
        if !taken && (1..=self.claims).contains(&slot) {
            let before = side.claim_before.load(SeqCst);
            self.slot(slot - 1).store(before, SeqCst);
        }
        // Last: should this process be killed here, the next one repairs the same once more.
        side.claimant.store(0, SeqCst);
    }

    pub(super) fn slot(&self, slot: usize) -> &AtomicU64 {
        assert!(
            slot < self.claims,
            "the ring was made with {} claims: there is no slot {slot}",
            self.claims
        );
        // SAFETY: the claims follow the header, inside the segment (checked by `attach`) and
        // below the data; a `Header` is a multiple of eight bytes.
        unsafe { &*self.header.as_ptr().add(1).cast::<AtomicU64>().add(slot) }
    }
}

const _: () = assert!(size_of::<Header>().is_multiple_of(size_of::<AtomicU64>()));
