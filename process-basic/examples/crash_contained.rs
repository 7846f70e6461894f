//! Whatever ends a worker ends that worker alone, and `join` tells what it was. No thread gives
//! this: an `abort` or a segmentation fault in one thread ends them all. (What the workers say
//! themselves when they crash is on standard error.)
//!
//! ```text
//! $ cargo run -p process-basic --example crash_contained
//! panics panicked at process-basic/examples/crash_contained.rs:20:5: no luck today
//! aborts was ended by SIGABRT: it called `abort`; a failed allocation or a double panic does so too
//! overflows was ended by SIGSEGV: it used memory it must not; may be a stack overflow
//! exits exited with code 3 before its function returned
//! allocates was ended by SIGABRT: it called `abort`; a failed allocation or a double panic does so too
//! the parent goes on: 5 workers have failed
//! ```

use common::process::{Builder, Process};
use std::error::Error;
use std::hint::black_box;

fn panics() {
    panic!("no luck today");
}

fn aborts() {
    std::process::abort();
}

fn overflows() {
    fn deeper(depth: u64) -> u64 {
        if depth == u64::MAX {
            return depth;
        }
        black_box(deeper(black_box(depth + 1))) + 1
    }
    deeper(0);
}

fn exits() {
    std::process::exit(3);
}

fn allocates() {
    black_box(vec![1u8; 1 << 30]);
}

/// Each is meant to crash: no core dumps of that.
fn worker(name: &str) -> Builder {
    Process::builder().name(name).core_size(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let workers = [
        worker("panics").spawn(panics, ())?,
        worker("aborts").spawn(aborts, ())?,
        worker("overflows").spawn(overflows, ())?,
        worker("exits").spawn(exits, ())?,
        worker("allocates")
            .address_space(512 << 20)
            .spawn(allocates, ())?,
    ];
    let mut failed = 0;
    for worker in workers {
        if let Err(error) = worker.join() {
            println!("{error}");
            failed += 1;
        }
    }
    println!("the parent goes on: {failed} workers have failed");
    Ok(())
}
