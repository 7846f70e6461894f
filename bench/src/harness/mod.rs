//! What all works share: sides that run in processes of their own, rounds that take one
//! repetition of each side in turn, and what is made of the figures.
//!
//! ```text
//!   bench start_join                      one process for each side, for as long as the work runs
//!     round 1: "run" -> [ours:spawn]  -> "= 701.2"        `bench --side start_join ours:spawn`
//!              "run" -> [posix_spawn] -> "= 688.0"        `bench --side start_join limit:...`
//!              "run" -> [py:spawn]    -> "= 30120.5"      `python3 python/start_join.py spawn`
//!     round 2: the same, beginning with the next side, ...
//! ```
//!
//! A side that is not asked waits for its standard input and uses no CPU. So a change of the
//! machine's mood meets every side alike, and no side lives in a process that another side has
//! filled with threads, memory or file descriptors.

pub mod must;
pub mod report;
pub mod run;
pub mod side;
pub mod stat;
pub mod time;
pub mod tree;

pub use must::{Check, Must};

/// One thing measured, for us and for the peers.
pub struct Work {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What one repetition does, in a sentence.
    pub what: &'static str,
    /// What the figure is: `latency`, `rate`, ...
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// Repetitions unless the command line says otherwise.
    pub reps: usize,
    /// Whether to read CPU time and memory of each side's processes around each repetition.
    pub account: Account,
    /// Who takes part.
    pub sides: &'static [Side],
    /// What must hold.
    pub musts: &'static [Must],
}

/// Whether the smaller or the larger figure wins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Times.
    Lower,
    /// Rates.
    Higher,
}

/// What is made of the CPU time (user and system) and the memory of a side and its descendants,
/// which the harness reads from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Nothing.
    No,
    /// They are shown beside the figure.
    Beside,
    /// The CPU time, in milliseconds, is the figure; what the side says is passed over, and there
    /// is no round to warm up.
    Figure,
}

/// One contestant: this project, a peer, or a limit set by the kernel or the hardware.
pub struct Side {
    /// `ours:`, `py:`, `rust:`, `thread:`, `redis:` or `limit:`, and what.
    pub name: &'static str,
    /// What a reader of the figure has to know.
    pub note: &'static str,
    /// How it is run.
    pub how: How,
}

/// How a side is run.
pub enum How {
    /// In another process of this program: prepares, and gives the repetition.
    Rust(fn() -> Result<Repetition, Skip>),
    /// By the script of that name in `python/`, with these arguments.
    Python(&'static str, &'static [&'static str]),
}

impl Side {
    /// A side written here.
    pub const fn rust(
        name: &'static str,
        note: &'static str,
        prepare: fn() -> Result<Repetition, Skip>,
    ) -> Side {
        let how = How::Rust(prepare);
        Side { name, note, how }
    }

    /// A side written in Python.
    pub const fn python(
        name: &'static str,
        note: &'static str,
        script: &'static str,
        args: &'static [&'static str],
    ) -> Side {
        let how = How::Python(script, args);
        Side { name, note, how }
    }
}

/// Does the work once and gives the figure.
pub type Repetition = Box<dyn FnMut() -> Result<Reading, Failed>>;

/// Why a repetition gave no figure.
pub type Failed = Box<dyn std::error::Error>;

/// A side cannot take part here, and why.
#[derive(Debug)]
pub struct Skip(pub String);

impl<E: std::error::Error> From<E> for Skip {
    fn from(error: E) -> Skip {
        Skip(error.to_string())
    }
}

/// What one repetition gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The figure, in the work's unit.
    pub value: f64,
    /// What else was seen.
    pub extras: Vec<Extra>,
}

/// Something seen besides the figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Extra {
    /// What it is.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// How much.
    pub value: f64,
}

impl From<f64> for Reading {
    fn from(value: f64) -> Reading {
        let extras = Vec::new();
        Reading { value, extras }
    }
}

impl Reading {
    /// Adds something else that was seen.
    pub fn with(mut self, metric: &str, unit: &str, value: f64) -> Reading {
        let (metric, unit) = (metric.into(), unit.into());
        self.extras.push(Extra {
            metric,
            unit,
            value,
        });
        self
    }
}
