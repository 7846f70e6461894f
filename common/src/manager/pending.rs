//! The requests of one connection that are not answered yet.
//!
//! To copy: pending.rs, message.rs, departures.rs.

use super::message::{Body, Header, Kind};
use std::mem;
use std::task::Waker;

/// An answer, and the objects it grants: this process holds those from now on.
pub(super) struct Reply {
    message: Vec<u8>,
}

impl Reply {
    /// Takes a message that has arrived; `None` if it cannot be one.
    pub(super) fn new(message: Vec<u8>) -> Option<Reply> {
        let (header, _) = Header::parse(&message)?;
        let kinds = matches!(header.kind, Kind::Returned | Kind::Failed);
        let fits = header.grants <= (message.len() - Header::LENGTH) / 8;
        (kinds && fits).then_some(Reply { message })
    }

    fn parts(&self) -> (Option<Header>, Body<'_>) {
        match Header::parse(&self.message) {
            Some((header, body)) => (Some(header), body),
            None => (None, Body(&[])),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.parts().0.map_or(0, |header| header.number)
    }

    pub(super) fn returned(&self) -> bool {
        self.parts()
            .0
            .is_some_and(|header| header.kind == Kind::Returned)
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = u64> {
        let (header, mut body) = self.parts();
        let count = header.map_or(0, |header| header.grants);
        (0..count).map_while(move |_| body.number())
    }

    /// What the function returned, or the error, encoded.
    pub(super) fn payload(&self) -> &[u8] {
        let (header, mut body) = self.parts();
        let _ = body.take(8 * header.map_or(0, |header| header.grants));
        body.0
    }

    /// The memory, to be used again.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.message
    }
}

/// One request.
pub(super) enum Request {
    /// Somebody waits for it; a future leaves word whom to wake.
    Waiting(Option<Waker>),
    /// Nobody does any more.
    Abandoned,
    Answered(Reply),
}

/// All of them. A request's number is its place, with a count above it that tells apart those
/// who had the same place.
#[derive(Default)]
pub(super) struct Pending {
    places: Vec<(u32, Option<Request>)>,
    free: Vec<u32>,
    /// Whether there may be wakers.
    wakers: bool,
}

impl Pending {
    pub(super) fn add(&mut self) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (count, request) = &mut self.places[place as usize];
        *request = Some(Request::Waiting(None));
        number(*count, place)
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut Request> {
        let (count, request) = self.places.get_mut(number as u32 as usize)?;
        match *count == (number >> 32) as u32 {
            true => request.as_mut(),
            false => None,
        }
    }

    /// What it gives back is to be dropped with no lock held.
    pub(super) fn remove(&mut self, number: u64) -> Option<Request> {
        self.get(number)?;
        let (count, request) = self.places.get_mut(number as u32 as usize)?;
        *count = count.wrapping_add(1);
        self.free.push(number as u32);
        request.take()
    }

    /// Takes the answer, if it is there.
    pub(super) fn take_answer(&mut self, number: u64) -> Option<Reply> {
        if !matches!(self.get(number), Some(Request::Answered(_))) {
            return None;
        }
        match self.remove(number) {
            Some(Request::Answered(reply)) => Some(reply),
            _ => None,
        }
    }

    /// Nobody waits for the answer any more. Gives back what was there, to be dropped with no lock
    /// held: a waker is foreign code.
    #[must_use]
    pub(super) fn abandon(&mut self, number: u64) -> Option<Request> {
        let request = self.get(number)?;
        Some(mem::replace(request, Request::Abandoned))
    }

    /// Says whom to wake when the answer is there. Gives back who was to be woken before, to be
    /// dropped with no lock held.
    #[must_use]
    pub(super) fn set_waker(&mut self, number: u64, waker: &Waker) -> Option<Waker> {
        let Some(Request::Waiting(place)) = self.get(number) else {
            return None;
        };
        if place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return None;
        }
        let old = place.replace(waker.clone());
        self.wakers = true;
        old
    }

    /// Everybody who is to be woken when nothing will be answered any more.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let requests = self.places.iter_mut();
        requests
            .filter_map(|(_, request)| match request {
                Some(Request::Waiting(waker)) => waker.take(),
                _ => None,
            })
            .collect()
    }

    /// Whether there is anybody to be woken.
    pub(super) fn any_waker(&mut self) -> bool {
        let mut requests = self.places.iter();
        self.wakers = self.wakers
            && requests.any(|(_, request)| matches!(request, Some(Request::Waiting(Some(_)))));
        self.wakers
    }
}

fn number(count: u32, place: u32) -> u64 {
    u64::from(count) << 32 | u64::from(place)
}
