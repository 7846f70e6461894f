//! Who a process is: names, parents, daemons, cores.

use common::process::{self, Process};
use std::time::Duration;
use testkit::{METHODS, isolated};

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
            assert_ne!(pid, std::process::id());
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
        let is_told = |daemon: bool| {
            let builder = Process::builder().daemon(daemon);
            let told = || process::current().daemon();
            builder.spawn(told, ()).unwrap().join().unwrap()
        };
        for daemon in [true, false] {
            let told = of(!daemon).spawn(is_told, (daemon,)).unwrap();
            assert_eq!(told.join().unwrap(), daemon);
        }
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
