//! Doing what a request asks for.

use super::client::Holds;
use crate::codec;
use crate::function::{EntryRef, Failure, Signature};
use crate::manager::error::CallError;
use crate::manager::message::{Body, Header, Kind, Message};
use crate::manager::method::{CallEntry, HostEntry, Later, LaterEntry, TransactionEntry, Value};
use crate::manager::{buffer, context, objects};

pub(super) enum Outcome {
    Nothing,
    /// To be sent back.
    Answer(Vec<u8>),
    /// The answer to the request of this number comes later.
    Later(u64, Later),
    Shutdown,
    /// The client is broken: what comes next cannot be understood either.
    Nonsense,
}

/// What a client asks for, done.
pub(super) fn handle(request: &[u8], client: u32, holds: &mut Holds) -> Outcome {
    let Some((header, body)) = Header::parse(request) else {
        return Outcome::Nonsense;
    };
    let number = header.number;
    let done = match header.kind {
        Kind::Call => return answer(number, holds, |out| call(body, out)),
        Kind::CallLater => return call_later(number, body, holds),
        Kind::Transaction => return answer(number, holds, |out| transaction(body, out)),
        Kind::Host => return host(number, body, holds),
        Kind::Poison => return answer(number, holds, |out| poison(body, out)),
        Kind::Claim => claim(body, holds),
        Kind::Ticket => ticket(body, client),
        Kind::Release => release(body, holds),
        Kind::Shutdown => return Outcome::Shutdown,
        Kind::Returned | Kind::Failed => None,
    };
    match done {
        Some(()) => Outcome::Nothing,
        None => Outcome::Nonsense,
    }
}

/// Answers the request of this number with what `f` encodes.
pub(super) fn answer(
    number: u64,
    holds: &mut Holds,
    f: impl FnOnce(&mut Vec<u8>) -> Result<(), CallError>,
) -> Outcome {
    let mut message = Message::in_buffer(buffer::take(), Kind::Returned, number);
    let outcome = f(message.body());
    let granted = context::take_grants();
    match outcome {
        Ok(()) => {
            for &object in &granted {
                *holds.0.entry(object).or_default() += 1;
            }
            Outcome::Answer(message.grants(&granted).finish())
        }
        Err(error) => {
            // A result whose encoding failed half-way goes nowhere.
            for object in granted {
                objects::release(object, 1);
            }
            let mut message = Message::new(Kind::Failed, number);
            // An error is made of strings and numbers; should that fail, an empty one is an
            // error to the client as well.
            let _ = codec::encode_into(&error, message.body());
            Outcome::Answer(message.finish())
        }
    }
}

/// The request is cut short or of another form: its sender is told.
fn misread(body: &Body<'_>, what: &str) -> CallError {
    CallError::Server(Failure::Arguments(codec::DecodeError {
        type_name: what.into(),
        length: body.0.len(),
        reason: "the request is cut short".into(),
    }))
}

fn function<S: Signature>(body: &mut Body<'_>) -> Result<S, CallError> {
    let bytes = body.take(16).ok_or_else(|| misread(body, "a function"))?;
    let entry: EntryRef =
        codec::decode(bytes).map_err(|error| CallError::Server(Failure::Arguments(error)))?;
    entry
        .resolve()
        .map_err(|error| CallError::Server(Failure::Entry(error)))
}

fn call(mut body: Body<'_>, out: &mut Vec<u8>) -> Result<(), CallError> {
    let object = body.number().ok_or_else(|| misread(&body, "an object"))?;
    let CallEntry(run) = function(&mut body)?;
    let mut value = take(object)?;
    let result = run(&mut *value, body.0, out);
    objects::finish(object, value, result)
}

fn call_later(number: u64, body: Body<'_>, holds: &mut Holds) -> Outcome {
    match begin(body) {
        Ok(later) => Outcome::Later(number, later),
        Err(error) => answer(number, holds, |_| Err(error)),
    }
}

fn begin(mut body: Body<'_>) -> Result<Later, CallError> {
    let object = body.number().ok_or_else(|| misread(&body, "an object"))?;
    let LaterEntry(begin) = function(&mut body)?;
    let mut value = take(object)?;
    let begun = begin(&mut *value, body.0);
    objects::finish(object, value, begun)
}

fn take(object: u64) -> Result<Value, CallError> {
    objects::with(|objects| objects.take(object)).unwrap_or(Err(CallError::Gone))
}

fn transaction(mut body: Body<'_>, out: &mut Vec<u8>) -> Result<(), CallError> {
    let count = body.number().filter(|&count| count <= 16);
    let count = count.ok_or_else(|| misread(&body, "a count"))?;
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(body.number().ok_or_else(|| misread(&body, "an object"))?);
    }
    let TransactionEntry(run) = function(&mut body)?;
    with_values(&numbers, |values, types| run(values, types, body.0, out))
}

