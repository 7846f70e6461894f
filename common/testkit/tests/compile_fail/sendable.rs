//! Functions, generic functions, and closures that capture nothing can be sent.

use common::process::Process;
use std::fmt::Display;

fn length(text: String) -> usize {
    text.len()
}

fn show<T: Display>(value: T) -> String {
    value.to_string()
}

fn main() {
    let length = Process::spawn(length, ("four".to_owned(),)).unwrap();
    let shown = Process::spawn(show::<u8>, (5,)).unwrap();
    let sum = Process::spawn(|a: u8, b: u8| a + b, (1, 2)).unwrap();
    assert_eq!(length.join(), Ok(4));
    assert_eq!(shown.join(), Ok("5".to_owned()));
    assert_eq!(sum.join(), Ok(3));
}
