//! Processes, pools, queues and managers for Rust, after Python's `multiprocessing`.

#![allow(dead_code)] // Until the pieces above are in.

pub mod aio;
pub mod codec;
pub mod deadline;
pub mod function;
pub mod futex;
pub mod manager;
pub mod panic;
pub mod pool;
pub mod process;
pub mod queue;
mod reactor;
pub mod ring;
pub mod shm;
pub mod sync;

pub use process::Process;
