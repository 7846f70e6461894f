//! The programs and examples, run as a person runs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What a program printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// On standard output.
    pub stdout: String,
    /// On standard error.
    pub stderr: String,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
}

/// Where a program or (`examples/name`) an example of the workspace was built.
///
/// # Panics
///
/// If it was not; `cargo test` builds both.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this test's path");
    let built = this
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<this>");
    let path = built.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo test`",
        path.display()
    );
    path
}

/// Runs a program to its end, for at most a minute.
///
/// # Panics
///
/// If it cannot be started or is still running then.
pub fn run(program: impl AsRef<Path>, args: &[&str]) -> Output {
    let mut command = Command::new(program.as_ref());
    command
        .args(args.iter().map(OsStr::new))
        .stdin(Stdio::null());
    // A backtrace in the expected output would be another one on every machine.
    command.env("RUST_BACKTRACE", "0");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the program");
    let pid = child.id();
    let (done, output) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(Duration::from_secs(60)) else {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        panic!("{} still runs after a minute", program.as_ref().display());
    };
    let output = output.expect("the program's output");
    Output {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}
