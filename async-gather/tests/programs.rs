//! Runs each program and compares what it prints with the text at its top.

use std::path::Path;
use std::process::Command;

macro_rules! prints_what_its_header_says {
    ($($name:ident)*) => {
        #[test]
        fn every_example_is_here() {
            let mut here = vec![$(concat!(stringify!($name), ".rs")),*];
            here.sort_unstable();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
            let mut there: Vec<_> = folder
                .read_dir()
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            there.sort_unstable();
            assert_eq!(here, there);
        }

        $(#[test]
        fn $name() {
            let folder = Path::new(MAIN).parent().unwrap().join("examples");
            let source = include_str!(concat!("../examples/", stringify!($name), ".rs"));
            check(&folder.join(stringify!($name)), source);
        })*
    };
}

prints_what_its_header_says! {
    all_settled
    as_completed
    cancel
    first_error
    limited_concurrency
    results_in_order
    sequential
    shield
    task_group
    timeout
}

const MAIN: &str = env!("CARGO_BIN_EXE_async-gather");

/// A-018: all `One` before any `Two`.
#[test]
fn main_program() {
    check(Path::new(MAIN), include_str!("../src/main.rs"));
}

fn check(program: &Path, source: &str) {
    let output = Command::new(program).output().unwrap_or_else(|e| {
        panic!(
            "{}: {e}; `cargo test -p async-gather` builds it",
            program.display()
        )
    });
    assert!(output.status.success(), "{}: {output:?}", program.display());
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = expected(source);
    assert_eq!(printed.lines().count(), expected.len(), "{printed}");
    for (printed, expected) in printed.lines().zip(expected) {
        assert!(
            agrees(printed, expected),
            "printed: {printed}\nexpected: {expected}"
        );
    }
}

/// The text in the header's fence.
fn expected(source: &str) -> Vec<&str> {
    source
        .lines()
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").trim_start())
        .collect()
}

/// Equal, but for a time in seconds: a loaded machine may take longer, never shorter.
fn agrees(printed: &str, expected: &str) -> bool {
    let (printed, expected) = (printed.split(' '), expected.split(' '));
    printed.clone().count() == expected.clone().count()
        && printed.zip(expected).all(|(printed, expected)| {
            printed == expected
                || match (printed.parse::<f64>(), expected.parse::<f64>()) {
                    (Ok(took), Ok(least)) if expected.contains('.') => took >= least,
                    _ => false,
                }
        })
}
