//! Lists, dictionaries and their siblings.

use common::Process;
use common::manager::{
    ArrayProxy, CallError, DictProxy, Hosted, IndexError, ListProxy, Manager, Namespace, SetProxy,
    ValueProxy, transaction,
};
use std::collections::{HashMap, HashSet};
use testkit::isolated;

// G-001, G-003, G-004, G-023, G-031
#[test]
fn lists() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list = manager.list_of(0..10).unwrap();
        assert_eq!(list.slice(2..5).unwrap(), [2, 3, 4]);
        assert_eq!(list.slice(8..=20).unwrap(), [8, 9]);
        assert_eq!(list.slice(20..).unwrap(), [0i32; 0]);
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = list.slice(7..3).unwrap();
        assert!(backwards.is_empty());
        list.extend([3, 3]).unwrap();
        assert_eq!(list.count(3).unwrap(), 3);
        assert_eq!(list.index(3).unwrap(), Some(3));
        assert_eq!(list.index(99).unwrap(), None);
        assert!(list.contains(9).unwrap() && !list.contains(10).unwrap());
        assert!(list.remove(3).unwrap() && !list.remove(77).unwrap());
        list.insert(0, -1).unwrap();
        list.insert(1000, 50).unwrap();
        assert_eq!(list.pop_at(1).unwrap(), Some(0));
        assert_eq!(list.pop_at(100).unwrap(), None);
        assert_eq!(list.pop().unwrap(), Some(50));
        assert_eq!(list.set(0, 100).unwrap(), Ok(-1));
        let range = IndexError { index: 11, len: 11 };
        assert_eq!(list.set(11, 0).unwrap(), Err(range));
        assert_eq!(format!("{range:?}"), range.to_string());
        assert_eq!(list.get(0).unwrap(), Some(100));
        assert_eq!(list.get(11).unwrap(), None);
        list.sort().unwrap();
        list.reverse().unwrap();
        assert_eq!(list.to_string(), "[100, 9, 8, 7, 6, 5, 4, 3, 3, 2, 1]");
        let mut sum = 0;
        for item in list.iter().unwrap() {
            sum += item;
            list.pop().unwrap();
        }
        assert_eq!(sum, 148);
        assert!(list.is_empty().unwrap());
        assert_eq!(list.pop().unwrap(), None);
        list.extend([1, 2]).unwrap();
        list.repeat(2).unwrap();
        let words = manager.list_of(["a".to_string(), "b".to_string()]).unwrap();
        words.repeat(2).unwrap();
        assert_eq!(words.snapshot().unwrap(), ["a", "b", "a", "b"]);
        assert_eq!(list.update(1, |x: &mut i32| *x * 5).unwrap(), Some(10));
        assert_eq!(list.update(9, |x: &mut i32| *x * 5).unwrap(), None);
        let sum = |list: &mut Vec<i32>, more: i32| list.iter().sum::<i32>() + more;
        assert_eq!(list.update_all(sum, (4,)).unwrap(), 10);
        let clear = |list: ListProxy<i32>| list.clear().unwrap();
        let child = Process::spawn(clear, (list.clone(),)).unwrap();
        child.join().unwrap();
        assert_eq!((list.len().unwrap(), list.to_string()), (0, "[]".into()));
        assert!(format!("{list:?}").starts_with("Proxy<"));
    });
}

#[test]
fn a_list_that_no_memory_is_large_enough_for_is_an_error() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list = manager.list_of([1u64, 2]).unwrap();
        for times in [1 << 44, usize::MAX] {
            assert_eq!(list.repeat(times).unwrap_err(), CallError::NoMemory);
        }
        list.repeat(3).unwrap();
        assert_eq!(list.to_string(), "[1, 2, 1, 2, 1, 2]");
        list.repeat(1).unwrap();
        assert_eq!(list.len().unwrap(), 6);
        list.repeat(0).unwrap();
        list.repeat(usize::MAX).unwrap();
        assert!(list.is_empty().unwrap());
    });
}

