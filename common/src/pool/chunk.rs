//! How a function runs in a worker: as an entry that runs a chunk of argument tuples.
//!
//! To copy: the folder pool/ and what its mod.rs names.

use super::answers::Answers;
use super::error::Fault;
use crate::codec;
use crate::function::{BadEntry, Entry, EntryRef, Failure, Function, Signature, instance};
use crate::panic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Runs a chunk: an encoded `Vec` of argument tuples. An error is all the items'.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Chunk(fn(&[u8], &mut Answers<'_>) -> Result<(), Fault>);

impl Signature for Chunk {
    const MAGIC: u64 = u64::from_le_bytes(*b"poolchnk");
}

impl Chunk {
    /// Where the entry is that runs `f` on each tuple.
    pub(crate) fn entry<F, A>(_f: F) -> Result<EntryRef, BadEntry>
    where
        F: Function<A, Output: Serialize + 'static>,
        A: DeserializeOwned + 'static,
    {
        EntryRef::of(Plain::<F, A>::ENTRY)
    }

    /// Where the entry is that runs `f` on the worker's state and each item.
    pub(crate) fn entry_with<F, S, A, R>(_f: F) -> Result<EntryRef, BadEntry>
    where
        F: Fn(&mut S, A) -> R + Copy + 'static,
        S: 'static,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        EntryRef::of(Stateful::<F, S, A, R>::ENTRY)
    }

    pub(crate) fn run(self, items: &[u8], answers: &mut Answers<'_>) -> Result<(), Fault> {
        (self.0)(items, answers)
    }
}

struct Plain<F, A>(PhantomData<(F, A)>);

impl<F, A> Plain<F, A>
where
    F: Function<A, Output: Serialize + 'static>,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<Chunk> =
        &Entry::new::<(Chunk, F, A, F::Output)>(Chunk(|items, answers| {
            for (index, args) in tuples::<A>(items)?.into_iter().enumerate() {
                let (out, _) = answers.begin(index);
                let outcome = outcome(|| codec::encode_into(&instance::<F>().call(args), out));
                answers.end(outcome);
            }
            Ok(())
        }));
}

struct Stateful<F, S, A, R>(PhantomData<(F, S, A, R)>);

impl<F, S, A, R> Stateful<F, S, A, R>
where
    F: Fn(&mut S, A) -> R + Copy + 'static,
    S: 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    const ENTRY: &'static Entry<Chunk> =
        &Entry::new::<(Chunk, F, S, A, R)>(Chunk(|items, answers| {
            for (index, (item,)) in tuples::<(A,)>(items)?.into_iter().enumerate() {
                let (out, state) = answers.begin(index);
                let outcome = match state.value.downcast_mut::<S>() {
                    Some(state) => {
                        outcome(|| codec::encode_into(&instance::<F>()(state, item), out))
                    }
                    None => Err(Fault::State {
                        wanted: std::any::type_name::<S>().into(),
                        found: state.type_name.clone(),
                    }),
                };
                answers.end(outcome);
            }
            Ok(())
        }));
}

/// Decoding runs the user's code, which may panic.
fn tuples<A: DeserializeOwned>(items: &[u8]) -> Result<Vec<A>, Fault> {
    let decoded = panic::catch(|| codec::decode_vec::<A>(items));
    let failure = match decoded {
        Ok(Ok(tuples)) => return Ok(tuples),
        Ok(Err(error)) => Failure::Arguments(error),
        Err(panic) => Failure::Panicked(panic),
    };
    Err(Fault::Failed(failure))
}

#[inline]
fn outcome(call: impl FnOnce() -> Result<(), codec::EncodeError>) -> Result<(), Fault> {
    // Boxed: moving a result of 48 bytes about costs more than a quick task.
    let failure = match panic::catch(|| call().map_err(Box::new)) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => Failure::Result(*error),
        Err(panic) => Failure::Panicked(panic),
    };
    Err(Fault::Failed(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corrupted_count_of_tasks_without_arguments_is_refused() {
        let count = |count: u64| count.to_le_bytes();
        assert_eq!(tuples::<()>(&count(3)).ok(), Some(vec![(); 3]));
        let fault = tuples::<()>(&count(u64::MAX / 2)).err();
        assert!(matches!(fault, Some(Fault::Failed(Failure::Arguments(_)))));
    }
}
