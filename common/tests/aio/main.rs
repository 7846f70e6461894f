//! The pool of coroutines: values, limits of time, workers that die, cancelling.

mod calls;
mod endings;
mod faults;

use std::time::Duration;
use tokio::time::sleep;

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
