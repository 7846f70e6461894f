//! Managers at an address.

use crate::eventually;
use common::Process;
use common::codec::{decode, encode};
use common::manager::{
    Address, CallError, ConnectError, Hosted, Key, ListProxy, Manager, Proxy, Refusal, StartError,
};
use common::sync::Event;
use futures::executor::block_on;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{self, Signal};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, connect, listen,
    send, socket,
};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testkit::isolated;

fn abstract_name() -> String {
    format!("@common-test-{}", std::process::id())
}

fn path() -> PathBuf {
    std::env::temp_dir().join(format!("common-test-{}.sock", std::process::id()))
}

// G-014
#[test]
fn a_process_that_knows_address_and_key_takes_part() {
    isolated(|| {
        let manager = Manager::serve(path()).unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        manager.publish("list", &list).unwrap();
        let append = |path: PathBuf, key: String| {
            let key = Key::from_hex(&key).unwrap();
            let manager = Manager::connect(path, &key).unwrap();
            let list: ListProxy<u32> = manager.get("list").unwrap().unwrap();
            list.append(7).unwrap();
            assert!(manager.get::<ListProxy<u32>>("none").unwrap().is_none());
            let wrong = manager.get::<ListProxy<u64>>("list").unwrap_err();
            assert!(matches!(wrong, CallError::Type { .. }));
            // A new one, which its maker need not keep.
            manager
                .publish("more", &manager.list_of([1u8]).unwrap())
                .unwrap();
        };
        let process = Process::spawn(append, (path(), manager.key().to_hex())).unwrap();
        process.join().unwrap();
        assert_eq!(list.to_string(), "[7]");
        let more: ListProxy<u8> = manager.get("more").unwrap().unwrap();
        assert_eq!(more.to_string(), "[1]");
        assert!(manager.withdraw("more").unwrap());
        drop(more);
        eventually("the other process's share is dropped", || {
            manager.count().unwrap() == 1
        });
        drop(manager);
        assert!(!path().exists());
    });
}

#[test]
fn a_wrong_key_is_refused() {
    isolated(|| {
        let manager = Manager::serve(abstract_name().as_str()).unwrap();
        let error = Manager::connect(manager.address(), &Key::random()).unwrap_err();
        let refused = ConnectError::Refused {
            address: Address::from(abstract_name()),
            refusal: Refusal::Key,
        };
        assert_eq!(error, refused);
        Manager::connect(manager.address(), manager.key()).unwrap();
        let error = Key::from_hex("c0ffee").unwrap_err();
        assert_eq!(format!("{error:?}"), error.to_string());
        let key = Key::from_secret(b"a long and secret text");
        let chosen = Manager::builder().key(key.clone()).start().unwrap();
        Manager::connect(chosen.address(), &key).unwrap();
    });
}

