//! Shared memory as a whole: many segments, scopes that own them, lists of any values.
//!
//! Python's manager of shared memory is a process that owns segments; here the process that makes
//! one owns it, and a scope that drops its handles removes the names. There is no tracker process
//! either: a segment's name says whose it is, and the next start sweeps what the dead have left,
//! so H-026, H-027, H-029, H-030 and H-031 (the life of a tracker) do not apply.

#![allow(unsafe_code)] // Redirects a forked child's standard error.

use common::codec;
use common::process::{self, JoinError, Process};
use common::queue::Queue;
use common::shared::Array;
use common::shm::{Segment, ShmError};
use common::sync::{Event, Mutex, MutexError};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Duration;
use testkit::isolated;

const LONG: Duration = Duration::from_secs(30);

/// Each byte of a segment says which one it is.
fn fill(segment: &Segment, number: usize) {
    segment
        .write(0, &vec![number as u8; segment.len()])
        .unwrap();
}

fn check(segment: &Segment, number: usize) {
    let mut bytes = vec![0; segment.len()];
    segment.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == number as u8), "overlap");
}

#[test]
fn five_thousand_segments_of_any_size_leave_nothing() {
    // V-010. Python carves its blocks from arenas; here each is a segment, and the kernel the
    // allocator, so there are no arenas to be tiled: no two segments overlap, whichever go first,
    // fresh ones are zero, and (`isolated`) no name is left.
    isolated(|| {
        let mut live: VecDeque<(usize, Segment)> = VecDeque::new();
        let mut random = 0x9e37_79b9_u32;
        let mut below = |end: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % end
        };
        for number in 0..5000 {
            let segment = Segment::create(1 + below(20_000) as usize).unwrap();
            check(&segment, 0);
            fill(&segment, number);
            live.push_back((number, segment));
            if live.len() > 50 {
                let index = below(50) as usize;
                let (number, segment) = live.swap_remove_back(index).unwrap();
                check(&segment, number);
            }
        }
        live.iter()
            .for_each(|(number, segment)| check(segment, *number));
    });
}

#[test]
fn segments_may_go_while_others_are_made() {
    // V-011. Nothing is freed by a collector in the middle of a call; the nearest is a value
    // that makes and drops segments and uses another queue while it is being put into a queue.
    #[derive(Deserialize)]
    struct Busy(Queue<u32>);
    impl Serialize for Busy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let kept = Segment::create(100).unwrap();
            drop(Segment::create(10_000).unwrap());
            self.0.put(5).unwrap();
            drop(Queue::<u32>::new().unwrap());
            drop(kept);
            self.0.serialize(serializer)
        }
    }
    impl Drop for Busy {
        fn drop(&mut self) {
            drop(Segment::create(100).unwrap());
        }
    }
    isolated(|| {
        let (outer, inner) = (Queue::new().unwrap(), Queue::new().unwrap());
        std::thread::scope(|scope| {
            let churn = scope.spawn(|| (0..300).for_each(|_| drop(Segment::create(1).unwrap())));
            for _ in 0..100 {
                assert!(outer.put(Busy(inner.clone())).is_ok());
                assert_eq!(outer.get().unwrap().0.get(), Ok(5));
            }
            churn.join().unwrap();
        });
    });
}

#[test]
fn a_queue_may_be_used_while_a_static_is_made() {
    // There are no imports with a lock here; a static that is being made has one.
    static ANSWER: LazyLock<u32> = LazyLock::new(|| {
        let queue = Queue::new().unwrap();
        let child: Process<()> =
            Process::spawn(|queue: Queue<u32>| queue.put(42).unwrap(), (queue.clone(),)).unwrap();
        let answer = queue.get_timeout(LONG).unwrap();
        child.join().unwrap();
        answer
    });
    isolated(|| assert_eq!(*ANSWER, 42));
}

/// What somebody owns together: six segments and five lists.
struct Scope {
    segments: Vec<Segment>,
    lists: Vec<Array<u64>>,
}

