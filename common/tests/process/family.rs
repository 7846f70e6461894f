//! Who outlives whom: children, grandchildren, daemons, detached processes, killed parents.

use super::{FOREVER, nap, sleeper};
use common::process::{self, Process, StartMethod, wait};
use common::queue::Queue;
use common::sync::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use testkit::{METHODS, ends_within, isolated, pidfd};

/// Prints its own pid and those of ten children and twenty grandchildren, of all start methods;
/// some of the grandchildren block every signal they can.
fn a_family() {
    fn child(method: StartMethod) {
        let of = |method| {
            let builder = Process::builder().start_method(method);
            builder.spawn(block_all_signals_and_sleep, ()).unwrap()
        };
        let below = [of(method), of(StartMethod::Spawn)];
        // One write, so that lines of siblings do not mix.
        let line = format!(
            "{}\n{}\n{}\n",
            std::process::id(),
            below[0].pid(),
            below[1].pid()
        );
        print!("{line}");
        nap(FOREVER);
    }
    let children: Vec<_> = (0..10)
        .map(|i| {
            let builder = Process::builder().start_method(METHODS[i % 3]);
            builder
                .daemon(i % 2 == 0)
                .spawn(child, (METHODS[i % 3],))
                .unwrap()
        })
        .collect();
    nap(FOREVER);
    drop(children);
}

fn block_all_signals_and_sleep() {
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    nap(FOREVER);
}

#[test]
fn a_killed_parent_takes_its_children_and_grandchildren_along() {
    isolated(|| {
        // The test's harness looks only at children; adopt what would be lost otherwise.
        let mut parent = Process::builder()
            .stdout(process::Stdio::piped())
            .spawn(a_family, ())
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pids: Vec<u32> = lines
            .take(30)
            .map(|line| line.unwrap().parse().unwrap())
            .collect();
        let fds: Vec<OwnedFd> = pids.iter().map(|&pid| pidfd(pid)).collect();
        parent.kill().unwrap();
        // Promise 2.
        ends_within(&fds, Duration::from_secs(1));
        parent.join().unwrap_err();
    });
}

#[test]
fn a_child_started_by_a_thread_that_ends_lives_on() {
    isolated(|| {
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let start = move || {
                let builder = Process::builder().start_method(method);
                builder
                    .spawn(|| nap(Duration::from_millis(50)), ())
                    .unwrap()
            };
            let process = std::thread::spawn(start).join().unwrap();
            process.join().unwrap();
        }
    });
}

#[test]
fn a_process_that_exits_takes_its_children_along() {
    isolated(|| {
        fn leaves_children() -> u32 {
            let child = sleeper(StartMethod::Spawn);
            let pid = child.pid();
            std::mem::forget(child);
            pid
        }
        let process = Process::spawn(leaves_children, ()).unwrap();
        let pid = process.join().unwrap();
        let end = Instant::now() + Duration::from_secs(1);
        while kill(Pid::from_raw(pid as i32), None).is_ok() {
            // Its new parent may be slow to reap it: a zombie counts as gone.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.contains(") Z ") {
                return;
            }
            assert!(Instant::now() < end, "{stat}");
            nap(Duration::from_millis(2));
        }
    });
}

#[test]
fn dropping_a_handle_waits_and_a_daemons_terminates() {
    isolated(|| {
        // P-044
        for method in METHODS {
            let of = |daemon| Process::builder().start_method(method).daemon(daemon);
            let file = format!(
                "{}/dropped-{}",
                std::env::temp_dir().display(),
                std::process::id()
            );
            let write_late = |path: String| {
                nap(Duration::from_millis(50));
                std::fs::write(path, "done").unwrap();
            };
            drop(of(false).spawn(write_late, (file.clone(),)).unwrap());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "done");
            std::fs::remove_file(&file).unwrap();
            drop(of(true).spawn(nap, (FOREVER,)).unwrap());
            assert_eq!(process::active_children(), []);
        }
    });
}

#[test]
fn a_daemon_that_ignores_sigterm_is_killed() {
    isolated(|| {
        fn stubborn() {
            block_all_signals_and_sleep();
        }
        let process = Process::builder().daemon(true).spawn(stubborn, ()).unwrap();
        let fd = process.as_fd().try_clone_to_owned().unwrap();
        drop(process);
        ends_within(&[fd], Duration::ZERO);
    });
}

#[test]
fn a_detached_process_outlives_its_handle_and_its_parent() {
    isolated(|| {
        fn sees_its_parent_end(seen: Queue<bool>) {
            // P-005
            let parent = process::parent().unwrap();
            let ended = parent.join_timeout(FOREVER) && !parent.is_alive();
            seen.put(ended).unwrap();
            nap(FOREVER);
        }
        fn starts_and_leaves(method: StartMethod, seen: Queue<bool>) -> u32 {
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(sees_its_parent_end, (seen,)).unwrap();
            let pid = process.pid();
            process.detach();
            pid
        }
        for method in METHODS {
            let seen = Queue::new().unwrap();
            let parent = Process::spawn(starts_and_leaves, (method, seen.clone())).unwrap();
            let pid = parent.join().unwrap();
            let fd = pidfd(pid);
            assert_eq!(seen.get_timeout(Duration::from_secs(10)), Ok(true));
            // Long enough for a lifeline to have worked.
            assert_eq!(wait(&[&fd], Some(Duration::from_millis(300))).unwrap(), []);
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
            ends_within(&[fd], Duration::from_secs(5));
        }
    });
}

