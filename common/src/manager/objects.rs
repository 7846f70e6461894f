//! The values themselves: a table that lives in the server's one thread.
//!
//! An object stays as long as somebody holds it: a client process, the server itself (a proxy
//! inside another value), or a ticket (a proxy on its way). A value is taken out of the table
//! while a function has it, so that the function may use other proxies of the same manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::endpoint::Endpoint;
use super::error::CallError;
use super::fork;
use super::method::{Method, Value, wrong_type};
use crate::panic::{self, Panic};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Everything the server has.
pub(super) struct Objects {
    /// Which process serves them: a fork of it has a copy that is nobody's.
    generation: u32,
    endpoint: Arc<Endpoint>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    living: usize,
    /// By object and ticket.
    tickets: HashMap<(u64, u64), Transit>,
    /// Tickets used before their sender's message came.
    used: HashMap<(u64, u64), Instant>,
    tickets_issued: u64,
    /// When the next of either is to be forgotten, at the earliest.
    expiry: Option<Instant>,
    /// How long a ticket outlives its sender.
    grace: Duration,
}

#[derive(Default)]
struct Slot {
    /// Counts the objects that were here; part of an object's number, so that the number of one
    /// that is gone is nobody's.
    generation: u32,
    object: Option<Object>,
}

struct Object {
    /// `None` while a function has it.
    value: Option<Value>,
    type_name: &'static str,
    holds: u64,
    poison: Option<Panic>,
}

/// A proxy on its way.
struct Transit {
    /// How often its bytes were sent, and not received yet.
    count: u64,
    /// The connection of who sent it; `None` if that has ended, or is the server.
    sender: Option<u64>,
    expires: Option<Instant>,
}

/// A used ticket is remembered this long; its sender's message was under way already when it was
/// used, so this is plenty.
const MEMORY: Duration = Duration::from_secs(10);

thread_local! {
    static OBJECTS: RefCell<Option<Objects>> = const { RefCell::new(None) };
    /// What is to be dropped next, while something is.
    static TO_DROP: RefCell<Option<Vec<Value>>> = const { RefCell::new(None) };
}

/// Makes this thread the server's.
pub(super) fn install(endpoint: Arc<Endpoint>, grace: Duration) {
    OBJECTS.set(Some(Objects {
        generation: fork::generation(),
        endpoint,
        slots: Vec::new(),
        free: Vec::new(),
        living: 0,
        tickets: HashMap::new(),
        used: HashMap::new(),
        tickets_issued: 0,
        expiry: None,
        grace,
    }));
}

/// Lets `f` look at the table if this is the server's thread; a fork of the server is not. `f` must
/// run no foreign code: no function, destructor or serialiser of a value.
pub(super) fn with<R>(f: impl FnOnce(&mut Objects) -> R) -> Option<R> {
    let run = |objects: &RefCell<Option<Objects>>| {
        let mut objects = objects.try_borrow_mut().ok()?;
        let ours = |objects: &&mut Objects| objects.generation == fork::generation();
        objects.as_mut().filter(ours).map(f)
    };
    OBJECTS.try_with(run).ok().flatten()
}

/// Whether this thread serves the manager of this id.
pub(super) fn serves(id: &[u8; 16]) -> bool {
    with(|objects| objects.endpoint.id == *id).unwrap_or(false)
}

/// Which manager this thread serves.
pub(super) fn endpoint() -> Option<Arc<Endpoint>> {
    with(|objects| objects.endpoint.clone())
}

/// Ends `count` holds; drops the value if those were the last.
pub(super) fn release(object: u64, count: u64) {
    if let Some(Some(value)) = with(|objects| objects.release(object, count)) {
        drop_value(value);
    }
}

/// Drops a value, and those that it held the last proxies of: one after the other, because a long
/// chain of them must not exhaust the stack. A destructor that panics must not take the server with
/// it either.
pub(super) fn drop_value(value: Value) {
    let outermost = TO_DROP.with_borrow_mut(|values| {
        let outermost = values.is_none();
        values.get_or_insert_default().push(value);
        outermost
    });
    // Within the destructor of another it waits for its turn.
    if !outermost {
        return;
    }
    while let Some(value) = TO_DROP.with_borrow_mut(|values| values.as_mut()?.pop()) {
        let _ = panic::catch(|| drop(value));
    }
    TO_DROP.set(None);
}

/// Runs `f` on a value of this very server, from within a function that runs there.
pub(super) fn call_here<F, T, A>(object: u64, f: F, args: A) -> Result<F::Output, CallError>
where
    F: Method<T, A>,
    T: 'static,
{
    let mut value = with(|objects| objects.take(object)).unwrap_or(Err(CallError::Gone))?;
    let result = match value.downcast_mut::<T>() {
        Some(value) => panic::catch(|| f.call(value, args)).map_err(CallError::Panicked),
        None => Err(wrong_type::<T>()),
    };
    finish(object, value, result)
}

