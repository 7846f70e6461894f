//! Runs each program and compares what it prints with the text at its top.

use std::path::Path;
use std::time::{Duration, Instant};

/// O-032: ten tasks on four workers take three rounds, so chunks of one task each.
#[test]
fn main_program() {
    let start = Instant::now();
    check("process-pool", include_str!("../src/main.rs"));
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(4), "{took:?}");
}

/// Compares with the first block of expected output in the program's opening comment.
fn check(program: &str, source: &str) {
    let output = testkit::run(Path::new(&testkit::program(program)), &[]);
    let expected: String = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .skip_while(|line| line.trim() != "```text")
        .skip(1)
        .take_while(|line| line.trim() != "```")
        .filter(|line| !line.trim_start().starts_with("$ "))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    assert!(!expected.is_empty(), "{program} does not say what it prints");
    assert_eq!(output.stdout, expected, "{program}: {}", output.stderr);
    assert_eq!(output.code, Some(0), "{program}: {}", output.stderr);
}
