//! Faults: what a process does with a marker, a hello or a fork request that is not what it
//! should be, and a start that the kernel refuses. They need this piece's inside.

use super::child::{Hello, MARKER, Who, marker_value};
use super::packet::{self, Kind};
use super::{JoinError, Process, SpawnError, StartMethod, Stdio};
use crate::codec;
use crate::function::{EntryRef, Task};
use crate::shared::Value;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;
use testkit::isolated;

/// Starts this program with the marker in its environment and, as descriptor 3, `lifeline`.
fn start_by_hand(marker: &str, lifeline: Option<OwnedFd>) -> Output {
    // The shell puts the descriptor in its place, which takes no unsafe code here.
    let script = match &lifeline {
        Some(_) => "exec \"$0\" 3<&0 0</dev/null",
        None => "exec \"$0\" 3<&-",
    };
    let this = std::env::current_exe().unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(this).env(MARKER, marker);
    if let Some(fd) = lifeline {
        shell.stdin(fd);
    }
    shell.output().unwrap()
}

fn refused(output: &Output, word: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(word) && said.contains("unset it"), "{said}");
    assert!(output.stdout.is_empty(), "the program ran: {output:?}");
}

#[test]
fn a_marker_set_by_hand_is_refused() {
    isolated(|| {
        refused(&start_by_hand("", None), "its value \"\"");
        refused(&start_by_hand("garbage", None), "garbage");
        refused(
            &start_by_hand(&marker_value(), None),
            "descriptor 3 is closed",
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        refused(
            &start_by_hand(&marker_value(), Some(file.into())),
            "descriptor 3",
        );
    });
}

#[test]
fn a_corrupted_hello_is_refused() {
    isolated(|| {
        let send_raw = |bytes: &[u8]| {
            let (ours, theirs) = packet::pair().unwrap();
            nix::unistd::write(&ours, bytes).unwrap();
            (start_by_hand(&marker_value(), Some(theirs)), ours)
        };
        refused(&send_raw(b"x").0, "has no header");
        refused(&send_raw(&[0xff; 64]).0, "has no header");
        refused(
            &send_raw(b"cmn1\x63\0\0\0\0\0\0\0\0\0\0\0").0,
            "no known kind",
        );
        // Says that it holds 2^56 bytes; says that they are in a memory file, and there is none.
        refused(
            &send_raw(b"cmn1\x01\0\0\0\0\0\0\0\0\0\0\x01").0,
            "truncated",
        );
        refused(
            &send_raw(b"cmn1\x01\x01\0\0\0\0\0\0\0\0\0\x01").0,
            "memory file is missing",
        );
        let send = |kind, body: &[u8]| {
            let (ours, theirs) = packet::pair().unwrap();
            packet::send(ours.as_fd(), kind, body, &[]).unwrap();
            (start_by_hand(&marker_value(), Some(theirs)), ours)
        };
        refused(&send(Kind::Ended, b"").0, "no hello came first");
        let whole = codec::encode(&hello(good_entry())).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            refused(&send(Kind::Hello, &whole[..length]).0, "not understood");
        }
    });
}

#[test]
fn a_hello_is_checked_whatever_bit_of_it_is_wrong() {
    isolated(|| {
        let whole = codec::encode(&hello(good_entry())).unwrap();
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 0x41;
            let (ours, theirs) = packet::pair().unwrap();
            packet::send(ours.as_fd(), Kind::Hello, &bytes, &[]).unwrap();
            let output = start_by_hand(&marker_value(), Some(theirs));
            // It ran with another name, say, or refused. It did not crash.
            assert!(
                matches!(output.status.code(), Some(0 | 1)),
                "byte {byte}: {output:?}"
            );
        }
    });
}