/// Puts a value back after a call, and notes what the call did to it.
pub(super) fn finish<R>(
    object: u64,
    value: Value,
    result: Result<R, CallError>,
) -> Result<R, CallError> {
    let poison = match &result {
        Err(CallError::Panicked(panic)) => Some(panic.clone()),
        _ => None,
    };
    let put = with(|objects| {
        let found = objects.type_name(object);
        (objects.put_back(object, value, poison), found)
    });
    let Some((unneeded, found)) = put else {
        return result;
    };
    if let Some(value) = unneeded {
        drop_value(value);
    }
    result.map_err(|error| match error {
        CallError::Type { expected, .. } => CallError::Type {
            expected,
            found: found.into(),
        },
        other => other,
    })
}

/// Poison of an object, and away with it if `clear`.
pub(super) fn poison(object: u64, clear: bool) -> Result<Option<Panic>, CallError> {
    with(|objects| {
        let object = objects.find(object)?;
        let poison = object.poison.clone();
        if clear {
            object.poison = None;
        }
        Ok(poison)
    })
    .unwrap_or(Err(CallError::Gone))
}

/// Holds that were ended by a thread that is not the server's own.
static ELSEWHERE: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static ANY_ELSEWHERE: AtomicBool = AtomicBool::new(false);
/// The server, should it sleep.
static SERVER: OnceLock<Waker> = OnceLock::new();

/// Says how [`release_elsewhere`] is asked for.
pub(super) fn set_waker(server: Waker) {
    // There is one server in a process.
    let _ = SERVER.set(server);
}

/// The server's own hold on an object is over.
pub(super) fn release_own(id: &[u8; 16], object: u64) {
    if serves(id) {
        return release(object, 1);
    }
    ELSEWHERE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(object);
    ANY_ELSEWHERE.store(true, Ordering::Release);
    if let Some(server) = SERVER.get() {
        server.wake_by_ref();
    }
}

/// Does what [`release_own`] could not do at once.
pub(super) fn release_elsewhere() {
    if !ANY_ELSEWHERE.swap(false, Ordering::Acquire) {
        return;
    }
    let released = mem::take(&mut *ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner));
    for object in released {
        release(object, 1);
    }
}

/// Drops all values, while proxies in them still find the table.
pub(super) fn drop_all() {
    let mut place = 0;
    while let Some(Some(value)) = with(|objects| objects.take_next(&mut place)) {
        drop_value(value);
    }
}

