//! The child's side: caught before `main`, told who it is, run, and ended.
//!
//! A spawned child is this program's executable, started anew with a marker in its environment.
//! The loader calls [`boot`] before `main`; there the child finds its lifeline, reads what to do,
//! does it and exits. So the program's own `main` never runs in a child, and no program needs to
//! call an initialiser of this library.
//!
//! To copy: the folder process/ and what its mod.rs names.

#![allow(unsafe_code)] // An entry in .init_array, and adopting the descriptor put there for us.

use super::builder::{Limit, SetUp, StartMethod};
use super::error::{ChildFailure, remedy};
use super::packet::{self, Kind};
use super::start::Streams;
use super::{lock, registry, sys, wait};
use crate::codec;
use crate::function::{self, EntryRef, Failure, Task};
use crate::image::{self, Constructor};
use crate::panic;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, c_char, c_int};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The variable that says "you are a child of this library".
pub(super) const MARKER: &str = "COMMON_PROCESS_CHILD";
/// Its value: where the lifeline is, and which copy of the library is meant, if a program has
/// several.
pub(super) fn marker_value() -> String {
    format!("{MARKER_START}{:x}", function::library_id())
}

const MARKER_START: &str = "lifeline=3 library=";

/// Where a spawned child finds its lifeline.
pub(super) const LIFELINE: RawFd = 3;

/// What is said to a new process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) who: Who,
    pub(super) set_up: SetUp,
    pub(super) entry: EntryRef,
    #[serde(with = "serde_bytes")]
    pub(super) args: Vec<u8>,
}

/// Who a process is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Who {
    pub(super) name: String,
    /// The numbers in the default name: which child of which child of the first process.
    pub(super) identity: Vec<u32>,
    pub(super) daemon: bool,
    pub(super) method: Option<StartMethod>,
    pub(super) parent: Option<(u32, String)>,
}

/// The process that asks. Made by [`current`](super::current).
#[derive(Debug)]
pub struct CurrentProcess {
    who: Who,
    /// What `ps` shows: as much of the name as the kernel keeps.
    title: CString,
    lifeline: Option<OwnedFd>,
}

impl CurrentProcess {
    pub(super) fn new(who: Who) -> Arc<Self> {
        let title: Vec<u8> = who.name.bytes().filter(|&b| b != 0).take(15).collect();
        Arc::new(CurrentProcess {
            who,
            // It has no NUL.
            title: CString::new(title).unwrap_or_default(),
            lifeline: None,
        })
    }

    /// Its name; `MainProcess` for one that this library did not start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.who.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Whether it is terminated, rather than waited for, when its handle is dropped.
    #[must_use]
    pub fn daemon(&self) -> bool {
        self.who.daemon
    }

    /// How it was started; `None` for a process that this library did not start.
    #[must_use]
    pub fn start_method(&self) -> Option<StartMethod> {
        self.who.method
    }
}

// Both in the section of what is not zero at first, where a new process has more to write to (the
// registry, the standard output): what it writes to is copied for it, page by page.
// SAFETY: a section for data that is written to, as these are.
#[unsafe(link_section = ".data")]
static CURRENT: Mutex<Option<Arc<CurrentProcess>>> = Mutex::new(None);
// SAFETY: as above.
#[unsafe(link_section = ".data")]
static CHILDREN: AtomicU32 = AtomicU32::new(0);

pub(super) fn current_process() -> Arc<CurrentProcess> {
    let main = || Who {
        name: "MainProcess".into(),
        identity: Vec::new(),
        daemon: false,
        method: None,
        parent: None,
    };
    lock(&CURRENT)
        .get_or_insert_with(|| CurrentProcess::new(main()))
        .clone()
}

pub(super) fn current() -> Who {
    current_process().who.clone()
}

/// The numbers of this process's next child. The library's own helpers are not counted.
pub(super) fn next_identity(hidden: bool) -> Vec<u32> {
    let mut identity = current_process().who.identity.clone();
    identity.push(if hidden {
        0
    } else {
        CHILDREN.fetch_add(1, Ordering::Relaxed) + 1
    });
    identity
}

pub(super) fn default_name(identity: &[u32]) -> String {
    let numbers: Vec<String> = identity.iter().map(u32::to_string).collect();
    format!("Process-{}", numbers.join(":"))
}

