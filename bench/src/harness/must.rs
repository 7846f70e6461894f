//! What must hold, and whether it does.

use super::run::Results;
use super::stat::Stat;
use super::{Better, Work};

/// A line of an issue's "must show" table.
pub struct Must {
    /// It in words.
    pub text: &'static str,
    /// It holds if any of these holds.
    pub any: &'static [Check],
}

/// Something that can be checked.
pub enum Check {
    /// `ours` is at least `times` times better than `than`: faster, or more a second.
    Better {
        /// Our side.
        ours: &'static str,
        /// The peer's.
        than: &'static str,
        /// How often.
        times: f64,
    },
    /// `ours` is at most `times` times the figure of `of` (times, not rates).
    AtMostTimes {
        /// Our side.
        ours: &'static str,
        /// The peer's.
        of: &'static str,
        /// How often.
        times: f64,
    },
    /// The figure of `ours` is at most `limit`.
    AtMost {
        /// Our side.
        ours: &'static str,
        /// In the work's unit.
        limit: f64,
    },
    /// The figure of `ours` is at least `limit`.
    AtLeast {
        /// Our side.
        ours: &'static str,
        /// In the work's unit.
        limit: f64,
    },
    /// Something else that was seen of `ours` is at most `times` times that of `of`.
    ExtraAtMostTimes {
        /// Our side.
        ours: &'static str,
        /// The peer's.
        of: &'static str,
        /// Which of the extras.
        metric: &'static str,
        /// How often.
        times: f64,
    },
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// There is no figure for one of the sides.
    Unknown,
}

impl Must {
    /// The verdict, and for each check what was found.
    pub fn verdict(&self, work: &Work, results: &Results) -> (Verdict, String) {
        let checked: Vec<_> = self.any.iter().map(|c| c.verdict(work, results)).collect();
        let has = |verdict| checked.iter().any(|(v, _)| *v == verdict);
        let verdict = match (has(Verdict::Pass), has(Verdict::Unknown)) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Unknown,
            (false, false) => Verdict::Fail,
        };
        let found: Vec<_> = checked.into_iter().map(|(_, text)| text).collect();
        (verdict, found.join("; or "))
    }
}

impl Check {
    fn verdict(&self, work: &Work, results: &Results) -> (Verdict, String) {
        match *self {
            Check::Better { ours, than, times } => {
                let (above, below) = match work.better {
                    Better::Higher => (ours, than),
                    Better::Lower => (than, ours),
                };
                let text = format!("x better than {than}, {times} wanted");
                ratio(results, above, below, text, |ratio| ratio >= times)
            }
            Check::AtMostTimes { ours, of, times } => {
                let text = format!("x {of}, at most {times}");
                ratio(results, ours, of, text, |ratio| ratio <= times)
            }
            Check::AtMost { ours, limit } => {
                let text = format!("{}, at most {limit}", work.unit);
                value(results.stat(ours), text, |value| value <= limit)
            }
            Check::AtLeast { ours, limit } => {
                let text = format!("{}, at least {limit}", work.unit);
                value(results.stat(ours), text, |value| value >= limit)
            }
            Check::ExtraAtMostTimes {
                ours,
                of,
                metric,
                times,
            } => {
                let text = format!("x the {metric} of {of}, at most {times}");
                let stats = results.extra(ours, metric).zip(results.extra(of, metric));
                let ratio = stats.map(|(a, b)| a.median / b.median);
                value(ratio.and_then(|r| Stat::of(&[r])), text, |value| {
                    value <= times
                })
            }
        }
    }
}

/// The verdict is on the ratio of the medians; the range is that of the ratios within a round.
fn ratio(
    results: &Results,
    above: &str,
    below: &str,
    text: String,
    holds: impl Fn(f64) -> bool,
) -> (Verdict, String) {
    let (Some(a), Some(b)) = (results.stat(above), results.stat(below)) else {
        return (Verdict::Unknown, format!("no figure ({text})"));
    };
    let ratio = a.median / b.median;
    let range = Stat::of(&results.round_ratios(above, below));
    let range = range.map_or(String::new(), |r| {
        format!(" [{} .. {}]", short(r.min), short(r.max))
    });
    let verdict = if holds(ratio) {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    (verdict, format!("{}{range} {text}", short(ratio)))
}

fn value(stat: Option<Stat>, text: String, holds: impl Fn(f64) -> bool) -> (Verdict, String) {
    let Some(stat) = stat else {
        return (Verdict::Unknown, format!("no figure ({text})"));
    };
    let verdict = if holds(stat.median) {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    (verdict, format!("{} {text}", short(stat.median)))
}

/// Four digits that matter, never an exponent.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}
