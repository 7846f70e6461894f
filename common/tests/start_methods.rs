//! The three start methods: what is special about each.
//!
//! There is no default to be set, and no context with one of its own: each start says its method.
//! So Python's cases M-002, M-003, M-004, M-005 and M-006 cannot arise.

use common::process::{self, JoinError, Process, SpawnError, StartMethod};
use common::queue::Queue;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use testkit::{METHODS, isolated};

#[test]
fn a_child_knows_how_it_was_started() {
    isolated(|| {
        // M-001, M-008: so does a child of a child, and all methods work in all.
        fn below(method: StartMethod) -> (Option<StartMethod>, Option<StartMethod>) {
            let builder = Process::builder().start_method(method);
            let told = || process::current().start_method();
            let below = builder.spawn(told, ()).unwrap().join().unwrap();
            (process::current().start_method(), below)
        }
        for outer in METHODS {
            for inner in METHODS {
                let builder = Process::builder().start_method(outer);
                let told = builder.spawn(below, (inner,)).unwrap().join().unwrap();
                assert_eq!(told, (Some(outer), Some(inner)));
            }
        }
    });
}

#[test]
fn a_queue_works_in_children_of_every_method_and_in_theirs() {
    isolated(|| {
        // M-007, M-008
        fn put(queue: Queue<(u32, bool)>, number: u32, below: Option<StartMethod>) {
            queue.put((number, below.is_some())).unwrap();
            if let Some(method) = below {
                let builder = Process::builder().start_method(method);
                builder
                    .spawn(put, (queue, number, None))
                    .unwrap()
                    .join()
                    .unwrap();
            }
        }
        let queue = Queue::new().unwrap();
        for (number, method) in (0..).zip(METHODS) {
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(put, (queue.clone(), number, Some(method)));
            process.unwrap().join().unwrap();
            assert_eq!(queue.get().unwrap(), (number, true));
            assert_eq!(queue.get().unwrap(), (number, false));
        }
    });
}

#[test]
fn the_programs_arguments_reach_the_child() {
    isolated(|| {
        // M-022
        let args = || std::env::args().collect::<Vec<_>>();
        for method in METHODS {
            let builder = Process::builder().start_method(method);
            assert_eq!(builder.spawn(args, ()).unwrap().join().unwrap(), args());
        }
    });
}

#[test]
fn fork_takes_captures_and_copies_them() {
    isolated(|| {
        let mut numbers = vec![1, 2, 3];
        let process = process::fork(|| {
            numbers.push(4);
            numbers.iter().sum::<i32>()
        });
        assert_eq!(process.unwrap().join().unwrap(), 10);
        assert_eq!(numbers, [1, 2, 3]);
    });
}

