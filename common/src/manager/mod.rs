//! Values shared between processes: a process owns them, others send it functions to run on them.
//!
//! ```text
//!   this process                 |    manager's process        |   any other process
//!   Manager, Proxy<T> --- f, args ---> f(&mut value, args..) <---- f, args --- Proxy<T>
//!                     <-- result ----  one at a time      ------- result -->
//!                                |  values: T, U, V, ...       |
//! ```
//!
//! Python's manager sends the names of methods; here the function itself goes to the value, so
//! *any* read-modify-write is atomic: `counter.call(|n: &mut u64| *n += 1, ())`. [`ListProxy`],
//! [`DictProxy`] and their siblings are thin layers over [`Proxy::call`].
//!
//! Whatever there is to wait for ([`LockProxy`], [`QueueProxy`] and so on) is one of this library's
//! in shared memory, and [`PoolProxy`] is a pool of workers that belongs to the manager.
//!
//! Requests and replies travel through shared memory, a pair of lanes for each client process
//! (see `channel.rs`); a socket attaches clients, wakes sleepers, and tells each side at once when
//! the other has ended.
//!
//! A proxy works in any process that it gets to, and its value lives until the last one is gone.
//! A value that holds proxies to itself, directly or in a circle, lives as long as its manager,
//! or until one of its functions drops them.
//!
//! To copy: the folder manager/, process/ and what its mod.rs names, queue/ and what its mod.rs
//! names, sync/ and what its mod.rs names, pool/ and what its mod.rs names.

mod address;
mod array;
mod attach;
mod buffer;
mod builder;
mod channel;
mod connection;
mod context;
mod dict;
mod endpoint;
mod error;
mod exchange;
mod fork;
mod future;
mod handle;
mod hello;
mod list;
mod message;
mod method;
mod names;
mod namespace;
mod objects;
mod outbox;
mod pending;
mod pool;
mod proxy;
mod remote;
mod server;
mod set;
mod socket;
mod spin;
mod sync;
mod sys;
mod transaction;
mod typed;
mod value;

pub use address::{Address, BadKey, Key};
pub use array::ArrayProxy;
pub use builder::Builder;
pub use dict::DictProxy;
pub use error::{CallError, ConnectError, Refusal, StartError};
pub use future::CallFuture;
pub use list::{IndexError, ListProxy};
pub use method::Method;
pub use namespace::Namespace;
pub use pool::PoolProxy;
pub use proxy::Proxy;
pub use set::SetProxy;
pub use sync::{
    BarrierProxy, ConditionProxy, EventProxy, JoinableQueueProxy, LockProxy, QueueProxy,
    RLockProxy, SemaphoreProxy,
};
pub use transaction::{Transaction, Values, transaction};
pub use typed::{Hosted, Item};
pub use value::ValueProxy;

use crate::deadline::Deadline;
use crate::function::{Failure, Function};
use crate::panic;
use crate::process::Process;
use connection::{Connection, Death};
use handle::Handle;
use message::{Kind, Message};
use names::Names;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A process that owns values; Python's `Manager()`.
///
/// Dropping the one that started it shuts it down: it is asked, waited for (one second, in which
/// it does the calls that were made before), terminated and killed. It ends with the process that
/// started it, however that ends.
///
/// ```
/// use common::manager::Manager;
///
/// let manager = Manager::new()?;
/// let list = manager.list::<u32>()?;
/// list.append(5)?;
/// assert_eq!(list.to_string(), "[5]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("BaseManager", "SyncManager"))]
pub struct Manager {
    connection: Arc<Connection>,
    key: Key,
    /// If it was started here.
    process: Option<Process<()>>,
    /// How long each call may take; `None` is for ever.
    timeout: Option<Duration>,
}

/// How long a manager may take over each step of its end.
const GRACE: Duration = Duration::from_secs(1);

