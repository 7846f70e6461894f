//! Processes: what they return, how they end, who they are.
//!
//! Python's cases that cannot arise, because the types leave no room for them: P-006, P-041, P-042
//! (there is no process object before the start, and it is started once), P-021, P-022 (a handle is
//! closed by being dropped, which waits), P-032, P-033 (the fork server's socket has no name, so
//! nobody else can connect), P-036 (`exit` takes a number), P-040 (no default arguments). P-043 is
//! different on purpose: a daemon may start processes, for they end with it.

use common::process::{self, JoinError, Process, StartMethod, Stdio, wait};
use serde::{Deserialize, Serialize};
use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use testkit::isolated;

const METHODS: [StartMethod; 3] = [
    StartMethod::Spawn,
    StartMethod::Fork,
    StartMethod::ForkServer,
];
const FOREVER: Duration = Duration::from_secs(3600);

fn nap(time: Duration) {
    std::thread::sleep(time);
}

fn sleeper(method: StartMethod) -> Process<()> {
    Process::builder()
        .start_method(method)
        .spawn(nap, (FOREVER,))
        .unwrap()
}

#[test]
fn results_come_back() {
    isolated(|| {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Point {
            x: f64,
            tags: Vec<String>,
        }
        fn shift(point: Point, by: f64) -> Point {
            let x = point.x + by;
            Point { x, ..point }
        }
        let point = |x| Point {
            x,
            tags: vec!["a".into(), "ß".into()],
        };
        for method in METHODS {
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(shift, (point(1.0), 2.0)).unwrap();
            // P-002, P-008: arguments arrive; joining again gives the same again.
            assert_eq!(process.join().unwrap(), point(3.0));
            assert_eq!(process.join().unwrap(), point(3.0));
            // P-009
            assert_eq!(process.exit_code(), Some(0));
            assert!(!process.is_alive());
            assert_eq!(process::active_children(), []);
        }
    });
}

#[test]
fn eight_arguments() {
    isolated(|| {
        let sum =
            |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| a + b + c + d + e + f + g + h;
        let process = Process::spawn(sum, (1, 2, 3, 4, 5, 6, 7, 8)).unwrap();
        assert_eq!(process.join().unwrap(), 36);
    });
}

#[test]
fn a_function_that_fails_keeps_its_own_error() {
    isolated(|| {
        fn halve(x: u32) -> Result<u32, String> {
            if x.is_multiple_of(2) {
                Ok(x / 2)
            } else {
                Err(format!("{x} is odd"))
            }
        }
        assert_eq!(Process::spawn(halve, (8,)).unwrap().join().unwrap(), Ok(4));
        let odd = Process::spawn(halve, (7,)).unwrap().join().unwrap();
        assert_eq!(odd, Err("7 is odd".to_string()));
    });
}

#[test]
fn large_arguments_and_results_block_nobody() {
    isolated(|| {
        for method in METHODS {
            let text = "x".repeat(10 << 20);
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(|text: String| text + "y", (text,)).unwrap();
            // It ends although nobody has joined it yet.
            assert_eq!(wait(&[&process], Some(FOREVER)).unwrap(), [0]);
            assert_eq!(process.join().unwrap().len(), (10 << 20) + 1);
        }
    });
}

#[test]
fn the_life_of_a_process() {
    isolated(|| {
        for method in METHODS {
            let process = sleeper(method);
            // P-007, P-018
            assert!(process.is_alive());
            assert_eq!(process.exit_code(), None);
            assert_eq!(process.exit_status(), None);
            let active = process::active_children();
            assert!(active.iter().any(|child| child.pid == process.pid()));
            // P-011, P-013: not waiting is waiting for no time.
            assert_eq!(process.try_join(), None);
            // P-012
            let start = Instant::now();
            assert_eq!(process.join_timeout(Duration::from_millis(50)), None);
            assert!(start.elapsed() >= Duration::from_millis(50));
            assert!(process.is_alive());
            process.kill().unwrap();
            let _ = process.join();
        }
    });
}