// G-030
#[test]
fn what_a_list_gives_is_a_copy() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list: ListProxy<HashMap<String, u32>> = manager.list().unwrap();
        list.append(HashMap::new()).unwrap();
        let mut copy = list.get(0).unwrap().unwrap();
        copy.insert("a".into(), 1);
        assert_eq!(list.to_string(), "[{}]");
        list.set(0, copy).unwrap().unwrap();
        assert_eq!(list.to_string(), r#"[{"a": 1}]"#);
    });
}

// G-006, G-007, G-008, G-009
#[test]
fn dictionaries() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let dict = manager.dict_of([(1u32, "one".to_string())]).unwrap();
        dict.set(2, "two".into()).unwrap();
        assert_eq!(dict.replace(2, "zwei".into()).unwrap(), Some("two".into()));
        assert_eq!(dict.setdefault(2, "x".into()).unwrap(), "zwei");
        assert_eq!(dict.setdefault(3, "three".into()).unwrap(), "three");
        dict.update([(4, "four".into()), (1, "uno".into())])
            .unwrap();
        let mut keys = dict.keys().unwrap();
        keys.sort();
        assert_eq!(keys, [1, 2, 3, 4]);
        let mut values = dict.values().unwrap();
        values.sort();
        assert_eq!(values, ["four", "three", "uno", "zwei"]);
        let items: HashMap<_, _> = dict.items().unwrap().into_iter().collect();
        assert_eq!(items, dict.snapshot().unwrap());
        let longer = |text: &mut String, more: String| {
            text.push_str(&more);
            text.len()
        };
        assert_eq!(dict.update_with(1, longer, ("!".into(),)).unwrap(), Some(4));
        assert_eq!(dict.update_with(9, longer, ("!".into(),)).unwrap(), None);
        assert_eq!(
            dict.entry(9, "nine".into(), longer, ("!".into(),)).unwrap(),
            5
        );
        assert!(dict.remove(9).unwrap() && !dict.remove(9).unwrap());
        assert_eq!(dict.pop(4).unwrap(), Some("four".into()));
        assert_eq!(dict.pop(4).unwrap(), None);
        assert_eq!(dict.get(1).unwrap(), Some("uno!".into()));
        assert!(dict.contains(3).unwrap() && !dict.contains(4).unwrap());
        assert_eq!(dict.len().unwrap(), 3);
        while dict.popitem().unwrap().is_some() {}
        dict.set(7, "seven".into()).unwrap();
        assert_eq!(dict.to_string(), r#"{7: "seven"}"#);
        // Through a dictionary of dictionaries.
        let outer: DictProxy<u8, DictProxy<u32, String>> = manager.dict().unwrap();
        outer.set(0, dict.clone()).unwrap();
        outer
            .get(0)
            .unwrap()
            .unwrap()
            .set(8, "eight".into())
            .unwrap();
        assert_eq!(dict.len().unwrap(), 2);
        // Goes over a copy: nothing that happens meanwhile disturbs it.
        let mut items = dict.items().unwrap().into_iter();
        dict.clear().unwrap();
        assert!(items.next().is_some() && items.next().is_some() && items.next().is_none());
        assert!(outer.get(0).unwrap().unwrap().is_empty().unwrap());
    });
}

// G-025, G-026
#[test]
fn sets() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let set: SetProxy<u32> = manager.set_of([1, 2, 3, 2]).unwrap();
        let other = HashSet::from([2, 3, 4]);
        assert_eq!(set.len().unwrap(), 3);
        assert_eq!(
            set.union(other.clone()).unwrap(),
            HashSet::from([1, 2, 3, 4])
        );
        assert_eq!(
            set.intersection(other.clone()).unwrap(),
            HashSet::from([2, 3])
        );
        assert_eq!(set.difference(other.clone()).unwrap(), HashSet::from([1]));
        let either = set.symmetric_difference(other.clone()).unwrap();
        assert_eq!(either, HashSet::from([1, 4]));
        set.intersection_update(other.clone()).unwrap();
        assert!(set.is_subset(other.clone()).unwrap());
        assert!(set.is_superset(HashSet::from([2])).unwrap());
        assert!(set.is_disjoint(HashSet::from([9])).unwrap());
        for (other, subset, superset) in [
            (HashSet::from([2, 3, 4]), true, false),
            (HashSet::from([2, 3]), false, false),
            (HashSet::from([2]), false, true),
            (HashSet::from([2, 8, 9]), false, false),
            (HashSet::from([9]), false, false),
        ] {
            assert_eq!(set.is_proper_subset(other.clone()).unwrap(), subset);
            assert_eq!(set.is_proper_superset(other).unwrap(), superset);
        }
        set.union_update(HashSet::from([7])).unwrap();
        set.difference_update(HashSet::from([2])).unwrap();
        set.symmetric_difference_update(HashSet::from([7, 8]))
            .unwrap();
        assert_eq!(set.snapshot().unwrap(), HashSet::from([3, 8]));
        assert!(!set.add(3).unwrap() && set.contains(8).unwrap());
        assert!(set.remove(8).unwrap() && !set.remove(8).unwrap());
        assert_eq!(set.to_string(), "{3}");
        assert_eq!((set.pop().unwrap(), set.pop().unwrap()), (Some(3), None));
        assert_eq!(set.to_string(), "set()");
    });
}

