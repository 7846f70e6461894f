//! What a process is started with: streams, environment, directory, limits.

use common::process::{JoinError, Process, SpawnError, StartMethod, Stdio};
use common::sync::Mutex;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use testkit::{METHODS, isolated};

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
            let out = std::io::read_to_string(process.stdout.take().unwrap()).unwrap();
            let err = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
            assert_eq!((out.as_str(), err.as_str()), ("out hello\n", "err hello\n"));
            assert_eq!(
                process.join().unwrap(),
                (Some("yes".into()), None, "/proc".into())
            );
        }
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

#[test]
fn a_pipes_end_is_seen_on_both_sides() {
    fn until_nobody_reads() -> bool {
        let mut all = String::new();
        std::io::stdin().read_to_string(&mut all).unwrap();
        assert_eq!(all, "to the end");
        let line = [b'x'; 1000];
        let error = std::iter::repeat_with(|| std::io::stdout().write_all(&line))
            .find_map(Result::err)
            .unwrap();
        error.kind() == std::io::ErrorKind::BrokenPipe
    }
    isolated(|| {
        for method in METHODS {
            let mut process = Process::builder()
                .start_method(method)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn(until_nobody_reads, ())
                .unwrap();
            drop(process.stdout.take());
            let mut stdin = process.stdin.take().unwrap();
            stdin.write_all(b"to the end").unwrap();
            drop(stdin);
            assert!(process.join().unwrap(), "{method:?}");
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
        let endless = Process::builder().cpu_time(Duration::MAX);
        endless.spawn(|| (), ()).unwrap().join().unwrap();
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
fn nothing_takes_the_place_of_a_closed_stream() {
    fn opens() -> Vec<String> {
        for number in 0..3 {
            let _ = nix::unistd::close(number);
        }
        let start = |method| {
            let builder = Process::builder().start_method(method);
            builder.stdout(Stdio::piped()).spawn(|| (), ()).unwrap()
        };
        let _processes = METHODS.map(start);
        let _memory = Mutex::new(0).unwrap();
        let place = |number| format!("/proc/self/fd/{number}");
        let taken = (0..3).map(place);
        taken
            .filter(|place| std::fs::exists(place).unwrap())
            .collect()
    }
    isolated(|| {
        let taken = Process::spawn(opens, ()).unwrap().join().unwrap();
        assert_eq!(taken, [""; 0]);
    });
}

#[test]
fn a_directory_may_have_any_name() {
    isolated(|| {
        fn place() -> OsString {
            std::env::current_dir().unwrap().into_os_string()
        }
        let name = OsStr::from_bytes(b"\xff\xfe");
        let parent = std::env::temp_dir().join(std::process::id().to_string());
        std::fs::create_dir_all(parent.join(name)).unwrap();
        for method in METHODS {
            let builder = Process::builder()
                .start_method(method)
                .current_dir(parent.join(name));
            let told = builder.spawn(place, ()).unwrap().join().unwrap();
            assert_eq!(Path::new(&told).file_name(), Some(name), "{method:?}");
        }
        std::fs::remove_dir_all(&parent).unwrap();
    });
}

#[test]
fn a_variable_that_cannot_be_is_refused() {
    isolated(|| {
        for method in METHODS {
            let builder = || Process::builder().start_method(method);
            for (builder, name) in [
                (builder().env("", "x"), ""),
                (builder().env("A=B", "x"), "A=B"),
                (builder().env("A\0", "x"), "A\0"),
                (builder().env("NUL_IN_IT", "x\0"), "NUL_IN_IT"),
                (builder().env_remove("C=D"), "C=D"),
            ] {
                let error = builder.spawn(|| (), ()).unwrap_err();
                assert!(
                    matches!(&error, SpawnError::Environment { variable, .. } if variable == name),
                    "{error}"
                );
            }
        }
    });
}

#[test]
fn a_variable_that_is_too_long_is_refused_with_a_remedy() {
    isolated(|| {
        let builder = Process::builder().env("LONG", "x".repeat(1 << 20));
        let error = builder.spawn(|| (), ()).unwrap_err().to_string();
        assert!(
            error.contains("into the arguments of the function"),
            "{error}"
        );
    });
}
