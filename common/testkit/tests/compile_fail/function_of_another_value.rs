use common::manager::Manager;

fn next(n: u64) -> u64 {
    n + 1
}

fn main() {
    let manager = Manager::new().unwrap();
    let counter = manager.host(0_u64).unwrap();
    let _next = counter.call(next, ());
}
