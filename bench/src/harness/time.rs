//! Repetitions made of a piece of code to be timed.

use super::{Failed, Reading, Repetition, stat};
use std::time::Instant;

/// Does `once` so many times in each repetition, and gives the median time of one in microseconds.
pub fn each_us(n: usize, mut once: impl FnMut() -> Result<(), Failed> + 'static) -> Repetition {
    Box::new(move || {
        let mut samples = Vec::with_capacity(n);
        for _ in 0..n {
            let start = Instant::now();
            once()?;
            samples.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(Reading::from(stat::median(&samples)))
    })
}

/// Does `all`, which is `n` things, once in each repetition, and gives the mean time of one in
/// microseconds: for what is too short to be timed alone.
pub fn mean_us(n: usize, all: impl FnMut() -> Result<(), Failed> + 'static) -> Repetition {
    seconds(all, move |seconds| seconds * 1e6 / n as f64)
}

/// Does `all`, which is `n` things, once in each repetition, and gives things per second.
pub fn per_second(n: usize, all: impl FnMut() -> Result<(), Failed> + 'static) -> Repetition {
    seconds(all, move |seconds| n as f64 / seconds)
}

/// Does `all` once in each repetition, and gives what `figure` makes of the seconds.
pub fn seconds(
    mut all: impl FnMut() -> Result<(), Failed> + 'static,
    figure: impl Fn(f64) -> f64 + 'static,
) -> Repetition {
    Box::new(move || {
        let start = Instant::now();
        all()?;
        Ok(Reading::from(figure(start.elapsed().as_secs_f64())))
    })
}