/// The process that started this one. Made by [`parent`](super::parent).
#[derive(Debug, Clone)]
pub struct Parent(Arc<CurrentProcess>);

pub(super) fn parent() -> Option<Parent> {
    let current = current_process();
    (current.who.parent.is_some() && current.lifeline.is_some()).then_some(Parent(current))
}

impl Parent {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.who.parent.as_ref().map_or(0, |(pid, _)| *pid)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.who.parent.as_ref().map_or("", |(_, name)| name)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0
            .lifeline
            .as_ref()
            .is_some_and(|fd| !wait::is_hung_up(fd.as_fd()))
    }

    /// Waits until it has ended; true if it has. Only a process that was
    /// [`detach`](super::Process::detach)ed lives to see that: others end with their parent.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.0
            .lifeline
            .as_ref()
            .is_none_or(|fd| wait::hung_up(fd.as_fd(), deadline))
    }
}

/// The loader calls this before `main`, in every process of a program that uses this library.
///
/// The Rust runtime is not up yet: what it would do in `main`'s place is done in [`serve`]. Its
/// library works all the same, threads, panics and standard streams included.
extern "C" fn boot(
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let construct = || {
        for constructor in image::constructors_after(&BOOT).iter().flatten() {
            constructor(count, arguments, environment);
        }
    };
    // Nothing may unwind into the loader. A panic here would be a bug of this library.
    let child = std::panic::catch_unwind(|| {
        if let Some(marker) = std::env::var_os(MARKER) {
            serve(&marker.to_string_lossy(), construct);
        }
    });
    if child.is_err() {
        sys::exit_now(1);
    }
}

#[cfg(test)]
#[used]
// SAFETY: as of `BOOT`.
#[unsafe(link_section = ".init_array")]
static ONE: Constructor = tests::construct;

#[used]
// SAFETY: the loader calls the pointers in this section with the C calling convention and these
// arguments.
#[unsafe(link_section = ".init_array")]
static BOOT: Constructor = boot;

#[cfg(test)]
#[used]
// SAFETY: as of `BOOT`.
#[unsafe(link_section = ".init_array")]
static ANOTHER: Constructor = tests::construct;

/// Does what a spawned child is for. Returns only if another copy of the library is meant.
///
/// `construct` calls the constructors that the loader would call after [`boot`], which does not
/// come back: what C++ libraries and other crates have set up before `main`, a function may need.
fn serve(marker: &str, construct: impl FnOnce()) {
    match marker
        .strip_prefix(MARKER_START)
        .map(|id| usize::from_str_radix(id, 16))
    {
        Some(Ok(id)) if id == function::library_id() => {}
        Some(Ok(_)) => return,
        _ => refuse(&format!(
            "its value {marker:?} is none that this library sets"
        )),
    }
    sys::open_closed_stdio();
    sys::ignore_sigpipe();
    sys::set_env(MARKER.as_ref(), None);
    if !Path::new("/proc/self/fd/3").exists() {
        refuse("descriptor 3 is closed");
    }
    // SAFETY: whoever set the marker to this value put a descriptor there for us; it is open.
    let lifeline = unsafe { sys::adopt(LIFELINE) };
    if let Err(error) = sys::close_on_exec(lifeline.as_fd()) {
        refuse(&format!("descriptor 3: {error}"));
    }
    sys::close_from(LIFELINE + 1);
    construct();
    match packet::receive(lifeline.as_fd(), true) {
        // The parent ended before it could say anything.
        Err(packet::ReceiveError::Closed) => sys::exit_now(1),
        Err(error) => refuse(&format!("descriptor 3: {error}")),
        Ok(packet) if packet.kind != Kind::Hello => refuse("descriptor 3: no hello came first"),
        Ok(packet) => {
            *lock(&RECEIVED) = packet.fds;
            // Runs the exit handlers that C libraries have registered, and flushes the streams.
            std::process::exit(run(&packet.body, lifeline))
        }
    }
}

/// Descriptors that came with the hello.
static RECEIVED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Takes the descriptors that came with the hello; for this library's own helper processes.
pub(super) fn take_received_fds() -> Vec<OwnedFd> {
    std::mem::take(&mut *lock(&RECEIVED))
}

