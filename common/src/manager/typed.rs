//! What the typed proxies have in common.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::{CallError, Proxy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// What stands for a hosted value: [`Proxy`] and the typed proxies over it.
pub trait Hosted: Sized {
    /// What is hosted.
    type Value: 'static;

    /// The proxy inside, for calls of your own.
    fn proxy(&self) -> &Proxy<Self::Value>;

    /// Puts one around a proxy.
    fn from_proxy(proxy: Proxy<Self::Value>) -> Self;

    /// Another proxy of the same value, each of whose calls takes at most `timeout`; so do those
    /// of its clones. A limit does not travel: who is sent a proxy sets their own. Calls that are
    /// futures are for their caller to give up ([`wait_timeout`](super::CallFuture::wait_timeout)).
    ///
    /// A call that comes too late fails with [`CallError::Timeout`]; its function may still run.
    ///
    /// ```
    /// use common::manager::{CallError, Hosted, Manager};
    /// use std::time::Duration;
    ///
    /// let manager = Manager::new()?;
    /// let list = manager.list_of([1, 2])?;
    /// let hasty = list.with_timeout(Duration::from_millis(20));
    /// // The manager is busy for as long as it takes.
    /// drop(list.proxy().call_async(|_: &mut Vec<i32>| std::thread::sleep(Duration::MAX), ()));
    /// assert!(matches!(hasty.len(), Err(CallError::Timeout { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn with_timeout(&self, timeout: Duration) -> Self {
        Self::from_proxy(self.proxy().clone().limited(Some(timeout)))
    }
}

impl<T: 'static> Hosted for Proxy<T> {
    type Value = T;

    fn proxy(&self) -> &Proxy<T> {
        self
    }

    fn from_proxy(proxy: Proxy<T>) -> Self {
        proxy
    }
}

/// What can be in a hosted collection. Implemented for all that serde can send.
pub trait Item: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Item for T {}

/// `Hosted`, `Clone` and `Debug` of a typed proxy; `Display` prints what the function given makes
/// of the value.
macro_rules! typed_proxy {
    ($Proxy:ident<$($T:ident),*> of $Value:ty) => {
        impl<$($T: 'static),*> $crate::manager::Hosted for $Proxy<$($T),*> {
            type Value = $Value;

            fn proxy(&self) -> &$crate::manager::Proxy<$Value> {
                &self.0
            }

            fn from_proxy(proxy: $crate::manager::Proxy<$Value>) -> Self {
                $Proxy(proxy)
            }
        }

        impl<$($T),*> Clone for $Proxy<$($T),*> {
            fn clone(&self) -> Self {
                $Proxy(self.0.clone())
            }
        }

        impl<$($T),*> std::fmt::Debug for $Proxy<$($T),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

pub(super) use typed_proxy;

/// What a proxy's `Display` writes. An error there would make `println!` panic, and say nothing.
pub(super) fn show(f: &mut fmt::Formatter<'_>, text: Result<String, CallError>) -> fmt::Result {
    match text {
        Ok(text) => f.write_str(&text),
        Err(error) => write!(f, "<{error}>"),
    }
}
