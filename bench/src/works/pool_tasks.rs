//! Tasks that the works on pools share, and the peers' pools.

use std::time::{Duration, Instant};

/// How many workers each pool has.
pub const WORKERS: usize = 2;

/// Does nothing.
pub fn nothing() {}

/// `x * x`.
pub fn square(x: u64) -> u64 {
    x * x
}

/// Keeps a core busy for so many microseconds by the wall clock.
pub fn spin(microseconds: u64) {
    let end = Instant::now() + Duration::from_micros(microseconds);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// A pool of threads.
pub fn rayon_pool() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()
}

/// Runs `f` on each item, `window` of them in flight, and adds up what `take` makes of the results.
pub fn procspawn_map<A, R>(
    pool: &procspawn::Pool,
    items: impl IntoIterator<Item = A>,
    window: usize,
    f: fn(A) -> R,
    mut take: impl FnMut(R),
) -> Result<(), procspawn::SpawnError>
where
    A: serde::Serialize + serde::de::DeserializeOwned,
    R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let mut flying = std::collections::VecDeque::new();
    for item in items {
        if flying.len() == window {
            flying
                .pop_front()
                .map_or(Ok(()), |h: procspawn::JoinHandle<R>| {
                    h.join().map(&mut take)
                })?;
        }
        flying.push_back(pool.spawn(item, f));
    }
    flying
        .into_iter()
        .try_for_each(|handle| handle.join().map(&mut take))
}