/// Takes the values of these objects, runs `run` on them and the names of their types, and puts
/// them back.
pub(in crate::manager) fn with_values<R>(
    numbers: &[u64],
    run: impl FnOnce(&mut [Value], &[&'static str]) -> Result<R, CallError>,
) -> Result<R, CallError> {
    let (mut values, mut types) = (Vec::new(), Vec::new());
    let taken = numbers.iter().try_for_each(|&number| {
        values.push(take(number)?);
        types.extend(objects::with(|objects| objects.type_name(number)));
        Ok(())
    });
    let result = taken.and_then(|()| run(&mut values, &types));
    for (&number, value) in numbers.iter().zip(values) {
        let each: Result<(), CallError> = match &result {
            Err(CallError::Panicked(panic)) => Err(CallError::Panicked(panic.clone())),
            _ => Ok(()),
        };
        let _ = objects::finish(number, value, each);
    }
    result
}

fn host(number: u64, mut body: Body<'_>, holds: &mut Holds) -> Outcome {
    let made = function(&mut body).and_then(|HostEntry(make)| make(body.0));
    answer(number, holds, |out| {
        let (value, type_name) = made?;
        let object = objects::with(|objects| objects.add(value, type_name));
        let object = object.ok_or(CallError::Gone)?;
        // The hold that it was made with is the client's.
        context::grant(object);
        codec::encode_into(&object, out).map_err(|error| CallError::Server(Failure::Result(error)))
    })
}

fn poison(mut body: Body<'_>, out: &mut Vec<u8>) -> Result<(), CallError> {
    let object = body.number().ok_or_else(|| misread(&body, "an object"))?;
    let clear = body.number().ok_or_else(|| misread(&body, "a flag"))?;
    let poison = objects::poison(object, clear != 0)?;
    codec::encode_into(&poison, out).map_err(|error| CallError::Server(Failure::Result(error)))
}

fn claim(mut body: Body<'_>, holds: &mut Holds) -> Option<()> {
    let (object, ticket) = (body.number()?, body.number()?);
    let used = match ticket {
        0 => None,
        ticket => objects::with(|objects| objects.use_ticket(object, ticket)),
    };
    let held = objects::with(|objects| objects.hold(object)).unwrap_or(false);
    if held {
        *holds.0.entry(object).or_default() += 1;
    }
    if used == Some(true) {
        objects::release(object, 1);
    }
    Some(())
}

fn ticket(mut body: Body<'_>, client: u32) -> Option<()> {
    let (object, ticket) = (body.number()?, body.number()?);
    objects::with(|objects| objects.add_ticket(object, ticket, Some(client.into())));
    Some(())
}

fn release(mut body: Body<'_>, holds: &mut Holds) -> Option<()> {
    let (object, count) = (body.number()?, body.number()?);
    let held = holds.0.get_mut(&object);
    // A client can give back only what it has: a broken one harms nobody else.
    let Some(held) = held else {
        return Some(());
    };
    let count = count.min(*held);
    *held -= count;
    if *held == 0 {
        holds.0.remove(&object);
    }
    objects::release(object, count);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::endpoint::Endpoint;
    use crate::manager::{method, names};
    use std::time::Duration;

    fn install() -> u64 {
        let endpoint = Endpoint::of_nobody();
        objects::install(endpoint.into(), Duration::ZERO);
        names::install();
        let add = |objects: &mut objects::Objects| objects.add(Box::new(vec![1u64]), "Vec<u64>");
        objects::with(add).unwrap()
    }

    fn push(list: &mut Vec<u64>, text: String) -> usize {
        list.push(text.len() as u64);
        list.truncate(8);
        list.len()
    }

    fn request(object: u64) -> Vec<u8> {
        let mut message = Message::new(Kind::Call, 3).u64(object);
        let entry = method::call_entry::<_, Vec<u64>, (String,)>(push).unwrap();
        codec::encode_into(&entry, message.body()).unwrap();
        codec::encode_into(&("some text",), message.body()).unwrap();
        message.finish()
    }

    fn request_later(object: u64) -> Vec<u8> {
        let push = |list: &mut Vec<u64>, text: String| std::future::ready(push(list, text));
        let mut message = Message::new(Kind::CallLater, 3).u64(object);
        let entry = method::later_entry::<_, Vec<u64>, (String,)>(push).unwrap();
        codec::encode_into(&entry, message.body()).unwrap();
        codec::encode_into(&("some text",), message.body()).unwrap();
        message.finish()
    }

    #[test]
    fn a_request_is_answered() {
        let request = request(install());
        let Outcome::Answer(answer) = handle(&request, 1, &mut Holds::default()) else {
            panic!("no answer");
        };
        let (header, body) = Header::parse(&answer).unwrap();
        assert_eq!((header.kind, header.number), (Kind::Returned, 3));
        assert_eq!(codec::decode::<usize>(body.0).unwrap(), 2);
    }

    /// Any bytes: an answer, an error or the end of this client, but never of the server.
    #[test]
    fn corrupted_requests_are_errors() {
        let object = install();
        let wholes = [request(object), request_later(object)];
        let soak: u64 = std::env::var("SOAK").map_or(1, |text| text.parse().unwrap_or(1));
        let mut random = 7u64;
        let mut next = move || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize
        };
        let mut holds = Holds::default();
        for round in 0..100_000 * soak {
            let mut bytes = wholes[round as usize % 2].clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            if next() % 4 == 0 {
                bytes.truncate(next() % bytes.len());
            }
            let _ = handle(&bytes, 1, &mut holds);
        }
        let [call, later] = wholes.map(|whole| handle(&whole, 1, &mut holds));
        assert!(matches!(call, Outcome::Answer(_)));
        assert!(matches!(later, Outcome::Later(3, _)));
    }
}
