//! A handle on a hosted value.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::connection::Connection;
use super::error::CallError;
use super::future::CallFuture;
use super::handle::{Handle, Route};
use super::message::{Kind, Message};
use super::method::{self, Method};
use super::pending::Reply;
use super::{buffer, context, objects};
use crate::codec;
use crate::deadline::Deadline;
use crate::departures::Departures;
use crate::function::EntryRef;
use crate::panic::Panic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A handle on a value that a manager owns; works in any process of the program.
///
/// Clone it, send it as an argument, through a queue, or inside another hosted value. The value
/// is dropped when its last proxy anywhere is gone, also when the processes that had them were
/// killed. A proxy that was serialised and has not arrived yet counts as one as long as the
/// process that serialised it lives, and for a minute after that (see
/// [`Builder::transit`](super::Builder::transit)).
///
/// `Debug` shows the handle and asks nobody.
///
/// ```
/// use common::manager::{Manager, Proxy};
/// use common::process::Process;
///
/// fn work(counter: Proxy<u64>) {
///     for _ in 0..100 {
///         counter.call(|n: &mut u64, by: u64| *n += by, (1,)).unwrap();
///     }
/// }
///
/// let manager = Manager::new()?;
/// let counter = manager.host(0u64)?;
/// let process = Process::spawn(work, (counter.clone(),))?;
/// work(counter.clone());
/// process.join()?;
/// assert_eq!(counter.call(|n: &mut u64| *n, ())?, 200);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "BaseProxy")]
pub struct Proxy<T> {
    handle: Arc<Handle>,
    /// How long each call may take; `None` is for ever.
    timeout: Option<Duration>,
    /// Neither has nor borrows a `T`.
    value: PhantomData<fn(T) -> T>,
}

impl<T> Proxy<T> {
    pub(super) fn new(handle: Handle) -> Self {
        Self::of_handle(Arc::new(handle))
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn of_handle(handle: Arc<Handle>) -> Self {
        Proxy {
            handle,
            timeout: None,
            value: PhantomData,
        }
    }

    /// The same, whatever the value's type.
    pub(super) fn untyped(&self) -> Proxy<()> {
        Proxy::of_handle(self.handle.clone()).limited(self.timeout)
    }

    /// The same with another limit to its calls.
    pub(super) fn limited(self, timeout: Option<Duration>) -> Self {
        Proxy { timeout, ..self }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Until when a call may wait that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::from(self.timeout)
    }
}

impl<T: 'static> Proxy<T> {
    /// Runs `f(&mut value, args..)` in the manager's process and gives back what it returned.
    /// Functions run one at a time, so whatever `f` does to the value is atomic. Waits for those
    /// before it, and for this one; see [`with_timeout`](super::Hosted::with_timeout) for a limit.
    ///
    /// `f` is a `fn` item or a closure that captures nothing and names its first parameter's type.
    ///
    /// It may use other proxies, also of other managers. But two managers whose functions call each
    /// other's values at one moment wait for each other: for ever, unless one of the calls has a
    /// limit.
    ///
    /// # Errors
    ///
    /// [`CallError`]. If `f` panics that is an error, and the value is poisoned: every later call
    /// fails, until somebody calls [`clear_poison`](Proxy::clear_poison).
    #[doc(alias = "_callmethod")]
    pub fn call<F, A>(&self, f: F, args: A) -> Result<F::Output, CallError>
    where
        F: Method<T, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.call_until(f, args, self.deadline())
    }

    /// As [`call`](Proxy::call), for at most `timeout`, connecting included. When the time is
    /// over the function may still run later, and its result is lost.
    ///
    /// # Errors
    ///
    /// [`CallError::Timeout`], and as [`call`](Proxy::call).
    pub fn call_timeout<F, A>(
        &self,
        f: F,
        args: A,
        timeout: Duration,
    ) -> Result<F::Output, CallError>
    where
        F: Method<T, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.call_until(f, args, Deadline::after(timeout))
    }

    pub(super) fn call_until<F, A>(
        &self,
        f: F,
        args: A,
        deadline: Deadline,
    ) -> Result<F::Output, CallError>
    where
        F: Method<T, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        match self.handle.route(deadline) {
            Route::Here => objects::call_here(self.handle.object, f, args),
            Route::There(connection) => {
                let message = self.message(&connection, f, &args, deadline)?;
                let reply = connection.request(message, deadline)?;
                decode_reply(&connection, reply, deadline)
            }
        }
    }

    /// Sends the call and returns at once; the future gives its result. Many may be in flight,
    /// which is several times faster than one after the other; they run in the order of their
    /// sending. What does not fit in the channel waits in this process's memory.
    ///
    /// ```
    /// use common::manager::Manager;
    /// let manager = Manager::new()?;
    /// let list = manager.host(Vec::<u32>::new())?;
    /// let calls: Vec<_> = (0..100)
    ///     .map(|i| list.call_async(|list: &mut Vec<u32>, i: u32| list.push(i), (i,)))
    ///     .collect();
    /// futures::executor::block_on(futures::future::try_join_all(calls))?;
    /// assert_eq!(list.call(|list: &mut Vec<u32>| list.len(), ())?, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_async<F, A>(&self, f: F, args: A) -> CallFuture<F::Output>
    where
        F: Method<T, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let deadline = self.deadline();
        match self.handle.route(deadline) {
            Route::Here => CallFuture::done(objects::call_here(self.handle.object, f, args)),
            Route::There(connection) => {
                let message = self.message(&connection, f, &args, deadline);
                CallFuture::of(connection, message)
            }
        }
    }

    /// As [`call_async`](Proxy::call_async) for an `f` that begins something and returns a future:
    /// what comes of that is the result. Meanwhile the manager runs other calls.
    pub(super) fn call_later<F, A, R>(&self, f: F, args: A, deadline: Deadline) -> CallFuture<R>
    where
        F: Method<T, A, Output: Future<Output = R> + 'static>,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned,
    {
        let Route::There(connection) = self.handle.route(deadline) else {
            return CallFuture::done(Err(CallError::WouldBlock));
        };
        let message = method::later_entry(f)
            .map_err(CallError::Function)
            .and_then(|entry| {
                self.message_of(Kind::CallLater, &connection, &entry, &args, deadline)
            });
        CallFuture::of(connection, message)
    }

    fn message<F, A>(
        &self,
        connection: &Arc<Connection>,
        f: F,
        args: &A,
        deadline: Deadline,
    ) -> Result<Message, CallError>
    where
        F: Method<T, A, Output: Serialize + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let entry = method::call_entry(f).map_err(CallError::Function)?;
        self.message_of(Kind::Call, connection, &entry, args, deadline)
    }

    fn message_of<A: Serialize>(
        &self,
        kind: Kind,
        connection: &Arc<Connection>,
        entry: &EntryRef,
        args: &A,
        deadline: Deadline,
    ) -> Result<Message, CallError> {
        let message = Message::in_buffer(buffer::take(), kind, 0).u64(self.handle.object);
        with_args(message, connection, entry, args, deadline)
    }

    /// Whether a function that had the value panicked.
    ///
    /// # Errors
    ///
    /// [`CallError`], where the manager cannot be asked.
    pub fn is_poisoned(&self) -> Result<bool, CallError> {
        self.poison(false).map(|poison| poison.is_some())
    }

    /// Makes the value usable again, whatever the function that panicked left of it: have a look
    /// at it next, or put another in its place.
    ///
    /// # Errors
    ///
    /// As [`is_poisoned`](Proxy::is_poisoned).
    ///
    /// ```
    /// use common::manager::{CallError, Manager};
    /// let manager = Manager::new()?;
    /// let value = manager.host(1)?;
    /// let fail = |n: &mut i32| -> () {
    ///     *n = 2;
    ///     panic!("half-way")
    /// };
    /// assert!(matches!(value.call(fail, ()), Err(CallError::Panicked(_))));
    /// assert!(matches!(value.call(|n: &mut i32| *n, ()), Err(CallError::Poisoned(_))));
    /// value.clear_poison()?;
    /// assert_eq!(value.call(|n: &mut i32| *n, ())?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear_poison(&self) -> Result<(), CallError> {
        self.poison(true).map(drop)
    }

    fn poison(&self, clear: bool) -> Result<Option<Panic>, CallError> {
        let deadline = self.deadline();
        match self.handle.route(deadline) {
            Route::Here => objects::poison(self.handle.object, clear),
            Route::There(connection) => {
                let message = Message::new(Kind::Poison, 0)
                    .u64(self.handle.object)
                    .u64(clear.into());
                let reply = connection.request(message, deadline)?;
                decode_reply(&connection, reply, deadline)
            }
        }
    }
}

