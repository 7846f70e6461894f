//! Runs each program and compares what it prints with the text at its top.

use testkit::{every_example_is_named, prints_what_its_header_says, program, run};

const MEMBER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_example_is_tested() {
    every_example_is_named(MEMBER, &["connections", "cpu_step"]);
}

#[test]
fn connections() {
    let name = "examples/connections";
    prints_what_its_header_says(MEMBER, "examples/connections.rs", name);
}

#[test]
fn cpu_step() {
    let name = "examples/cpu_step";
    prints_what_its_header_says(MEMBER, "examples/cpu_step.rs", name);
}

/// Its times are the machine's: what must hold is what a loaded machine cannot change. Waiting
/// alone takes one thread 3.2 s and nobody less than 0.1 s.
#[test]
fn main_program() {
    let output = run(program("process-async"), &[]);
    assert_eq!(output.code, Some(0), "{output:#?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let starts = [
        ("one thread ", 3.2),
        ("coroutines ", 0.1),
        ("processes ", 0.1),
        ("processes x coroutines ", 0.1),
    ];
    assert_eq!(lines.len(), 9, "{output:#?}");
    for (line, (name, least)) in lines[2..].iter().zip(starts) {
        let time = line
            .strip_prefix(name)
            .and_then(|rest| rest.split(" s ").next());
        let time: f64 = time.and_then(|time| time.trim().parse().ok()).expect(line);
        assert!(time >= least, "{line}");
        assert!(line.ends_with('█'), "{line}");
    }
}
