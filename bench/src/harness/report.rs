//! The table for a person, and the lines for a file.

use super::must::{Verdict, short};
use super::run::{Results, SideResult};
use super::stat::Stat;
use super::{Better, Work};
use std::io::{self, Write};

/// Prints what the figures depend on besides the code.
pub fn print_machine() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (load, kernel) = (read("/proc/loadavg"), read("/proc/sys/kernel/osrelease"));
    let load = load.split(' ').next().unwrap_or_default();
    let cores = common::process::cpu_count();
    println!("{cores} cores, Linux {}, load {load}", kernel.trim());
    if load.parse().is_ok_and(|load: f64| load > 0.5) {
        println!("this machine is not quiet: ratios will be off, and most of all for small things");
    }
}

/// Prints the figures of all sides, the best of ours first to compare with.
pub fn print(work: &Work, results: &Results) {
    let good = match work.better {
        Better::Lower => "lower is better",
        Better::Higher => "higher is better",
    };
    println!("\n{}: {}", work.name, work.what);
    println!(
        "  {:<44} {:>12} {:>12} {:>12}  {} ({good})",
        work.metric, "median", "min", "max", work.unit
    );
    for side in &results.sides {
        print_side(work, side);
    }
    for must in work.musts {
        let (verdict, found) = must.verdict(work, results);
        println!("  {}  {}: {found}", word(verdict), must.text);
    }
}

/// The word that is printed for a verdict.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Unknown => "skip",
    }
}

fn print_side(work: &Work, side: &SideResult) {
    let name = side.name;
    if let Some(stat) = side.stat() {
        println!("  {name:<44} {}  {}", columns(stat), work.unit);
    }
    for (metric, unit, stat) in side.extras() {
        println!("  {:<44} {}  {unit}", format!("  {metric}"), columns(stat));
    }
    if let Some(why) = &side.gone {
        println!("  {name:<44} skipped: {why}");
    }
}

fn columns(stat: Stat) -> String {
    let [median, min, max] = [stat.median, stat.min, stat.max].map(short);
    format!("{median:>12} {min:>12} {max:>12}")
}

/// The first line of the file.
pub const TSV_HEADER: &str = "work\tpeer\tmetric\tvalue\tunit\tmin\tmax\tn\tnote";

/// Writes the figures as lines of tab-separated fields.
///
/// # Errors
///
/// Those of writing.
pub fn write_tsv(work: &Work, results: &Results, out: &mut dyn Write) -> io::Result<()> {
    for side in &results.sides {
        let note = work
            .sides
            .iter()
            .find(|s| s.name == side.name)
            .map_or("", |s| s.note);
        let mut line = |metric: &str, unit: &str, stat: Stat| {
            let [median, min, max] = [stat.median, stat.min, stat.max].map(short);
            let (work, name, n) = (work.name, side.name, stat.n);
            writeln!(
                out,
                "{work}\t{name}\t{metric}\t{median}\t{unit}\t{min}\t{max}\t{n}\t{note}"
            )
        };
        if let Some(stat) = side.stat() {
            line(work.metric, work.unit, stat)?;
        }
        for (metric, unit, stat) in side.extras() {
            line(&metric, &unit, stat)?;
        }
    }
    Ok(())
}