#[test]
fn signals_end_it_and_are_told() {
    isolated(|| {
        type End = fn(&Process<()>) -> std::io::Result<()>;
        // P-014, P-015, P-016
        let ends: [(End, i32, &str); 3] = [
            (Process::terminate, -15, "SIGTERM"),
            (Process::kill, -9, "SIGKILL"),
            (Process::interrupt, -2, "SIGINT"),
        ];
        for method in METHODS {
            for (end, code, name) in ends {
                let process = sleeper(method);
                // A signal before it has begun is as good.
                end(&process).unwrap();
                let error = process.join().unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
                assert!(matches!(error, JoinError::Signaled { signal, .. } if signal == -code));
                assert_eq!(process.exit_code(), Some(code));
                assert_eq!(process::active_children(), []);
                // Harmless once it has ended, and so is joining it again.
                end(&process).unwrap();
                assert_eq!(process.join().unwrap_err(), error);
            }
        }
    });
}

#[test]
fn exit_codes() {
    isolated(|| {
        // P-037, P-045
        for (code, seen) in [(0, 0), (1, 1), (8, 8), (300, 44)] {
            let process = Process::spawn(|code: i32| -> () { std::process::exit(code) }, (code,));
            let process = process.unwrap();
            let error = process.join().unwrap_err();
            assert!(
                matches!(error, JoinError::Exited { code, .. } if code == seen),
                "{error}"
            );
            assert_eq!(process.exit_code(), Some(seen));
        }
        let aborted = Process::spawn(|| -> () { std::process::abort() }, ()).unwrap();
        assert!(aborted.join().unwrap_err().to_string().contains("SIGABRT"));
        assert_eq!(aborted.exit_code(), Some(-6));
    });
}

#[test]
fn a_real_time_signal_has_an_exit_code_too() {
    isolated(|| {
        let process = sleeper(StartMethod::Spawn);
        let signal = format!("-{}", 40);
        let pid = process.pid().to_string();
        std::process::Command::new("kill")
            .args([signal, pid])
            .status()
            .unwrap();
        assert!(matches!(
            process.join(),
            Err(JoinError::Signaled { signal: 40, .. })
        ));
        assert_eq!(process.exit_code(), Some(-40));
    });
}

#[test]
fn a_panic_is_printed_and_told() {
    isolated(|| {
        for method in METHODS {
            // P-035
            let mut process = Process::builder()
                .start_method(method)
                .env("RUST_BACKTRACE", "0")
                .stderr(Stdio::piped())
                .spawn(|n: u32| -> () { panic!("no {n}") }, (7,))
                .unwrap();
            let mut printed = String::new();
            process
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut printed)
                .unwrap();
            assert!(
                printed.contains("no 7") && printed.contains("process.rs:"),
                "{printed}"
            );
            match process.join().unwrap_err() {
                JoinError::Panicked {
                    message,
                    location,
                    process,
                } => {
                    assert_eq!(message, "no 7");
                    assert!(location.unwrap().contains("process.rs:"));
                    assert!(process.starts_with("Process-"));
                }
                other => panic!("{other}"),
            }
            assert_eq!(process.exit_code(), Some(1));
        }
    });
}