#[test]
fn a_detached_process_that_ends_is_reaped() {
    isolated(|| {
        for method in METHODS {
            let builder = Process::builder().start_method(method);
            let process = builder.spawn(|| (), ()).unwrap();
            let fd = process.as_fd().try_clone_to_owned().unwrap();
            process.detach();
            ends_within(&[fd], Duration::from_secs(5));
            assert_eq!(process::active_children(), []);
        }
    });
}

#[test]
fn children_that_nobody_has_joined_are_reaped_when_somebody_looks() {
    isolated(|| {
        // P-046. What the fork server has forked is its own to reap.
        for method in [StartMethod::Spawn, StartMethod::Fork] {
            let go = Event::new().unwrap();
            let start = |n: u32| {
                let builder = Process::builder().start_method(method);
                let work = |n: u32, go: Event| {
                    go.wait();
                    n
                };
                builder.spawn(work, (n, go.clone())).unwrap()
            };
            let children: Vec<_> = (0..5).map(start).collect();
            go.set();
            for child in &children {
                wait(&[child], None).unwrap();
            }
            let state = |child: &Process<u32>| {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid()));
                stat.is_ok_and(|stat| stat.contains(") Z "))
            };
            assert!(children.iter().all(state), "zombies");
            assert_eq!(process::active_children(), []);
            assert!(!children.iter().any(state), "reaped");
            for (n, child) in (0..).zip(&children) {
                assert_eq!((child.join(), child.exit_code()), (Ok(n), Some(0)));
            }
        }
    });
}

#[test]
fn a_fork_has_none_of_its_parents_children() {
    isolated(|| {
        // M-011: nor do they become more with each generation.
        fn children(generations: u32) -> Vec<usize> {
            let mut counts = vec![process::active_children().len()];
            if generations > 1 {
                let below = process::fork(|| children(generations - 1)).unwrap();
                counts.extend(below.join().unwrap());
            }
            counts
        }
        let sleeper = sleeper(StartMethod::Spawn);
        assert_eq!(children(5), [1, 0, 0, 0, 0]);
        sleeper.kill().unwrap();
    });
}

#[test]
fn a_fork_cannot_join_its_parents_children_nor_end_them() {
    isolated(|| {
        let process = sleeper(StartMethod::Spawn);
        let told = process::fork(|| {
            let error = process.join().unwrap_err().to_string();
            (error, process.is_alive())
        });
        let (error, alive) = told.unwrap().join().unwrap();
        assert!(
            error.contains("only by the process that started it"),
            "{error}"
        );
        assert!(alive);
        assert!(process.is_alive());
        process.kill().unwrap();
        process.join().unwrap_err();
    });
}

#[test]
fn a_fork_does_not_keep_its_siblings_alive() {
    isolated(|| {
        fn starts_two() {
            let sibling = sleeper(StartMethod::Spawn);
            let fork = process::fork(block_all_signals_and_sleep).unwrap();
            println!("{}\n{}", sibling.pid(), fork.pid());
            nap(FOREVER);
        }
        let mut parent = Process::builder()
            .stdout(process::Stdio::piped())
            .spawn(starts_two, ())
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pids = lines.take(2).map(|line| line.unwrap().parse().unwrap());
        let fds: Vec<OwnedFd> = pids.map(pidfd).collect();
        parent.kill().unwrap();
        ends_within(&fds, Duration::from_secs(1));
        parent.join().unwrap_err();
    });
}

#[test]
fn a_child_has_no_descriptor_of_its_parents() {
    isolated(|| {
        fn open() -> Vec<String> {
            let fds = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut open: Vec<String> = fds
                .map(|fd| fd.unwrap().file_name().into_string().unwrap())
                .collect();
            open.sort();
            open
        }
        // M-010: one that exec would not close.
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: fcntl on an open descriptor; F_DUPFD makes one without close-on-exec.
        #[allow(unsafe_code)]
        let leaky = unsafe {
            use std::os::fd::{AsRawFd, FromRawFd};
            OwnedFd::from_raw_fd(libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 60))
        };
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            // P-027: the same whether it has siblings or not.
            let siblings: Vec<_> = (0..3).map(|_| sleeper(method)).collect();
            let builder = Process::builder().start_method(method);
            // 0 to 2, the lifeline, and the directory being read.
            let open = builder.spawn(open, ()).unwrap().join().unwrap();
            assert_eq!(open, ["0", "1", "2", "3", "4"], "{method:?}");
            siblings.iter().for_each(|process| process.kill().unwrap());
            siblings.iter().for_each(|process| drop(process.join()));
        }
        drop(leaky);
    });
}

#[test]
fn a_thousand_processes_leave_nothing() {
    isolated(|| {
        let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let round = |method, count| {
            for n in 0..count {
                let builder = Process::builder().start_method(method);
                let process = builder.spawn(|n: u32| n, (n,)).unwrap();
                assert_eq!(process.join().unwrap(), n);
            }
        };
        for (method, count) in [
            (StartMethod::Spawn, 400),
            (StartMethod::Fork, 200),
            (StartMethod::ForkServer, 400),
        ] {
            round(method, 50);
            let (files, memory) = (fds(), resident());
            round(method, count * testkit::soak());
            assert_eq!(fds(), files, "{method:?}");
            assert!(resident() < memory + (1 << 20), "{method:?} grew");
        }
    });
}
