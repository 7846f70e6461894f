//! What the function returns comes back from `join`; a process in Python has nothing but an exit
//! code. Arguments are a tuple, as in Python.
//!
//! ```text
//! $ cargo run -p process-basic --example result
//! Summary { words: 9, longest: Some("processes") }
//! "42" is a number: Ok(42)
//! "4x" is not: Err("invalid digit found in string")
//! ```

use common::process::Process;
use serde::{Deserialize, Serialize};
use std::error::Error;

#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    words: usize,
    longest: Option<String>,
}

fn summarise(text: String) -> Summary {
    let words = || text.split_whitespace();
    Summary {
        words: words().count(),
        longest: words().max_by_key(|word| word.len()).map(str::to_owned),
    }
}

fn parse(text: String) -> Result<u32, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let text = "what a function returns travels back from processes too";
    let summary = Process::spawn(summarise, (text.to_owned(),))?;

    // Two more, meanwhile. A function's own `Err` is a result like any other.
    let good = Process::spawn(parse, ("42".to_owned(),))?;
    let bad = Process::spawn(parse, ("4x".to_owned(),))?;

    println!("{:?}", summary.join()?);
    println!("\"42\" is a number: {:?}", good.join()?);
    println!("\"4x\" is not: {:?}", bad.join()?);
    Ok(())
}