#[test]
fn names_and_parents() {
    isolated(|| {
        fn child() -> (String, u32, String, u32, bool, (String, String)) {
            let parent = process::parent().unwrap();
            // P-005: a parent that lives.
            assert!(parent.is_alive());
            assert!(!parent.join_timeout(Duration::from_millis(1)));
            let me = process::current();
            let grandchild = Process::spawn(
                || {
                    (
                        process::current().name().to_owned(),
                        process::parent().unwrap().name().to_owned(),
                    )
                },
                (),
            );
            let below = grandchild.unwrap().join().unwrap();
            (
                me.name().into(),
                me.pid(),
                parent.name().into(),
                parent.pid(),
                me.daemon(),
                below,
            )
        }
        // This process was started with a name of its own.
        assert_eq!(process::current().name(), "test");
        for (number, method) in (1..).zip(METHODS) {
            let process = Process::builder()
                .start_method(method)
                .daemon(false)
                .spawn(child, ());
            let process = process.unwrap();
            // The test process itself is Process-N of the test runner.
            let own = process.name().to_owned();
            assert!(
                own.starts_with("Process-") && own.ends_with(&format!(":{number}")),
                "{own}"
            );
            let (name, pid, parent, parents_pid, daemon, below) = process.join().unwrap();
            // P-001, P-003, P-004, P-010
            assert_eq!((name, pid), (own.clone(), process.pid()));
            assert_eq!((parent.as_str(), parents_pid), ("test", std::process::id()));
            assert!(!daemon);
            assert_eq!(below, (format!("{own}:1"), own));
        }
    });
}

#[test]
fn the_name_is_shown_by_ps() {
    isolated(|| {
        for method in METHODS {
            let process = Process::builder()
                .name("squaring-numbers")
                .start_method(method)
                .spawn(|| std::fs::read_to_string("/proc/self/comm").unwrap(), ());
            assert_eq!(process.unwrap().join().unwrap(), "squaring-number\n");
        }
    });
}

#[test]
fn daemons_beget_daemons() {
    isolated(|| {
        // P-003
        let of = |daemon: bool| Process::builder().daemon(daemon);
        let inherits = || {
            Process::spawn(|| process::current().daemon(), ())
                .unwrap()
                .join()
                .unwrap()
        };
        assert!(of(true).spawn(inherits, ()).unwrap().join().unwrap());
        assert!(!of(false).spawn(inherits, ()).unwrap().join().unwrap());
    });
}

#[test]
fn a_tree_of_processes_reports_in_order() {
    isolated(|| {
        // P-019
        fn visit(path: Vec<u8>) -> Vec<Vec<u8>> {
            let mut seen = vec![path.clone()];
            if path.len() < 2 {
                for branch in 0..2 {
                    let path = path.iter().copied().chain([branch]).collect::<Vec<u8>>();
                    seen.extend(Process::spawn(visit, (path,)).unwrap().join().unwrap());
                }
            }
            seen
        }
        let order: [&[u8]; 7] = [&[], &[0], &[0, 0], &[0, 1], &[1], &[1, 0], &[1, 1]];
        assert_eq!(visit(vec![]), order);
    });
}

#[test]
fn many_processes() {
    isolated(|| {
        for method in METHODS {
            let start = |f: fn(StartMethod) -> Process<()>| (0..30).map(move |_| f(method));
            // P-024
            let short = |method| {
                Process::builder()
                    .start_method(method)
                    .spawn(|| (), ())
                    .unwrap()
            };
            for process in start(short).collect::<Vec<_>>() {
                process.join().unwrap();
                assert_eq!(process.exit_code(), Some(0));
            }
            // P-025
            let long: Vec<_> = start(sleeper).collect();
            long.iter().for_each(|process| process.terminate().unwrap());
            for process in long {
                process.join().unwrap_err();
                assert_eq!(process.exit_code(), Some(-15));
            }
        }
    });
}

#[test]
fn the_handle_is_readable_when_it_has_ended() {
    isolated(|| {
        for method in METHODS {
            // P-020
            let process = sleeper(method);
            assert_eq!(wait(&[&process], Some(Duration::ZERO)).unwrap(), []);
            process.kill().unwrap();
            assert_eq!(wait(&[&process], Some(FOREVER)).unwrap(), [0]);
            let _ = process.join();
            assert_eq!(wait(&[&process], Some(Duration::ZERO)).unwrap(), [0]);
        }
    });
}

