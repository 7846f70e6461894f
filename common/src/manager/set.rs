//! A set in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Proxy};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

/// Python's `manager.set()`: a `HashSet<T>` in the manager's process. Each method is one call and
/// atomic. The other side of an operation is a set of this process, a [`snapshot`] of another
/// proxy perhaps.
///
/// `Display` prints the contents: `{1, 2}`; `Debug` shows the handle.
///
/// [`snapshot`]: SetProxy::snapshot
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let seen = manager.set::<u32>()?;
/// assert!(seen.add(7)?);
/// assert!(!seen.add(7)?);
/// assert_eq!(seen.to_string(), "{7}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct SetProxy<T>(Proxy<HashSet<T>>);

typed_proxy!(SetProxy<T> of HashSet<T>);

type Set<T> = HashSet<T>;

impl Manager {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn set<T: Item>(&self) -> Result<SetProxy<T>, CallError> {
        self.host_with(Set::new, ()).map(SetProxy)
    }

    /// A set of these.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn set_of<T: Item + Eq + Hash>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<SetProxy<T>, CallError> {
        let items: Set<T> = items.into_iter().collect();
        self.host(items).map(SetProxy)
    }
}

/// Operations that change the set, and those that give a new one to the caller.
macro_rules! operations {
    ($($name:ident $in_place:ident ($set:ident, $other:ident) $new:expr, $what:literal;)*) => {$(
        #[doc = concat!("A copy of ", $what, ".")]
        ///
        /// # Errors
        ///
        /// [`CallError`].
        pub fn $name(&self, other: HashSet<T>) -> Result<HashSet<T>, CallError>
        where
            T: Clone,
        {
            self.0.call(|$set: &mut Set<T>, $other: Set<T>| -> Set<T> { $new }, (other,))
        }

        #[doc = concat!("Makes it ", $what, ".")]
        ///
        /// # Errors
        ///
        /// [`CallError`].
        pub fn $in_place(&self, other: HashSet<T>) -> Result<(), CallError>
        where
            T: Clone,
        {
            let change = |$set: &mut Set<T>, $other: Set<T>| *$set = $new;
            self.0.call(change, (other,))
        }
    )*};
}

impl<T: Item + Eq + Hash> SetProxy<T> {
    /// Adds an item; says whether it is new.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn add(&self, item: T) -> Result<bool, CallError> {
        self.0
            .call(|set: &mut Set<T>, item: T| set.insert(item), (item,))
    }

    /// Adds several items, in one call. Python's `update` and `|=`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update(&self, items: impl IntoIterator<Item = T>) -> Result<(), CallError> {
        let items: Vec<T> = items.into_iter().collect();
        self.0.call(
            |set: &mut Set<T>, items: Vec<T>| set.extend(items),
            (items,),
        )
    }

    /// Removes an item; says whether it was there. Python's `discard`, and `remove` where the
    /// answer is looked at.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn remove(&self, item: T) -> Result<bool, CallError> {
        self.0
            .call(|set: &mut Set<T>, item: T| set.remove(&item), (item,))
    }

    /// Removes any one item and gives it back; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn pop(&self) -> Result<Option<T>, CallError> {
        self.0
            .call(|set: &mut Set<T>| set.extract_if(|_| true).next(), ())
    }

    /// Whether an item is there.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn contains(&self, item: T) -> Result<bool, CallError> {
        self.0
            .call(|set: &mut Set<T>, item: T| set.contains(&item), (item,))
    }

    /// How many items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn len(&self) -> Result<usize, CallError> {
        self.0.call(|set: &mut Set<T>| set.len(), ())
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_empty(&self) -> Result<bool, CallError> {
        self.len().map(|len| len == 0)
    }

    operations! {
        union union_update
            (set, other) set.iter().cloned().chain(other).collect(),
            "its items and the other's";
        intersection intersection_update
            (set, other) set.intersection(&other).cloned().collect(),
            "those of its items that the other has, too";
        difference difference_update
            (set, other) set.difference(&other).cloned().collect(),
            "those of its items that the other has not";
        symmetric_difference symmetric_difference_update
            (set, other) set.symmetric_difference(&other).cloned().collect(),
            "the items that one of both has, but not the other";
    }

    /// Whether all its items are in the other. Python's `<=`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_subset(&self, other: HashSet<T>) -> Result<bool, CallError> {
        self.0.call(
            |set: &mut Set<T>, other: Set<T>| set.is_subset(&other),
            (other,),
        )
    }

    /// Whether all its items are in the other, which has more. Python's `<`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_proper_subset(&self, other: HashSet<T>) -> Result<bool, CallError> {
        self.0.call(
            |set: &mut Set<T>, other: Set<T>| set.len() < other.len() && set.is_subset(&other),
            (other,),
        )
    }

    /// Whether all the other's items are in it. Python's `>=`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_superset(&self, other: HashSet<T>) -> Result<bool, CallError> {
        self.0.call(
            |set: &mut Set<T>, other: Set<T>| set.is_superset(&other),
            (other,),
        )
    }

    /// Whether all the other's items are in it, which has more. Python's `>`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_proper_superset(&self, other: HashSet<T>) -> Result<bool, CallError> {
        self.0.call(
            |set: &mut Set<T>, other: Set<T>| set.len() > other.len() && set.is_superset(&other),
            (other,),
        )
    }

    /// Whether both have no item in common.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_disjoint(&self, other: HashSet<T>) -> Result<bool, CallError> {
        self.0.call(
            |set: &mut Set<T>, other: Set<T>| set.is_disjoint(&other),
            (other,),
        )
    }

    /// Removes all items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn clear(&self) -> Result<(), CallError> {
        self.0.call(|set: &mut Set<T>| *set = Set::new(), ())
    }

    /// A copy of all items, as they are at one moment.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    #[doc(alias = "_getvalue")]
    pub fn snapshot(&self) -> Result<HashSet<T>, CallError>
    where
        T: Clone,
    {
        self.0.call(|set: &mut Set<T>| set.clone(), ())
    }
}

/// The contents, an empty set as Python's `set()`; in their place `<error>`, if they cannot be had.
impl<T: Item + fmt::Debug> fmt::Display for SetProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |set: &mut Set<T>| match set.is_empty() {
            true => "set()".to_owned(),
            false => format!("{set:?}"),
        };
        typed::show(f, self.0.call(show, ()))
    }
}