impl Manager {
    /// Starts a manager for this process and those it gives proxies to.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn new() -> Result<Manager, StartError> {
        Manager::builder().start()
    }

    /// Describes a manager before it is started.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// From now on each call, and each of the proxies that this manager gives here, takes at most
    /// `timeout`; see [`Hosted::with_timeout`]. Otherwise a call takes as long as those before it.
    ///
    /// ```
    /// use common::manager::{CallError, Manager};
    /// use std::time::Duration;
    ///
    /// let mut manager = Manager::new()?;
    /// manager.set_timeout(Duration::from_millis(20));
    /// let slow = manager.host_with(|| std::thread::sleep(Duration::MAX), ());
    /// assert!(matches!(slow, Err(CallError::Timeout { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Hosts a value: it is moved to the manager's process, encoded.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn host<T>(&self, value: T) -> Result<Proxy<T>, CallError>
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        self.host_with(|value: T| value, (value,))
    }

    /// Hosts what `f(args)` returns, called in the manager's process: so that the value may be
    /// something that cannot be sent, such as a file, a connection or a cache.
    ///
    /// # Errors
    ///
    /// [`CallError`]; if `f` panics, [`CallError::Server`].
    ///
    /// ```
    /// use common::manager::Manager;
    /// use std::fs::File;
    /// use std::io::Read;
    ///
    /// let manager = Manager::new()?;
    /// let open = |path: String| File::open(path).unwrap();
    /// let file = manager.host_with(open, ("/dev/zero".to_string(),))?;
    /// let read = |file: &mut File| {
    ///     let mut bytes = [1; 4];
    ///     file.read_exact(&mut bytes).map(|()| bytes).ok()
    /// };
    /// assert_eq!(file.call(read, ())?, Some([0; 4]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "register")]
    pub fn host_with<F, A, T>(&self, f: F, args: A) -> Result<Proxy<T>, CallError>
    where
        F: Function<A, Output = T>,
        A: Serialize + DeserializeOwned + 'static,
        T: 'static,
    {
        if objects::serves(&self.connection.endpoint.id) {
            return Ok(Proxy::new(host_here(f, args)?).limited(self.timeout));
        }
        let deadline = Deadline::from(self.timeout);
        let connection = self.connection(deadline);
        let entry = method::host_entry(f).map_err(CallError::Function)?;
        let message = Message::new(Kind::Host, 0);
        let message = proxy::with_args(message, &connection, &entry, &args, deadline)?;
        let reply = connection.request(message, deadline)?;
        let granted = reply.grants().next();
        // Made before the reply's own hold ends.
        let handle = granted.map(|object| Handle::granted(&connection, object));
        let _: u64 = proxy::decode_reply(&connection, reply, deadline)?;
        let proxy = Proxy::new(handle.ok_or(CallError::Gone)?);
        Ok(proxy.limited(self.timeout))
    }

    /// Gives a value a name, for processes that know only the manager's address. It stays until
    /// [`withdraw`](Manager::withdraw), another value of that name, or the manager's end.
    ///
    /// # Errors
    ///
    /// [`CallError`]; [`CallError::Foreign`] for another manager's value.
    pub fn publish<P: Hosted>(&self, name: &str, proxy: &P) -> Result<(), CallError> {
        let proxy = proxy.proxy().untyped();
        if proxy.handle().endpoint.id != self.connection.endpoint.id {
            return Err(CallError::Foreign);
        }
        let (name, kind) = (name.to_owned(), type_name::<P::Value>().to_owned());
        // The handle is encoded by reference, as the proxy would be.
        self.ask_names(names::publish, (name, kind, proxy))
    }

    /// The value of that name, as the kind of proxy it was published as; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError::Type`] if it is of another type, and else as any call.
    pub fn get<P: Hosted>(&self, name: &str) -> Result<Option<P>, CallError> {
        let found = self.ask_names(names::find, (name.to_owned(),))?;
        let Some((found, proxy)) = found else {
            return Ok(None);
        };
        let expected = type_name::<P::Value>();
        if found != expected {
            let expected = expected.into();
            return Err(CallError::Type { expected, found });
        }
        let proxy = Proxy::of_handle(proxy.handle().clone());
        Ok(Some(P::from_proxy(proxy.limited(self.timeout))))
    }

    /// Takes a name away; says whether there was a value of that name.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn withdraw(&self, name: &str) -> Result<bool, CallError> {
        self.ask_names(names::withdraw, (name.to_owned(),))
    }

    /// How many values it owns.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn count(&self) -> Result<usize, CallError> {
        self.ask_names(names::count, ())
    }

    /// Its process id; `None` if it was not started by this process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The exit code of its process: 0 if it ended because it was asked to, `-15` if it was busy
    /// and had to be terminated, and so on. `None` while it runs, and if it was not started by
    /// this process.
    ///
    /// ```
    /// let mut manager = common::manager::Manager::new()?;
    /// assert_eq!(manager.exit_code(), None);
    /// manager.shutdown();
    /// assert_eq!(manager.exit_code(), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exit_code(&self) -> Option<i32> {
        self.process.as_ref().and_then(Process::exit_code)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.connection.endpoint.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.connection.endpoint.address
    }

    /// The key to it.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Shuts it down now, as dropping it does. Calls on its proxies fail at once from now on. Does
    /// nothing the second time, and nothing for a manager that was not started here.
    pub fn shutdown(&mut self) {
        if !self.connection.is_ours() {
            // A fork of the process that started it: the manager is not this one's to end.
            return std::mem::forget(self.process.take());
        }
        let Some(process) = &self.process else {
            return self.connection.unpublish_if_unused();
        };
        let deadline = Deadline::after(GRACE);
        let number = self.connection.send(Message::new(Kind::Shutdown, 0));
        // There will be no answer; but calls before this one may still have to be sent.
        let _ = self.connection.wait(number, deadline);
        if process.join_timeout(deadline.at_most(GRACE)).is_none() {
            let _ = process.terminate();
            if process.join_timeout(GRACE).is_none() {
                let _ = process.kill();
                let _ = process.join();
            }
        }
        if process.exit_code() != Some(0) {
            server::remove_abandoned(self.address());
        }
        self.connection.die(Death::ShutDown);
    }

    fn started(connection: Arc<Connection>, key: Key, process: Process<()>) -> Manager {
        Manager {
            connection,
            key,
            process: Some(process),
            timeout: None,
        }
    }

    fn connection(&self, deadline: Deadline) -> Arc<Connection> {
        match self.connection.is_ours() {
            true => self.connection.clone(),
            false => Connection::to(&self.connection.endpoint, deadline),
        }
    }

    /// Calls a function with the table of names.
    fn ask_names<F, A>(&self, f: F, args: A) -> Result<F::Output, CallError>
    where
        F: Method<Names, A, Output: Serialize + DeserializeOwned + 'static>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let deadline = Deadline::from(self.timeout);
        let connection = self.connection(deadline);
        let names = Proxy::new(Handle::uncounted(&connection, names::NAMES));
        names.call_until(f, args, deadline)
    }
}

/// From within a function that runs on the server, which would wait for itself.
fn host_here<F, A, T>(f: F, args: A) -> Result<Handle, CallError>
where
    F: Function<A, Output = T>,
    T: 'static,
{
    let made = panic::catch(|| f.call(args));
    let made = made.map_err(|panic| CallError::Server(Failure::Panicked(panic)))?;
    Handle::of_new(Box::new(made), type_name::<T>()).ok_or(CallError::Gone)
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("name", &self.name())
            .field("address", &self.address().to_string())
            .field("pid", &self.pid())
            .finish()
    }
}