impl Scope {
    // H-010: it is there once it is made; there is nothing to be started.
    fn new() -> Scope {
        let segments = (1..=6).map(|size| Segment::create(size * 1000).unwrap());
        let segments = segments
            .enumerate()
            .inspect(|(number, one)| fill(one, *number));
        Scope {
            segments: segments.map(|(_, one)| one).collect(),
            lists: (0..5).map(|n| Array::new(&[n, n + 1]).unwrap()).collect(),
        }
    }

    fn names(&self) -> Vec<String> {
        self.segments
            .iter()
            .map(|one| one.name().to_owned())
            .collect()
    }
}

#[test]
fn a_scopes_memory_is_found_by_name_and_gone_afterwards() {
    // H-010, H-011
    isolated(|| {
        fn reader(names: Vec<String>, lists: Vec<Array<u64>>) -> u64 {
            for (number, name) in names.iter().enumerate() {
                check(&Segment::open(name).unwrap(), number);
            }
            lists
                .iter()
                .map(|list| list.update(0, |n| *n + 1).unwrap())
                .sum()
        }
        let scope = Scope::new();
        let names = scope.names();
        let reader = Process::spawn(reader, (names.clone(), scope.lists.clone())).unwrap();
        assert_eq!(reader.join().unwrap(), 1 + 2 + 3 + 4 + 5);
        let sent = codec::encode(&scope.lists).unwrap();
        drop(codec::decode::<Vec<Array<u64>>>(&sent).unwrap());

        // By hand, then by the end of the scope.
        scope.segments[0].unlink().unwrap();
        assert!(Segment::open(&names[1]).is_ok());
        drop(scope);
        let gone = |name: &String| {
            let opened = process::fork({
                let name = name.clone();
                move || matches!(Segment::open(&name), Err(ShmError::NotFound { .. }))
            });
            opened.unwrap().join().unwrap()
        };
        assert!(names.iter().all(gone));
        assert!(codec::decode::<Vec<Array<u64>>>(&sent).is_err());
    });
}

#[test]
fn whoever_opens_it_shares_it_and_does_not_take_it_along() {
    // H-008, H-023, H-024. There is no tracker that counts who has opened it: all do the same.
    isolated(|| {
        fn answer(segment: Segment, say: &str) {
            let mut question = [0; 4];
            segment.read(0, &mut question).unwrap();
            assert_eq!(&question, b"ping");
            segment.write(4, say.as_bytes()).unwrap();
        }
        let by_handle = |segment: Segment| answer(segment, "as it is");
        let by_name = |name: String| answer(Segment::open(&name).unwrap(), "by name!");
        let segment = Segment::create(12).unwrap();
        let file = std::path::Path::new("/dev/shm").join(segment.name());
        segment.write(0, b"ping").unwrap();
        let heard = || {
            let mut bytes = [0; 8];
            segment.read(4, &mut bytes).unwrap();
            bytes
        };
        let child: Process<()> = Process::spawn(by_handle, (segment.clone(),)).unwrap();
        child.join().unwrap();
        assert_eq!((&heard(), file.exists()), (b"as it is", true));
        let child: Process<()> = Process::spawn(by_name, (segment.name().to_owned(),)).unwrap();
        child.join().unwrap();
        assert_eq!((&heard(), file.exists()), (b"by name!", true));
        drop(segment);
        assert!(!file.exists());
    });
}

#[test]
fn an_interrupted_owner_leaves_nothing_for_long() {
    // H-012. Python's manager process ignores SIGINT, because a Ctrl-C goes to the whole group and
    // its parent may go on. Here the owner is whoever made the memory; what it leaves when it is
    // ended by one goes with the next start, and whoever has opened it keeps it.
    isolated(|| {
        let names = Queue::new().unwrap();
        let theirs = names.clone();
        let owner: Process<()> = process::fork(move || {
            let scope = Scope::new();
            theirs.put(scope.names()).unwrap();
            std::thread::sleep(LONG);
        })
        .unwrap();
        let names = names.get_timeout(LONG).unwrap();
        let kept = Segment::open(&names[3]).unwrap();
        owner.interrupt().unwrap();
        let ended = owner.join_timeout(LONG).expect("it was interrupted");
        assert!(
            matches!(ended, Err(JoinError::Signaled { .. })),
            "{ended:?}"
        );
        drop(Segment::create(1).unwrap());
        let gone = |name: &&String| !std::path::Path::new("/dev/shm").join(name).exists();
        assert_eq!(names.iter().filter(gone).count(), 6);
        check(&kept, 3);
    });
}

