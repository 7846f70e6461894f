use common::process::Process;

fn main() {
    let factor: u64 = 3;
    let _process = Process::spawn(move |x: u64| x * factor, (5,));
}
