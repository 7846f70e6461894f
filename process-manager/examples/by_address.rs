//! A process that was given no proxy connects by address and key. Here both are parts of one
//! program; they may as well be started apart, by the same user from the same executable.
//!
//! ```text
//! $ cargo run -p process-manager --example by_address
//! the client found: [1, 2, 3]
//! the server sees: [1, 2, 3, 4]
//! a wrong key: refused
//! ```

use common::manager::{Key, ListProxy, Manager};
use common::process::Process;
use std::error::Error;

fn client(address: String, key: Key) {
    let manager = Manager::connect(address, &key).expect("a manager there");
    let list: Option<ListProxy<u32>> = manager.get("numbers").expect("a list of numbers");
    let list = list.expect("that name");
    println!("the client found: {list}");
    list.append(4).expect("the manager is there");
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = format!("@numbers-{}", std::process::id());
    let manager = Manager::serve(address.as_str())?;
    let numbers = manager.list_of([1u32, 2, 3])?;
    manager.publish("numbers", &numbers)?;

    Process::spawn(client, (address.clone(), manager.key().clone()))?.join()?;
    println!("the server sees: {numbers}");

    if Manager::connect(address, &Key::random()).is_err() {
        println!("a wrong key: refused");
    }
    Ok(())
}
