use common::process::Process;

fn main() {
    let _process = Process::spawn(|x: u64| 2 * x, 5);
}
