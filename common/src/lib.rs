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
//! # Python's names
//!
//! | Python | here |
//! |---|---|
//! | `Process(target=f, args=(a,))`, then `start()` | [`Process::spawn`]`(f, (a,))`; with a name, as a daemon, in another way: [`Process::builder`] |
//! | `exitcode`; `sentinel`, `connection.wait` | [`Process::exit_code`]; [`process::wait()`] |
//! | `fork`, `spawn`, `forkserver` | [`process::StartMethod`]; a closure with captures: [`process::fork()`] |
//! | `Pool(4)`, `ProcessPoolExecutor` | [`pool::Pool`]; `submit` is [`apply_async`](pool::Pool::apply_async) |
//! | `Queue`, `SimpleQueue`, `JoinableQueue` | [`queue::Queue`], [`queue::JoinableQueue`] |
//! | `Pipe`, whose reader sees the end | [`queue::Queue::split`]; for both directions two of them |
//! | `Lock`, `RLock`, `Condition` | [`sync::Mutex`] (with the value it guards), [`sync::ReentrantMutex`], [`sync::Condvar`] |
//! | `Semaphore`, `BoundedSemaphore`, `Event`, `Barrier` | [`sync::Semaphore`], [`sync::Event`], [`sync::Barrier`] |
//! | `Value`, `Array`; `SharedMemory` | [`shared::Value`], [`shared::Array`]; [`shm::Segment`] |
//! | `Manager()`; `BaseManager.register` | [`manager::Manager`]; any value: [`manager::Manager::host`] |
//! | `asyncio.gather` and the rest | [`aio`] has a table of its own |
//!
//! Where Python has `timeout=`, there is a second function whose name ends in `_timeout`; where it
//! has `block=False` or `_nowait`, one that begins with `try_`. `get` and `put` that fail say why,
//! and a `put` gives the value back.
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
