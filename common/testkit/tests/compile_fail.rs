//! What a user gets wrong when compiling, and what the compiler says then.
//!
//! Whether a function captures something is seen when the call is compiled to code, not when its
//! types are checked: `cargo check` passes it and `cargo build` refuses it. trybuild builds, rather
//! than checks, where at least one case must pass.
//!
//! Here and not with `common`'s own tests, because trybuild builds all that the package's tests
//! depend on once more.

use std::path::Path;
use std::process::Command;

/// The compiler's own words around our message change from version to version.
const WRITTEN_WITH: &str = "rustc 1.95.";

#[test]
fn what_cannot_be_sent_is_refused_in_words() {
    if !rustc(&["--version"]).starts_with(WRITTEN_WITH) {
        eprintln!("skipped: the expected output is that of {WRITTEN_WITH}x");
        return;
    }
    // With its sources at hand the compiler quotes them, too.
    let sources = Path::new(rustc(&["--print", "sysroot"]).trim()).join("lib/rustlib/src/rust");
    let quotes = sources.exists();
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile_fail/sendable.rs");
    if !quotes {
        cases.compile_fail("tests/compile_fail/closure_with_captures.rs");
        cases.compile_fail("tests/compile_fail/function_pointer.rs");
    }
    cases.compile_fail("tests/compile_fail/argument_not_serialisable.rs");
    cases.compile_fail("tests/compile_fail/arguments_not_a_tuple.rs");
    cases.compile_fail("tests/compile_fail/function_of_another_value.rs");
    cases.compile_fail("tests/compile_fail/process_dropped_at_once.rs");
    cases.compile_fail("tests/compile_fail/result_not_serialisable.rs");
    cases.compile_fail("tests/compile_fail/wrong_arguments.rs");
}

fn rustc(args: &[&str]) -> String {
    let output = Command::new("rustc").args(args).output().expect("rustc");
    String::from_utf8(output.stdout).expect("text")
}
