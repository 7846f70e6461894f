//! All of them are waited for, and each one's end is told in its place: a value, an error, a panic,
//! a cancellation. Python's `gather(..., return_exceptions=True)`. (The panic is also told on
//! standard error, as any.)
//!
//! ```text
//! $ cargo run -p async-gather --example all_settled
//! 0: 0
//! 1: no luck today
//! 2: the coroutine panicked: out of cheese
//! 3: the coroutine was cancelled
//! 4: 16
//! ```

use common::aio::{ChildError, gather_settled};
use std::time::Duration;
use tokio::time::sleep;

async fn square(x: u64) -> Result<u64, String> {
    sleep(Duration::from_millis(500 - x * 100)).await;
    match x {
        1 => Err("no luck today".to_owned()),
        2 => panic!("out of cheese"),
        _ => Ok(x * x),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let all = gather_settled((0..5).map(square));
    all.abort_handles()[3].abort();
    for (place, end) in all.await.into_iter().enumerate() {
        match end {
            Ok(value) => println!("{place}: {value}"),
            // The panic's place in the source is there as well: `panic.location`.
            Err(ChildError::Panicked(panic)) => {
                println!("{place}: the coroutine panicked: {}", panic.message);
            }
            Err(error) => println!("{place}: {error}"),
        }
    }
}
