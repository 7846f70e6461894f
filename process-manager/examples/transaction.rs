//! A transaction over two hosted values: whoever looks, the sum is right.
//!
//! ```text
//! $ cargo run -p process-manager --example transaction
//! 2000 transfers, the sum was right each time
//! ```

use common::manager::{Manager, Proxy, ValueProxy, transaction};
use common::process::Process;
use std::error::Error;

type Account = Proxy<i64>;

fn transfer(from: &mut i64, to: &mut i64, amount: i64) -> i64 {
    *from -= amount;
    *to += amount;
    *from + *to
}

fn worker(a: Account, b: Account, right: ValueProxy<u32>) {
    for amount in 0..500 {
        let sum = transaction((&a, &b), transfer, (amount,)).expect("the manager");
        if sum == 1000 {
            right
                .update(|n: &mut u32| *n += 1, ())
                .expect("the manager");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let (a, b) = (manager.host(400i64)?, manager.host(600i64)?);
    let right = manager.value(0)?;

    let mut processes = Vec::new();
    for i in 0..4 {
        let (a, b) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let args = (a.clone(), b.clone(), right.clone());
        processes.push(Process::spawn(worker, args)?);
    }
    for process in &processes {
        process.join()?;
    }

    assert_eq!(right.get()?, 2000);
    println!("{right} transfers, the sum was right each time");
    Ok(())
}