#[test]
fn an_entry_that_is_none_is_never_called() {
    isolated(|| {
        let (offset, hash) = good_entry().parts();
        for (offset, hash) in [
            (offset + 8, hash),
            (offset - 64, hash),
            (offset + (1 << 40), hash),
            (i64::MIN, hash),
            (offset, hash ^ 1),
        ] {
            let (ours, theirs) = packet::pair().unwrap();
            let hello = codec::encode(&hello(EntryRef::from_parts(offset, hash))).unwrap();
            packet::send(ours.as_fd(), Kind::Hello, &hello, &[]).unwrap();
            let output = start_by_hand(&marker_value(), Some(theirs));
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let answer = packet::receive(ours.as_fd(), false).unwrap();
            assert_eq!(answer.kind, Kind::Failed);
            let failure: super::error::ChildFailure = codec::decode(&answer.body).unwrap();
            let error = JoinError::of_failure("x", &failure).to_string();
            assert!(error.contains("no function of this program"), "{error}");
        }
    });
}

fn good_entry() -> EntryRef {
    Task::entry(|| 7).unwrap()
}

fn hello(entry: EntryRef) -> Hello {
    Hello {
        who: Who {
            name: "by-hand".into(),
            identity: vec![1],
            daemon: false,
            method: Some(StartMethod::Spawn),
            parent: Some((std::process::id(), "test".into())),
        },
        set_up: Default::default(),
        entry,
        args: Vec::new(),
    }
}

#[test]
fn a_child_whose_parent_ended_first_ends() {
    isolated(|| {
        let (ours, theirs) = packet::pair().unwrap();
        drop(ours);
        let output = start_by_hand(&marker_value(), Some(theirs));
        assert_eq!(output.status, ExitStatus::from_raw(1 << 8), "{output:?}");
    });
}

#[test]
fn a_result_that_is_none_is_an_error() {
    isolated(|| {
        struct Fickle;
        impl serde::Serialize for Fickle {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no form"))
            }
        }
        impl<'de> serde::Deserialize<'de> for Fickle {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("no way"))
            }
        }
        // Arguments that do not serialise.
        let error = Process::spawn(|_: Fickle| (), (Fickle,)).unwrap_err();
        assert!(matches!(error, SpawnError::Arguments { .. }));
        assert!(error.to_string().contains("no form"), "{error}");
        // A result that does not.
        let error = Process::spawn(|| Fickle, ())
            .unwrap()
            .join()
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("no form"), "{error}");
        // A result that does, and cannot be read.
        struct OneWay;
        impl serde::Serialize for OneWay {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_u8(1)
            }
        }
        impl<'de> serde::Deserialize<'de> for OneWay {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("no way"))
            }
        }
        let process = Process::spawn(|| OneWay, ()).unwrap();
        let error = process.join().map(|_| ()).unwrap_err();
        assert!(matches!(error, JoinError::Result { .. }));
        assert!(error.to_string().contains("no way"), "{error}");
        assert_eq!(process.exit_code(), Some(0));
        // Arguments that do, and cannot be read: the child says so.
        let error = Process::spawn(|_: OneWay| (), (OneWay,))
            .unwrap()
            .join()
            .unwrap_err();
        assert!(error.to_string().contains("no way"), "{error}");
    });
}

#[test]
fn without_descriptors_a_start_is_an_error() {
    isolated(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let few = || {
                let start = |method| Process::builder().start_method(method).spawn(|| 5, ());
                let method = super::current().start_method().unwrap();
                // The fork server is up before there is no room any more.
                start(method).unwrap().join().unwrap();
                let mut files = Vec::new();
                while let Ok(file) = std::fs::File::open("/dev/null") {
                    files.push(file);
                }
                let mut told = Vec::new();
                // With none free, with one, with two ...: each step of a start fails in turn.
                let result = loop {
                    match start(method) {
                        Ok(process) => break process.join().unwrap(),
                        Err(error) => told.push(error.to_string()),
                    }
                    drop(files.pop());
                };
                (told, result)
            };
            let builder = Process::builder().start_method(method).open_files(48);
            let (told, result) = builder.spawn(few, ()).unwrap().join().unwrap();
            assert_eq!(result, 5);
            assert!(told.len() > 2, "{told:?}");
            assert!(
                told.iter().all(|error| error.contains("ulimit -n")),
                "{told:?}"
            );
        }
    });
}

