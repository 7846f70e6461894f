//! How many tasks go to a worker at a time.
//!
//! Python's rule is `ceil(n / (4 * workers))`: a quarter of an even share, so that four rounds
//! even out small differences. It knows nothing of how long a task takes: 32 tasks of a second
//! for two workers travel by four, and at the end one worker may idle for four seconds. Here the
//! rule is the upper bound; below it a chunk is as many tasks as take a few milliseconds (slow
//! tasks travel alone), and no more than a share of what is left, so that all workers end
//! together. The first few tasks travel alone, to be measured.
//!
//! To copy: chunking.rs.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// The chunk sizes of one job.
#[derive(Debug)]
pub(super) struct Chunking {
    fixed: Option<usize>,
    workers: usize,
    /// Tasks submitted so far, those not yet cut, and chunks under way.
    total: AtomicUsize,
    left: AtomicUsize,
    open: AtomicUsize,
    /// Nanoseconds that a task takes; 0 while none has been measured.
    mean: AtomicU64,
}

/// Nanoseconds that a chunk should take: far more than passing it on, far less than a person
/// notices.
const TARGET: u64 = 4_000_000;
/// Nanoseconds below which a chunk is not worth being made smaller.
const LEAST: u64 = 50_000;
/// Chunks longer than this are cut as late as possible, when more is known.
const LATE: u64 = 500_000;

impl Chunking {
    /// For one task.
    pub(super) fn single() -> Self {
        Chunking::fixed(1)
    }

    /// Always `size`, but for the last.
    pub(super) fn fixed(size: usize) -> Self {
        Chunking {
            fixed: Some(size.max(1)),
            ..Chunking::adaptive(1)
        }
    }

    /// By the rule above.
    pub(super) fn adaptive(workers: usize) -> Self {
        Chunking {
            fixed: None,
            workers: workers.max(1),
            total: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            mean: AtomicU64::new(0),
        }
    }

    /// The size, if it is always the same.
    pub(super) fn size(&self) -> Option<usize> {
        self.fixed
    }

    /// So many more tasks have been submitted.
    pub(super) fn add(&self, tasks: usize) {
        self.total.fetch_add(tasks, Relaxed);
        self.left.fetch_add(tasks, Relaxed);
    }

    /// Size of the next chunk; `None` if it is better to wait for an answer first.
    pub(super) fn next(&self) -> Option<usize> {
        if self.fixed.is_some() {
            return self.fixed;
        }
        let open = self.open.load(Relaxed);
        let mean = self.mean.load(Relaxed);
        if mean == 0 {
            return (open < 2 * self.workers).then_some(1);
        }
        let size = self.best(mean);
        let late = size as u64 * mean >= LATE;
        // A task that travels alone can be cut no better later, and each time that more have to be
        // given out takes a core from a worker.
        let most = if size == 1 { 32 } else { 2 };
        (!late || open < most * self.workers).then_some(size)
    }

    fn best(&self, mean: u64) -> usize {
        let tasks = |nanos: u64| usize::try_from(nanos / mean).unwrap_or(usize::MAX);
        let python = self.total.load(Relaxed).div_ceil(4 * self.workers);
        let share = self.left.load(Relaxed).div_ceil(2 * self.workers);
        share
            .max(tasks(LEAST))
            .min(tasks(TARGET))
            .min(python)
            .max(1)
    }

    /// A chunk of so many tasks goes out.
    pub(super) fn cut(&self, tasks: usize) {
        self.left.fetch_sub(tasks, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    /// It could not: the opposite of [`cut`](Self::cut).
    pub(super) fn put_back(&self, tasks: usize) {
        self.left.fetch_add(tasks, Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    /// A chunk has been answered.
    pub(super) fn close(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// So many tasks took so long.
    pub(super) fn measure(&self, tasks: usize, nanos: u64) {
        if self.fixed.is_some() || tasks == 0 {
            return;
        }
        let one = (nanos / tasks as u64).max(1);
        let mean = self.mean.load(Relaxed);
        let mean = if mean == 0 { one } else { mean.midpoint(one) };
        self.mean.store(mean.max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts and answers chunks until none is left; their sizes.
    fn sizes(chunking: &Chunking, tasks: usize, nanos: u64) -> Vec<usize> {
        chunking.add(tasks);
        let (mut left, mut sizes) = (tasks, Vec::new());
        while left > 0 {
            let size = chunking.next().unwrap_or(1).min(left);
            chunking.cut(size);
            sizes.push(size);
            left -= size;
            chunking.measure(size, nanos * size as u64);
            chunking.close();
        }
        sizes
    }

    #[test]
    fn slow_tasks_travel_alone_and_quick_ones_together() {
        assert!(
            sizes(&Chunking::adaptive(2), 64, 10_000_000)
                .iter()
                .all(|&n| n == 1)
        );
        let quick = sizes(&Chunking::adaptive(2), 100_000, 10);
        assert!(quick.len() < 30, "{quick:?}");
        // O-032: never more than Python's rule.
        assert!(quick.iter().all(|&n| n <= 12_500), "{quick:?}");
        let few = sizes(&Chunking::adaptive(4), 10, 10);
        assert_eq!(few, [1; 10]);
    }

    #[test]
    fn the_last_chunks_are_small() {
        let sizes = sizes(&Chunking::adaptive(2), 1000, 100_000);
        assert!(sizes.iter().rev().take(4).all(|&n| n <= 2), "{sizes:?}");
    }

    #[test]
    fn what_is_not_measured_waits() {
        let chunking = Chunking::adaptive(2);
        chunking.add(100);
        for _ in 0..4 {
            assert_eq!(chunking.next(), Some(1));
            chunking.cut(1);
        }
        assert_eq!(chunking.next(), None);
    }
}