fn refuse(reason: &str) -> ! {
    eprintln!(
        "the variable {MARKER} is in the environment, which makes this program start as a child \
         process of itself, but {reason}; unset it to run the program as usual"
    );
    sys::exit_now(1)
}

/// Runs what an encoded [`Hello`] asks for, in a process that is new and has nothing of a
/// parent's to lose: a spawned one, or one forked from the fork server. The exit code.
pub(super) fn run(hello: &[u8], lifeline: OwnedFd) -> i32 {
    let guard = EndsIfUnwound;
    let hello: Hello = match codec::decode(hello) {
        Ok(hello) => hello,
        Err(error) => refuse(&format!("the hello is not understood: {error}")),
    };
    let this = become_child(CurrentProcess::new(hello.who), lifeline);
    let outcome = perform(&hello.set_up, hello.entry, &hello.args);
    let code = report(&this, outcome);
    std::mem::forget(guard);
    code
}

/// Sets the process up and calls the function; what it returned, encoded.
fn perform(asked: &SetUp, entry: EntryRef, args: &[u8]) -> Result<Vec<u8>, ChildFailure> {
    let task = entry.resolve::<Task>().map_err(Failure::Entry);
    let task = task.map_err(ChildFailure::Function)?;
    // Whoever waits for the end of the last sender is not to wait for those in the arguments.
    set_up(asked).inspect_err(|_| task.refuse(args))?;
    let mut result = Vec::new();
    task.run(args, &mut result)
        .map_err(ChildFailure::Function)?;
    Ok(result)
}

/// What a process that runs an empty function is told, encoded; for [`rehearse`].
pub(super) fn rehearsal() -> Vec<u8> {
    let Ok(entry) = Task::entry(|| ()) else {
        return Vec::new();
    };
    let hello = Hello {
        who: current(),
        set_up: SetUp::default(),
        entry,
        args: Vec::new(),
    };
    codec::encode(&hello).unwrap_or_default()
}

/// Does for nothing what a process will do that is asked for later. What a process touches first
/// costs a page fault, and there are some thirty: most are dealt with here, when nobody waits.
pub(super) fn rehearse(rehearsal: &[u8]) {
    if let Ok(hello) = codec::decode::<Hello>(rehearsal) {
        let _ = perform(&hello.set_up, hello.entry, &hello.args);
    }
    sys::flush_stdio();
}

/// Runs a closure in a process just forked from the parent. Never returns; none of what the
/// parent has on its stack is dropped.
pub(super) fn run_fork<R: Serialize>(
    this: Arc<CurrentProcess>,
    lifeline: OwnedFd,
    streams: Streams<Option<OwnedFd>>,
    asked: &SetUp,
    f: impl FnOnce() -> R,
) -> ! {
    let _guard = EndsIfUnwound;
    // The other ends of lifelines are the parent's alone: a copy here would keep the parent's
    // other children alive when it has gone.
    registry::forget_all();
    super::forkserver::forget();
    CHILDREN.store(0, Ordering::Relaxed);
    let this = become_child(this, lifeline);
    // Encoding and dropping the result is the program's code as well.
    let outcome = panic::catch(|| {
        place_streams(streams)?;
        set_up(asked)?;
        let result = f();
        codec::encode(&result).map_err(|error| ChildFailure::Function(Failure::Result(error)))
    });
    let outcome =
        outcome.unwrap_or_else(|panic| Err(ChildFailure::Function(Failure::Panicked(panic))));
    let code = report(&this, outcome);
    sys::flush_stdio();
    sys::exit_now(code)
}

/// Ends a forked process out of whose work a panic comes: the frames further up are a copy of its
/// parent's, and so are the objects that would be dropped there.
struct EndsIfUnwound;

impl Drop for EndsIfUnwound {
    fn drop(&mut self) {
        sys::exit_now(1);
    }
}

/// Puts the standard streams where they belong, and nowhere else.
#[inline]
fn place_streams(streams: Streams<Option<OwnedFd>>) -> Result<(), ChildFailure> {
    for (number, fd) in (0..).zip(streams.each()) {
        if let Some(fd) = fd {
            sys::put_at(fd.as_fd(), number)
                .map_err(|error| ChildFailure::SetUp(format!("stream {number}: {error}")))?;
        }
    }
    Ok(())
}

