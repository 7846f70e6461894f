//! Memory, names and descriptors: when there are no more, and who may have them.

#![allow(unsafe_code)] // A limit of this process.

use super::LONG;
use common::deadline::Deadline;
use common::process::{self, Process};
use common::queue::{GetError, JoinableQueue, PutReason, Queue, Sender};
use common::ring::{self, PutError, Ring, RingConfig};
use common::shm::{Segment, ShmError};
use common::sync::Event;
use std::time::{Duration, Instant};
use testkit::isolated;
/// In a mount namespace of its own, with a `/dev/shm` of so many bytes.
fn with_small_shm(bytes: usize) -> bool {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let user = match nix::unistd::geteuid().is_root() {
        true => CloneFlags::empty(),
        false => CloneFlags::CLONE_NEWUSER,
    };
    let none: Option<&str> = None;
    let mounted = unshare(CloneFlags::CLONE_NEWNS | user)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            let size = format!("size={bytes}");
            mount(
                Some("tmpfs"),
                "/dev/shm",
                Some("tmpfs"),
                MsFlags::empty(),
                Some(size.as_str()),
            )
        });
    if let Err(errno) = mounted {
        eprintln!("SKIPPED: no mount namespace of our own here: {errno}");
    }
    mounted.is_ok()
}

#[test]
fn a_full_shm_is_an_error_and_gives_the_value_back() {
    isolated(|| {
        if !with_small_shm(1 << 20) {
            return;
        }
        let queue = Queue::builder().capacity(64 << 20).build().unwrap();
        let text = "x".repeat(10_000);
        let mut put = 0;
        let error = loop {
            match queue.put(text.clone()) {
                Ok(()) => put += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.value, text);
        let told = error.to_string();
        assert!(
            matches!(error.reason, PutReason::Memory(ShmError::NoSpace { .. })),
            "{told}"
        );
        assert!(
            told.contains("1048576") && told.contains("--shm-size"),
            "{told}"
        );
        assert!(put > 50, "{put}");
        assert!(matches!(
            Segment::create(1 << 16).and_then(|s| s.reserve(1 << 16)),
            Err(ShmError::NoSpace { .. })
        ));
        for _ in 0..put {
            assert!(queue.get().unwrap() == text);
        }
        assert_eq!(queue.try_get(), Err(GetError::Empty));

        // What it has taken into use is its own: it goes on where it was.
        for _ in 0..put {
            queue.put(text.clone()).unwrap();
            assert!(queue.get().unwrap() == text);
        }

        // The default fits what there is: it is full in time, and no error.
        drop(queue);
        let queue = Queue::<[u8]>::new().unwrap();
        assert_eq!(queue.stats().capacity, 1 << 18);
        while let Ok(()) = queue.put_bytes_until(&[0; 1000], Deadline::Now) {}
        assert!(queue.is_full() || queue.stats().bytes > (1 << 18) - 2048);
    });
}

#[test]
fn who_has_half_of_a_message_lets_go_when_there_is_no_memory_for_the_rest() {
    isolated(|| {
        if !with_small_shm(2 << 20) {
            return;
        }
        let config = RingConfig {
            capacity: 1 << 20,
            max_items: None,
            claims: 1,
        };
        let ring = Ring::create(config).unwrap();
        let there_is = nix::sys::statvfs::statvfs("/dev/shm").unwrap();
        // Two pieces of the message are a quarter of the ring each.
        let all_but = usize::try_from(there_is.blocks_available() * there_is.fragment_size())
            .unwrap()
            - (600 << 10);
        std::fs::write("/dev/shm/others", vec![1; all_but]).unwrap();
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| ring.get(&mut Vec::new(), Deadline::Never));
            let put = ring.put(&[&vec![1; 2 << 20]], Deadline::after(LONG));
            let end = Instant::now() + LONG;
            while ring.stats().bytes > 0 && Instant::now() < end {
                std::thread::yield_now();
            }
            // It needs the lock of who gets.
            let claim = ring.claim(0, Deadline::after(LONG / 3));
            ring.close();
            assert!(matches!(
                put,
                Err(PutError::Memory(ShmError::NoSpace { .. }))
            ));
            assert_eq!(claim, Ok(None));
            assert_eq!(consumer.join().unwrap(), Err(ring::GetError::Closed));
        });
    });
}

