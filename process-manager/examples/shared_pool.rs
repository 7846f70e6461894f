//! One pool of two workers for all processes. A task that crashes its worker fails alone.
//!
//! ```text
//! $ cargo run -p process-manager --example shared_pool
//! client 0: [0, 1, 4, 9]
//! client 1: [16, 25, 36, 49]
//! a crash: worker P died with `shared_pool::crash`: SIGABRT (it called `abort`; a failed allocation or a double panic does so too)
//! client 2: [64, 81, 100, 121]
//! ```

use common::manager::{Manager, PoolProxy};
use common::process::Process;
use std::error::Error;

fn square(x: u64) -> u64 {
    x * x
}

fn crash() {
    std::process::abort();
}

fn client(pool: PoolProxy, number: u64) -> Vec<u64> {
    let items = number * 4..number * 4 + 4;
    let squares = pool.map(square, items).expect("the manager is there");
    squares.expect("no task fails")
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let pool = manager.pool(2)?;

    let mut clients = Vec::new();
    for number in 0..2 {
        clients.push(Process::spawn(client, (pool.clone(), number))?);
    }
    for (number, process) in clients.iter().enumerate() {
        println!("client {number}: {:?}", process.join()?);
    }

    if let Err(error) = pool.apply(crash, ())? {
        println!("a crash: {error}");
    }
    println!("client 2: {:?}", client(pool, 2));
    Ok(())
}