#[test]
fn a_result_for_which_there_is_no_descriptor_is_an_error() {
    isolated(|| {
        let few = || {
            // Long enough for a memory file, which takes a descriptor to receive.
            let process = Process::spawn(|| vec![1u8; 4096], ()).unwrap();
            super::wait(&[&process], None).unwrap();
            let mut files = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                files.push(file);
            }
            let error = process.join().unwrap_err();
            assert!(matches!(error, JoinError::Unreceived { .. }), "{error}");
            (error.to_string(), process.exit_code())
        };
        let builder = Process::builder().open_files(48);
        let (told, code) = builder.spawn(few, ()).unwrap().join().unwrap();
        assert!(told.contains("ulimit -n"), "{told}");
        assert_eq!(code, Some(0));
    });
}

#[test]
fn without_room_for_a_process_a_start_is_an_error() {
    isolated(|| {
        let crowded = || {
            use nix::sys::resource::{Resource, setrlimit};
            // The limit does not hold for root: become somebody who has nothing else running.
            if nix::unistd::geteuid().is_root() {
                let nobody = nix::unistd::Uid::from_raw(61_234);
                nix::unistd::setuid(nobody).unwrap();
            }
            setrlimit(Resource::RLIMIT_NPROC, 1, 1).unwrap();
            let error = Process::spawn(|| (), ()).unwrap_err().to_string();
            (error, super::fork(|| ()).unwrap_err().to_string())
        };
        let (spawn, fork) = Process::spawn(crowded, ()).unwrap().join().unwrap();
        assert!(spawn.contains("ulimit -u"), "{spawn}");
        assert!(fork.contains("ulimit -u"), "{fork}");
    });
}

#[test]
fn a_fork_server_without_room_for_a_process_refuses_and_goes_on() {
    // Room can be taken from a user who has nothing else running; root can become one.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    fn crowded() -> Vec<String> {
        use nix::sys::resource::{Resource, setrlimit};
        // One of its own in each run: what another leaves counts until it is reaped.
        let user = nix::unistd::Uid::from_raw(1_000_000 + std::process::id());
        nix::unistd::setuid(user).unwrap();
        // Room for this process, the server and one more: the first start leaves no spare.
        setrlimit(Resource::RLIMIT_NPROC, 3, 3).unwrap();
        let start = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            builder.spawn(|| std::thread::sleep(Duration::MAX), ())
        };
        let end = |process: Process<()>| {
            process.kill().unwrap();
            process.join().unwrap_err();
            assert_eq!(process.exit_code(), Some(-9));
        };
        // The end of a process is told though nobody asks for another.
        end(start().unwrap());
        let process = start().unwrap();
        let told = (0..3).map(|_| start().unwrap_err().to_string()).collect();
        end(process);
        end(start().unwrap());
        told
    }
    isolated(|| {
        for error in Process::spawn(crowded, ()).unwrap().join().unwrap() {
            assert!(error.contains("ulimit -u"), "{error}");
        }
    });
}

#[test]
fn a_fork_server_that_takes_no_more_requests_sees_its_children_to_their_end() {
    isolated(|| {
        let start = || {
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            let nap = || std::thread::sleep(Duration::MAX);
            builder.spawn(nap, ()).unwrap()
        };
        let earlier = start();
        super::forkserver::retire_it();
        let later = start();
        for process in [later, earlier] {
            process.kill().unwrap();
            process.join().unwrap_err();
            assert_eq!(process.exit_code(), Some(-9));
        }
        // With the last of them it ends, and so it does with its user.
        while super::forkserver::retired() > 0 {
            std::thread::yield_now();
        }
        let user = || {
            let _process = Process::builder()
                .start_method(StartMethod::ForkServer)
                .spawn(|| std::thread::sleep(Duration::MAX), ());
            super::forkserver::retire_it();
            let this = std::process::id();
            let children = format!("/proc/self/task/{this}/children");
            println!("{}", std::fs::read_to_string(children).unwrap());
            std::thread::sleep(Duration::MAX);
        };
        let builder = Process::builder().stdout(Stdio::piped());
        let mut user = builder.spawn(user, ()).unwrap();
        let mut line = String::new();
        let stdout = user.stdout.take().unwrap();
        std::io::BufReader::new(stdout)
            .read_line(&mut line)
            .unwrap();
        let servers: Vec<_> = line
            .split_whitespace()
            .map(|pid| testkit::pidfd(pid.parse().unwrap()))
            .collect();
        assert_eq!(servers.len(), 1);
        user.kill().unwrap();
        testkit::ends_within(&servers, Duration::from_secs(10));
    });
}

