//! `map_async` gives a handle at once; the program goes on and comes back for the list. The
//! handle calls back, too, and is a future under any executor.
//!
//! ```text
//! $ cargo run -p process-pool --example map_async
//! something else meanwhile
//! [0, 1, 4, 9]
//! called back with 4 squares
//! awaited: [0, 1, 4, 9]
//! ```

use common::pool::Pool;
use std::error::Error;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

fn slow_square(x: u64) -> u64 {
    sleep(Duration::from_millis(100));
    x * x
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(2)?;
    let squares = pool.map_async(slow_square, 0..4);
    println!("something else meanwhile");
    println!("{:?}", squares.get()?);

    let (tell, hear) = mpsc::channel();
    squares.on_success(move |squares| {
        let _ = tell.send(squares.len());
    });
    println!("called back with {} squares", hear.recv()?);

    println!("awaited: {:?}", pool.map_async(slow_square, 0..4).await?);
    Ok(())
}
