//! Coroutines that succeed or fail together, with all the errors. Python's `TaskGroup`.
//!
//! ```text
//! $ cargo run -p async-gather --example task_group
//! all went well: 14
//! a task group failed: disk full; network down
//! nothing of it runs any more
//! ```

use common::aio::TaskGroup;
use std::time::Duration;
use tokio::time::sleep;

async fn square(x: u32) -> Result<u32, String> {
    sleep(Duration::from_millis(100)).await;
    Ok(x * x)
}

async fn fail(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

async fn never() -> Result<(), String> {
    sleep(Duration::from_secs(3600)).await;
    println!("this is never printed");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sum = TaskGroup::run(async |group| {
        let squares = [1, 2, 3].map(|x| group.spawn(square(x)).unwrap());
        let mut sum = 0;
        for square in squares {
            sum += square.await.unwrap();
        }
        Ok::<u32, String>(sum)
    });
    println!("all went well: {}", sum.await.unwrap());

    let failed = TaskGroup::run(async |group| {
        group.spawn(never()).unwrap();
        group.spawn(fail("disk full")).unwrap();
        group.spawn(fail("network down")).unwrap();
        never().await
    });
    println!("{}", failed.await.unwrap_err());
    println!("nothing of it runs any more");
}