impl Objects {
    /// Adds a value with one hold, and says its number.
    pub(super) fn add(&mut self, value: Value, type_name: &'static str) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.object = Some(Object {
            value: Some(value),
            type_name,
            holds: 1,
            poison: None,
        });
        self.living += 1;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    /// How many objects there are.
    pub(super) fn living(&self) -> usize {
        self.living
    }

    fn find(&mut self, object: u64) -> Result<&mut Object, CallError> {
        let (generation, index) = ((object >> 32) as u32, object as u32 as usize);
        self.slots
            .get_mut(index)
            .filter(|slot| slot.generation == generation)
            .and_then(|slot| slot.object.as_mut())
            .ok_or(CallError::Gone)
    }

    pub(super) fn type_name(&mut self, object: u64) -> &'static str {
        self.find(object)
            .map_or("(gone)", |object| object.type_name)
    }

    /// Takes a value out, for a function.
    pub(super) fn take(&mut self, object: u64) -> Result<Value, CallError> {
        let object = self.find(object)?;
        if let Some(panic) = &object.poison {
            return Err(CallError::Poisoned(panic.clone()));
        }
        object.value.take().ok_or(CallError::Busy)
    }

    /// Puts it back; gives it to the caller, to be dropped, if nobody holds it any more.
    pub(super) fn put_back(
        &mut self,
        object: u64,
        value: Value,
        poison: Option<Panic>,
    ) -> Option<Value> {
        let Ok(found) = self.find(object) else {
            return Some(value);
        };
        found.value = Some(value);
        if poison.is_some() {
            found.poison = poison;
        }
        match found.holds {
            0 => self.remove(object),
            _ => None,
        }
    }

    /// One hold more; false if there is no such object.
    pub(super) fn hold(&mut self, object: u64) -> bool {
        self.find(object).map(|object| object.holds += 1).is_ok()
    }

    fn release(&mut self, object: u64, count: u64) -> Option<Value> {
        let found = self.find(object).ok()?;
        found.holds = found.holds.saturating_sub(count);
        // One that a function has just now is removed when it is put back.
        match found.holds == 0 && found.value.is_some() {
            true => self.remove(object),
            false => None,
        }
    }

    fn remove(&mut self, object: u64) -> Option<Value> {
        let index = object as u32;
        let slot = self.slots.get_mut(index as usize)?;
        let removed = slot.object.take()?;
        self.living -= 1;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        removed.value
    }

    /// The first value at this place or after it, which moves on past that.
    fn take_next(&mut self, place: &mut usize) -> Option<Value> {
        let has_value = |slot: &Slot| slot.object.as_ref().is_some_and(|o| o.value.is_some());
        let index = *place + self.slots.get(*place..)?.iter().position(has_value)?;
        *place = index + 1;
        self.remove(index as u64)
    }

    /// A proxy is on its way: the ticket holds the object until somebody uses it.
    pub(super) fn add_ticket(&mut self, object: u64, ticket: u64, sender: Option<u64>) {
        if self.used.remove(&(object, ticket)).is_some() || !self.hold(object) {
            return;
        }
        let transit = self.tickets.entry((object, ticket)).or_insert(Transit {
            count: 0,
            sender,
            expires: None,
        });
        transit.count += 1;
    }

    /// A ticket for a proxy that the server itself sends.
    pub(super) fn new_ticket(&mut self) -> u64 {
        self.tickets_issued += 1;
        // Clients' tickets have their connection's number, from 1, in the upper half.
        self.tickets_issued & u64::from(u32::MAX)
    }

    /// A ticket arrived: whether it held the object; that hold is the caller's to end.
    pub(super) fn use_ticket(&mut self, object: u64, ticket: u64) -> bool {
        let Entry::Occupied(mut transit) = self.tickets.entry((object, ticket)) else {
            let until = Instant::now() + MEMORY;
            self.used.insert((object, ticket), until);
            self.expire_at(until);
            return false;
        };
        transit.get_mut().count -= 1;
        if transit.get().count == 0 {
            transit.remove();
        }
        true
    }

    /// A client has gone: its proxies on their way have so much time to arrive.
    pub(super) fn sender_gone(&mut self, sender: u64) {
        // A time too long for the clock is for ever.
        let expires = Instant::now().checked_add(self.grace);
        let mut any = false;
        for transit in self.tickets.values_mut() {
            if transit.sender == Some(sender) {
                transit.sender = None;
                transit.expires = expires;
                any = true;
            }
        }
        if let (true, Some(expires)) = (any, expires) {
            self.expire_at(expires);
        }
    }

    fn expire_at(&mut self, date: Instant) {
        self.expiry = Some(self.expiry.map_or(date, |earlier| earlier.min(date)));
    }

    /// When there is something to do for [`Objects::expire`].
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// The objects whose tickets nobody used in time, and how many holds those were: the caller's
    /// to end.
    pub(super) fn expire(&mut self) -> Vec<(u64, u64)> {
        let now = Instant::now();
        if self.expiry.is_none_or(|date| date > now) {
            return Vec::new();
        }
        self.used.retain(|_, until| *until > now);
        let late = self
            .tickets
            .extract_if(|_, t| t.expires.is_some_and(|at| at <= now));
        let late = late.map(|((object, _), transit)| (object, transit.count));
        let late = late.collect();
        let tickets = self.tickets.values().filter_map(|t| t.expires);
        self.expiry = tickets.chain(self.used.values().copied()).min();
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::handle::Handle;
    use testkit::isolated;

    /// So many that it takes far too long if each is looked for from the beginning.
    #[test]
    fn many_values_are_dropped_at_the_end_in_time() {
        isolated(|| {
            install(Endpoint::of_nobody().into(), Duration::ZERO);
            let add = |objects: &mut Objects| {
                for _ in 0..300_000 {
                    objects.add(Box::new(0u8), "u8");
                }
            };
            with(add).unwrap();
            drop_all();
            assert_eq!(with(|objects| objects.living()), Some(0));
        });
    }

    /// Each holds the next.
    fn drop_a_chain() {
        install(Endpoint::of_nobody().into(), Duration::ZERO);
        let add = |value: Value| with(|objects| objects.add(value, "a value")).unwrap();
        let mut first = add(Box::new(()));
        for _ in 0..20_000 {
            let next = Handle::own(first);
            release(first, 1);
            first = add(Box::new(next));
        }
        release(first, 1);
        assert_eq!(with(|objects| objects.living()), Some(0));
    }

    #[test]
    fn a_long_chain_of_values_needs_no_long_stack() {
        isolated(|| {
            let thread = std::thread::Builder::new().stack_size(1 << 20);
            thread.spawn(drop_a_chain).unwrap().join().unwrap();
        });
    }

    #[test]
    fn bytes_that_are_sent_twice_hold_until_they_are_received_twice() {
        install(Endpoint::of_nobody().into(), Duration::ZERO);
        let object = with(|objects| objects.add(Box::new(0u8), "u8")).unwrap();
        let use_ticket = |object| with(|objects| objects.use_ticket(object, 7)).unwrap();
        with(|objects| {
            objects.add_ticket(object, 7, Some(1));
            objects.add_ticket(object, 7, Some(1));
        });
        assert!(!use_ticket(object + 1), "it is for one object");
        assert!(use_ticket(object));
        with(|objects| objects.sender_gone(1));
        let late = with(Objects::expire).unwrap();
        assert_eq!(late, [(object, 1)]);
        assert!(!use_ticket(object));
    }
}
