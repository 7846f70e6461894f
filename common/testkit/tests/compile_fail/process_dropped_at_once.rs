#![deny(unused_must_use)]

use common::process::Process;

fn main() {
    for _ in 0..4 {
        Process::spawn(|| (), ()).unwrap(); // one after another
    }
}
