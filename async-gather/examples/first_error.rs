//! The first error ends the gather at once. Do the siblings go on? With `gather` they do, as in
//! Python; with `try_join_all` they are dropped where they stand.
//!
//! ```text
//! $ cargo run -p async-gather --example first_error
//! gather: worker 2 failed
//! worker 3 finished all the same
//! try_join_all: worker 2 failed
//! worker 3 was dropped
//! ```

use common::aio::gather;
use futures::future::try_join_all;
use std::time::Duration;
use tokio::time::sleep;

/// Tells when it goes before its time.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0 != 0 {
            println!("worker {} was dropped", self.0);
        }
    }
}

async fn work(worker: u64) -> Result<u64, String> {
    let mut running = Running(worker);
    sleep(Duration::from_millis(worker * 300)).await;
    running.0 = 0;
    if worker == 2 {
        return Err(format!("worker {worker} failed"));
    }
    if worker == 3 {
        println!("worker 3 finished all the same");
    }
    Ok(worker)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Err(error) = gather([1, 2, 3].map(work)).await {
        println!("gather: {error}");
    }
    sleep(Duration::from_millis(900)).await; // time for worker 3

    let ended = try_join_all([1, 2, 3].map(|worker| async move {
        let end = work(worker).await;
        if let Err(error) = &end {
            println!("try_join_all: {error}");
        }
        end
    }));
    assert!(ended.await.is_err());
}