#[test]
fn another_user_cannot_open_it() {
    isolated(|| {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can become another user");
            return;
        }
        let segment = Segment::create(100).unwrap();
        let name = segment.name().to_owned();
        let other = process::fork(move || {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
            // In a namespace of file names of its own: it has inherited the mapping.
            std::fs::File::open(format!("/dev/shm/{name}"))
                .unwrap_err()
                .raw_os_error()
        })
        .unwrap();
        assert_eq!(other.join().unwrap(), Some(libc::EACCES));
    });
}

#[test]
fn an_owner_that_is_ended_by_a_signal_leaves_nothing_for_long() {
    // H-022, H-025. Nobody is told: there is no tracker, and the next start sweeps.
    use nix::sys::signal::{Signal, raise};
    isolated(|| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let (made, go) = (Event::new().unwrap(), Event::new().unwrap());
            let (theirs, told) = (made.clone(), go.clone());
            let owner: Process<()> = process::fork(move || {
                let queues: Vec<Queue<u32>> = (0..3).map(|_| Queue::new().unwrap()).collect();
                queues.iter().for_each(|queue| queue.put(1).unwrap());
                let gone = Segment::create(1).unwrap();
                gone.unlink().unwrap();
                theirs.set();
                told.wait();
                raise(signal).unwrap();
            })
            .unwrap();
            let pid = format!("-{}-", owner.pid());
            let left = || {
                let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
                names
                    .filter(|n| n.file_name().to_string_lossy().contains(&pid))
                    .count()
            };
            made.wait();
            // Once it has ended any other test may sweep.
            assert_eq!(left(), 3);
            go.set();
            assert!(owner.join().is_err());
            drop(Queue::<u8>::new().unwrap());
            assert_eq!(left(), 0);
        }
    });
}

#[test]
fn exit_without_destructors_leaves_nothing() {
    isolated(|| {
        let pid = Process::spawn(
            || {
                std::mem::forget(Queue::<u8>::new().unwrap());
                std::process::id()
            },
            (),
        );
        let pid = format!("-{}-", pid.unwrap().join().unwrap());
        let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
        let left = names.filter(|n| n.file_name().to_string_lossy().contains(&pid));
        assert_eq!(left.count(), 0);
    });
}

/// All the descriptors that this process may have, but so many.
fn use_up_descriptors(but: usize) -> Vec<std::fs::File> {
    let limit = libc::rlimit {
        rlim_cur: 256,
        rlim_max: 256,
    };
    // SAFETY: `limit` is read only.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(failed, 0);
    let mut files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    files.truncate(files.len() - but);
    files
}

#[test]
fn who_is_out_of_descriptors_takes_nobody_for_dead() {
    isolated(|| {
        type Told = Queue<String>;
        fn owner(sender: Sender<u32>, tasks: JoinableQueue<u32>, told: Told, go: Event) {
            let segment = Segment::create(1).unwrap();
            let task = tasks.get_guard().unwrap();
            told.put(segment.name().to_owned()).unwrap();
            go.wait();
            sender.put(*task).unwrap();
        }
        let (sender, receiver) = Queue::<u32>::new().unwrap().split();
        let (tasks, told) = (JoinableQueue::new().unwrap(), Queue::new().unwrap());
        let go = Event::new().unwrap();
        tasks.put(7).unwrap();
        let args = (sender, tasks.clone(), told.clone(), go.clone());
        let child = Process::spawn(owner, args).unwrap();
        let name: String = told.get_timeout(LONG).unwrap();

        // None, or only the one to read the directory with.
        for but in [0, 1] {
            let files = use_up_descriptors(but);
            common::shm::sweep();
            let got = receiver.get_timeout(Duration::from_millis(400));
            let joined = tasks.join_timeout(Duration::from_millis(400));
            drop(files);
            assert_eq!((got, joined), (Err(GetError::Empty), None));
            Segment::open(&name).unwrap();
        }
        go.set();
        assert_eq!(receiver.get_timeout(LONG), Ok(7));
        child.join().unwrap();
        assert_eq!(tasks.join_timeout(LONG), Some(0));
    });
}
