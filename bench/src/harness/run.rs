//! Takes one repetition of each side in turn, so often.

use super::side::Running;
use super::stat::Stat;
use super::tree::Tree;
use super::{Account, Reading, Side, Skip, Work};

/// What the sides gave.
pub struct Results {
    /// In the order of the work's sides.
    pub sides: Vec<SideResult>,
}

/// What one side gave.
pub struct SideResult {
    /// Its name.
    pub name: &'static str,
    /// One for each round, until it was gone.
    pub rounds: Vec<Reading>,
    /// Why it did not take part, or no longer does.
    pub gone: Option<String>,
}

/// Runs the work's sides whose names contain one of `only` (all, if it is empty), `reps` rounds
/// after one to warm up.
pub fn run(work: &Work, reps: usize, only: &[String]) -> Results {
    let chosen = |side: &&Side| only.is_empty() || only.iter().any(|o| side.name.contains(o));
    let mut sides: Vec<_> = work
        .sides
        .iter()
        .filter(chosen)
        .map(|s| Contestant::start(work, s))
        .collect();
    let n = sides.len();
    let warm_up = usize::from(work.account != Account::Figure);
    for round in 0..reps + warm_up {
        for turn in 0..n {
            // Another one begins each round: who comes after whom shall not matter.
            sides[(round + turn) % n].round(work, round < warm_up);
        }
    }
    Results {
        sides: sides
            .into_iter()
            .map(|contestant| contestant.result)
            .collect(),
    }
}

struct Contestant {
    running: Option<Running>,
    result: SideResult,
}

impl Contestant {
    fn start(work: &Work, side: &Side) -> Contestant {
        let (running, gone) = match Running::start(work, side) {
            Ok(running) => (Some(running), None),
            Err(Skip(why)) => (None, Some(why)),
        };
        let result = SideResult {
            name: side.name,
            rounds: Vec::new(),
            gone,
        };
        Contestant { running, result }
    }

    fn round(&mut self, work: &Work, warm_up: bool) {
        let Some(running) = &mut self.running else {
            return;
        };
        let before = (work.account != Account::No).then(|| Tree::of(running.pid()).cpu_ms());
        let mut reading = match running.repetition() {
            Ok(reading) => reading,
            Err(why) => {
                self.result.gone = Some(why);
                self.running = None;
                return;
            }
        };
        if let Some(before) = before {
            let tree = Tree::of(running.pid());
            reading = account(reading, work.account, tree.cpu_ms() - before, &tree);
        }
        if !warm_up {
            self.result.rounds.push(reading);
        }
    }
}

fn account(said: Reading, account: Account, cpu_ms: f64, tree: &Tree) -> Reading {
    let reading = match account {
        Account::Figure => Reading::from(cpu_ms),
        _ => said.with("cpu", "ms", cpu_ms),
    };
    match tree.largest_worker() {
        None => reading,
        Some((all, own)) => {
            reading
                .with("worker_rss", "MiB", all)
                .with("worker_private", "MiB", own)
        }
    }
}

impl Results {
    fn side(&self, name: &str) -> Option<&SideResult> {
        self.sides.iter().find(|side| side.name == name)
    }

    /// The figures of the side of that name.
    pub fn stat(&self, name: &str) -> Option<Stat> {
        self.side(name)?.stat()
    }

    /// Something else that was seen of the side of that name.
    pub fn extra(&self, name: &str, metric: &str) -> Option<Stat> {
        let extras = self.side(name)?.extras();
        extras
            .into_iter()
            .find(|extra| extra.0 == metric)
            .map(|extra| extra.2)
    }

    /// The ratios of two sides, round by round.
    pub fn round_ratios(&self, above: &str, below: &str) -> Vec<f64> {
        let (Some(above), Some(below)) = (self.side(above), self.side(below)) else {
            return Vec::new();
        };
        let pairs = above.rounds.iter().zip(&below.rounds);
        pairs.map(|(a, b)| a.value / b.value).collect()
    }
}

impl SideResult {
    /// Its figures.
    pub fn stat(&self) -> Option<Stat> {
        let values: Vec<_> = self.rounds.iter().map(|r| r.value).collect();
        Stat::of(&values)
    }

    /// What else was seen: metric, unit, figures.
    pub fn extras(&self) -> Vec<(String, String, Stat)> {
        let Some(first) = self.rounds.first() else {
            return Vec::new();
        };
        let figures = |metric: &str| -> Vec<f64> {
            let extras = self.rounds.iter().flat_map(|reading| &reading.extras);
            extras
                .filter(|extra| extra.metric == metric)
                .map(|extra| extra.value)
                .collect()
        };
        let stat = |extra: &super::Extra| {
            let stat = Stat::of(&figures(&extra.metric))?;
            Some((extra.metric.clone(), extra.unit.clone(), stat))
        };
        first.extras.iter().filter_map(stat).collect()
    }
}
