//! The same mixed load four ways: some tasks compute, some wait. Processes for what computes,
//! coroutines for what waits, "the two together do both".
//!
//! On a machine with two cores, in about 12 s:
//!
//! ```text
//! $ cargo run -p process-async
//! 16 tasks compute for 0.1 s, 32 wait for 0.1 s; 2 processes
//!
//! one thread               5.44 s  ████████████████████████████████████████
//! coroutines               2.30 s  █████████████████
//! processes                2.74 s  ████████████████████
//! processes x coroutines   1.28 s  █████████
//!
//! Pick coroutines where tasks wait, processes (or threads) where they compute,
//! processes x coroutines where they do both.
//! ```

mod chart;
mod load;

use common::{aio, pool, process};
use futures::future::join_all;
use load::{Task, work, work_async};
use std::error::Error;
use std::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let processes = process::cpu_count();
    let tasks: Vec<Task> = load::mixed();
    println!("{}; {processes} processes\n", load::DESCRIPTION);

    let start = Instant::now();
    tasks.iter().for_each(|&task| work(task));
    let one_thread = start.elapsed();

    let start = Instant::now();
    join_all(tasks.iter().map(|&task| work_async(task))).await;
    let coroutines = start.elapsed();

    let start = Instant::now();
    pool::Pool::new(processes)?.map(work, tasks.clone())?;
    let in_processes = start.elapsed();

    let start = Instant::now();
    let pool = aio::pool::Pool::builder().workers(processes);
    // So many at once in each that every process gets its share.
    let pool = pool.in_flight(tasks.len().div_ceil(processes)).build()?;
    pool.map(work_async, tasks).await?;
    let both = start.elapsed();

    chart::print(&[
        ("one thread", one_thread),
        ("coroutines", coroutines),
        ("processes", in_processes),
        ("processes x coroutines", both),
    ]);
    println!(
        "\nPick coroutines where tasks wait, processes (or threads) where they compute,\n\
         processes x coroutines where they do both."
    );
    Ok(())
}
