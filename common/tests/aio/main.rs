//! The pool of coroutines: values, limits of time, workers that die, cancelling.

mod calls;
mod endings;
mod faults;

use std::time::Duration;
use tokio::time::sleep;

/// A runtime of this thread's own, with a clock.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// What has to be done by then.
fn within_ten_seconds<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(10);
    let done = runtime().block_on(async { tokio::time::timeout(limit, what).await });
    done.expect("no hang")
}

async fn square(x: u64) -> u64 {
    tokio::task::yield_now().await;
    x * x
}

async fn pid() -> u32 {
    sleep(Duration::from_millis(50)).await;
    std::process::id()
}

/// A file whose existence tells another process something.
fn flag(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("common-aio-test-{name}"))
}

struct Flag(String);

impl Flag {
    fn new(name: &str) -> Flag {
        Flag(format!("{}-{name}", std::process::id()))
    }

    fn count(&self) -> usize {
        std::fs::read(flag(&self.0)).map_or(0, |bytes| bytes.len())
    }

    fn wait(&self, count: usize) {
        while self.count() < count {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(flag(&self.0));
    }
}

fn raise(name: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(flag(name));
    file.unwrap().write_all(b"x").unwrap();
}
