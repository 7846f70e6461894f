use common::process::Process;

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    let pointer: fn(u64) -> u64 = double;
    let _process = Process::spawn(pointer, (5,));
}
