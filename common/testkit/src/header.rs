//! A program's header says what it prints; people read it there, and tests compare.

use crate::program;
use std::fs;
use std::path::Path;

/// Tests that a member's program and its examples (name them all) print what their headers say.
///
/// ```ignore
/// // In process-queue/tests/programs.rs
/// testkit::programs! {
///     back_pressure
///     many_to_many
/// }
/// ```
#[macro_export]
macro_rules! programs {
    ($($(#[$meta:meta])* $example:ident)*) => {
        #[test]
        fn main_program() {
            $crate::prints_what_its_header_says(
                env!("CARGO_MANIFEST_DIR"),
                "src/main.rs",
                env!("CARGO_PKG_NAME"),
            );
        }

        #[test]
        fn every_example_is_tested() {
            let named = [$(stringify!($example)),*];
            $crate::every_example_is_named(env!("CARGO_MANIFEST_DIR"), &named);
        }

        $($(#[$meta])*
        #[test]
        fn $example() {
            $crate::prints_what_its_header_says(
                env!("CARGO_MANIFEST_DIR"),
                concat!("examples/", stringify!($example), ".rs"),
                concat!("examples/", stringify!($example)),
            );
        })*
    };
}

/// Runs a program and compares its standard output with the text in its header's first fence.
///
/// Line by line and word by word, but a single capital letter in the header stands for any number
/// (a process id, say), and a number with a decimal point, which is a time, may be larger: a
/// loaded machine takes longer, never shorter. A line with the command (`$ ..`) is passed over.
///
/// # Panics
///
/// If they differ, or the program fails.
pub fn prints_what_its_header_says(member: &str, source: &str, name: &str) {
    let header = fs::read_to_string(Path::new(member).join(source)).expect(source);
    let expected = expected(&header);
    assert!(!expected.is_empty(), "{source} does not say what it prints");
    let output = program::run(program::program(name), &[]);
    assert_eq!(output.code, Some(0), "{name}: {output:#?}");
    let printed: Vec<&str> = output.stdout.lines().collect();
    let agree =
        printed.len() == expected.len() && printed.iter().zip(&expected).all(|(p, e)| agrees(p, e));
    assert!(agree, "{name} printed {printed:#?}, not {expected:#?}");
}

/// Checks that a member has no example but these.
///
/// # Panics
///
/// If it has.
pub fn every_example_is_named(member: &str, named: &[&str]) {
    let files = fs::read_dir(Path::new(member).join("examples")).expect("examples/");
    for file in files {
        let path = file.expect("an example").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        assert!(named.contains(&&*name), "{name} is not tested");
    }
}

fn expected(source: &str) -> Vec<&str> {
    source
        .lines()
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").trim())
        .filter(|line| !line.starts_with("$ "))
        .collect()
}

fn agrees(printed: &str, expected: &str) -> bool {
    let (printed, expected) = (printed.split(' '), expected.split(' '));
    printed.clone().count() == expected.clone().count()
        && printed.zip(expected).all(|(p, e)| word_agrees(p, e))
}

fn word_agrees(printed: &str, expected: &str) -> bool {
    let any_number = expected.len() == 1 && expected.starts_with(|c: char| c.is_ascii_uppercase());
    let time = |word: &str| word.parse::<f64>().ok().filter(|_| word.contains('.'));
    printed == expected
        || (any_number && printed.parse::<u64>().is_ok())
        || matches!((time(printed), time(expected)), (Some(took), Some(least)) if took >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_up_to_the_end_of_its_fence() {
        let source = "//! A.\n//! ```text\n//! $ cargo run\n//! a b\n//!\n//! c\n//! ```\n//! d\n";
        assert_eq!(expected(source), ["a b", "", "c"]);
    }

    #[test]
    fn only_numbers_and_times_may_differ() {
        assert!(agrees("process ID: 4711", "process ID: N"));
        assert!(!agrees("process ID: none", "process ID: N"));
        assert!(agrees("took 1.25 s", "took 1.0 s"));
        assert!(!agrees("took 0.99 s", "took 1.0 s"));
        assert!(!agrees("took 26", "took 25"));
        assert!(!agrees("took 1.0 s more", "took 1.0 s"));
    }
}
