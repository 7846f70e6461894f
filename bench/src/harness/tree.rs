//! CPU time and memory of a process and all that descend from it, read from outside.

#![allow(unsafe_code)] // clock_getcpuclockid and clock_gettime.

use std::collections::HashMap;
use std::fs;

/// A process and its descendants at one moment.
pub struct Tree {
    pids: Vec<i32>,
}

impl Tree {
    /// `root` and all its living descendants.
    pub fn of(root: i32) -> Tree {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for (pid, parent) in all_processes() {
            children.entry(parent).or_default().push(pid);
        }
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(children.get(&pid).into_iter().flatten());
            next += 1;
        }
        Tree { pids }
    }

    /// User and system time that they have used so far, in milliseconds.
    pub fn cpu_ms(&self) -> f64 {
        self.pids.iter().filter_map(|&pid| cpu_ms(pid)).sum()
    }

    /// Resident memory of the largest descendant, in MiB: in all, and what it shares with nobody.
    /// None if there is no descendant.
    pub fn largest_worker(&self) -> Option<(f64, f64)> {
        let sizes = self.pids.iter().skip(1).filter_map(|&pid| memory(pid));
        sizes.max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

fn all_processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses; the last parenthesis ends it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn cpu_ms(pid: i32) -> Option<f64> {
    let mut clock = 0;
    // SAFETY: `clock` is a place for the answer.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a place for the answer. A process that has ended meanwhile: EINVAL.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6)
}

/// Resident memory of one process in MiB.
pub fn resident(pid: i32) -> Option<f64> {
    memory(pid).map(|(all, _)| all)
}

fn memory(pid: i32) -> Option<(f64, f64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |name: &str| -> Option<f64> {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let own = kib("Private_Clean:")? + kib("Private_Dirty:")?;
    Some((kib("Rss:")? / 1024.0, own / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_and_a_child_is_found() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let tree = Tree::of(std::process::id().cast_signed());
        assert!(tree.cpu_ms() > 0.0);
        assert!(tree.pids.contains(&child.id().cast_signed()));
        assert!(
            tree.largest_worker()
                .is_some_and(|(all, own)| all > 0.0 && all >= own)
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
