//! The programs and examples, run as a person runs them.

use std::ffi::OsStr;
use std::fs;
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
/// If it was not, or not since its sources were changed; `cargo test` builds both.
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
    // A test program that is run alone, with `--test`, is built without the examples.
    assert!(
        !is_stale(&path),
        "{} is older than its sources: run the member's whole `cargo test`, or `cargo build \
         --examples`, and then this",
        path.display()
    );
    path
}

/// Whether any of the files that it was built from is newer. Cargo lists those in a file beside it.
fn is_stale(program: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let sources = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let built = modified(program);
    let mut sources = sources.split_whitespace().skip(1);
    sources.any(|source| modified(Path::new(source)) > built)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_program_is_stale_when_one_of_its_sources_is_newer() {
        let folder = std::env::temp_dir().join(format!("testkit-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let [program, old, new] = ["program", "old.rs", "new.rs"].map(|name| folder.join(name));
        let changed = |path: &Path, hours: u64| {
            let time = SystemTime::now() - Duration::from_secs(3600 * hours);
            fs::File::create(path).unwrap().set_modified(time).unwrap();
        };
        changed(&old, 3);
        changed(&program, 2);
        assert!(!is_stale(&program), "cargo has said nothing");
        let list = format!(
            "{0}: {1} {1}.gone {2}",
            program.display(),
            old.display(),
            new.display()
        );
        fs::write(program.with_extension("d"), list).unwrap();
        assert!(!is_stale(&program));
        changed(&new, 1);
        assert!(is_stale(&program));
        fs::remove_dir_all(folder).unwrap();
    }
}
