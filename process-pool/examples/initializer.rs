//! What is expensive to set up is made once in each worker, by the initializer, and handed to each
//! task: a connection, a model, a dictionary. The tasks may change it; the workers do not share it.
//!
//! ```text
//! $ cargo run -p process-pool --example initializer
//! one -> un
//! two -> deux
//! four -> (unknown; 3 words looked up so far)
//! ```

use common::pool::Pool;
use std::collections::HashMap;
use std::error::Error;

struct Dictionary {
    words: HashMap<String, String>,
    asked: u32,
}

fn load(pairs: Vec<(String, String)>) -> Dictionary {
    let words = pairs.into_iter().collect();
    Dictionary { words, asked: 0 }
}

fn translate(dictionary: &mut Dictionary, word: String) -> String {
    dictionary.asked += 1;
    match dictionary.words.get(&word) {
        Some(translated) => translated.clone(),
        None => format!("(unknown; {} words looked up so far)", dictionary.asked),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pairs = [("one", "un"), ("two", "deux")].map(|(a, b)| (a.to_string(), b.to_string()));
    let pool = Pool::builder()
        .workers(1)
        .initializer(load, (pairs.to_vec(),))
        .build()?;
    let words = ["one", "two", "four"].map(str::to_string);
    for (word, translated) in words.iter().zip(pool.map_with(translate, words.clone())?) {
        println!("{word} -> {translated}");
    }
    Ok(())
}
