//! Who holds a queue's senders, or its receivers: a table in the queue's memory.
//!
//! A count alone would never come to zero once a holder was killed. So each process counts in a
//! slot of its own, which has its stamp, and whoever waits in vain looks whether the owners live.

use crate::ring::Ring;
use crate::shm::Owner;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// Slots of two words: the owner's stamp, and how many it holds.
const SLOTS: usize = 64;
const WORDS: usize = 2;

/// A slot's second word has in its upper half how often the slot was taken: who strikes a dead
/// owner's handles out cannot take the next owner's for them.
const TAKEN: u64 = 1 << 32;

/// What a queue's ring has to set aside for the tables of both sides.
pub(super) const TABLES: usize = 2 * SLOTS * WORDS;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Senders = 0,
    Receivers = 1,
}

/// One side's table.
#[derive(Clone, Copy)]
pub(super) struct Holders<'a> {
    ring: &'a Ring,
    side: Side,
}

/// The place where a handle is counted; `None` is with those on their way, for lack of slots.
pub(super) type Slot = Option<usize>;

impl<'a> Holders<'a> {
    pub(super) fn new(ring: &'a Ring, side: Side) -> Self {
        Holders { ring, side }
    }

    /// Counts one more handle of this process.
    pub(super) fn enter(self) -> Slot {
        let slot = self.own_slot();
        self.count(slot).fetch_add(1, SeqCst);
        self.generation().fetch_add(1, SeqCst);
        slot
    }

    /// Counts one less; says whether it was the last anywhere.
    pub(super) fn leave(self, slot: Slot) -> bool {
        self.count_less(slot);
        self.nobody()
    }

    /// A handle is serialised.
    pub(super) fn depart(self) {
        self.on_the_way().fetch_add(1, SeqCst);
        self.generation().fetch_add(1, SeqCst);
    }

    /// A serialised handle has been opened by this process.
    pub(super) fn arrive(self) -> Slot {
        let slot = self.enter();
        self.count_less(None);
        slot
    }

    /// Never below nothing: bytes that lie somewhere, in a shared value perhaps, may be opened more
    /// often than they were written.
    fn count_less(self, slot: Slot) {
        let less = |count: u64| (held(count) > 0).then(|| count - 1);
        let _ = self.count(slot).fetch_update(SeqCst, SeqCst, less);
    }

    /// Strikes out dead processes; says whether there is nobody left. (A queue that was split had
    /// somebody on both sides. The last one may have been killed when it had struck itself out
    /// and not closed the queue yet.)
    pub(super) fn bury(self) -> bool {
        for slot in 0..SLOTS {
            let (owner, count) = (self.owner(slot), self.count(Some(slot)));
            // In this order: the count is then the owner's or older. Should another have struck it
            // out meanwhile, and a third one have taken the slot, it has another upper half.
            let (seen, stamp) = (count.load(SeqCst), owner.load(SeqCst));
            let dead = stamp != 0 && held(seen) > 0 && Owner::stamp_is_dead(stamp);
            if dead {
                let none = seen - held(seen);
                let _ = count.compare_exchange(seen, none, SeqCst, SeqCst);
            }
        }
        self.nobody()
    }

    /// Whether a ring has room for the tables.
    pub(super) fn are_in(ring: &Ring) -> bool {
        ring.slots() >= TABLES
    }

    fn nobody(self) -> bool {
        loop {
            // Handles may move while they are counted: then once more.
            let generation = self.generation().load(SeqCst);
            let counted = held(self.on_the_way().load(SeqCst)) > 0
                || (0..SLOTS).any(|slot| held(self.count(Some(slot)).load(SeqCst)) > 0);
            if counted || generation == self.generation().load(SeqCst) {
                return !counted;
            }
        }
    }

    /// This process's slot, taking a free one or a dead process's if it has none.
    fn own_slot(self) -> Slot {
        let stamp = Owner::current().stamp();
        let is_mine = |slot: &usize| self.owner(*slot).load(SeqCst) == stamp;
        (0..SLOTS)
            .find(is_mine)
            .or_else(|| (0..SLOTS).find(|slot| self.take(*slot, stamp)))
    }

    fn take(self, slot: usize, stamp: u64) -> bool {
        let owner = self.owner(slot);
        let old = owner.load(SeqCst);
        let count = self.count(Some(slot));
        let holds_none = || held(count.load(SeqCst)) == 0;
        // Once more when it is dead for certain: it may have held one before it died.
        let free = old == 0 || (holds_none() && Owner::stamp_is_dead(old) && holds_none());
        if free {
            // Before it has an owner that could count. If another is faster it does no harm.
            count.fetch_add(TAKEN, SeqCst);
        }
        free && owner.compare_exchange(old, stamp, SeqCst, SeqCst).is_ok()
    }

    fn owner(self, slot: usize) -> &'a AtomicU64 {
        self.ring.slot((self.side as usize * SLOTS + slot) * WORDS)
    }

    fn count(self, slot: Slot) -> &'a AtomicU64 {
        match slot {
            Some(slot) => self
                .ring
                .slot((self.side as usize * SLOTS + slot) * WORDS + 1),
            None => self.on_the_way(),
        }
    }

    fn on_the_way(self) -> &'a AtomicU64 {
        &self.ring.words()[self.side as usize * 2]
    }

    fn generation(self) -> &'a AtomicU64 {
        &self.ring.words()[self.side as usize * 2 + 1]
    }
}

/// How many handles a slot's second word says.
fn held(count: u64) -> u64 {
    count & (TAKEN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;

    /// The stamp of a process that has ended: init has another start time.
    const DEAD: u64 = u64::MAX << 22 | 1;

    #[test]
    fn a_slot_that_is_taken_again_does_not_look_as_before() {
        let queue = Queue::<u32>::new().unwrap();
        let holders = Holders::new(queue.ring(), Side::Senders);
        holders.owner(0).store(DEAD, SeqCst);
        holders.count(Some(0)).store(1, SeqCst);
        assert!(holders.bury());
        assert_eq!(holders.enter(), Some(0));
        let count = holders.count(Some(0)).load(SeqCst);
        assert!(held(count) == 1 && count != 1, "{count}");
        assert!(!holders.bury() && holders.leave(Some(0)));
    }
}
