//! A segment's name says whose it is: `mp-<pid namespace>-<pid>-<start time>-<random>`.
//!
//! A process id alone is used again by another process; together with the time the process
//! started (field 22 of `/proc/<pid>/stat`) it is not. Containers may share `/dev/shm` and not
//! their process ids, so the pid namespace is in the name too and nobody judges about a
//! stranger's.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

const PREFIX: &str = "mp-";

/// Linux has no higher process ids than fit in 22 bits.
const PID_BITS: u32 = 22;

/// Where the C library keeps the segments on Linux.
pub(super) const DIRECTORY: &str = "/dev/shm";

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    namespace: u64,
    pid: u32,
    started: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn current() -> Owner {
        static CURRENT: Mutex<Option<Owner>> = Mutex::new(None);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = process::id();
        // A forked child inherits its parent's.
        *current
            .filter(|owner| owner.pid == pid)
            .get_or_insert_with(|| {
                let owner = Owner {
                    namespace: namespace(),
                    pid,
                    started: started(pid).ok().flatten().unwrap_or(0),
                };
                *current.insert(owner)
            })
    }

    /// The process in one word that is not 0, for tables in shared memory.
    pub(crate) fn stamp(self) -> u64 {
        self.started << PID_BITS | u64::from(self.pid)
    }

    /// Whether it is certain that the process of a stamp has ended.
    pub(crate) fn stamp_is_dead(stamp: u64) -> bool {
        let pid = stamp & ((1 << PID_BITS) - 1);
        let owner = Owner {
            namespace: Owner::current().namespace,
            pid: pid as u32,
            started: stamp >> PID_BITS,
        };
        owner.is_dead()
    }

    /// Whether it is certain that the process has ended.
    pub(crate) fn is_dead(self) -> bool {
        // Time 0 says that it was not known when the name was made.
        if self.started == 0 || self.namespace != namespace() {
            return false;
        }
        // The first process of a container has the same id each time the container starts.
        if self.pid == process::id() {
            let now = Owner::current().started;
            return now != 0 && now != self.started;
        }
        // Who cannot look, because it has no descriptor left perhaps, does not know.
        proc_is_mounted() && started(self.pid).is_ok_and(|time| time != Some(self.started))
    }

    /// One that had the same id before.
    #[cfg(test)]
    pub(super) fn earlier(self) -> Owner {
        let started = self.started - 1;
        Owner { started, ..self }
    }

    /// A new name of a segment of this process.
    pub(super) fn name(self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let random = RandomState::new().hash_one(now.unwrap_or_default());
        let Owner {
            namespace,
            pid,
            started,
        } = self;
        format!("{PREFIX}{namespace:x}-{pid}-{started}-{random:016x}")
    }

    /// Whose segment this is; `None` if it is none of this library's.
    pub(super) fn of(name: &str) -> Option<Owner> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let owner = Owner {
            namespace: u64::from_str_radix(parts.next()?, 16).ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        let random = parts.next()?;
        (random.len() == 16 && parts.next().is_none()).then_some(owner)
    }
}

/// The file of a segment; `None` for a name that leads elsewhere.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    plain.then(|| Path::new(DIRECTORY).join(name))
}

/// When a process started, in clock ticks since the machine did; `None` if there is no such
/// process, or only its remains waiting to be reaped.
fn started(pid: u32) -> io::Result<Option<u64>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => state_and_start(&stat)
            .map(|(state, start)| (!matches!(state, b"Z" | b"X")).then_some(start))
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        // The latter if it was reaped between the opening and the reading. What other users run,
        // and what hides from a debugger, may be invisible there (`hidepid` in proc(5)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            match exists(pid) {
                true => Err(error),
                false => Ok(None),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether there is a process of this id, be it only its remains.
fn exists(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, None) != Err(Errno::ESRCH)
}

fn state_and_start(stat: &[u8]) -> Option<(&[u8], u64)> {
    // The second field is the program's name in brackets and may contain anything, brackets too.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat[name_end + 1..]
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let state = fields.next()?;
    let start = str::from_utf8(fields.nth(18)?).ok()?;
    Some((state, start.parse().ok()?))
}

fn namespace() -> u64 {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = link.to_string_lossy();
    let digits = digits.trim_start_matches("pid:[").trim_end_matches(']');
    digits.parse().unwrap_or(0)
}

fn proc_is_mounted() -> bool {
    Path::new("/proc/self/stat").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let me = Owner::current();
        assert_eq!(Owner::of(&me.name()), Some(me));
        assert!(!me.is_dead());
        assert_ne!(me.name(), me.name());
        for other in [
            "",
            "mp-",
            "mp-1-2-3",
            "mp-x-2-3-0123456789abcdef",
            "psm_1234",
        ] {
            assert_eq!(Owner::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_id_used_again_is_another_process() {
        let mut earlier = Owner::current();
        earlier.pid = 1;
        assert!(earlier.is_dead(), "init has another start time");
        earlier.namespace += 1;
        assert!(!earlier.is_dead(), "nothing is known of other namespaces");
    }

    #[test]
    fn this_processs_id_may_have_been_anothers() {
        let me = Owner::current();
        assert!(me.earlier().is_dead());
        let unknown = Owner { started: 0, ..me };
        assert!(!unknown.is_dead(), "it was not known when it started");
        assert!(Owner::stamp_is_dead(me.earlier().stamp()));
        assert!(!Owner::stamp_is_dead(me.stamp()));
    }

    #[test]
    fn a_program_may_be_called_anything() {
        let rest = "S 1".to_owned() + &" 0".repeat(17) + " 4711 0";
        let stat = [b"7 (\xff) Z (x) ", rest.as_bytes()].concat();
        assert_eq!(state_and_start(&stat), Some((&b"S"[..], 4711)));
        assert_eq!(state_and_start(b"7 (x) S 1"), None);
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", "..", ".", "../etc/passwd", "a/b", "a\0b"] {
            assert_eq!(path(name), None, "{name:?}"); // H-007
        }
    }
}
