//! A dictionary in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Method, Proxy};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// Python's `manager.dict()`: a `HashMap<K, V>` in the manager's process. Each method is one call
/// and atomic. The order of the entries is any, unlike Python's.
///
/// `Display` prints the contents: `{1: 2, 3: 4}`; `Debug` shows the handle. All methods fail with
/// [`CallError`] where the manager cannot be reached.
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let stock = manager.dict::<String, u32>()?;
/// stock.set("apples".into(), 3)?;
/// stock.update_with("apples".into(), |n: &mut u32, sold: u32| *n -= sold, (1,))?;
/// assert_eq!(stock.get("apples".into())?, Some(2));
/// assert_eq!(stock.to_string(), r#"{"apples": 2}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct DictProxy<K, V>(Proxy<HashMap<K, V>>);

typed_proxy!(DictProxy<K, V> of HashMap<K, V>);

type Map<K, V> = HashMap<K, V>;

impl Manager {
    /// An empty dictionary.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn dict<K: Item, V: Item>(&self) -> Result<DictProxy<K, V>, CallError> {
        self.host_with(Map::new, ()).map(DictProxy)
    }

    /// A dictionary of these.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn dict_of<K: Item + Eq + Hash, V: Item>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<DictProxy<K, V>, CallError> {
        let entries: Map<K, V> = entries.into_iter().collect();
        self.host(entries).map(DictProxy)
    }
}

impl<K: Item + Eq + Hash, V: Item> DictProxy<K, V> {
    /// A copy of the key's value; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn get(&self, key: K) -> Result<Option<V>, CallError>
    where
        V: Clone,
    {
        self.0
            .call(|map: &mut Map<K, V>, key: K| map.get(&key).cloned(), (key,))
    }

    /// Gives the key a value.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn set(&self, key: K, value: V) -> Result<(), CallError> {
        let set = |map: &mut Map<K, V>, key: K, value: V| drop(map.insert(key, value));
        self.0.call(set, (key, value))
    }

    /// Gives the key a value, and gives back the one that it had.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn replace(&self, key: K, value: V) -> Result<Option<V>, CallError> {
        self.0.call(
            |map: &mut Map<K, V>, key: K, value: V| map.insert(key, value),
            (key, value),
        )
    }

    /// Removes the key; says whether it was there. Python's `del d[k]`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn remove(&self, key: K) -> Result<bool, CallError> {
        self.0.call(
            |map: &mut Map<K, V>, key: K| map.remove(&key).is_some(),
            (key,),
        )
    }

    /// Removes the key and gives back its value; `None` if there was none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn pop(&self, key: K) -> Result<Option<V>, CallError> {
        self.0
            .call(|map: &mut Map<K, V>, key: K| map.remove(&key), (key,))
    }

    /// Removes any one entry and gives it back; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn popitem(&self) -> Result<Option<(K, V)>, CallError> {
        let pop = |map: &mut Map<K, V>| map.extract_if(|_, _| true).next();
        self.0.call(pop, ())
    }

    /// The key's value; if it has none, it gets this one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn setdefault(&self, key: K, default: V) -> Result<V, CallError>
    where
        V: Clone,
    {
        let entry =
            |map: &mut Map<K, V>, key: K, default: V| map.entry(key).or_insert(default).clone();
        self.0.call(entry, (key, default))
    }

    /// Gives these keys these values, in one call. Python's `update` and `|=`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), CallError> {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        self.0.call(
            |map: &mut Map<K, V>, new: Vec<(K, V)>| map.extend(new),
            (entries,),
        )
    }

    /// Changes the key's value in place; gives back what `f` returned, `None` if there is no such
    /// key. This is what `d[k] += 1` should be.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update_with<F, A>(&self, key: K, f: F, args: A) -> Result<Option<F::Output>, CallError>
    where
        F: Method<V, A, Output: Item>,
        A: Item,
    {
        let _ = f;
        let update = |map: &mut Map<K, V>, key: K, args: A| {
            let value = map.get_mut(&key)?;
            Some(crate::function::instance::<F>().call(value, args))
        };
        self.0.call(update, (key, args))
    }

    /// Changes the key's value in place, which is `default` first if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// ```
    /// # let manager = common::manager::Manager::new()?;
    /// let words = manager.dict::<String, u32>()?;
    /// for word in ["to", "be", "or", "not", "to", "be"] {
    ///     words.entry(word.into(), 0, |n: &mut u32| *n += 1, ())?;
    /// }
    /// assert_eq!(words.get("to".into())?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entry<F, A>(&self, key: K, default: V, f: F, args: A) -> Result<F::Output, CallError>
    where
        F: Method<V, A, Output: Item>,
        A: Item,
    {
        let _ = f;
        let update = |map: &mut Map<K, V>, key: K, default: V, args: A| {
            let value = map.entry(key).or_insert(default);
            crate::function::instance::<F>().call(value, args)
        };
        self.0.call(update, (key, default, args))
    }

    /// Copies of all keys.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn keys(&self) -> Result<Vec<K>, CallError>
    where
        K: Clone,
    {
        self.0.call(
            |map: &mut Map<K, V>| map.keys().cloned().collect::<Vec<_>>(),
            (),
        )
    }

    /// Copies of all values.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn values(&self) -> Result<Vec<V>, CallError>
    where
        V: Clone,
    {
        self.0.call(
            |map: &mut Map<K, V>| map.values().cloned().collect::<Vec<_>>(),
            (),
        )
    }

    /// Copies of all entries.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn items(&self) -> Result<Vec<(K, V)>, CallError>
    where
        K: Clone,
        V: Clone,
    {
        let items = |map: &mut Map<K, V>| {
            let entries = map.iter();
            entries
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        self.0.call(items, ())
    }

    /// A copy of it all, as it is at one moment.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    #[doc(alias = "_getvalue")]
    pub fn snapshot(&self) -> Result<HashMap<K, V>, CallError>
    where
        K: Clone,
        V: Clone,
    {
        self.0.call(|map: &mut Map<K, V>| map.clone(), ())
    }

    /// How many entries.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn len(&self) -> Result<usize, CallError> {
        self.0.call(|map: &mut Map<K, V>| map.len(), ())
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_empty(&self) -> Result<bool, CallError> {
        self.len().map(|len| len == 0)
    }

    /// Whether the key has a value.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn contains(&self, key: K) -> Result<bool, CallError> {
        self.0
            .call(|map: &mut Map<K, V>, key: K| map.contains_key(&key), (key,))
    }

    /// Removes all entries.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn clear(&self) -> Result<(), CallError> {
        self.0.call(|map: &mut Map<K, V>| *map = Map::new(), ())
    }
}

/// The contents; in their place `<error>`, if they cannot be had.
impl<K: Item + fmt::Debug, V: Item + fmt::Debug> fmt::Display for DictProxy<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.call(|map: &mut Map<K, V>| format!("{map:?}"), ());
        typed::show(f, text)
    }
}