/// From here on this process is who it was told to be, and ends with its parent.
#[inline]
fn become_child(mut this: Arc<CurrentProcess>, lifeline: OwnedFd) -> Arc<CurrentProcess> {
    if let Err(error) = sys::kill_on_hangup(lifeline.as_fd()) {
        refuse(&format!("its lifeline cannot be watched: {error}"));
    }
    // The parent may have gone before that took effect; or after it had taken it back, to detach.
    if wait::is_hung_up(lifeline.as_fd()) && sys::is_armed(lifeline.as_fd()) {
        sys::exit_now(1);
    }
    let _ = nix::sys::prctl::set_name(&this.title);
    // Nobody else has it yet.
    if let Some(this) = Arc::get_mut(&mut this) {
        this.lifeline = Some(lifeline);
    }
    if let Some(earlier) = lock(&CURRENT).replace(this.clone())
        && earlier.lifeline.is_none()
    {
        // It holds only memory, a fork's copy of its parent's; to free it would cost more.
        std::mem::forget(earlier);
    }
    this
}

#[inline]
fn set_up(asked: &SetUp) -> Result<(), ChildFailure> {
    for (name, value) in &asked.env {
        sys::set_env(name, value.as_deref());
    }
    if let Some(path) = &asked.current_dir {
        std::env::set_current_dir(path).map_err(|error| {
            let path = Path::new(path).display();
            ChildFailure::SetUp(format!("its working directory {path}: {error}"))
        })?;
    }
    for &(limit, value) in &asked.limits {
        set_limit(limit, value)
            .map_err(|error| ChildFailure::SetUp(format!("its limit {limit:?}: {error}")))?;
    }
    Ok(())
}

fn set_limit(limit: Limit, value: u64) -> Result<(), nix::errno::Errno> {
    let resource = match limit {
        Limit::AddressSpace => Resource::RLIMIT_AS,
        Limit::CpuTime => Resource::RLIMIT_CPU,
        Limit::OpenFiles => Resource::RLIMIT_NOFILE,
        Limit::CoreSize => Resource::RLIMIT_CORE,
    };
    let (_, most) = getrlimit(resource)?;
    let value = value.min(most);
    // The hard limit of CPU time kills; one second more leaves room for SIGXCPU, which says why.
    let hard = match limit {
        Limit::CpuTime => value.saturating_add(1).min(most),
        _ => value,
    };
    setrlimit(resource, value, hard)
}

/// Tells the parent how it went; the exit code that goes with it.
#[inline]
fn report(current: &CurrentProcess, outcome: Result<Vec<u8>, ChildFailure>) -> i32 {
    let Some(lifeline) = &current.lifeline else {
        return 1;
    };
    let (kind, body) = match outcome {
        Ok(result) => (Kind::Returned, result),
        Err(failure) => (Kind::Failed, codec::encode(&failure).unwrap_or_default()),
    };
    let sent = packet::send(lifeline.as_fd(), kind, &body, &[]);
    if let (Err(error), Kind::Returned) = (sent, kind) {
        let (bytes, remedy) = (body.len(), remedy(error));
        let reason = format!("its result of {bytes} bytes cannot be sent: {error}{remedy}");
        let failure = codec::encode(&ChildFailure::Unsent(reason)).unwrap_or_default();
        let _ = packet::send(lifeline.as_fd(), Kind::Failed, &failure, &[]);
        return 1;
    }
    i32::from(kind != Kind::Returned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

    /// Called before `main` twice, whatever the order in which the linker puts things.
    pub(super) extern "C" fn construct(
        count: c_int,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) {
        assert!(count > 0 && !arguments.is_null() && !environment.is_null());
        CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn what_others_do_before_main_is_done_in_a_child_too() {
        let [one, boot, another] = [&ONE, &BOOT, &ANOTHER].map(std::ptr::from_ref);
        assert!(one > boot || another > boot, "neither is left to a child");
        testkit::isolated(|| assert_eq!(CONSTRUCTED.load(Ordering::Relaxed), 2));
        assert_eq!(CONSTRUCTED.load(Ordering::Relaxed), 2);
        let spawned = Process::spawn(|| CONSTRUCTED.load(Ordering::Relaxed), ());
        assert_eq!(spawned.unwrap().join().unwrap(), 2);
    }
}