#[test]
fn a_normal_end_takes_along_what_killed_children_left() {
    isolated(|| {
        fn killed() {
            std::mem::forget(Segment::create(1).unwrap());
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        fn owner() -> u32 {
            let _mine = Segment::create(1).unwrap();
            let child: Process<()> = Process::spawn(killed, ()).unwrap();
            child.join().unwrap_err();
            child.pid()
        }
        let killed = Process::spawn(owner, ()).unwrap().join().unwrap();
        assert_eq!(names_of(killed).next(), None);
    });
}

/// The segments of a process.
fn names_of(pid: u32) -> impl Iterator<Item = String> {
    let its = format!("-{pid}-");
    let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
    names
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(move |name| name.contains(&its))
}

#[test]
fn an_end_while_threads_make_segments_leaves_nothing() {
    isolated(|| {
        fn ends_busy() {
            let (busy, is_busy) = std::sync::mpsc::channel();
            for _ in 0..2 {
                let busy = busy.clone();
                std::thread::spawn(move || {
                    drop(Segment::create(1).unwrap());
                    busy.send(()).unwrap();
                    loop {
                        drop(Segment::create(1).unwrap());
                    }
                });
            }
            (0..2).for_each(|_| is_busy.recv().unwrap());
        }
        for _ in 0..10 {
            let child: Process<()> = Process::spawn(ends_busy, ()).unwrap();
            child.join().unwrap();
            assert_eq!(names_of(child.pid()).next(), None);
        }
    });
}

#[test]
fn nothing_is_said_on_standard_error() {
    // H-013
    isolated(|| {
        let (said, error) = std::io::pipe().unwrap();
        let child: Process<()> = process::fork(move || {
            use std::os::fd::AsRawFd;
            // SAFETY: both are open descriptors of this process, which has one thread.
            assert_eq!(unsafe { libc::dup2(error.as_raw_fd(), 2) }, 2);
            let scope = Scope::new();
            let lists = scope.lists.clone();
            let inner: Process<()> = process::fork(move || lists[0].set(0, 9).unwrap()).unwrap();
            inner.join().unwrap();
            assert_eq!(scope.lists[0].get(0), Ok(9));
        })
        .unwrap();
        child.join().unwrap();
        assert_eq!(std::io::read_to_string(said).unwrap(), "");
    });
}

/// A list of any values, as Python's `ShareableList`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Item {
    Text(String),
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    Float(f64),
    Integer(i64),
    Nothing,
    Truth(bool),
}

#[test]
fn a_list_of_any_values() {
    // H-014, H-015, H-016, H-018, H-019, H-020, H-021, H-033: a `Mutex` of a `Vec` of an enum.
    isolated(|| {
        let source = vec![
            Item::Text("howdy 😀".into()),
            Item::Bytes(b"HoWdY\0\0".to_vec()),
            Item::Float(-273.154),
            Item::Integer(100),
            Item::Nothing,
            Item::Truth(true),
            Item::Integer(42),
        ];
        let list = Mutex::new(source.clone()).unwrap();
        let size = |list: &Mutex<Vec<Item>>| {
            let sent = codec::encode(list).unwrap();
            drop(codec::decode::<Mutex<Vec<Item>>>(&sent).unwrap());
            sent.len()
        };
        let before = size(&list);
        {
            let mut guard = list.lock().unwrap();
            assert_eq!((guard.len(), &*guard), (7, &source));
            assert_eq!(
                (guard.last(), guard.get(7)),
                (Some(&Item::Integer(42)), None)
            );
            assert_eq!(guard.iter().position(|one| *one == Item::Nothing), Some(4));
            assert_eq!(
                guard
                    .iter()
                    .filter(|one| **one == Item::Truth(false))
                    .count(),
                0
            );
            guard[3] = Item::Text("another type".into());
        }
        let copy = Mutex::new(list.get().unwrap()).unwrap();
        let replace = |list: Mutex<Vec<Item>>| list.lock().unwrap()[0] = Item::Float(1.0);
        Process::<()>::spawn(replace, (list.clone(),))
            .unwrap()
            .join()
            .unwrap();
        let (now, copied) = (list.get().unwrap(), copy.get().unwrap());
        assert_eq!((&now[0], &copied[0]), (&Item::Float(1.0), &source[0]));
        assert_eq!(
            (&now[1], &now[3]),
            (&source[1], &Item::Text("another type".into()))
        );
        assert_eq!(size(&list), before);

        let empty = Mutex::new(Vec::<Item>::new()).unwrap();
        assert!(empty.get().unwrap().is_empty());
        let sent = codec::encode(&empty).unwrap();
        drop(codec::decode::<Mutex<Vec<Item>>>(&sent).unwrap());
        drop(empty);
        assert!(
            codec::decode::<Mutex<Vec<Item>>>(&sent).is_err(),
            "it is gone"
        );
    });
}

