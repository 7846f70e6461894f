//! The get end.

use super::layout::{FRAME, Frame, Kind, Patience, Place, REJECTED, UNIT, units};
use super::memory::Memory;
use super::{Batch, GetError, Inner, PATIENCE, Ring, Stop};
use crate::deadline::Deadline;
use crate::sync::{RobustGuard, SLICE};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// Memory is set aside up to this size for a message that only claims to be so long.
const TRUSTED: usize = 16 << 20;

/// How long a waiter is patient at most.
const PATIENT: Duration = Duration::from_millis(100);

impl Ring {
    /// Gets the oldest message into `out`, whose contents it replaces. Blocks while there is none.
    ///
    /// A message longer than the ring is received while it is sent: its get may go on beyond the
    /// deadline as long as bytes come.
    ///
    /// # Errors
    ///
    /// [`GetError`]; then nothing was got.
    pub fn get(&self, out: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        self.0.receive(deadline, |getter| {
            out.clear();
            let Some(next) = getter.message(out, deadline)? else {
                return Ok(None);
            };
            getter.commit(next);
            Ok(Some(()))
        })
    }

    /// Waits until there is a message, without taking it; or until `enough`, which is looked at
    /// whenever somebody calls [`Ring::kick`]. One who has no use for less than `messages` at a
    /// time is not woken before, for a tenth of a second. Only one may wait like that.
    ///
    /// # Errors
    ///
    /// [`GetError`]; `Interrupted` may come once for a kick.
    pub fn wait_readable(
        &self,
        messages: u32,
        deadline: Deadline,
        enough: impl Fn() -> bool,
    ) -> Result<(), GetError> {
        if messages > 1 {
            let patience = Patience::until(self.0.head(), messages);
            let word = &self.0.header().news.0.patience;
            word.store(patience.0, SeqCst);
            let soon = Deadline::after(deadline.at_most(PATIENT));
            let waited = self.0.wait_for_news(patience, soon, &enough);
            word.store(Patience::NONE.0, SeqCst);
            match waited {
                Err(Stop::Deadline) if !deadline.passed() => {}
                other => return Ok(other?),
            }
        }
        Ok(self.0.wait_for_news(Patience::NONE, deadline, enough)?)
    }

    /// Gets up to `most` messages that are there, at least one, under one lock, and appends them
    /// to `out`. Blocks while there is none.
    ///
    /// # Errors
    ///
    /// [`GetError`]; then nothing was got.
    pub fn get_many(
        &self,
        out: &mut Batch,
        most: usize,
        deadline: Deadline,
    ) -> Result<usize, GetError> {
        self.0.receive(deadline, |getter| {
            let got = getter.messages(out, most, deadline)?;
            Ok((got > 0 || most == 0).then_some(got))
        })
    }

    /// Shows the oldest message to `read`, in place where it is in one piece, and takes it out of
    /// the ring afterwards. The get lock is held meanwhile: nobody else can get, and `read` must
    /// not use this ring. If it panics the message stays (one longer than the ring is lost).
    ///
    /// The bytes are shared memory: no process of this library changes them meanwhile, but one
    /// that has gone mad might, so they are not to be trusted more than a file's.
    ///
    /// # Errors
    ///
    /// [`GetError`]; then `read` has not been called.
    pub fn get_in_place<R>(
        &self,
        deadline: Deadline,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetError> {
        let mut read = Some(read);
        let mut copy = Vec::new();
        self.0.receive(deadline, |getter| {
            if let Some((bytes, next)) = getter.in_place()? {
                let result = read.take().map(|read| read(bytes));
                getter.commit(next);
                return Ok(result);
            }
            let Some(next) = getter.message(&mut copy, deadline)? else {
                copy.clear();
                return Ok(None);
            };
            let result = read.take().map(|read| read(&copy));
            getter.commit(next);
            Ok(result)
        })
    }
}

/// The get end while its lock is held.
pub(super) struct Getter<'a> {
    ring: &'a Inner,
    pub(super) head: Place,
    /// As last seen.
    tail: Place,
    /// Whether room was made since the lock was taken.
    freed: bool,
    memory: Memory<'a>,
    _guard: RobustGuard<'a>,
}

