//! A side's process: both ends of the conversation with it.
//!
//! The harness writes `run` lines to its standard input. The side answers on standard output with
//! lines that begin with `ready`, `skip why`, `= value metric:unit=value ...` or `failed why`;
//! other lines are somebody's chatter and are passed over.

#![allow(unsafe_code)] // kill(2) of the side's process group.

use super::{Extra, How, Reading, Side, Skip, Work};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that one repetition, or a side's preparation, may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What a side said.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// It can run.
    Ready,
    /// It cannot, and why.
    Skip(String),
    /// One repetition's figures.
    Reading(Reading),
    /// A repetition went wrong.
    Failed(String),
}

/// Runs a side written in Rust until standard input ends: what `bench --side` does.
pub fn serve(prepare: fn() -> Result<super::Repetition, Skip>) {
    let mut repetition = match prepare() {
        Ok(repetition) => repetition,
        Err(Skip(why)) => return say(&Answer::Skip(why)),
    };
    say(&Answer::Ready);
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        say(&match repetition() {
            Ok(reading) => Answer::Reading(reading),
            Err(error) => Answer::Failed(error.to_string()),
        });
    }
}

fn say(answer: &Answer) {
    let text = match answer {
        Answer::Ready => "ready".into(),
        Answer::Skip(why) => format!("skip {}", why.replace('\n', " ")),
        Answer::Failed(why) => format!("failed {}", why.replace('\n', " ")),
        Answer::Reading(reading) => {
            let mut text = format!("= {}", reading.value);
            for extra in &reading.extras {
                text += &format!(" {}:{}={}", extra.metric, extra.unit, extra.value);
            }
            text
        }
    };
    let mut out = std::io::stdout().lock();
    // A harness that has gone is noticed at the next read of standard input.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn parse(line: &str) -> Option<Answer> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "ready" => Some(Answer::Ready),
        "skip" => Some(Answer::Skip(rest.into())),
        "failed" => Some(Answer::Failed(rest.into())),
        "=" => parse_reading(rest).map(Answer::Reading),
        _ => None,
    }
}

fn parse_reading(text: &str) -> Option<Reading> {
    let mut words = text.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let mut reading = Reading {
        value,
        extras: Vec::new(),
    };
    for word in words {
        let (metric, rest) = word.split_once(':')?;
        let (unit, value) = rest.split_once('=')?;
        reading.extras.push(Extra {
            metric: metric.into(),
            unit: unit.into(),
            value: value.parse().ok()?,
        });
    }
    Some(reading)
}

/// A side that has been started. Dropping it ends it and everything in its process group.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaint: Arc<Mutex<String>>,
}

impl Running {
    /// Starts the side and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Why it cannot take part.
    pub fn start(work: &Work, side: &Side) -> Result<Running, Skip> {
        let mut child = command(work, side)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (send, lines) = channel();
        read_lines(child.stdout.take(), move |line| send.send(line).is_ok());
        let complaint = Arc::new(Mutex::new(String::new()));
        let last = complaint.clone();
        read_lines(child.stderr.take(), move |line| match last.lock() {
            Ok(mut last) => {
                *last = line;
                true
            }
            Err(_) => false,
        });
        let stdin = child.stdin.take();
        let mut running = Running {
            child,
            stdin,
            lines,
            complaint,
        };
        match running.answer() {
            Answer::Ready => Ok(running),
            Answer::Skip(why) | Answer::Failed(why) => Err(Skip(why)),
            Answer::Reading(_) => Err(Skip("it gave a figure before it was asked".into())),
        }
    }

    /// Asks for one repetition.
    ///
    /// # Errors
    ///
    /// What went wrong in it.
    pub fn repetition(&mut self) -> Result<Reading, String> {
        let asked = self.stdin.as_mut().map(|stdin| stdin.write_all(b"run\n"));
        match asked {
            Some(Ok(())) => (),
            _ => return Err("it has ended".into()),
        }
        match self.answer() {
            Answer::Reading(reading) => Ok(reading),
            Answer::Skip(why) | Answer::Failed(why) => Err(why),
            Answer::Ready => Err("it started anew".into()),
        }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The last line that it wrote to standard error. Those of a side that does well are nobody's
    /// business: some peers are noisy when they end.
    fn last_complaint(&self) -> String {
        // What it wrote before it ended may still be on its way through the other thread.
        std::thread::sleep(Duration::from_millis(50));
        self.complaint
            .lock()
            .map_or_else(|_| String::new(), |line| line.clone())
    }

    fn answer(&mut self) -> Answer {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => match parse(&line) {
                    Some(answer) => return answer,
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => {
                    self.stdin = None;
                    return Answer::Failed(format!("HANG: no answer in {DEADLINE:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Answer::Failed(format!("it ended: {}", self.last_complaint()));
                }
            }
        }
    }
}

/// Gives the lines to `take`, in a thread, until it has had enough.
fn read_lines(
    from: Option<impl Read + Send + 'static>,
    mut take: impl FnMut(String) -> bool + Send + 'static,
) {
    std::thread::spawn(move || {
        let lines = from
            .into_iter()
            .flat_map(|from| BufReader::new(from).lines());
        lines
            .map_while(Result::ok)
            .all(|line| line.is_empty() || take(line))
    });
}

fn command(work: &Work, side: &Side) -> Result<Command, Skip> {
    match side.how {
        How::Rust(_) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--side", work.name, side.name]);
            Ok(command)
        }
        How::Python(script, args) => {
            let mut command = Command::new("python3");
            if Command::new("python3").arg("-V").output().is_err() {
                return Err(Skip("python3 is not installed".into()));
            }
            command.arg("-u").arg(python_dir().join(script)).args(args);
            Ok(command)
        }
    }
}

/// Where the Python sides are.
pub fn python_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None; // The end of its input tells it to end.
        let end = Instant::now() + Duration::from_secs(5);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > end {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: kill has no preconditions. The group is this side's own: it leads it, and a
        // group's number is not given away while anybody is left in it. Nobody left: ESRCH.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let reading = Reading::from(1.5).with("cpu", "ms", 2.0);
        assert_eq!(parse("= 1.5 cpu:ms=2"), Some(Answer::Reading(reading)));
        assert_eq!(
            parse("skip no such module"),
            Some(Answer::Skip("no such module".into()))
        );
        assert_eq!(parse("ready"), Some(Answer::Ready));
        assert_eq!(parse("hello world"), None);
        assert_eq!(parse("= x"), None);
    }
}