// G-011, G-024
#[test]
fn values_arrays_and_namespaces_in_a_child() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value: ValueProxy<i64> = manager.value(1).unwrap();
        let array: ArrayProxy<f64> = manager.array([0.0, 1.0]).unwrap();
        let namespace: Namespace = manager.namespace().unwrap();
        namespace.set("x", 1u8).unwrap();
        let child = |value: ValueProxy<i64>, array: ArrayProxy<f64>, namespace: Namespace| {
            value
                .update(|n: &mut i64, by: i64| *n += by, (41,))
                .unwrap();
            array.set(1, 2.5).unwrap().unwrap();
            namespace.set("name", "Ann".to_string()).unwrap();
            namespace.set("_hidden", 1).unwrap();
            assert!(namespace.delete("x").unwrap());
        };
        let args = (value.clone(), array.clone(), namespace.clone());
        Process::spawn(child, args).unwrap().join().unwrap();
        assert_eq!((value.get().unwrap(), value.to_string()), (42, "42".into()));
        assert_eq!(value.replace(5).unwrap(), 42);
        value.set(6).unwrap();
        assert_eq!(array.to_string(), "[0.0, 2.5]");
        assert_eq!((array.len().unwrap(), array.get(1).unwrap()), (2, Ok(2.5)));
        assert_eq!(array.get(2).unwrap(), Err(IndexError { index: 2, len: 2 }));
        assert_eq!(namespace.to_string(), r#"Namespace(name="Ann")"#);
        assert_eq!(namespace.get::<String>("name").unwrap(), Some("Ann".into()));
        assert_eq!(namespace.get::<u8>("x").unwrap(), None);
        let wrong = namespace.get::<u8>("name").unwrap_err();
        assert!(matches!(wrong, CallError::Type { .. }), "{wrong}");
        assert_eq!(namespace.names().unwrap(), ["_hidden", "name"]);
        // Typed proxies take part in transactions.
        let both = |list: &mut Vec<u8>, dict: &mut HashMap<u8, u8>| {
            list.push(1);
            dict.insert(1, 2);
        };
        let (list, dict) = (manager.list().unwrap(), manager.dict().unwrap());
        transaction((&list, &dict), both, ()).unwrap();
        assert_eq!(
            (list.to_string(), dict.to_string()),
            ("[1]".into(), "{1: 2}".into())
        );
        assert_eq!(
            list.proxy()
                .call(|list: &mut Vec<u8>| list.len(), ())
                .unwrap(),
            1
        );
    });
}

#[test]
fn what_cannot_be_shown_says_why() {
    isolated(|| {
        let mut manager = Manager::new().unwrap();
        let list = manager.list_of([1u8]).unwrap();
        let dict: DictProxy<u8, u8> = manager.dict().unwrap();
        let fail = |_: &mut Vec<u8>| -> () { panic!("half-way") };
        list.proxy().call(fail, ()).unwrap_err();
        let poisoned = list.to_string();
        assert!(poisoned.starts_with("<the value is poisoned"), "{poisoned}");
        assert_eq!(dict.to_string(), "{}");
        manager.shutdown();
        let gone = dict.to_string();
        assert!(gone.starts_with("<Manager cannot be reached"), "{gone}");
    });
}
