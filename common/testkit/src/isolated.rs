//! A process for each test: it can be killed at its deadline, it has one thread (so `fork` works
//! in it), and what it leaves behind is its own.

use common::function::Function;
use common::process::Process;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test's body in a process of its own, for at most [`DEADLINE`], and checks that it leaves
/// no child process, no open file and no segment in /dev/shm.
///
/// # Panics
///
/// If the body panics (its own message is printed by the process), is still running at the
/// deadline, or leaves something.
///
/// ```
/// testkit::isolated(|| assert_eq!(common::process::active_children(), []));
/// ```
pub fn isolated<F: Function<(), Output = ()>>(body: F) {
    isolated_for(DEADLINE, body);
}

/// As [`isolated`], with another deadline.
///
/// # Panics
///
/// As [`isolated`].
pub fn isolated_for<F: Function<(), Output = ()>>(deadline: Duration, body: F) {
    let test = Process::builder()
        .name("test")
        .daemon(true)
        .spawn(move || leaves_nothing(body), ())
        .expect("a process for the test");
    match test.join_timeout(deadline) {
        Some(Ok(())) => {}
        Some(Err(error)) => panic!("{error}"),
        None => panic!("still running after {deadline:?}: {}", stacks(test.pid())),
    }
}

/// Where each thread of a process sleeps, as far as the kernel tells.
fn stacks(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let place = |task: PathBuf| {
        let read = |file| fs::read_to_string(task.join(file)).unwrap_or_default();
        format!("[{} {}]", read("comm").trim(), read("wchan"))
    };
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| place(task.path())).collect()
}

fn leaves_nothing<F: Function<(), Output = ()>>(body: F) {
    heed_interrupts();
    let before = open_files();
    body.call(());
    eventually("child processes", children);
    eventually("open files", || new_files(&before));
    eventually("segments in /dev/shm", segments);
}

/// What a shell script runs in the background ignores SIGINT, and so do its children and theirs.
fn heed_interrupts() {
    // SAFETY: no handler is put in place.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
    }
}

/// Things that go when another process has noticed something may take a moment.
fn eventually<T: std::fmt::Debug>(what: &str, left: impl Fn() -> Vec<T>) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        // Reaps what nobody has waited for, as any later start would.
        common::process::active_children();
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} are left: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The children of this process, but for the fork server, which stays for the next start.
fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc");
    let of_task = |task: PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
    let pids: String = tasks.flatten().map(|task| of_task(task.path())).collect();
    pids.split_whitespace()
        .map(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} ({pid})", comm.trim())
        })
        .filter(|child| !child.starts_with("ForkServer "))
        .collect()
}

fn has_fork_server() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc");
    tasks.flatten().any(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "ForkServer")
        })
    })
}

/// Descriptor number and what it leads to.
fn open_files() -> BTreeMap<String, String> {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc");
    fds.flatten()
        .filter_map(|fd| {
            let number = fd.file_name().into_string().ok()?;
            let target = fs::read_link(fd.path()).ok()?;
            Some((number, target.display().to_string()))
        })
        // The directory being read.
        .filter(|(_, target)| !target.ends_with("/fd"))
        .collect()
}

/// The descriptors opened since, but for those of things that stay: the reactor's and those to
/// the fork server.
fn new_files(before: &BTreeMap<String, String>) -> Vec<String> {
    let mut new: Vec<String> = open_files()
        .into_iter()
        .filter(|(number, target)| before.get(number) != Some(target))
        .map(|(number, target)| format!("{number} -> {target}"))
        .filter(|fd| !fd.contains("[eventpoll]") && !fd.contains("[eventfd]"))
        .collect();
    if has_fork_server() {
        // A control socket, both ends of its lifeline, and its pidfd twice.
        let is_its = |fd: &String| fd.contains("socket:") || fd.contains("pidfd");
        let its: Vec<String> = new
            .iter()
            .filter(|fd| is_its(fd))
            .take(5)
            .cloned()
            .collect();
        new.retain(|fd| !its.contains(fd));
    }
    new
}

/// This process's segments: their names hold its pid.
fn segments() -> Vec<String> {
    let own = format!("-{}-", std::process::id());
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(&own))
        .collect()
}
