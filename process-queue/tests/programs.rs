//! Runs each program and compares what it prints with the text at its top.

use std::path::Path;

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
            let source = include_str!(concat!("../examples/", stringify!($name), ".rs"));
            check(&format!("examples/{}", stringify!($name)), source);
        })*
    };
}

prints_what_its_header_says! {
    back_pressure
    joinable
    killed_consumer
    large_transfer
    long_message // Q-026
    many_to_many
}

/// Q-025
#[test]
fn main_program() {
    check("process-queue", include_str!("../src/main.rs"));
}

fn check(program: &str, source: &str) {
    let output = testkit::run(testkit::program(program), &[]);
    assert_eq!(output.code, Some(0), "{program}: {output:?}");
    let expected: Vec<&str> = source
        .lines()
        .skip_while(|line| !line.starts_with("//! $ "))
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    let printed: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(printed, expected, "{program}");
}
