//! Results come in the order of the arguments, whichever coroutine finishes first.
//!
//! ```text
//! $ cargo run -p async-gather --example results_in_order
//! finished: 1
//! finished: 2
//! finished: 3
//! results of a list: [9, 1, 4]
//! finished: one
//! finished: two
//! results of different types: 2, "one"
//! ```

use futures::future::join_all;
use std::time::Duration;
use tokio::time::sleep;

async fn square(x: u32) -> u32 {
    sleep(Duration::from_millis(u64::from(x) * 100)).await;
    println!("finished: {x}");
    x * x
}

async fn number() -> u32 {
    sleep(Duration::from_millis(200)).await;
    println!("finished: two");
    2
}

async fn text() -> &'static str {
    sleep(Duration::from_millis(100)).await;
    println!("finished: one");
    "one"
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let results = join_all([3, 1, 2].map(square)).await;
    println!("results of a list: {results:?}");

    let (number, text) = tokio::join!(number(), text());
    println!("results of different types: {number}, {text:?}");
}
