//! Functions on hosted values, as something that can be sent.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::context;
use super::error::CallError;
use crate::codec;
use crate::departures::Departures;
use crate::function::{BadEntry, Entry, EntryRef, Failure, Function, Signature, instance};
use crate::panic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, type_name};
use std::marker::PhantomData;
use std::pin::Pin;

/// A function on a hosted value: `fn(&mut T, A..) -> R` with zero to six more arguments. `A` is
/// the tuple of those.
///
/// Implemented for every such `Fn` that captures nothing; a closure must name its first
/// parameter's type: `|list: &mut Vec<u32>, item: u32| list.push(item)`. What
/// [`Function`] says of captures and arguments holds here, too.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function that can be called on a hosted `{T}` with the arguments \
               `{A}`",
    label = "not a function of `&mut {T}` and these arguments",
    note = "its first parameter is `&mut {T}`; the other arguments, at most six, are given as a \
            tuple: `()`, `(a,)`, `(a, b)`, ..."
)]
pub trait Method<T: ?Sized, A>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Calls it.
    fn call(self, value: &mut T, args: A) -> Self::Output;
}

macro_rules! method_of {
    ($($A:ident)*) => {
        impl<F, T, R, $($A),*> Method<T, ($($A,)*)> for F
        where
            F: Fn(&mut T, $($A),*) -> R + Copy + Send + Sync + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(self, value: &mut T, ($($A,)*): ($($A,)*)) -> R {
                self(value, $($A),*)
            }
        }
    };
}

method_of!();
method_of!(A);
method_of!(A B);
method_of!(A B C);
method_of!(A B C D);
method_of!(A B C D E);
method_of!(A B C D E G);

/// A hosted value, whatever its type.
pub(super) type Value = Box<dyn Any>;

/// Calls a function with one value: value, arguments, where the result goes.
#[derive(Clone, Copy)]
pub(super) struct CallEntry(pub(super) fn(&mut dyn Any, &[u8], &mut Vec<u8>) -> Called);

/// Calls a function with several values, of which it gets the types' names too.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)]
pub(super) struct TransactionEntry(
    pub(super) fn(&mut [Value], &[&'static str], &[u8], &mut Vec<u8>) -> Called,
);

/// Calls a function with one value that begins something; what comes of it is a future.
#[derive(Clone, Copy)]
pub(super) struct LaterEntry(pub(super) fn(&mut dyn Any, &[u8]) -> Result<Later, CallError>);

/// A result to come, polled on the server's thread.
pub(super) type Later = Pin<Box<dyn Future<Output = Encode>>>;

/// Encodes a result that has come.
pub(super) type Encode = Box<dyn FnOnce(&mut Vec<u8>) -> Called>;

/// Makes a value; also says what its type is called.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)]
pub(super) struct HostEntry(pub(super) fn(&[u8]) -> Result<(Value, &'static str), CallError>);

pub(super) type Called = Result<(), CallError>;

impl Signature for CallEntry {
    const MAGIC: u64 = 0x6d61_6e01;
}

impl Signature for TransactionEntry {
    const MAGIC: u64 = 0x6d61_6e02;
}

impl Signature for HostEntry {
    const MAGIC: u64 = 0x6d61_6e03;
}

impl Signature for LaterEntry {
    const MAGIC: u64 = 0x6d61_6e04;
}

pub(super) fn call_entry<F, T, A>(_f: F) -> Result<EntryRef, BadEntry>
where
    F: Method<T, A, Output: Serialize + 'static>,
    T: 'static,
    A: DeserializeOwned + 'static,
{
    EntryRef::of(CallOf::<F, T, A>::ENTRY)
}

struct CallOf<F, T, A>(PhantomData<(F, T, A)>);

impl<F, T, A> CallOf<F, T, A>
where
    F: Method<T, A, Output: Serialize + 'static>,
    T: 'static,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<CallEntry> =
        &Entry::new::<(F, T, A, F::Output)>(CallEntry(|value, args, out| {
            let value = value.downcast_mut::<T>().ok_or_else(wrong_type::<T>)?;
            run(args, out, |args| instance::<F>().call(value, args))
        }));
}

/// Decodes, calls, encodes: what every entry does. Only a panic of the function itself is
/// [`CallError::Panicked`]; one of a `Deserialize` or `Serialize` is the message's fault.
pub(super) fn run<A, R>(args: &[u8], out: &mut Vec<u8>, f: impl FnOnce(A) -> R) -> Called
where
    A: DeserializeOwned,
    R: Serialize,
{
    let args = decode(args)?;
    let result = panic::catch(|| f(args)).map_err(CallError::Panicked)?;
    encode(result, out)
}

fn decode<A: DeserializeOwned>(args: &[u8]) -> Result<A, CallError> {
    panic::catch(|| context::decoding_request(|| codec::decode(args)))
        .map_err(|panic| CallError::Server(Failure::Panicked(panic)))?
        .map_err(|error| CallError::Server(Failure::Arguments(error)))
}

fn encode<R: Serialize>(result: R, out: &mut Vec<u8>) -> Called {
    let encode = || context::encoding_reply(|| codec::encode_into(&result, out));
    let encoded = panic::catch(|| Departures::of(encode));
    // Its destructor is the user's as well, and must not take the server with it.
    let _ = panic::catch(|| drop(result));
    let (encoded, departures) =
        encoded.map_err(|panic| CallError::Server(Failure::Panicked(panic)))?;
    encoded.map_err(|error| CallError::Server(Failure::Result(error)))?;
    departures.sent();
    Ok(())
}

pub(super) fn later_entry<F, T, A>(_f: F) -> Result<EntryRef, BadEntry>
where
    F: Method<T, A, Output: Future<Output: Serialize> + 'static>,
    T: 'static,
    A: DeserializeOwned + 'static,
{
    EntryRef::of(LaterOf::<F, T, A>::ENTRY)
}

struct LaterOf<F, T, A>(PhantomData<(F, T, A)>);

impl<F, T, A> LaterOf<F, T, A>
where
    F: Method<T, A, Output: Future<Output: Serialize> + 'static>,
    T: 'static,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<LaterEntry> =
        &Entry::new::<(F, T, A, F::Output)>(LaterEntry(|value, args| {
            let value = value.downcast_mut::<T>().ok_or_else(wrong_type::<T>)?;
            let args = decode(args)?;
            let begin = || instance::<F>().call(value, args);
            let result = panic::catch(begin).map_err(CallError::Panicked)?;
            Ok(Box::pin(async {
                let result = result.await;
                Box::new(move |out: &mut Vec<u8>| encode(result, out)) as Encode
            }) as Later)
        }));
}

/// The found type's name is added by who knows it.
pub(super) fn wrong_type<T>() -> CallError {
    CallError::Type {
        expected: type_name::<T>().into(),
        found: String::new(),
    }
}

pub(super) fn host_entry<F, A>(_f: F) -> Result<EntryRef, BadEntry>
where
    F: Function<A, Output: 'static>,
    A: DeserializeOwned + 'static,
{
    EntryRef::of(HostOf::<F, A>::ENTRY)
}

struct HostOf<F, A>(PhantomData<(F, A)>);

impl<F, A> HostOf<F, A>
where
    F: Function<A, Output: 'static>,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<HostEntry> = &Entry::new::<(F, A, F::Output)>(HostEntry(|args| {
        let args = decode(args)?;
        let value = panic::catch(|| instance::<F>().call(args))
            .map_err(|panic| CallError::Server(Failure::Panicked(panic)))?;
        Ok((Box::new(value) as Value, type_name::<F::Output>()))
    }));
}