#[test]
fn what_does_not_fit_changes_nothing() {
    // H-017: eight bytes of UTF-8 fit into eight (and eight for the length), nine do not.
    let text = Mutex::with_capacity("12345678".to_string(), 16).unwrap();
    let neighbour = Mutex::with_capacity(7u64, 16).unwrap();
    for fits in ["ÄÖÜß", "😀😀", ""] {
        *text.lock().unwrap() = fits.into();
        assert_eq!(text.get().unwrap(), fits);
    }
    let mut guard = text.lock().unwrap();
    *guard = "ÄÖÜß!".into();
    assert!(matches!(
        guard.store(),
        Err(MutexError::TooLong {
            bytes: 17,
            capacity: 16
        })
    ));
    drop(guard);
    assert_eq!((text.get().unwrap().as_str(), neighbour.get()), ("", Ok(7)));
}

#[test]
fn odd_names_are_errors() {
    // H-028, H-032: a colon is a character like another; a name too long for a file is an error.
    assert!(matches!(
        Segment::open("mp:none"),
        Err(ShmError::NotFound { .. })
    ));
    assert!(matches!(
        Segment::open(&"x".repeat(513)),
        Err(ShmError::Os { .. })
    ));
}

#[test]
fn memory_without_a_lock() {
    // V-002, V-006: a segment is Python's raw value and raw array.
    isolated(|| {
        fn double(memory: Segment, len: usize) {
            for index in 0..len {
                let mut bytes = [0; 8];
                memory.read(index * 8, &mut bytes).unwrap();
                let doubled = f64::from_ne_bytes(bytes) * 2.0;
                memory.write(index * 8, &doubled.to_ne_bytes()).unwrap();
            }
        }
        let memory = Segment::create(8 * 10).unwrap();
        let mut zero = [1; 80];
        memory.read(0, &mut zero).unwrap();
        assert_eq!(zero, [0; 80]);
        for index in 0..10u8 {
            let at = usize::from(index) * 8;
            memory.write(at, &f64::from(index).to_ne_bytes()).unwrap();
        }
        Process::<()>::spawn(double, (memory.clone(), 10))
            .unwrap()
            .join()
            .unwrap();
        for index in 0..10u8 {
            let mut bytes = [0; 8];
            memory.read(usize::from(index) * 8, &mut bytes).unwrap();
            assert_eq!(f64::from_ne_bytes(bytes), f64::from(index) * 2.0);
        }
    });
}

#[test]
fn what_only_a_fork_still_has_it_can_hand_on() {
    isolated(|| {
        let (value, go) = (Mutex::new(7).unwrap(), Event::new().unwrap());
        let child_may = go.clone();
        let process = process::fork(move || {
            child_may.wait();
            let get = |value: Mutex<u32>| value.get().unwrap();
            Process::spawn(get, (value,)).unwrap().join().unwrap()
        });
        // The closure went with the fork: here the value is gone.
        go.set();
        assert_eq!(process.unwrap().join().unwrap(), 7);
        drop(go);
        // And when it is gone there as well, so is the name.
        common::shm::sweep();
        assert_eq!(names_of(std::process::id()).count(), 0);
    });
}
