//! Runs each program and looks at what it prints.

use testkit::{prints_what_its_header_says, program, run};

// G-029
#[test]
fn main_program() {
    for _ in 0..5 {
        let output = run(program("process-manager"), &[]);
        assert_eq!((output.code, &*output.stderr), (Some(0), ""));
        let mut lines: Vec<&str> = output.stdout.lines().collect();
        let last = lines.pop().unwrap();
        let last = parse(last.strip_prefix("Final shared list: ").unwrap());
        assert_eq!(lines.len(), 5);
        for line in lines {
            let line = line.strip_prefix("Process ").unwrap();
            let (value, list) = line.split_once(": ").unwrap();
            let list = parse(list);
            assert!(list.contains(&value.parse().unwrap()), "{line}");
            assert_eq!(list, last[..list.len()]);
        }
        let mut sorted = last;
        sorted.sort();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);
    }
}

fn parse(list: &str) -> Vec<u32> {
    let inside = list.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    inside
        .split(", ")
        .map(|item| item.parse().unwrap())
        .collect()
}

macro_rules! examples {
    ($($example:ident)*) => {
        #[test]
        fn every_example_is_tested() {
            let named = [$(stringify!($example)),*];
            testkit::every_example_is_named(env!("CARGO_MANIFEST_DIR"), &named);
        }

        $(#[test]
        fn $example() {
            prints_what_its_header_says(
                env!("CARGO_MANIFEST_DIR"),
                concat!("examples/", stringify!($example), ".rs"),
                concat!("examples/", stringify!($example)),
            );
        })*
    };
}

examples! { by_address cache counter hosted_struct numbers shared_pool transaction }