#[test]
fn a_fork_server_that_is_stopped_is_replaced() {
    isolated(|| {
        let calls = Value::new(0).unwrap();
        let start = || {
            let call = |calls: Value<u32>| {
                calls.update(|n| *n += 1).unwrap();
                std::process::id()
            };
            let builder = Process::builder().start_method(StartMethod::ForkServer);
            builder.spawn(call, (calls.clone(),)).unwrap()
        };
        let children = |pid: u32| -> Vec<u32> {
            let path = format!("/proc/{pid}/task/{pid}/children");
            let pids = std::fs::read_to_string(path).unwrap();
            pids.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect()
        };
        for with_the_server in [true, false] {
            let first = start();
            first.join().unwrap();
            // Told when the server has reaped it.
            assert_eq!(first.exit_code(), Some(0));
            let servers = children(std::process::id());
            let [server] = servers[..] else {
                panic!("{servers:?}");
            };
            // The next spare.
            while children(server).is_empty() {
                std::thread::yield_now();
            }
            let mut stopped = children(server);
            stopped.extend(with_the_server.then_some(server));
            let signal_all = |signal| {
                for &pid in &stopped {
                    nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
                }
            };
            signal_all(Signal::SIGSTOP);
            let process = start();
            assert_eq!(process.join().unwrap(), process.pid());
            // They end as soon as they can, without having done what they were asked.
            signal_all(Signal::SIGCONT);
            while super::forkserver::retired() > 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(calls.get().unwrap(), 4);
    });
}

#[test]
fn closed_standard_streams_disturb_nobody() {
    isolated(|| {
        // P-029, M-012
        fn start_all() -> Vec<Result<i32, String>> {
            for number in 0..3 {
                let _ = nix::unistd::close(number);
            }
            let methods = [
                StartMethod::Spawn,
                StartMethod::Fork,
                StartMethod::ForkServer,
            ];
            let start = |method| {
                let builder = Process::builder().start_method(method);
                let process = builder.spawn(say, ()).map_err(|error| error.to_string())?;
                process.join().map_err(|error| error.to_string())
            };
            methods.map(start).into()
        }
        fn say() -> i32 {
            print!("nobody hears this");
            eprint!("nor this");
            let mut nothing = String::new();
            let _ = std::io::stdin().read_to_string(&mut nothing);
            7
        }
        let told = Process::spawn(start_all, ()).unwrap().join().unwrap();
        assert_eq!(told, vec![Ok(7); 3]);
    });
}

#[test]
fn a_program_that_was_replaced_or_deleted_still_starts_processes() {
    // This test program runs this test a second time from a copy of itself, which is there to be
    // deleted.
    if let Some(copy) = std::env::var_os("DELETE_ME") {
        return start_after_deleting(&copy);
    }
    isolated(|| {
        let copy = std::env::temp_dir().join(format!("replaced-{}", std::process::id()));
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let this = "process::tests::a_program_that_was_replaced_or_deleted_still_starts_processes";
        let mut child = Command::new(&copy);
        child.args(["--exact", this]).env("DELETE_ME", &copy);
        let output = child.output().unwrap();
        let _ = std::fs::remove_file(&copy);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    });
}

fn start_after_deleting(copy: &std::ffi::OsStr) {
    let start = |method| {
        let builder = Process::builder()
            .start_method(method)
            .stdout(Stdio::null());
        builder.spawn(|| 5, ()).unwrap().join().unwrap()
    };
    std::fs::remove_file(copy).unwrap();
    assert_eq!(start(StartMethod::Spawn), 5);
    std::fs::write(copy, "not a program").unwrap();
    assert_eq!(start(StartMethod::Spawn), 5);
    assert_eq!(start(StartMethod::ForkServer), 5);
}
