use common::process::Process;
use std::sync::mpsc::Sender;

fn send(channel: Sender<u64>) {
    let _ = channel.send(1);
}

fn main() {
    let (sender, _receiver) = std::sync::mpsc::channel();
    let _process = Process::spawn(send, (sender,));
}