/// Ends a message with a function and its arguments.
pub(super) fn with_args<A: Serialize>(
    mut message: Message,
    connection: &Arc<Connection>,
    entry: &EntryRef,
    args: &A,
    deadline: Deadline,
) -> Result<Message, CallError> {
    let body = message.body();
    codec::encode_into(entry, body).map_err(CallError::Arguments)?;
    let encode = || codec::encode_into(args, body);
    let (encoded, departures) =
        Departures::of(|| context::of_connection(connection, deadline, encode));
    encoded.map_err(CallError::Arguments)?;
    message.departures = departures;
    Ok(message)
}

/// What a reply says. A proxy in it may have to connect to its manager: until `deadline`.
pub(super) fn decode_reply<R: DeserializeOwned>(
    connection: &Arc<Connection>,
    reply: Reply,
    deadline: Deadline,
) -> Result<R, CallError> {
    let decode = || codec::decode(reply.payload());
    let granted = Granted(connection, &reply);
    let result = match reply.returned() {
        true => context::of_connection(connection, deadline, decode).map_err(CallError::Result),
        false => Err(codec::decode(reply.payload()).unwrap_or_else(CallError::Result)),
    };
    drop(granted);
    buffer::give(reply.into_buffer());
    result
}

/// Until it is dropped this process holds what the reply grants; then only its proxies do, also if
/// the decoding of something beside them has panicked.
struct Granted<'a>(&'a Connection, &'a Reply);

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        for object in self.1.grants() {
            self.0.release(object);
        }
    }
}

impl<T> Clone for Proxy<T> {
    fn clone(&self) -> Self {
        Self::of_handle(self.handle.clone()).limited(self.timeout)
    }
}

impl<T> fmt::Debug for Proxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proxy<{}>({:#x} at {})",
            std::any::type_name::<T>(),
            self.handle.object,
            self.handle.endpoint.name
        )
    }
}

impl<T> Serialize for Proxy<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.handle.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Proxy<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(Handle::deserialize(deserializer)?))
    }
}
