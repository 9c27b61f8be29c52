//! A serial console in the hands of a script.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;

/// Bytes kept while waiting; a boot prints about 40 kB.
const KEEP: usize = 256 * 1024;

/// How often a wait shows that something goes on.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The guest's console; everything it prints also goes to a log file.
pub struct Console {
    stream: UnixStream,
    log: File,
    seen: Vec<u8>,
}

impl Console {
    /// Connects to QEMU's serial socket, which appears a moment after QEMU starts.
    pub fn open(socket: &Path, log: &Path, patience: Duration) -> Result<Self, Failure> {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > patience => {
                    return Err(Failure::new(format!("no console at {}: {error}", socket.display())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_millis(200))).map_err(Failure::new)?;
        let log = File::create(log).map_err(Failure::new)?;
        Ok(Self { stream, log, seen: Vec::new() })
    }

    /// Waits for `text` and returns what was printed before it.
    pub fn wait(&mut self, text: &str, patience: Duration) -> Result<String, Failure> {
        let begun = Instant::now();
        let mut told = begun;
        loop {
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                println!("  {:>3} s  {}", begun.elapsed().as_secs(), last_line(&self.seen));
            }
            if let Some(at) = find(&self.seen, text.as_bytes()) {
                let before: Vec<u8> = self.seen.drain(..at + text.len()).collect();
                return Ok(String::from_utf8_lossy(&before[..at]).into_owned());
            }
            if begun.elapsed() > patience {
                return Err(Failure::new(format!("the guest did not print '{text}' within {} s", patience.as_secs())));
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Failure::new("QEMU ended")),
            Ok(length) => {
                self.log.write_all(&buffer[..length]).map_err(Failure::new)?;
                self.seen.extend_from_slice(&buffer[..length]);
                let excess = self.seen.len().saturating_sub(KEEP);
                self.seen.drain(..excess);
                Ok(())
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(Failure::new(error)),
        }
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) -> Result<(), Failure> {
        self.stream.write_all(format!("{line}\n").as_bytes()).map_err(Failure::new)
    }

    /// Runs a shell command in a logged-in session; its output, or a failure if it did not succeed.
    pub fn run(&mut self, command: &str, patience: Duration) -> Result<String, Failure> {
        // The marks are put together by the shell, so that the echo of the typed line is not taken for them.
        self.type_line(&format!("printf '@@%s\\n' begin; {command}; printf '@@end %d@@\\n' $?"))?;
        self.wait("@@begin", patience)?;
        let output = self.wait("@@end ", patience)?;
        let code = self.wait("@@", patience)?;
        let output = output.replace('\r', "").trim().to_owned();
        if code == "0" {
            Ok(output)
        } else {
            Err(Failure::new(format!("'{command}' failed ({code}) in the guest: {output}")))
        }
    }
}

/// The last line printed that is not empty, without what colours it.
fn last_line(seen: &[u8]) -> String {
    let text = String::from_utf8_lossy(seen);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("(nothing yet)");
    let plain = line.split('\u{1b}').enumerate().map(|(n, part)| {
        let code = if n == 0 { None } else { part.find(|c: char| c.is_ascii_alphabetic()) };
        code.map_or(part, |end| &part[end + 1..])
    });
    plain.collect::<String>().chars().filter(|c| !c.is_control()).take(100).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
