//! What a queue promises when processes die, stop, or run out of memory.

#![allow(unsafe_code)] // Shared anonymous memory for the books.

use common::process::{self, Process};
use common::queue::{GetError, JoinableQueue, PutReason, Queue, Sender};
use common::shm::{Segment, ShmError};
use common::sync::Event;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use testkit::{isolated, isolated_for};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

/// Words that this process and its forks share.
fn shared(words: usize) -> &'static [AtomicU32] {
    // SAFETY: a fresh anonymous mapping of that size, zero-filled and never unmapped.
    unsafe {
        let memory = libc::mmap(
            std::ptr::null_mut(),
            words * 4,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        std::slice::from_raw_parts(memory.cast(), words)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Message numbers are up to this; per number the number of times it was acknowledged and got.
const NUMBERS: usize = 1 << 23;

#[derive(Clone, Copy)]
struct Books {
    next: &'static AtomicU32,
    acknowledged: &'static [AtomicU32],
    got: &'static [AtomicU32],
    /// Consumers end once it is set and the queue is empty, producers at once.
    over: &'static AtomicU32,
}

impl Books {
    fn new() -> Books {
        let words = shared(2 * NUMBERS + 2);
        Books {
            next: &words[0],
            over: &words[1],
            acknowledged: &words[2..2 + NUMBERS],
            got: &words[2 + NUMBERS..],
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(17, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    })
}

fn produce(queue: &Queue<[u8]>, books: Books, largest: u64, seed: u64) {
    let mut random = Random(seed | 1);
    let mut message = Vec::new();
    while books.over.load(SeqCst) == 0 {
        let number = books.next.fetch_add(1, SeqCst);
        if number as usize >= NUMBERS {
            return;
        }
        // Mostly short ones.
        let most = (1 + largest) >> random.below(20);
        let len = random.below(most.max(1)) as usize;
        message.clear();
        message.extend(number.to_le_bytes());
        message.resize(8 + len, number as u8);
        let sum = checksum(&message[8..]) ^ len as u32;
        message[4..8].copy_from_slice(&sum.to_le_bytes());
        queue.put_bytes(&message).unwrap();
        books.acknowledged[number as usize].fetch_add(1, SeqCst);
    }
}

fn consume(queue: &Queue<[u8]>, books: Books) {
    let mut message = Vec::new();
    loop {
        match queue.get_into(&mut message) {
            Ok(()) => {}
            Err(GetError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
        let number = u32::from_le_bytes(message[..4].try_into().unwrap());
        let sum = u32::from_le_bytes(message[4..8].try_into().unwrap());
        let payload = &message[8..];
        assert_eq!(sum, checksum(payload) ^ payload.len() as u32, "torn");
        books.got[number as usize].fetch_add(1, SeqCst);
    }
}

/// Kills producers and consumers at random instants and looks into the books afterwards.
fn kill_at_random(kills: u32, capacity: usize, items: u32, largest: u64, seed: u64) {
    let books = Books::new();
    let queue: Queue<[u8]> = Queue::builder()
        .capacity(capacity)
        .items(items)
        .build()
        .unwrap();
    let mut random = Random(seed);
    let start = |slot: usize, seed: u64| {
        let queue = queue.clone();
        process::fork(move || match slot {
            0 | 1 => produce(&queue, books, largest, seed),
            _ => consume(&queue, books),
        })
        .unwrap()
    };
    let mut processes: Vec<Process<()>> =
        (0..4).map(|slot| start(slot, slot as u64 + seed)).collect();
    let mut killed = [0u32; 2];
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        let slot = random.below(4) as usize;
        processes[slot].kill().unwrap();
        let ended = processes[slot].join_timeout(LONG).expect("it was killed");
        let error = ended.expect_err("they do not end by themselves");
        assert!(error.to_string().contains("SIGKILL"), "{error}");
        killed[slot / 2] += 1;
        processes[slot] = start(slot, random.below(u64::MAX));
    }

    // Throughput continues.
    let count = || {
        books
            .got
            .iter()
            .take(books.next.load(SeqCst) as usize)
            .filter(|n| n.load(SeqCst) > 0)
            .count()
    };
    let (before, from) = (count(), Instant::now());
    while count() < before + 20 {
        assert!(
            from.elapsed() < LONG,
            "nothing goes through any more: {:?} after {:?}",
            queue.stats(),
            books.next
        );
        std::thread::sleep(Duration::from_millis(5));
    }

    books.over.store(1, SeqCst);
    for producer in &processes[..2] {
        producer
            .join_timeout(LONG)
            .expect("a producer hangs")
            .unwrap();
    }
    queue.close();
    for consumer in &processes[2..] {
        consumer
            .join_timeout(LONG)
            .expect("a consumer hangs")
            .unwrap();
    }
    let numbers = 0..(books.next.load(SeqCst) as usize).min(NUMBERS);
    let got = |number: &usize| books.got[*number].load(SeqCst);
    let acknowledged = |number: &usize| books.acknowledged[*number].load(SeqCst);
    let twice = numbers.clone().filter(|n| got(n) > 1).count();
    let lost = numbers
        .clone()
        .filter(|n| acknowledged(n) > 0 && got(n) == 0)
        .count();
    let extra = numbers
        .filter(|n| acknowledged(n) == 0 && got(n) > 0)
        .count();
    assert_eq!(twice, 0, "duplicated");
    assert!(
        lost <= killed[1] as usize,
        "{lost} lost by {killed:?} kills"
    );
    assert!(
        extra <= killed[0] as usize,
        "{extra} not acknowledged by {killed:?} kills"
    );
}

/// `SOAK=10` makes it more than two thousand kills.
#[test]
fn kills_at_random_instants() {
    isolated_for(Duration::from_secs(120) * testkit::soak(), || {
        for round in 0..testkit::soak().into() {
            let seed = 0x5eed + 977 * round;
            kill_at_random(80, 1 << 12, 0, 1 << 10, seed);
            kill_at_random(60, 1 << 16, 0, 1 << 18, seed + 1);
            kill_at_random(40, 1 << 20, 0, 5 << 20, seed + 2);
            kill_at_random(40, 1 << 20, 3, 1 << 10, seed + 3);
        }
    });
}

fn stop() {
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
}

fn stopped(process: &Process<()>) {
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let is_stopped = || {
        state()
            .rsplit_once(')')
            .unwrap()
            .1
            .trim_start()
            .starts_with('T')
    };
    let start = Instant::now();
    while !is_stopped() {
        assert!(start.elapsed() < LONG, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn timeouts_hold(queue: &Queue<[u8]>) {
    use common::deadline::Deadline;
    let start = Instant::now();
    let got = queue.get_into_until(&mut Vec::new(), Deadline::after(SOON));
    assert!(matches!(got, Err(GetError::Empty)), "{got:?}");
    let put = queue.put_bytes_until(&[0; 8000], Deadline::after(SOON));
    assert_eq!(put, Err(PutReason::Full));
    assert!(start.elapsed() >= SOON && start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stopped_process_does_not_hold_up_timeouts() {
    isolated(|| {
        let queue: Queue<[u8]> = Queue::builder().capacity(1 << 13).build().unwrap();
        // Stopped with the get lock in its hands.
        queue.put_bytes(&[1; 500]).unwrap();
        let theirs = queue.clone();
        let consumer: Process<()> =
            process::fork(move || theirs.get_with(|_| stop()).unwrap()).unwrap();
        stopped(&consumer);
        timeouts_hold(&queue);
        consumer.kill().unwrap();
        assert!(consumer.join().is_err());
        let mut message = Vec::new();
        queue.get_into(&mut message).unwrap();
        assert_eq!(message, [1; 500], "it had not been taken");

        // Stopped with the put lock in its hands: half of a long message is in the ring.
        let theirs = queue.clone();
        let producer: Process<()> =
            process::fork(move || theirs.put_bytes(&vec![2; 100_000]).unwrap()).unwrap();
        while queue.stats().bytes == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(producer.pid().cast_signed()),
            nix::sys::signal::Signal::SIGSTOP,
        )
        .unwrap();
        stopped(&producer);
        timeouts_hold(&queue);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(producer.pid().cast_signed()),
            nix::sys::signal::Signal::SIGCONT,
        )
        .unwrap();
        // It starts over: nothing is lost.
        queue.get_into(&mut message).unwrap();
        assert!(message == [2; 100_000]);
        producer.join().unwrap();
    });
}

#[test]
fn what_a_killed_consumer_held_is_counted() {
    isolated(|| {
        let tasks = JoinableQueue::new().unwrap();
        for task in 0..5 {
            tasks.put(task).unwrap();
        }
        let (theirs, ready) = (tasks.clone(), Queue::new().unwrap());
        let told = ready.clone();
        let consumer: Process<()> = process::fork(move || {
            for _ in 0..3 {
                theirs.get().unwrap();
            }
            theirs.task_done().unwrap();
            told.put(()).unwrap();
            std::thread::sleep(LONG);
        })
        .unwrap();
        ready.get().unwrap();
        assert_eq!(tasks.unfinished(), 4);
        consumer.kill().unwrap();
        assert!(consumer.join().is_err());
        while let Ok(task) = tasks.try_get() {
            assert!(task >= 3);
            tasks.task_done().unwrap();
        }
        assert_eq!(tasks.join_timeout(LONG), Some(2));
        assert_eq!(tasks.join(), 0);
    });
}

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

        // The default fits what there is: it is full in time, and no error.
        drop(queue);
        let queue = Queue::<[u8]>::new().unwrap();
        assert_eq!(queue.stats().capacity, 1 << 18);
        while let Ok(()) = queue.put_bytes_until(&[0; 1000], common::deadline::Deadline::Now) {}
        assert!(queue.is_full() || queue.stats().bytes > (1 << 18) - 2048);
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
            let owner: Process<()> = process::fork(move || {
                let queues: Vec<Queue<u32>> = (0..3).map(|_| Queue::new().unwrap()).collect();
                queues.iter().for_each(|queue| queue.put(1).unwrap());
                let gone = Segment::create(1).unwrap();
                gone.unlink().unwrap();
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
            assert!(owner.join().is_err());
            // Fewer if another test has made a segment just now.
            assert!(left() <= 3);
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
