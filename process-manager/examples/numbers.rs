//! A number and an array of numbers, as `Value` and `Array`, and a namespace.
//!
//! ```text
//! $ cargo run -p process-manager --example numbers
//! value: 2.5
//! array: [0, 1, 4, 9, 16]
//! namespace: Namespace(done=true, name="squares")
//! ```

use common::manager::{ArrayProxy, Manager, Namespace, ValueProxy};
use common::process::Process;
use std::error::Error;

fn worker(value: ValueProxy<f64>, array: ArrayProxy<i32>, namespace: Namespace) {
    value.set(2.5).expect("the manager");
    for i in 0..array.len().expect("the manager") {
        array
            .update(i, |x: &mut i32| *x *= *x, ())
            .expect("the manager");
    }
    namespace.set("done", true).expect("the manager");
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let (value, array) = (manager.value(0.0)?, manager.array(0..5)?);
    let namespace = manager.namespace()?;
    namespace.set("name", "squares".to_string())?;

    let args = (value.clone(), array.clone(), namespace.clone());
    Process::spawn(worker, args)?.join()?;

    println!("value: {value}");
    println!("array: {array}");
    println!("namespace: {namespace}");
    Ok(())
}
