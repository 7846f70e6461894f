//! The ring's own sources, compiled once more over a model of what they stand on: to try them in
//! orders of events that no machine shows in a test's time, and under Miri.
//!
//! ```text
//!   common/src/ring/, sync/signal.rs, deadline.rs      the sources themselves
//!   --------------------------------------------------------------------------------------
//!                     under shuttle                               under Miri
//!   shm.rs            a piece of heap                             the same
//!                     each access to a word is a step, at which   std's atomics
//!                     others may run and a process may die
//!   futex             sleeps until woken, never less: a lost      common/src/futex.rs
//!                     wake is a deadlock, which shuttle reports
//!   sync.rs           a lock that knows when its holder died      the same
//! ```
//!
//! A process is a thread here. The tests are in `tests/orders.rs`.

// The sources' own unit tests are those of `common`.
#![cfg(not(test))]
// The ring has more than its tests ask for.
#![allow(dead_code, unused_imports)]

#[path = "../../src/deadline.rs"]
pub mod deadline;
#[cfg(not(miri))]
#[path = "futex.rs"]
mod futex;
#[cfg(miri)]
#[path = "../../src/futex.rs"]
mod futex;
mod process;
#[path = "../../src/ring/mod.rs"]
pub mod ring;
mod shm;
mod sync;

pub use process::{Process, check, lifetime, spawn};