// G-015
#[test]
fn an_address_is_one_managers_and_the_next_ones_after_it() {
    isolated(|| {
        let manager = Manager::serve(path()).unwrap();
        let second = Manager::serve(path()).unwrap_err();
        assert!(matches!(second, StartError::Address { .. }), "{second}");
        assert!(second.to_string().contains("another process listens there"));
        drop(manager);
        let manager = Manager::serve(path()).unwrap();
        let pid = nix::unistd::Pid::from_raw(manager.pid().unwrap().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("it has ended", || manager.exit_code().is_some());
        // What the killed one left is replaced, and is no more what its end removes.
        assert!(path().exists());
        let next = Manager::serve(path()).unwrap();
        drop(manager);
        Manager::connect(path(), next.key()).unwrap();
        drop(next);
        let nobody = Manager::connect(path(), &Key::random()).unwrap_err();
        assert!(
            matches!(nobody, ConnectError::Unreachable { .. }),
            "{nobody}"
        );
        // A file that is no socket stays.
        std::fs::write(path(), "mine").unwrap();
        assert!(Manager::serve(path()).is_err());
        assert_eq!(std::fs::read(path()).unwrap(), b"mine");
        std::fs::remove_file(path()).unwrap();
    });
}

fn knock(address: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let address = UnixAddr::new_abstract(address.trim_start_matches('@').as_bytes()).unwrap();
    connect(socket.as_raw_fd(), &address).unwrap();
    socket
}

#[test]
fn garbage_and_silence_at_the_door_disturb_nobody() {
    isolated(|| {
        let name = abstract_name();
        let manager = Manager::serve(name.as_str()).unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        let mut silent = Vec::new();
        for round in 0..400u32 {
            let socket = knock(&name);
            let garbage: Vec<u8> = (0..round * 3).map(|i| (i * round) as u8).collect();
            match round % 4 {
                0 => silent.push(socket),
                1 => drop(socket),
                2 => drop(send(socket.as_raw_fd(), &garbage, MsgFlags::MSG_NOSIGNAL)),
                _ => {
                    let mut hello = b"common manager 1".to_vec();
                    hello.extend(&garbage);
                    let _ = send(socket.as_raw_fd(), &hello, MsgFlags::MSG_NOSIGNAL);
                    silent.push(socket);
                }
            }
            list.append(round).unwrap();
        }
        // More silent ones than are let wait.
        silent.extend((0..300).map(|_| knock(&name)));
        Manager::connect(name.as_str(), manager.key()).unwrap();
        assert_eq!(list.len().unwrap(), 400);
    });
}

/// The door waits five seconds for who says nothing.
#[test]
fn who_says_nothing_is_sent_away_after_a_while() {
    isolated(|| {
        let name = abstract_name();
        let manager = Manager::serve(name.as_str()).unwrap();
        let value = manager.host(0u32).unwrap();
        let files = || {
            let folder = format!("/proc/{}/fd", manager.pid().unwrap());
            std::fs::read_dir(folder).unwrap().count()
        };
        let before = files();
        let start = Instant::now();
        let silent: Vec<OwnedFd> = (0..20).map(|_| knock(&name)).collect();
        eventually("they are at the door", || files() >= before + silent.len());
        // Asleep: nobody else gives it a reason to look at the clock.
        for socket in &silent {
            let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            assert_eq!(poll(&mut polled, 15_000u16), Ok(1), "it still waits");
        }
        assert!(start.elapsed() >= Duration::from_millis(4_900));
        assert!(start.elapsed() < Duration::from_secs(10));
        eventually("nothing is left of them", || files() == before);
        assert_eq!(value.call(|n: &mut u32| *n, ()).unwrap(), 0);
    });
}

/// A process that is given a proxy while the manager is busy, and then has other things to do, does
/// not answer the manager's question.
#[test]
fn who_was_sent_away_for_its_silence_comes_again() {
    isolated(|| {
        let name = abstract_name();
        let manager = Manager::serve(name.as_str()).unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        let pid = nix::unistd::Pid::from_raw(manager.pid().unwrap().cast_signed());
        signal::kill(pid, Signal::SIGSTOP).unwrap();
        let (arrived, go) = (Event::new().unwrap(), Event::new().unwrap());
        let append = |list: ListProxy<u32>, arrived: Event, go: Event| {
            arrived.set();
            go.wait();
            list.append(1)
        };
        let args = (list.clone(), arrived.clone(), go.clone());
        let process = Process::spawn(append, args).unwrap();
        arrived.wait();
        // More than are let wait. The process was there before them, and goes before them.
        let silent: Vec<OwnedFd> = (0..300).map(|_| knock(&name)).collect();
        let start = Instant::now();
        signal::kill(pid, Signal::SIGCONT).unwrap();
        let mut polled = [PollFd::new(silent[10].as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut polled, 4_000u16), Ok(1), "it still waits");
        // Nobody is sent away before it could answer.
        assert!(start.elapsed() >= Duration::from_millis(250));
        go.set();
        process.join().unwrap().unwrap();
        assert_eq!(list.to_string(), "[1]");
    });
}

#[test]
fn another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    isolated(|| {
        let manager = Manager::serve(abstract_name().as_str()).unwrap();
        let connect = |name: String, key: String| {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
            let key = Key::from_hex(&key).unwrap();
            Manager::connect(name, &key).unwrap_err().to_string()
        };
        let args = (abstract_name(), manager.key().to_hex());
        let error = Process::spawn(connect, args).unwrap().join().unwrap();
        assert!(error.contains("its own user only"), "{error}");
    });
}

const ADDRESS: &str = "COMMON_TEST_ADDRESS";
const KEY: &str = "COMMON_TEST_KEY";

/// Run by the next test, in copies of this executable.
#[test]
fn copy_of_this_executable() {
    let (Ok(address), Ok(key)) = (std::env::var(ADDRESS), std::env::var(KEY)) else {
        return;
    };
    match Manager::connect(address, &Key::from_hex(&key).unwrap()) {
        Ok(manager) => {
            let list: ListProxy<u32> = manager.get("list").unwrap().unwrap();
            list.append(1).unwrap();
            println!("appended");
        }
        Err(error) => println!("{error}"),
    }
}

#[test]
fn a_copy_of_the_program_gets_in_and_another_build_does_not() {
    isolated(|| {
        let manager = Manager::serve(abstract_name().as_str()).unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        manager.publish("list", &list).unwrap();
        let key = manager.key().to_hex();
        let copy = std::env::temp_dir().join(format!("common-copy-{}", std::process::id()));
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let run = || {
            let output = std::process::Command::new(&copy)
                .args(["--exact", "remote::copy_of_this_executable", "--nocapture"])
                .env(ADDRESS, abstract_name())
                .env(KEY, &key)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let same = run();
        assert!(same.contains("appended"), "{same}");
        let mut file = std::fs::File::options().append(true).open(&copy).unwrap();
        std::io::Write::write_all(&mut file, b"another build").unwrap();
        drop(file);
        let other = run();
        std::fs::remove_file(&copy).unwrap();
        assert!(other.contains("another build of the program"), "{other}");
        assert_eq!(list.to_string(), "[1]");
    });
}

#[test]
fn a_proxy_that_arrives_where_no_descriptor_is_left_says_so_until_there_is() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let list = manager.list_of([1u8]).unwrap();
        let work = |list: Vec<u8>| {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
            let list: ListProxy<u8> = decode(&list).unwrap();
            let length = |list: &mut Vec<u8>| list.len();
            let errors = [
                list.len().unwrap_err(),
                block_on(list.proxy().call_async(length, ())).unwrap_err(),
            ];
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            for error in errors {
                let text = error.to_string();
                assert!(matches!(error, CallError::Disconnected { .. }), "{text}");
                assert!(text.contains("EMFILE"), "{text}");
            }
            // When there are some again, so is the value.
            list.len().unwrap()
        };
        let process = Process::spawn(work, (encode(&list).unwrap(),)).unwrap();
        assert_eq!(process.join().unwrap(), 1);
    });
}

