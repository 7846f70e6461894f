//! A library that keeps its state in globals and is not thread-safe: in threads it needs a lock
//! around every use; in workers each has a copy of its own, and no two tasks meet in one.
//!
//! ```text
//! $ cargo run -p process-pool --example global_state
//! 200 of 200 texts came out right
//! ```

use common::pool::Pool;
use std::cell::UnsafeCell;
use std::error::Error;

/// As in C: one buffer for all.
struct Buffer(UnsafeCell<Vec<u8>>);

// SAFETY: not true of threads, and that is the example; each worker has one thread and a buffer of
// its own.
#[allow(unsafe_code)]
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new(Vec::new()));

/// Not reentrant, not thread-safe.
fn reverse(text: String) -> String {
    // SAFETY: as above: nobody else is in here.
    #[allow(unsafe_code)]
    let buffer = unsafe { &mut *BUFFER.0.get() };
    buffer.clear();
    buffer.extend(text.bytes().rev());
    std::thread::yield_now(); // Where threads would meet.
    String::from_utf8_lossy(buffer).into_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(4)?;
    let texts: Vec<String> = (1000..1200).map(|n| n.to_string()).collect();
    let reversed = pool.map(reverse, texts.clone())?;
    let right = |(text, reversed): &(&String, &String)| text.chars().rev().eq(reversed.chars());
    let right = texts.iter().zip(&reversed).filter(right).count();
    println!("{right} of {} texts came out right", texts.len());
    Ok(())
}
