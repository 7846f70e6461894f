use common::process::Process;
use std::thread::JoinHandle;

fn start() -> JoinHandle<()> {
    std::thread::spawn(|| ())
}

fn main() {
    let _process = Process::spawn(start, ());
}
