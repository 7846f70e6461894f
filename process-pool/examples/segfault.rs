//! A task that crashes takes its worker along and nothing else: the pool says which task it was,
//! replaces the worker and goes on. With threads the whole program would be gone; Python's Pool
//! would wait for ever.
//!
//! ```text
//! $ cargo run -p process-pool --example segfault
//! 1 -> 1
//! 2 -> worker P died with item 1 of `segfault::fragile`: SIGSEGV (it used memory it must not; may be a stack overflow)
//! 3 -> 9
//! ```

#![allow(unsafe_code)] // The fault that it shows.

use common::pool::Pool;
use std::error::Error;

/// What a faulty C library does, for one kind of input.
fn fragile(x: u64) -> u64 {
    if x == 2 {
        // SAFETY: none: this is the fault that the example is about. (A signal rather than a wild
        // pointer, which a compiler may turn into anything.)
        unsafe { libc::raise(libc::SIGSEGV) };
    }
    x * x
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(2)?;
    for (x, result) in (1..).zip(pool.imap(fragile, 1..4)) {
        match result {
            Ok(square) => println!("{x} -> {square}"),
            Err(error) => println!("{x} -> {error}"),
        }
    }
    Ok(())
}