impl Inner {
    /// Takes the lock, lets `take` take, and waits and tries again if that gives `None`.
    pub(super) fn receive<R>(
        &self,
        deadline: Deadline,
        mut take: impl FnMut(&mut Getter<'_>) -> Result<Option<R>, Stop>,
    ) -> Result<R, GetError> {
        let mut slept = false;
        loop {
            let mut getter = self.lock_get(deadline).inspect_err(|_| {
                if slept {
                    // It may have been woken for a message, which somebody else shall have.
                    self.header().news.0.signal.notify(1);
                }
            })?;
            let taken = take(&mut getter);
            let (freed, rest) = (getter.freed, getter.tail != getter.head);
            drop(getter);
            if freed {
                // All: who needs the least may be the only one for whom there is room now.
                self.header().room.0.notify(u32::MAX);
            }
            if slept && rest {
                // A put of several may have woken this process alone.
                self.header().news.0.signal.notify(1);
            }
            if let Some(taken) = taken? {
                return Ok(taken);
            }
            self.wait_for_news(Patience::NONE, deadline, || false)?;
            slept = true;
        }
    }

    pub(super) fn lock_get(&self, deadline: Deadline) -> Result<Getter<'_>, Stop> {
        let side = &self.header().get.0;
        let guard = side
            .mutex
            .lock(deadline, &self.lock_spin, || self.recover_get())
            .map_err(|error| Stop::lock(error, self.segment.name()))?;
        super::step("get: locked");
        Ok(Getter {
            memory: self.memory()?,
            ring: self,
            head: Place(self.header().head.0.load(Relaxed)),
            tail: Place(side.tail.load(Relaxed)),
            freed: false,
            _guard: guard,
        })
    }

    fn wait_for_news(
        &self,
        patience: Patience,
        deadline: Deadline,
        enough: impl Fn() -> bool,
    ) -> Result<(), Stop> {
        let news = &self.header().news.0;
        let waited = self.wait(&news.signal, &self.news_spin, deadline, || {
            let tail = self.tail();
            let patient = patience != Patience::NONE
                && self.may_wait(patience)
                && !self.header().room.0.is_awaited();
            (tail.position() != self.head().position() && !patient)
                || tail.closed()
                || self.kicked()
                || enough()
        });
        let tail = self.tail();
        if tail.closed() && tail.position() == self.head().position() {
            return Err(Stop::Closed);
        }
        self.report_kick()?;
        waited
    }

    fn kicked(&self) -> bool {
        self.header().news.0.kicks.load(SeqCst) != self.kicks.load(Relaxed)
    }

    /// Reports each kick once.
    fn report_kick(&self) -> Result<(), Stop> {
        let now = self.header().news.0.kicks.load(SeqCst);
        if self.kicks.swap(now, Relaxed) == now {
            return Ok(());
        }
        // The wake may have been meant for a message, which somebody else shall have.
        self.header().news.0.signal.notify(1);
        Err(Stop::Interrupted)
    }
}

