//! A list in a manager.
//!
//! To copy: the folder manager/ and what its mod.rs names.

use super::typed::{self, typed_proxy};
use super::{CallError, Item, Manager, Method, Proxy};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::ops::RangeBounds;

/// Python's `manager.list()`: a `Vec<T>` in the manager's process. Each method is one call and
/// atomic; several in one are [`update_all`](ListProxy::update_all) with a function of your own.
///
/// `Display` prints the contents as Python does; `Debug` shows the handle.
///
/// ```
/// use common::manager::Manager;
/// let manager = Manager::new()?;
/// let list = manager.list_of(vec![3, 1])?;
/// list.append(2)?;
/// list.sort()?;
/// assert_eq!(list.to_string(), "[1, 2, 3]");
/// assert_eq!(list.pop()?, Some(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct ListProxy<T>(Proxy<Vec<T>>);

impl Manager {
    /// An empty list.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn list<T: Item>(&self) -> Result<ListProxy<T>, CallError> {
        self.host_with(Vec::new, ()).map(ListProxy)
    }

    /// A list of these.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn list_of<T: Item>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<ListProxy<T>, CallError> {
        let items: Vec<T> = items.into_iter().collect();
        self.host(items).map(ListProxy)
    }
}

/// `Err` of methods that name a place.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("index {index} is out of range: the length is {len}")]
pub struct IndexError {
    /// What was asked for.
    pub index: usize,
    /// How many there are.
    pub len: usize,
}

/// In words: it is what `main` and `unwrap` print.
impl fmt::Debug for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Item> ListProxy<T> {
    /// Adds an item at the end.
    ///
    /// # Errors
    ///
    /// [`CallError`], as all methods here.
    pub fn append(&self, item: T) -> Result<(), CallError> {
        self.0.call(Vec::push, (item,))
    }

