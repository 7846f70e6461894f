//! `starmap` is `map` for a function of several arguments: each item is the tuple of them.
//!
//! ```text
//! $ cargo run -p process-pool --example starmap
//! [1, 8, 81]
//! ["a", "bb", "ccc"]
//! ```

use common::pool::Pool;
use std::error::Error;

fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(2)?;
    println!("{:?}", pool.starmap(u64::pow, [(1, 2), (2, 3), (3, 4)])?);

    let texts = ["a", "b", "c"].map(str::to_string);
    let repeated = pool.starmap_async(repeat, texts.into_iter().zip(1..));
    println!("{:?}", repeated.get()?);
    Ok(())
}