impl<'a> Getter<'a> {
    /// Copies the oldest message behind what is in `out`. Gives the place behind it, to be
    /// committed, or `None` if there is none.
    pub(super) fn message(
        &mut self,
        out: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<Option<Place>, Stop> {
        while let Some(frame) = self.frame()? {
            match frame.kind {
                Kind::Whole => {
                    self.memory.copy_out(self.payload(), frame.len, out);
                    super::step("get: copied");
                    return Ok(Some(self.head.advance(frame.units(), 1)));
                }
                Kind::First => {
                    if let Some(next) = self.assemble(frame, out, deadline)? {
                        return Ok(Some(next));
                    }
                }
                _ => self.skip(frame),
            }
        }
        Ok(None)
    }

    /// Drops the frame at the head, which is a pad or the rest of a message whose consumer died.
    fn skip(&mut self, frame: Frame) {
        let messages = u32::from(frame.kind == Kind::Last);
        // First: who sees that it is out of the ring is to see this as well.
        let dropped = &self.ring.header().get.0.dropped;
        dropped.fetch_add(messages.into(), SeqCst);
        self.commit(self.head.advance(frame.units(), messages));
    }

    /// The one store that takes what lies before `next` out of the ring.
    #[inline]
    pub(super) fn commit(&mut self, next: Place) {
        super::step("get: before the commit");
        self.ring.header().head.0.store(next.0, SeqCst);
        let len = next.units_since(self.head).saturating_mul(UNIT as u32);
        self.ring.last_len.store(len, Relaxed);
        self.head = next;
        self.freed = true;
        super::step("get: committed");
    }

    /// Appends up to `most` messages to `out` and takes them out of the ring. A long one comes
    /// alone: it may take its time.
    fn messages(
        &mut self,
        out: &mut Batch,
        most: usize,
        deadline: Deadline,
    ) -> Result<usize, Stop> {
        if most == 0 {
            return Ok(0);
        }
        // Once, and not at each message: that would take the line away from who puts.
        self.look();
        while let Some(frame) = self.frame()? {
            match frame.kind {
                Kind::Whole => return self.run(frame, out, most),
                Kind::First => {
                    let before = out.bytes.len();
                    let start = out.begin_message();
                    let assembled = self.assemble(frame, &mut out.bytes, deadline);
                    if let Ok(Some(next)) = assembled {
                        out.end_message(start);
                        self.commit(next);
                        return Ok(1);
                    }
                    out.bytes.truncate(before);
                    assembled?;
                }
                _ => self.skip(frame),
            }
        }
        Ok(0)
    }

    /// Takes whole messages that lie one behind the other, of which `first` is the first.
    fn run(&mut self, first: Frame, out: &mut Batch, most: usize) -> Result<usize, Stop> {
        let (before, base, earlier) = (out.bytes.len(), out.begin_frame(), out.len());
        let mut next = self.head;
        let mut frame = Some(first);
        while let Some(Frame { len, .. }) = frame {
            let start = base + next.units_since(self.head) as usize * UNIT;
            out.ends.push(start + FRAME + len);
            next = next.advance(units(len), 1);
            let more = out.len() - earlier < most && next.position() != self.tail.position();
            frame = match more.then(|| self.frame_at(next)) {
                // Anything else has to wait for its turn.
                Some(Ok(frame)) => frame.filter(|frame| frame.kind == Kind::Whole),
                _ => None,
            };
        }
        let len = out.ends.last().map_or(0, |end| end - base);
        if let Err(error) = self.memory.reserve(self.head.position(), len) {
            out.bytes.truncate(before);
            out.ends.truncate(earlier);
            return Err(error.into());
        }
        let at = self.memory.index(self.head.position());
        self.memory.copy_out(at, len, &mut out.bytes);
        super::step("get: copied");
        self.commit(next);
        Ok(out.len() - earlier)
    }

    /// The oldest message where it lies, if it is in one piece.
    fn in_place(&mut self) -> Result<Option<(&'a [u8], Place)>, Stop> {
        while let Some(frame) = self.frame()? {
            match frame.kind {
                Kind::Pad => self.commit(self.head.advance(frame.units(), 0)),
                Kind::Whole => {
                    let Some(bytes) = self.memory.in_place(self.payload(), frame.len) else {
                        return Ok(None);
                    };
                    // SAFETY: inside the data, which is mapped and reserved as long as the ring
                    // lives; nobody writes between head and tail while the get lock is held.
                    let bytes = unsafe { &*bytes };
                    return Ok(Some((bytes, self.head.advance(frame.units(), 1))));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The frame at the head, checked, with its memory behind it; `None` if the ring is empty.
    fn frame(&mut self) -> Result<Option<Frame>, Stop> {
        let frame = self.frame_at(self.head)?;
        if let Some(Frame { len, .. }) = frame {
            self.memory.reserve(self.head.position(), FRAME + len)?;
        }
        Ok(frame)
    }

    /// The frame at a place between head and tail, checked; `None` if that is the tail.
    #[inline]
    fn frame_at(&mut self, at: Place) -> Result<Option<Frame>, Stop> {
        let ring = self.ring;
        if self.tail.position() == at.position() {
            self.look();
            if self.tail.position() == at.position() {
                return Ok(None);
            }
        }
        if self.tail.units_since(self.head) > self.memory.units() {
            return Err(ring.broken("there is more in it than it can hold"));
        }
        self.memory.reserve(at.position(), FRAME)?;
        let rest = self.tail.units_since(at);
        Frame::from_bits(self.memory.frame_bits(at.position()))
            .filter(|frame| frame.units() <= rest)
            .map(Some)
            .ok_or_else(|| ring.broken("a message has no valid header"))
    }

    /// Looks at the true tail.
    fn look(&mut self) {
        let ring = self.ring;
        self.tail = ring.tail().advance(0, 0);
        ring.header().get.0.tail.store(self.tail.0, Relaxed);
        ring.seen_waiting(self.tail.units_since(self.head).min(ring.units()));
    }

    /// Where the payload of the frame at the head begins.
    fn payload(&self) -> usize {
        self.memory.index(self.head.position()) + FRAME
    }

    /// Receives a message longer than the ring, whose first fragment is `frame`. `None` if it is
    /// not to be had: its producer or this consumer gave it up.
    fn assemble(
        &mut self,
        first: Frame,
        out: &mut Vec<u8>,
        deadline: Deadline,
    ) -> Result<Option<Place>, Stop> {
        let start = out.len();
        let total = self.total(first)?;
        let (mut at, mut frame) = (size_of::<u64>(), first);
        out.reserve(total.min(TRUSTED));
        loop {
            if frame.len < at || out.len() - start + frame.len - at > total {
                return Err(self.ring.broken("a long message is not as long as it says"));
            }
            self.memory
                .copy_out(self.payload() + at, frame.len - at, out);
            at = 0;
            if frame.kind == Kind::Last {
                return match out.len() - start == total {
                    true => Ok(Some(self.head.advance(frame.units(), 1))),
                    false => Err(self.ring.broken("a long message is not as long as it says")),
                };
            }
            self.commit(self.head.advance(frame.units(), 0));
            self.ring.header().room.0.notify(u32::MAX);
            frame = match self.fragment(deadline)? {
                Some(next) if matches!(next.kind, Kind::Middle | Kind::Last) => next,
                _ => {
                    out.truncate(start);
                    return Ok(None);
                }
            };
        }
    }

    /// The whole length that the first fragment announces.
    fn total(&self, first: Frame) -> Result<usize, Stop> {
        let mut bytes = Vec::with_capacity(size_of::<u64>());
        self.memory
            .copy_out(self.payload(), size_of::<u64>().min(first.len), &mut bytes);
        let total = bytes.try_into().map(u64::from_ne_bytes);
        total
            .ok()
            .and_then(|total| usize::try_from(total).ok())
            .ok_or_else(|| {
                self.ring
                    .broken("a long message says nothing of its length")
            })
    }

    /// The next frame, waiting for it with the lock held: what is half received must be finished
    /// first. `None` if the producer does not go on.
    fn fragment(&mut self, deadline: Deadline) -> Result<Option<Frame>, Stop> {
        let ring = self.ring;
        let news = &ring.header().news.0;
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(Some(frame));
            }
            let seen = ring.tail();
            // Looked at first: its last piece may have come just before it was closed.
            if seen.position() != self.head.position() {
                continue;
            }
            if seen.closed() {
                return Ok(None);
            }
            let patience = Deadline::after(PATIENCE.max(deadline.at_most(SLICE)));
            let waited = ring.wait(&news.signal, &ring.news_spin, patience, || {
                ring.tail() != seen || ring.kicked()
            });
            // Who sends it holds the put lock all the while: if nobody does it has died, and others
            // may want the lock that is held here to see what the dead have left.
            let in_vain = || deadline.passed() || ring.header().put.0.mutex.holder().is_none();
            let gives_up = ring.kicked() || waited.is_err() && in_vain();
            if gives_up && self.reject(seen) {
                return Ok(None);
            }
        }
    }

    /// Tells the producer to start over, unless it has gone on meanwhile.
    fn reject(&mut self, seen: Place) -> bool {
        let tail = &self.ring.header().tail.0;
        let rejected = tail.compare_exchange(seen.0, seen.0 | REJECTED, SeqCst, SeqCst);
        // It may be asleep waiting for room.
        self.ring.header().room.0.notify(u32::MAX);
        rejected.is_ok()
    }
}