    /// Adds several items at the end, in one call.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<(), CallError> {
        let items: Vec<T> = items.into_iter().collect();
        self.0.call(
            |list: &mut Vec<T>, items: Vec<T>| list.extend(items),
            (items,),
        )
    }

    /// Adds an item in front of place `index`; at the end if there is no such place, as Python.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn insert(&self, index: usize, item: T) -> Result<(), CallError> {
        let insert = |list: &mut Vec<T>, index: usize, item: T| {
            list.insert(index.min(list.len()), item);
        };
        self.0.call(insert, (index, item))
    }

    /// Takes the last item away; `None` from an empty list.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn pop(&self) -> Result<Option<T>, CallError> {
        self.0.call(Vec::pop, ())
    }

    /// Takes the item at `index` away; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn pop_at(&self, index: usize) -> Result<Option<T>, CallError> {
        let pop =
            |list: &mut Vec<T>, index: usize| (index < list.len()).then(|| list.remove(index));
        self.0.call(pop, (index,))
    }

    /// Takes the first item equal to this one away; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn remove(&self, item: T) -> Result<bool, CallError>
    where
        T: PartialEq,
    {
        let remove = |list: &mut Vec<T>, item: T| {
            let place = list.iter().position(|other| *other == item);
            place.map(|place| list.remove(place)).is_some()
        };
        self.0.call(remove, (item,))
    }

    /// A copy of the item at `index`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn get(&self, index: usize) -> Result<Option<T>, CallError>
    where
        T: Clone,
    {
        self.0.call(
            |list: &mut Vec<T>, index: usize| list.get(index).cloned(),
            (index,),
        )
    }

    /// Puts an item in place of another, which it gives back.
    ///
    /// # Errors
    ///
    /// [`CallError`]; inside, [`IndexError`] if there is no such place.
    pub fn set(&self, index: usize, item: T) -> Result<Result<T, IndexError>, CallError> {
        let set = |list: &mut Vec<T>, index: usize, item: T| {
            let len = list.len();
            let place = list.get_mut(index).ok_or(IndexError { index, len })?;
            Ok(std::mem::replace(place, item))
        };
        self.0.call(set, (index, item))
    }

    /// Changes the item at `index` in place; gives back what `f` returned, `None` if there is no
    /// such item. This is what `list[i] += 1` should be.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    ///
    /// ```
    /// # let manager = common::manager::Manager::new()?;
    /// let list = manager.list_of([1u32, 2])?;
    /// list.update(1, |item: &mut u32| *item += 10)?;
    /// assert_eq!(list.to_string(), "[1, 12]");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<F>(&self, index: usize, f: F) -> Result<Option<F::Output>, CallError>
    where
        F: Method<T, (), Output: Item>,
    {
        let _ = f;
        let update = |list: &mut Vec<T>, index: usize| {
            let item = list.get_mut(index)?;
            Some(crate::function::instance::<F>().call(item, ()))
        };
        self.0.call(update, (index,))
    }

    /// Runs `f` on the whole list: several operations in one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn update_all<F, A>(&self, f: F, args: A) -> Result<F::Output, CallError>
    where
        F: Method<Vec<T>, A, Output: Item>,
        A: Item,
    {
        self.0.call(f, args)
    }

    /// Copies of the items in a range; one that reaches past the end is cut there, as in Python.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>, CallError>
    where
        T: Clone,
    {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let slice =
            |list: &mut Vec<T>, (start, end): (std::ops::Bound<usize>, std::ops::Bound<usize>)| {
                use std::ops::Bound;
                let start = match start {
                    Bound::Included(start) => start,
                    Bound::Excluded(before) => before.saturating_add(1),
                    Bound::Unbounded => 0,
                };
                let end = match end {
                    Bound::Included(last) => last.saturating_add(1),
                    Bound::Excluded(end) => end,
                    Bound::Unbounded => list.len(),
                };
                let end = end.min(list.len());
                list[start.min(end)..end].to_vec()
            };
        self.0.call(slice, (bounds,))
    }

    /// How many items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn len(&self) -> Result<usize, CallError> {
        self.0.call(|list: &mut Vec<T>| list.len(), ())
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn is_empty(&self) -> Result<bool, CallError> {
        self.len().map(|len| len == 0)
    }

    /// Whether an item is equal to this one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn contains(&self, item: T) -> Result<bool, CallError>
    where
        T: PartialEq,
    {
        self.0
            .call(|list: &mut Vec<T>, item: T| list.contains(&item), (item,))
    }

    /// The place of the first item equal to this one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn index(&self, item: T) -> Result<Option<usize>, CallError>
    where
        T: PartialEq,
    {
        let index = |list: &mut Vec<T>, item: T| list.iter().position(|other| *other == item);
        self.0.call(index, (item,))
    }

    /// How many items are equal to this one.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn count(&self, item: T) -> Result<usize, CallError>
    where
        T: PartialEq,
    {
        let count = |list: &mut Vec<T>, item: T| list.iter().filter(|o| **o == item).count();
        self.0.call(count, (item,))
    }

    /// Sorts the items; equal ones keep their order.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn sort(&self) -> Result<(), CallError>
    where
        T: Ord,
    {
        self.0.call(|list: &mut Vec<T>| list.sort(), ())
    }

    /// Turns the order around.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn reverse(&self) -> Result<(), CallError> {
        self.0.call(|list: &mut Vec<T>| list.reverse(), ())
    }

    /// Makes it the list of its items `times` times over; Python's `*=`.
    ///
    /// # Errors
    ///
    /// [`CallError::NoMemory`] if there is no room for that many, what each item owns besides not
    /// counted; else as all methods here.
    pub fn repeat(&self, times: usize) -> Result<(), CallError>
    where
        T: Clone,
    {
        match self.0.call(repeat, (times,))? {
            true => Ok(()),
            false => Err(CallError::NoMemory),
        }
    }

    /// Removes all items.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn clear(&self) -> Result<(), CallError> {
        self.0.call(|list: &mut Vec<T>| *list = Vec::new(), ())
    }

    /// A copy of all items, as they are at one moment.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    #[doc(alias = "_getvalue")]
    pub fn snapshot(&self) -> Result<Vec<T>, CallError>
    where
        T: Clone,
    {
        self.0.call(|list: &mut Vec<T>| list.clone(), ())
    }

    /// Goes over a [`snapshot`](ListProxy::snapshot): changes made meanwhile are not seen.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn iter(&self) -> Result<std::vec::IntoIter<T>, CallError>
    where
        T: Clone,
    {
        self.snapshot().map(Vec::into_iter)
    }
}

/// False, and nothing is changed, if there is no memory: an allocation that fails would end the
/// manager, and all that it owns with it.
fn repeat<T: Clone>(list: &mut Vec<T>, times: usize) -> bool {
    let Some(total) = list.len().checked_mul(times) else {
        return false;
    };
    list.truncate(total);
    if list.try_reserve_exact(total - list.len()).is_err() {
        return false;
    }
    while list.len() < total {
        let more = list.len().min(total - list.len());
        list.extend_from_within(..more);
    }
    true
}

typed_proxy!(ListProxy<T> of Vec<T>);

/// The contents, as Python prints them: `[0, 1, 2]`; in their place `<error>`, if they
/// cannot be had.
impl<T: Item + fmt::Debug> Display for ListProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.call(|list: &mut Vec<T>| format!("{list:?}"), ());
        typed::show(f, text)
    }
}
