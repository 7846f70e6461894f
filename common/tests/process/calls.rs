//! What a process is given and what comes back: values, errors, panics.

use super::FOREVER;
use common::process::{self, JoinError, Process, Stdio, wait};
use serde::{Deserialize, Serialize};
use testkit::{METHODS, isolated};

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
fn a_result_that_cannot_be_sent_is_not_taken_for_a_call_that_was_not_made() {
    isolated(|| {
        for method in METHODS {
            // A long result goes as a file.
            let builder = Process::builder().start_method(method).open_files(4);
            let process = builder.spawn(|| vec![1u8; 5000], ()).unwrap();
            let error = process.join().unwrap_err();
            assert!(matches!(error, JoinError::Unreceived { .. }), "{error}");
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
    });
}

#[test]
fn a_result_may_look_at_the_processes_while_it_is_read() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Curious(#[serde(deserialize_with = "look")] usize);
    fn look<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let number = usize::deserialize(deserializer)?;
        Ok(number + process::active_children().len())
    }
    isolated(|| {
        let process = Process::spawn(|| Curious(7), ()).unwrap();
        assert_eq!(process.join().unwrap(), Curious(7));
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
            let printed = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
            assert!(
                printed.contains("no 7") && printed.contains("calls.rs:"),
                "{printed}"
            );
            match process.join().unwrap_err() {
                JoinError::Panicked {
                    message,
                    location,
                    process,
                } => {
                    assert_eq!(message, "no 7");
                    assert!(location.unwrap().contains("calls.rs:"));
                    assert!(process.starts_with("Process-"));
                }
                other => panic!("{other}"),
            }
            assert_eq!(process.exit_code(), Some(1));
        }
    });
}