#[test]
fn waiting_for_processes_and_pipes_at_once() {
    isolated(|| {
        // C-027, C-028
        let (reader, mut writer) = std::io::pipe().unwrap();
        let process = sleeper(StartMethod::Spawn);
        let items: [&dyn AsFd; 2] = [&reader, &process];
        let start = Instant::now();
        assert_eq!(wait(&items, Some(Duration::from_millis(30))).unwrap(), []);
        assert!(start.elapsed() >= Duration::from_millis(30));
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(&items, None).unwrap(), [0]);
        process.kill().unwrap();
        let _ = process.join();
        assert_eq!(wait(&items, None).unwrap(), [0, 1]);
        assert_eq!(wait(&[], Some(Duration::from_millis(1))).unwrap(), []);
    });
}

#[test]
fn a_handled_signal_does_not_end_a_join() {
    isolated(|| {
        // P-038
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        extern "C" fn handler(_: i32) {}
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        #[allow(unsafe_code)]
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let signals_parent = || {
            let parent = nix::unistd::Pid::from_raw(process::parent().unwrap().pid() as i32);
            for _ in 0..20 {
                nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGUSR1).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            7
        };
        assert_eq!(
            Process::spawn(signals_parent, ()).unwrap().join().unwrap(),
            7
        );
    });
}

#[test]
fn exit_handlers_run_in_the_child() {
    isolated(|| {
        // P-039. In a fork they are the parent's and do not run: none of its destructors does.
        extern "C" fn say() {
            println!("bye");
        }
        fn register() {
            // SAFETY: `say` may be called at any exit.
            #[allow(unsafe_code)]
            unsafe {
                libc::atexit(say);
            }
        }
        for (method, said) in [
            (StartMethod::Spawn, "bye\n"),
            (StartMethod::ForkServer, "bye\n"),
            (StartMethod::Fork, ""),
        ] {
            let builder = Process::builder()
                .start_method(method)
                .stdout(Stdio::piped());
            let mut process = builder.spawn(register, ()).unwrap();
            let mut out = String::new();
            process
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut out)
                .unwrap();
            assert_eq!(out, said, "{method:?}");
        }
    });
}

#[test]
fn streams_environment_and_directory() {
    isolated(|| {
        fn echo() -> (Option<String>, Option<String>, String) {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            print!("out {line}");
            eprint!("err {line}");
            let directory = std::env::current_dir().unwrap().display().to_string();
            (
                std::env::var("SET").ok(),
                std::env::var("REMOVED").ok(),
                directory,
            )
        }
        // SAFETY: this process has one thread.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("REMOVED", "still here");
        }
        for method in METHODS {
            let mut process = Process::builder()
                .start_method(method)
                .env("SET", "yes")
                .env_remove("REMOVED")
                .current_dir("/proc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn(echo, ())
                .unwrap();
            process.stdin.take().unwrap().write_all(b"hello\n").unwrap();
            let (mut out, mut err) = (String::new(), String::new());
            process
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut out)
                .unwrap();
            process
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut err)
                .unwrap();
            assert_eq!((out.as_str(), err.as_str()), ("out hello\n", "err hello\n"));
            assert_eq!(
                process.join().unwrap(),
                (Some("yes".into()), None, "/proc".into())
            );
        }
    });
}

#[test]
fn a_fork_server_child_sees_what_the_caller_sees_now() {
    isolated(|| {
        let look = || {
            (
                std::env::var("LATER").ok(),
                std::env::current_dir().unwrap().display().to_string(),
            )
        };
        let start = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            builder.spawn(look, ()).unwrap().join().unwrap()
        };
        assert_eq!(start().0, None);
        // SAFETY: this process has one thread.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("LATER", "set");
        }
        std::env::set_current_dir("/proc").unwrap();
        assert_eq!(start(), (Some("set".into()), "/proc".into()));
    });
}

