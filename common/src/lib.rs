//! Processes, pools, queues and managers for Rust, after Python's `multiprocessing`.
//!
//! Everything here is "run this function over there": a function that captures nothing is a value
//! that can be sent to another process of the same program. No macro, no registration, nothing to
//! call at the start of `main`.
//!
//! ```
//! use common::pool::Pool;
//! use common::process::Process;
//!
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     assert_eq!(Process::spawn(square, (5,))?.join()?, 25);
//!     let pool = Pool::new(2)?;
//!     assert_eq!(pool.map(square, 0..4)?, [0, 1, 4, 9]);
//!     Ok(())
//! }
//! ```
//!
//! Threads already use every core in Rust. Processes are for what threads cannot give: a crash
//! that stays in one worker, a task that can be killed, limits for each, libraries with global
//! state.
//!
//! # Map
//!
//! A piece stands only on those below it, and can be copied out with them: the last line of its
//! header says which files it needs.
//!
//! | piece | what it is | where | stands on |
//! |---|---|---|---|
//! | [`pool`] | workers that take tasks: `apply`, `map` and their siblings | `pool/` | process, ring, function |
//! | [`manager`] | values in a process of their own, and proxies for them | `manager/` | process, pool, queue, sync |
//! | [`aio`] | `gather` and task groups; a pool of coroutines | `aio/` | pool, panic |
//! | [`process`] | start a process, wait for it, end it | `process/` | function |
//! | [`queue`] | messages between processes | `queue/` | ring, codec |
//! | [`ring`] | bytes between processes, in shared memory | `ring/` | sync, shm, futex |
//! | [`sync`] | locks and signals between processes, that survive their holders | `sync/` | shm, futex |
//! | [`shared`] | numbers in shared memory: `Value`, `Array` | `shared/` | sync, shm |
//! | [`function`] | a function as a value that can be sent | `function.rs` | codec, panic |
//! | [`shm`] | shared memory that leaves nothing behind | `shm/` | |
//! | [`futex`] | waiting for a word in shared memory to change | `futex.rs` | |
//! | [`codec`] | values to bytes and back | `codec.rs` | |
//! | [`mod@panic`] | a panic as a value | `panic.rs` | |
//! | [`deadline`] | a timeout that bounds the whole of a call | `deadline.rs` | |
//!
//! # Limits
//!
//! Linux on 64-bit machines. All processes are the same executable; functions of a plugin cannot
//! be sent. What is sent must be [`serde::Serialize`] and [`serde::de::DeserializeOwned`]. A
//! closure with captures goes only to [`process::fork()`], from a process with one thread. With
//! `panic = "abort"` a worker's panic is known only as SIGABRT.

pub mod aio;
pub mod codec;
pub mod deadline;
mod departures;
pub mod function;
pub mod futex;
mod image;
pub mod manager;
pub mod panic;
pub mod pool;
pub mod process;
pub mod queue;
mod reactor;
pub mod ring;
pub mod shared;
pub mod shm;
pub mod sync;

pub use process::Process;

/// Compiles and runs the README's code.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
