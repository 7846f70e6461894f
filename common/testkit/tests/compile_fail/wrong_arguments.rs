use common::process::Process;

fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

fn main() {
    let _process = Process::spawn(repeat, ("ab".to_owned(),));
}