#[test]
fn limits_hold() {
    isolated(|| {
        for method in METHODS {
            let builder = || {
                Process::builder()
                    .start_method(method)
                    .stderr(Stdio::null())
            };
            let hungry = builder()
                .address_space(1 << 30)
                .spawn(|| Vec::<u8>::new().try_reserve(2 << 30).is_err(), ());
            assert!(hungry.unwrap().join().unwrap());
            let files = builder().open_files(16).spawn(
                || {
                    let files: Vec<_> = (0..32).map(|_| std::fs::File::open("/dev/null")).collect();
                    files.iter().filter(|file| file.is_ok()).count() < 16
                },
                (),
            );
            assert!(files.unwrap().join().unwrap());
            let busy = builder()
                .cpu_time(Duration::from_secs(1))
                .core_size(0)
                .spawn(loop_until_stopped, ());
            let error = busy.unwrap().join().unwrap_err();
            assert!(error.to_string().contains("SIGXCPU"), "{error}");
        }
    });
}

fn loop_until_stopped() {
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    isolated(|| {
        for method in METHODS {
            let builder = Process::builder()
                .start_method(method)
                .current_dir("/no/such/place");
            let error = builder.spawn(|| (), ()).unwrap().join().unwrap_err();
            assert!(matches!(error, JoinError::SetUp { .. }));
            assert!(error.to_string().contains("/no/such/place"), "{error}");
        }
    });
}

#[test]
fn awaited_under_several_executors() {
    isolated(|| {
        let start = |n: u32| Process::spawn(|n: u32| n + 1, (n,)).unwrap();
        assert_eq!(
            futures::executor::block_on(async { start(1).await }).unwrap(),
            2
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let both = runtime.block_on(async {
            let (a, b) = (start(2), start(3));
            futures::future::join((&a).into_future(), (&b).into_future()).await
        });
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (3, 4));
        // Giving up waiting leaves the process as it is.
        let process = sleeper(StartMethod::Spawn);
        let waiting = (&process).into_future();
        drop(waiting);
        assert!(process.is_alive());
        process.kill().unwrap();
        let _ = process.join();
    });
}

#[test]
fn cpus_are_counted_as_the_process_may_use_them() {
    isolated(|| {
        // P-017
        assert!(process::cpu_count() >= 1);
        let one = std::process::Command::new("taskset")
            .args(["-pc", "0", &std::process::id().to_string()])
            .output();
        if one.is_ok_and(|out| out.status.success()) {
            assert_eq!(process::cpu_count(), 1);
        } else {
            eprintln!("skipped: there is no taskset here");
        }
    });
}

#[test]
fn arguments_are_not_kept() {
    isolated(|| {
        // P-023, P-026
        use std::sync::atomic::{AtomicUsize, Ordering};
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        #[derive(Serialize, Deserialize)]
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        let process = Process::spawn(|_: Counted| (), (Counted,)).unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
        process.join().unwrap();
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn threads_of_the_function_are_not_waited_for() {
    isolated(|| {
        // P-028: as in any Rust program.
        let process = Process::spawn(
            || {
                std::thread::spawn(|| nap(FOREVER));
                5
            },
            (),
        );
        assert_eq!(process.unwrap().join().unwrap(), 5);
    });
}

#[test]
fn a_conversation_through_pipes() {
    isolated(|| {
        // P-034
        fn answer() -> u32 {
            let mut answered = 0;
            for line in std::io::stdin().lines() {
                match line.unwrap().as_str() {
                    "stop" => break,
                    word => println!("{word} too"),
                }
                answered += 1;
            }
            answered
        }
        let builder = Process::builder()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = builder.spawn(answer, ()).unwrap();
        let mut stdin = process.stdin.take().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        for word in ["you", "me"] {
            writeln!(stdin, "{word}").unwrap();
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, format!("{word} too\n"));
        }
        writeln!(stdin, "stop").unwrap();
        assert_eq!(process.join().unwrap(), 2);
    });
}
