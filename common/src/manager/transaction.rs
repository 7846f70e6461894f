//! One function on several values at once.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::error::CallError;
use super::handle::{Handle, Route};
use super::message::{Kind, Message};
use super::method::{self, Called, TransactionEntry, Value};
use super::proxy::{decode_reply, with_args};
use super::{Hosted, Manager, Proxy, server};
use crate::deadline::Deadline;
use crate::function::{Entry, EntryRef, instance};
use crate::panic;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{Any, type_name};
use std::marker::PhantomData;
use std::sync::Arc;

/// A function on two to four hosted values: `fn(&mut T, &mut U, .., A..) -> R`. `V` is the tuple of
/// the values' types, `A` that of its other arguments, zero to four.
///
/// Implemented for every such `Fn` that captures nothing.
pub trait Transaction<V, A>: Copy + Send + Sync + 'static {
    /// What it returns.
    type Output;

    /// Calls it on values whose types are called `types`.
    ///
    /// # Errors
    ///
    /// [`CallError::Type`] if a value is of another type.
    fn call(
        self,
        values: &mut [Box<dyn Any>],
        types: &[&'static str],
        args: A,
    ) -> Result<Self::Output, CallError>;
}

macro_rules! transaction_of {
    ([$($v:ident: $T:ident),*] $($A:ident)*) => {
        impl<F, R, $($T: 'static,)* $($A),*> Transaction<($($T,)*), ($($A,)*)> for F
        where
            F: Fn($(&mut $T,)* $($A),*) -> R + Copy + Send + Sync + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(
                self,
                values: &mut [Value],
                types: &[&'static str],
                ($($A,)*): ($($A,)*),
            ) -> Result<R, CallError> {
                let [$($v),*] = values else {
                    return Err(CallError::Gone);
                };
                let mut types = types.iter();
                $(let $v = downcast::<$T>($v, types.next())?;)*
                Ok(self($($v,)* $($A),*))
            }
        }
    };
}

fn downcast<'v, T: 'static>(
    value: &'v mut Value,
    found: Option<&&'static str>,
) -> Result<&'v mut T, CallError> {
    value.downcast_mut().ok_or_else(|| CallError::Type {
        expected: type_name::<T>().into(),
        found: found.copied().unwrap_or_default().into(),
    })
}

macro_rules! transactions_of {
    ($values:tt) => {
        transaction_of!($values);
        transaction_of!($values A);
        transaction_of!($values A B);
        transaction_of!($values A B C);
        transaction_of!($values A B C D);
    };
}

transactions_of!([a: T, b: U]);
transactions_of!([a: T, b: U, c: V]);
transactions_of!([a: T, b: U, c: V, d: W]);

/// Two to four proxies, of any kind: `(&a, &b)`.
pub trait Values {
    /// The tuple of the values' types.
    type Types: 'static;

    /// The proxies, whatever their types.
    #[doc(hidden)]
    fn proxies(&self) -> Vec<Proxy<()>>;
}

macro_rules! values_of {
    ($($P:ident)*) => {
        impl<$($P: Hosted),*> Values for ($(&$P,)*) {
            type Types = ($($P::Value,)*);

            #[allow(non_snake_case)]
            fn proxies(&self) -> Vec<Proxy<()>> {
                let ($($P,)*) = self;
                vec![$($P.proxy().untyped()),*]
            }
        }
    };
}

values_of!(A B);
values_of!(A B C);
values_of!(A B C D);

/// Runs `f` on several values of one manager at once: nobody sees them in between. Works in any
/// process that has the proxies.
///
/// Takes at most the shortest of their [limits](Hosted::with_timeout).
///
/// It is a transaction in that nothing comes between, not in that it is rolled back: if `f`
/// panics, what it did until then stays, and all the values are poisoned.
///
/// # Errors
///
/// [`CallError::Foreign`] if they belong to different managers, [`CallError::Busy`] if one of
/// them is named twice, and as [`Proxy::call`].
///
/// ```
/// use common::manager::{Manager, transaction};
///
/// fn transfer(from: &mut i64, to: &mut i64, amount: i64) -> bool {
///     if *from < amount {
///         return false;
///     }
///     *from -= amount;
///     *to += amount;
///     true
/// }
///
/// let manager = Manager::new()?;
/// let (mine, yours) = (manager.host(100i64)?, manager.host(0i64)?);
/// assert!(transaction((&mine, &yours), transfer, (70,))?);
/// assert!(!transaction((&mine, &yours), transfer, (70,))?);
/// assert_eq!(yours.call(|n: &mut i64| *n, ())?, 70);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn transaction<V, F, A>(values: V, f: F, args: A) -> Result<F::Output, CallError>
where
    V: Values,
    F: Transaction<V::Types, A, Output: Serialize + DeserializeOwned + 'static>,
    A: Serialize + DeserializeOwned + 'static,
{
    let proxies = values.proxies();
    let handles: Vec<&Arc<Handle>> = proxies.iter().map(Proxy::handle).collect();
    let Some((first, others)) = handles.split_first() else {
        return Err(CallError::Gone);
    };
    if others.iter().any(|h| h.endpoint.id != first.endpoint.id) {
        return Err(CallError::Foreign);
    }
    let deadline = Deadline::from(proxies.iter().filter_map(Proxy::timeout).min());
    let connection = match first.route(deadline) {
        Route::Here => return here::<V, F, A>(&handles, f, args),
        Route::There(connection) => connection,
    };
    let entry = EntryRef::of(TransactionOf::<V, F, A>::ENTRY).map_err(CallError::Function)?;
    let mut message = Message::new(Kind::Transaction, 0).u64(handles.len() as u64);
    for handle in &handles {
        // In a forked process each object has to be held anew.
        handle.route(deadline);
        message = message.u64(handle.object);
    }
    let message = with_args(message, &connection, &entry, &args, deadline)?;
    let reply = connection.request(message, deadline)?;
    let result: Option<F::Output> = decode_reply(&connection, reply, deadline)?;
    // `None` only beside an error, which came instead.
    result.ok_or(CallError::Gone)
}

/// From within a function that runs on the server.
fn here<V, F, A>(handles: &[&Arc<Handle>], f: F, args: A) -> Result<F::Output, CallError>
where
    V: Values,
    F: Transaction<V::Types, A>,
{
    let numbers: Vec<u64> = handles.iter().map(|handle| handle.object).collect();
    server::with_values(&numbers, |values, types| {
        panic::catch(|| f.call(values, types, args)).map_err(CallError::Panicked)?
    })
}

struct TransactionOf<V, F, A>(PhantomData<(V, F, A)>);

impl<V, F, A> TransactionOf<V, F, A>
where
    V: Values,
    F: Transaction<V::Types, A, Output: Serialize + 'static>,
    A: DeserializeOwned + 'static,
{
    const ENTRY: &'static Entry<TransactionEntry> =
        &Entry::new::<(F, V::Types, A, F::Output)>(TransactionEntry(|values, types, args, out| {
            let mut failed: Called = Ok(());
            let ran = method::run(args, out, |args| {
                let result = instance::<F>().call(values, types, args);
                result.map_err(|error| failed = Err(error)).ok()
            });
            failed.and(ran)
        }));
}

impl Manager {
    /// As the function [`transaction`].
    ///
    /// # Errors
    ///
    /// As [`transaction`].
    pub fn transaction<V, F, A>(&self, values: V, f: F, args: A) -> Result<F::Output, CallError>
    where
        V: Values,
        F: Transaction<V::Types, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        transaction(values, f, args)
    }
}
