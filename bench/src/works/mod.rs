//! One file for each work, or two that differ in a number.

use crate::harness::{Skip, Work};
use common::function::Function;
use common::process::Process;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod apply_rtt;
mod coroutines;
mod manager;
mod map_big;
mod map_cpu;
mod map_small;
mod pool_life;
mod pool_tasks;
mod queue_2x2;
mod queue_batch;
mod queue_big;
mod queue_rtt;
mod queue_small;
mod start_join;

/// All works, in the order in which `all` runs them.
pub const ALL: &[&Work] = &[
    &start_join::WORK,
    &queue_small::WORK,
    &queue_2x2::WORK,
    &queue_batch::WORK,
    &queue_big::WORK,
    &queue_rtt::HOT,
    &queue_rtt::IDLE,
    &apply_rtt::WORK,
    &map_small::CHUNKED,
    &map_small::CHUNK_1,
    &map_cpu::EVEN,
    &map_cpu::UNEVEN,
    &map_big::WORK,
    &pool_life::CREATE,
    &pool_life::IDLE,
    &manager::APPEND,
    &manager::APPEND_4,
    &manager::GET,
    &manager::SET,
    &manager::PIPELINED,
    &manager::MEMORY,
    &coroutines::SLEEP,
    &coroutines::TRIVIAL,
];

/// A process of ours that is ended when the handle is dropped.
fn daemon<F, A>(f: F, args: A) -> Result<Process<()>, Skip>
where
    F: Function<A, Output = ()>,
    A: Serialize + DeserializeOwned + 'static,
{
    Ok(Process::<()>::builder().daemon(true).spawn(f, args)?)
}
