//! `gather`, `gather_settled` and `TaskGroup` against asyncio's behaviour, and the table of the
//! module's doc against the ecosystem's. The clock is tokio's paused one: time passes when
//! everybody waits, so that durations are exact and nothing takes long.

mod children;
mod ecosystem;
mod group;

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What happened, in order, told by coroutines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl ToString) {
        self.0.lock().unwrap().push(what.to_string());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Sleeps, then notes `name`; notes its cancellation if dropped earlier.
    async fn work<E>(self, name: &'static str, time: u64) -> Result<&'static str, E> {
        let mut guard = Unfinished(Some((self.clone(), name)));
        sleep(seconds(time)).await;
        guard.0 = None;
        self.note(name);
        Ok(name)
    }

    async fn fail(self, name: &'static str, time: u64) -> Result<&'static str, &'static str> {
        sleep(seconds(time)).await;
        self.note(format!("{name} fails"));
        Err(name)
    }
}

struct Unfinished(Option<(Log, &'static str)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((log, name)) = &self.0 {
            log.note(format!("{name} cancelled"));
        }
    }
}
