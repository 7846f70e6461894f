//! How processes end, and what is told of it.

use super::{FOREVER, nap, sleeper};
use common::process::{self, JoinError, Process, StartMethod, Stdio};
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use testkit::{METHODS, isolated};

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
                assert_eq!(process.exit_status().unwrap().signal(), Some(-code));
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
            assert_eq!(process.exit_status().unwrap().code(), Some(seen));
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
            let out = std::io::read_to_string(process.stdout.take().unwrap()).unwrap();
            assert_eq!(out, said, "{method:?}");
        }
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
fn an_inherited_handle_detaches_nobody() {
    static SLEEPER: Mutex<Option<Process<()>>> = Mutex::new(None);
    isolated(|| {
        *SLEEPER.lock().unwrap() = Some(sleeper(StartMethod::Spawn));
        let detach = || SLEEPER.lock().unwrap().take().unwrap().detach();
        process::fork(detach).unwrap().join().unwrap();
        let sleeper = SLEEPER.lock().unwrap().take().unwrap();
        sleeper.kill().unwrap();
        assert!(sleeper.join().is_err());
    });
}

#[test]
fn a_handle_whose_pipes_nobody_reads_can_be_dropped() {
    isolated(|| {
        use std::io::Write;
        // More than a pipe holds, on each; a closed pipe is an error, which ends it.
        fn talks(to_stderr: bool) {
            let lines = [b'x'; 1 << 20];
            let _ = match to_stderr {
                true => std::io::stderr().write_all(&lines),
                false => std::io::stdout().write_all(&lines),
            };
        }
        for method in METHODS {
            for to_stderr in [false, true] {
                let builder = Process::builder()
                    .start_method(method)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                drop(builder.spawn(talks, (to_stderr,)).unwrap());
                assert_eq!(process::active_children(), []);
            }
        }
    });
}