/// It has two descriptors left, and wants three for a client.
#[test]
fn who_the_manager_has_no_descriptor_for_is_let_in_when_there_is_one() {
    isolated(|| {
        let manager = Manager::new().unwrap();
        let value = manager.host(5u64).unwrap();
        let fill = || -> Vec<File> {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
            let mut files: Vec<File> =
                std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            files.truncate(files.len() - 2);
            files
        };
        let files = manager.host_with(fill, ()).unwrap();
        let (refused, go) = (manager.event().unwrap(), manager.event().unwrap());
        let work = |value: Proxy<u64>, refused: Event, go: Event| {
            let get = |n: &mut u64| *n;
            let errors = [
                value.call(get, ()).unwrap_err(),
                value.call_async(get, ()).wait().unwrap_err(),
                block_on(value.call_async(get, ())).unwrap_err(),
            ];
            refused.set();
            go.wait();
            (errors.map(|error| error.to_string()), value.call(get, ()))
        };
        let args = (value.clone(), refused.clone(), go.clone());
        let process = Process::spawn(work, args).unwrap();
        assert!(refused.wait_timeout(Duration::from_secs(20)));
        files.call(Vec::clear, ()).unwrap();
        go.set();
        let (errors, called) = process.join().unwrap();
        for error in errors {
            assert!(error.contains("no file descriptors"), "{error}");
        }
        assert_eq!(called, Ok(5));
    });
}

#[test]
fn a_proxy_on_its_way_outlives_the_manager_that_was_connected_to() {
    isolated(|| {
        let manager = Manager::builder().transit(Duration::ZERO).start();
        let manager = manager.unwrap();
        manager
            .publish("value", &manager.host(5u64).unwrap())
            .unwrap();
        let work = |address: Address, key: Key| {
            let connect = || Manager::connect(address.clone(), &key).unwrap();
            let sent = {
                let manager = connect();
                let value: Proxy<u64> = manager.get("value").unwrap().unwrap();
                assert!(manager.withdraw("value").unwrap());
                encode(&value).unwrap()
            };
            // Should the first connection be closed, the manager has noticed before it is asked.
            let _manager = connect();
            let value: Proxy<u64> = decode(&sent).unwrap();
            value.call(|n: &mut u64| *n, ())
        };
        let args = (manager.address().clone(), manager.key().clone());
        let process = Process::spawn(work, args).unwrap();
        assert_eq!(process.join().unwrap(), Ok(5));
    });
}

#[test]
fn who_cannot_connect_is_told_why() {
    isolated(|| {
        let name = abstract_name();
        let key = Key::random();
        let connect = || Manager::connect_timeout(name.as_str(), &key, Duration::from_millis(20));
        let error = connect().unwrap_err().to_string();
        assert!(
            error.starts_with("nobody listens at @common-test"),
            "{error}"
        );
        // Somebody listens and lets nobody in, until there is no room for more.
        let listener = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::empty(),
            None,
        );
        let listener = listener.unwrap();
        let address = UnixAddr::new_abstract(name.trim_start_matches('@').as_bytes()).unwrap();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let waiting = knock(&name);
        let error = connect().unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
        // Somebody listens and hangs up.
        drop(waiting);
        let hang_up = std::thread::spawn(move || {
            for _ in 0..2 {
                let accepted = accept(listener.as_raw_fd()).unwrap();
                nix::unistd::close(accepted).unwrap();
            }
        });
        let connect = || {
            Manager::connect(name.as_str(), &key)
                .unwrap_err()
                .to_string()
        };
        let error = connect();
        hang_up.join().unwrap();
        assert!(error.ends_with("it hung up"), "{error}");
    });
}

#[test]
fn a_proxy_leads_to_a_relative_path_from_another_folder() {
    isolated(|| {
        std::env::set_current_dir(std::env::temp_dir()).unwrap();
        let manager = Manager::serve(path().file_name().map(PathBuf::from).unwrap()).unwrap();
        assert_eq!(manager.address(), &Address::from(path()));
        let list = manager.list_of([1u8]).unwrap();
        let elsewhere = |list: Vec<u8>| {
            std::env::set_current_dir("/").unwrap();
            decode::<ListProxy<u8>>(&list).unwrap().len().unwrap()
        };
        let process = Process::spawn(elsewhere, (encode(&list).unwrap(),)).unwrap();
        assert_eq!(process.join().unwrap(), 1);
    });
}