#[test]
fn fork_is_refused_beside_another_thread() {
    isolated(|| {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let error = process::fork(|| ()).unwrap_err();
        assert!(matches!(error, SpawnError::Threads { threads: 2, .. }));
        let text = error.to_string();
        assert!(
            text.contains("exactly one thread") && text.contains("ForkServer"),
            "{text}"
        );
        drop(stop);
        let _ = thread.join();
        // The thread may be a moment in going.
        while process::fork(|| ()).is_err() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_fork_runs_none_of_its_parents_destructors() {
    isolated(|| {
        struct Says(&'static str);
        impl Drop for Says {
            fn drop(&mut self) {
                println!("{} dropped", self.0);
            }
        }
        fn forks() {
            let _parents = Says("the parent's");
            // M-014: what is buffered is written once.
            print!("before ");
            let process = process::fork(|| {
                let _own = Says("its own");
                print!("in the fork ");
            });
            process.unwrap().join().unwrap();
        }
        let mut process = Process::builder()
            .stdout(process::Stdio::piped())
            .spawn(forks, ())
            .unwrap();
        let out = std::io::read_to_string(process.stdout.take().unwrap()).unwrap();
        assert_eq!(
            out,
            "before in the fork its own dropped\nthe parent's dropped\n"
        );
    });
}

#[test]
fn a_fork_that_panics_unwinds_no_further_than_its_closure() {
    isolated(|| {
        let process = process::fork(|| -> () { panic!("in a fork") }).unwrap();
        let error = process.join().unwrap_err();
        assert!(matches!(error, JoinError::Panicked { ref message, .. } if message == "in a fork"));
        assert_eq!(process.exit_code(), Some(1));
    });
}

#[test]
fn a_fork_whose_result_panics_unwinds_no_further_either() {
    isolated(|| {
        // When it is written (0), when it is dropped (1).
        struct Panics(u8);
        impl serde::Serialize for Panics {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                assert_ne!(self.0, 0, "while written");
                s.serialize_u8(self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for Panics {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("never read"))
            }
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                assert_ne!(self.0, 1, "while dropped");
            }
        }
        struct Ours(u32);
        impl Drop for Ours {
            fn drop(&mut self) {
                assert_eq!(std::process::id(), self.0, "a fork runs this destructor");
            }
        }
        let _ours = Ours(std::process::id());
        for (when, said) in [(0, "while written"), (1, "while dropped")] {
            // A child that got out of `fork` would be caught here and go on as a second parent.
            let parent = std::process::id();
            let process = std::panic::catch_unwind(|| process::fork(move || Panics(when)));
            if std::process::id() != parent {
                std::process::exit(66);
            }
            let process = process.unwrap().unwrap();
            let error = process.join().map(|_| ()).unwrap_err();
            assert!(
                matches!(&error, JoinError::Panicked { message, .. } if message.contains(said)),
                "{error}"
            );
            assert_eq!(process.exit_code(), Some(1));
        }
    });
}

fn fork_server_pid() -> Pid {
    let children =
        std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let is_server = |pid: &&str| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim() == "ForkServer"
    };
    let children = children.unwrap();
    // The last: those before it may not quite be dead yet.
    let mut newest_first = children.split_whitespace().rev();
    let pid = newest_first.find(is_server).expect("a fork server");
    Pid::from_raw(pid.parse().unwrap())
}

#[test]
fn a_killed_fork_server_is_replaced() {
    isolated(|| {
        // P-030
        fn until_told() -> String {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            line
        }
        let builder = || Process::builder().start_method(StartMethod::ForkServer);
        for round in 0..20 * testkit::soak() {
            let stdin = process::Stdio::piped();
            let mut earlier = builder().stdin(stdin).spawn(until_told, ()).unwrap();
            kill(fork_server_pid(), Signal::SIGKILL).unwrap();
            // At once, whether or not the kernel has buried it yet.
            let later = builder().spawn(|n: u32| n, (round,)).unwrap();
            assert_eq!(later.join().unwrap(), round);
            assert_eq!(later.exit_code(), Some(0));
            // The earlier one goes on; its exit status is lost, its result arrives.
            assert!(earlier.is_alive());
            earlier.stdin.take().unwrap().write_all(b"end\n").unwrap();
            assert_eq!(earlier.join().unwrap(), "end\n");
            assert_eq!(earlier.exit_status(), None);
            assert_eq!(earlier.exit_code(), Some(0));
        }
    });
}

#[test]
fn a_stopped_fork_server_holds_nobody_up_without_limit() {
    isolated(|| {
        let builder = Process::builder().start_method(StartMethod::ForkServer);
        let nap = || std::thread::sleep(Duration::MAX);
        let process: Process<()> = builder.spawn(nap, ()).unwrap();
        kill(fork_server_pid(), Signal::SIGSTOP).unwrap();
        process.kill().unwrap();
        process::wait(&[&process], None).unwrap();
        assert_eq!(
            process.join_timeout(Duration::ZERO),
            Some(Err(JoinError::Lost {
                process: process.name().to_owned()
            }))
        );
        assert_eq!(process.exit_status(), None);
        assert_eq!(process.exit_code(), Some(255));
        // Several who wait for the status are told, all of them.
        let joins = || {
            assert!(matches!(
                process.join(),
                Err(JoinError::Signaled { signal: 9, .. })
            ));
        };
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(joins), scope.spawn(joins)];
            // They do not keep others from looking.
            assert!(!process.is_alive());
            kill(fork_server_pid(), Signal::SIGCONT).unwrap();
            waiting
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(process.exit_code(), Some(-9));
    });
}

#[test]
fn a_start_by_the_fork_server_finds_room_for_its_answer() {
    isolated(|| {
        let builder = || Process::builder().start_method(StartMethod::ForkServer);
        builder().spawn(|| (), ()).unwrap().join().unwrap();
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, most).unwrap();
        let null = || File::open("/dev/null");
        let mut files: Vec<File> = std::iter::from_fn(|| null().ok()).collect();
        // What it asks for: both ends of the lifeline, and the working directory's for a while.
        files.truncate(files.len() - 3);
        assert_eq!(builder().spawn(|| 7, ()).unwrap().join(), Ok(7));
    });
}

#[test]
fn a_fork_that_has_no_room_for_its_pidfd_is_none() {
    isolated(|| {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, most).unwrap();
        let null = || File::open("/dev/null");
        let mut files: Vec<File> = std::iter::from_fn(|| null().ok()).collect();
        // Both ends of the lifeline, and it.
        for room in [0, 2] {
            files.truncate(files.len() - room);
            let error = process::fork(|| ()).unwrap_err();
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
        // Not even for a moment was there another process.
        let reaped = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        assert_eq!(reaped.max_rss(), 0);
        files.pop();
        assert_eq!(process::fork(|| 7).unwrap().join(), Ok(7));
    });
}

