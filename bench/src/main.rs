//! Runs this project and its peers side by side: `cargo run --release -- start_join`, or `-- all`.
//! `README.md` says what each work measures and how to read it.

mod harness;
mod kernel;
mod server;
mod works;

use harness::must::Verdict;
use harness::{How, Work, report, run, side};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo run --release -- [options] WORK...

  WORK         what to measure; `all`, or several; `list` names them
  --reps N     rounds, after one to warm up (each work has its own number by default)
  --only TEXT  only sides whose name contains TEXT (may be given several times)
  --tsv FILE   also write the figures to FILE, tab-separated

Exits with 1 if anything that must hold does not.";

fn main() -> ExitCode {
    kernel::exit_if_asked();
    procspawn::init(); // One of the peers needs this in `main`.
    match parse_command_line() {
        Ok(Asked::Side(prepare)) => {
            side::serve(prepare);
            ExitCode::SUCCESS
        }
        Ok(Asked::Works(options)) => measure(&options),
        Ok(Asked::List) => {
            works::ALL
                .iter()
                .for_each(|work| println!("{:<18} {}", work.name, work.what));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Asked {
    Side(fn() -> Result<harness::Repetition, harness::Skip>),
    Works(Options),
    List,
}

#[derive(Default)]
struct Options {
    works: Vec<&'static Work>,
    reps: Option<usize>,
    only: Vec<String>,
    tsv: Option<String>,
}

fn parse_command_line() -> Result<Asked, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("side") => {
                let (work, side) = (parser.value()?.string()?, parser.value()?.string()?);
                return find_side(&work, &side).map(Asked::Side);
            }
            Long("reps") => options.reps = Some(parser.value()?.parse()?),
            Long("only") => options.only.push(parser.value()?.string()?),
            Long("tsv") => options.tsv = Some(parser.value()?.string()?),
            Value(name) => match name.string()?.as_str() {
                "list" => return Ok(Asked::List),
                "all" => options.works.extend(works::ALL),
                name => options.works.push(find_work(name)?),
            },
            other => return Err(other.unexpected()),
        }
    }
    match options.works.is_empty() {
        true => Err("which work?".into()),
        false => Ok(Asked::Works(options)),
    }
}

fn find_work(name: &str) -> Result<&'static Work, lexopt::Error> {
    let found = works::ALL.iter().find(|work| work.name == name);
    found
        .copied()
        .ok_or_else(|| format!("no work is called {name:?}; `list` names them").into())
}

fn find_side(
    work: &str,
    side: &str,
) -> Result<fn() -> Result<harness::Repetition, harness::Skip>, lexopt::Error> {
    let side = find_work(work)?.sides.iter().find(|s| s.name == side);
    match side.map(|side| &side.how) {
        Some(How::Rust(prepare)) => Ok(*prepare),
        _ => Err("no such side".into()),
    }
}

fn measure(options: &Options) -> ExitCode {
    let mut tsv = match options.tsv.as_ref().map(File::create).transpose() {
        Ok(tsv) => tsv,
        Err(error) => {
            eprintln!("the figures' file cannot be written: {error}");
            return ExitCode::from(2);
        }
    };
    report::print_machine();
    let mut lines = vec![report::TSV_HEADER.to_string()];
    let mut verdicts = Vec::new();
    for work in &options.works {
        let results = run::run(work, options.reps.unwrap_or(work.reps), &options.only);
        report::print(work, &results);
        let mut written = Vec::new();
        report::write_tsv(work, &results, &mut written).expect("a Vec takes everything");
        lines.push(String::from_utf8_lossy(&written).trim_end().to_string());
        verdicts.extend(work.musts.iter().map(|must| must.verdict(work, &results).0));
    }
    if let Some(file) = &mut tsv
        && let Err(error) = writeln!(file, "{}", lines.join("\n"))
    {
        eprintln!("the figures' file is not complete: {error}");
    }
    summary(&verdicts)
}

fn summary(verdicts: &[Verdict]) -> ExitCode {
    let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
    let (passed, failed) = (count(Verdict::Pass), count(Verdict::Fail));
    println!(
        "\n{passed} hold, {failed} do not, {} could not be checked",
        count(Verdict::Unknown)
    );
    ExitCode::from(u8::from(failed > 0))
}
