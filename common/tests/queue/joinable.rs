//! A queue that knows what its consumers are done with: what must not count.

use super::LONG;
use common::process::{self, Process};
use common::queue::JoinableQueue;
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use testkit::isolated;

#[test]
fn a_forks_copy_of_a_task_is_not_done_with_another() {
    isolated(|| {
        let queue = JoinableQueue::new().unwrap();
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        let task = Cell::new(Some(queue.get_guard().unwrap()));
        let child = process::fork(|| {
            let own = queue.get().unwrap();
            drop(task.take());
            let unfinished = queue.unfinished();
            queue.task_done().unwrap();
            (own, unfinished)
        });
        assert_eq!(child.unwrap().join(), Ok((2, 2)));
        assert_eq!(queue.unfinished(), 1);
        drop(task.take());
        assert_eq!(queue.join_timeout(Duration::ZERO), Some(0));
    });
}

#[test]
fn a_value_whose_reading_panics_is_in_nobodys_hands() {
    #[derive(Serialize)]
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("on purpose")
        }
    }
    isolated(|| {
        let queue = JoinableQueue::new().unwrap();
        queue.put(Panics).unwrap();
        let got = catch_unwind(AssertUnwindSafe(|| queue.get().map(drop)));
        assert!(got.is_err());
        assert_eq!(queue.join_timeout(Duration::ZERO), Some(0));
    });
}

#[test]
fn what_is_found_lost_while_a_join_is_in_vain_is_told_by_the_next() {
    isolated(|| {
        let queue = JoinableQueue::new().unwrap();
        queue.put(1).unwrap();
        queue.put(2).unwrap();
        let die = |queue: JoinableQueue<u32>| {
            queue.get().unwrap();
            std::process::abort();
        };
        let child: Process<()> = Process::spawn(die, (queue.clone(),)).unwrap();
        assert!(child.join().is_err());
        assert_eq!(queue.join_timeout(Duration::ZERO), None);
        assert_eq!(queue.unfinished(), 1);
        drop(queue.get_guard_timeout(LONG).unwrap());
        assert_eq!(queue.join_timeout(Duration::ZERO), Some(1));
        assert_eq!(queue.join_timeout(Duration::ZERO), Some(0));
    });
}