#[test]
fn who_inherits_the_children_of_a_killed_fork_server_reaps_them() {
    isolated(|| {
        fn inherit() -> (Option<i32>, bool) {
            // As process 1 of a container does.
            nix::sys::prctl::set_child_subreaper(true).unwrap();
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            let nap = || std::thread::sleep(Duration::MAX);
            let process = builder.spawn(nap, ()).unwrap();
            let server = testkit::pidfd(fork_server_pid().as_raw().cast_unsigned());
            kill(fork_server_pid(), Signal::SIGKILL).unwrap();
            process::wait(&[&server], None).unwrap();
            process.kill().unwrap();
            process.join().unwrap_err();
            let remains = std::fs::exists(format!("/proc/{}", process.pid()));
            (process.exit_code(), remains.unwrap())
        }
        let told = Process::spawn(inherit, ()).unwrap().join().unwrap();
        assert_eq!(told, (Some(-9), false));
    });
}

#[test]
fn a_fork_server_does_not_mind_an_interrupt() {
    isolated(|| {
        // P-031
        let start = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            builder
                .spawn(|| std::thread::sleep(Duration::MAX), ())
                .unwrap()
        };
        let first = start();
        let server = fork_server_pid();
        kill(server, Signal::SIGINT).unwrap();
        let second = start();
        assert_eq!(fork_server_pid(), server);
        // Its children do mind.
        for process in [first, second] {
            process.interrupt().unwrap();
            process.join().unwrap_err();
            assert_eq!(process.exit_code(), Some(-2));
        }
    });
}

#[test]
fn a_fork_server_serves_threads_of_a_large_process() {
    isolated(|| {
        let ballast = vec![1u8; 64 << 20];
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                std::thread::spawn(move || {
                    for n in 0..10u32 {
                        let builder = Process::builder().start_method(StartMethod::ForkServer);
                        let sum = builder.spawn(|a: u32, b: u32| a + b, (thread, n)).unwrap();
                        assert_eq!(sum.join().unwrap(), thread + n);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(ballast.len(), 64 << 20);
    });
}

#[test]
fn a_fork_uses_a_fork_server_of_its_own() {
    isolated(|| {
        let started = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            builder.spawn(|| 5, ()).unwrap().join().unwrap()
        };
        assert_eq!(started(), 5);
        assert_eq!(process::fork(started).unwrap().join().unwrap(), 5);
        assert_eq!(started(), 5);
    });
}

#[test]
fn no_program_becomes_a_fork_bomb() {
    isolated(|| {
        // M-009: a child never gets to `main`, and needs no guard there. This test program is
        // such a program: its `main` would run every test again.
        let begin = Instant::now();
        for method in METHODS {
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(|| 123, ()).unwrap();
            assert_eq!(process.join().unwrap(), 123);
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn rights_that_were_given_up_the_fork_server_does_not_give_back() {
    // Only root has some to give up.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    fn gives_up() -> (u32, u32) {
        let user = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            let process = builder.spawn(|| nix::unistd::geteuid().as_raw(), ());
            process.unwrap().join().unwrap()
        };
        // Where anybody may be.
        std::env::set_current_dir("/").unwrap();
        let before = user();
        nix::unistd::setuid(61_234.into()).unwrap();
        (before, user())
    }
    isolated(|| {
        let told = Process::spawn(gives_up, ()).unwrap().join().unwrap();
        assert_eq!(told, (0, 61_234));
    });
}

#[test]
fn a_fork_servers_user_that_may_not_be_where_it_is_is_told_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    fn locks_itself_out() -> String {
        let name = format!("closed-{}", std::process::id());
        let closed = std::env::temp_dir().join(name);
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
        std::env::set_current_dir(&closed).unwrap();
        std::fs::remove_dir(&closed).unwrap();
        nix::unistd::setuid(61_234.into()).unwrap();
        let builder = Process::builder().start_method(StartMethod::ForkServer);
        builder.spawn(|| (), ()).unwrap_err().to_string()
    }
    isolated(|| {
        let told = Process::spawn(locks_itself_out, ());
        let told = told.unwrap().join().unwrap();
        assert!(told.contains("working directory"), "{told}");
    });
}

#[test]
fn a_fork_server_tells_how_a_child_ended_though_its_user_ignores_such_news() {
    isolated(|| {
        // SAFETY: no handler is put in place.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
        let builder = Process::builder().start_method(StartMethod::ForkServer);
        let process = builder.spawn(|| std::process::exit(3), ()).unwrap();
        let joined: Option<Result<(), _>> = process.join_timeout(Duration::from_secs(10));
        let error = joined.unwrap().unwrap_err();
        assert!(
            matches!(error, JoinError::Exited { code: 3, .. }),
            "{error}"
        );
    });
}
