//! A struct of one's own, which lives in the manager with the file that it writes to.
//!
//! ```text
//! $ cargo run -p process-manager --example hosted_struct
//! 3 lines: one, two, three
//! ```

use common::manager::{Manager, Proxy};
use common::process::Process;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, Write};

/// An open file cannot be sent to another process; but there is no need to.
struct Log {
    file: File,
    lines: usize,
}

impl Log {
    fn create(path: String) -> Log {
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        let file = file.expect("a new file");
        std::fs::remove_file(path).expect("nobody else needs its name");
        Log { file, lines: 0 }
    }

    fn write(&mut self, line: String) {
        self.lines += 1;
        writeln!(self.file, "{line}").expect("room on the disk");
    }

    fn read(&mut self) -> (usize, String) {
        let mut text = String::new();
        self.file.rewind().expect("a file");
        self.file.read_to_string(&mut text).expect("a file");
        (self.lines, text)
    }
}

fn worker(log: Proxy<Log>, line: String) {
    log.call(Log::write, (line,)).expect("the manager is there");
}

fn main() -> Result<(), Box<dyn Error>> {
    let manager = Manager::new()?;
    let path = std::env::temp_dir().join(format!("log-{}", std::process::id()));
    let log = manager.host_with(Log::create, (path.display().to_string(),))?;

    for line in ["one", "two", "three"] {
        Process::spawn(worker, (log.clone(), line.to_string()))?.join()?;
    }

    let (lines, text) = log.call(Log::read, ())?;
    println!("{lines} lines: {}", text.trim().replace('\n', ", "));
    Ok(())
}
