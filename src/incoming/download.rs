//! A download that goes on where it broke off.
//!
//! Whether the answer to a request for the rest of a file is that rest cannot be seen from a program's output alone: so a
//! little more is asked for than is missing, and what comes is compared with what is known. That also notices a file that
//! was replaced in the meantime.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdout};
use std::time::Duration;

use super::tool::Tool;
use super::url::Url;
use super::{Cancel, LOOK, is_cancelled, wait};
use crate::printable::printable;

/// A program that gives nothing for so long is stopped and started over.
const IDLE: Duration = Duration::from_secs(90);
/// Pauses before a broken download is taken up again; it is given up after the last.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// With so many more bytes the pauses begin anew.
const PROGRESS: u64 = 1 << 20;
/// What is compared when a download goes on.
const OVERLAP: usize = 64 * 1024;
/// As much of what the program says is kept.
const WORDS: usize = 2048;

/// The bytes of a file on a web server.
#[derive(Debug)]
pub struct Download {
    tool: Tool,
    url: Url,
    size: Option<u64>,
    cancel: Cancel,
    run: Option<Run>,
    received: u64,
    /// The first bytes and the last that came.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Asking for the rest has not failed yet.
    takes_offset: bool,
    pauses: Vec<Duration>,
    tries: usize,
    tried_at: u64,
}

/// A program at work; ended when dropped.
#[derive(Debug)]
struct Run {
    child: Child,
    output: ChildStdout,
    messages: Option<ChildStderr>,
    words: Vec<u8>,
    /// Bytes that have to come before new ones do.
    known: Known,
}

#[derive(Debug, PartialEq, Eq)]
enum Known {
    /// All of them are new.
    Nothing,
    /// The rest was asked for: its first bytes, as far as they are here.
    Overlap(Vec<u8>),
    /// It began at the start: so many of the bytes that are known have come again.
    Again(u64),
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Download {
    /// A download of `url`, which begins when it is first read; `size` is what the file has to have, if that is known.
    #[must_use]
    pub fn new(tool: Tool, url: Url, size: Option<u64>, cancel: Cancel) -> Self {
        let takes_offset = tool.takes_offset();
        Self {
            tool,
            url,
            size,
            cancel,
            run: None,
            received: 0,
            head: Vec::new(),
            tail: Vec::new(),
            takes_offset,
            pauses: PAUSES.to_vec(),
            tries: 0,
            tried_at: 0,
        }
    }

    /// The same with other pauses before it is tried again.
    #[must_use]
    pub fn with_pauses(mut self, pauses: Vec<Duration>) -> Self {
        self.pauses = pauses;
        self
    }

    fn start(&mut self) -> io::Result<()> {
        let overlap = OVERLAP as u64;
        // Where both ends look alike nobody could tell what comes.
        let from = if self.takes_offset && self.received > overlap && self.head != self.tail {
            self.received - overlap
        } else {
            0
        };
        let failed = |e: io::Error| io::Error::other(format!("cannot start {}: {e}", self.tool.name()));
        let mut child = self.tool.start(&self.url, from).map_err(failed)?;
        let known = match (self.received, from) {
            (0, _) => Known::Nothing,
            (_, 0) => Known::Again(0),
            _ => Known::Overlap(Vec::new()),
        };
        let (output, messages) = (child.stdout.take(), child.stderr.take());
        let Some(output) = output else { return Err(failed(ErrorKind::BrokenPipe.into())) };
        self.run = Some(Run { child, output, messages, words: Vec::new(), known });
        Ok(())
    }

    /// New bytes into `buf`: at least one, or none at the end of the program's output.
    fn part(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(run) = &mut self.run else { return Ok(0) };
            let length = run.read(buf, &self.cancel)?;
            if length == 0 {
                return Ok(0);
            }
            let new = self.compare(&buf[..length])?;
            if new < length {
                buf.copy_within(new..length, 0);
                return Ok(length - new);
            }
        }
    }

    /// Compares what came with what is known; answers how many bytes of it are nothing new.
    fn compare(&mut self, came: &[u8]) -> io::Result<usize> {
        let changed =
            || io::Error::new(ErrorKind::InvalidData, "the file on the server was replaced meanwhile: begin again");
        let Some(run) = &mut self.run else { return Ok(0) };
        match &mut run.known {
            Known::Nothing => Ok(0),
            Known::Overlap(first) => {
                let taken = came.len().min(OVERLAP - first.len());
                first.extend_from_slice(&came[..taken]);
                if first.len() < OVERLAP {
                    return Ok(taken);
                }
                if *first == self.tail {
                    run.known = Known::Nothing;
                    return Ok(taken);
                }
                if *first != self.head {
                    return Err(changed());
                }
                run.known = Known::Again(OVERLAP as u64);
                Ok(taken + self.compare(&came[taken..])?)
            }
            Known::Again(position) => {
                let left = usize::try_from(self.received - *position).unwrap_or(usize::MAX);
                let taken = came.len().min(left);
                let begin = *position;
                *position += taken as u64;
                if *position == self.received {
                    run.known = Known::Nothing;
                }
                let tail_at = self.received - self.tail.len() as u64;
                if agrees(&came[..taken], begin, &self.head, 0) && agrees(&came[..taken], begin, &self.tail, tail_at) {
                    return Ok(taken);
                }
                Err(changed())
            }
        }
    }

    fn remember(&mut self, new: &[u8]) {
        let room = OVERLAP - self.head.len();
        self.head.extend_from_slice(&new[..room.min(new.len())]);
        self.tail.extend_from_slice(&new[new.len().saturating_sub(OVERLAP)..]);
        let excess = self.tail.len().saturating_sub(OVERLAP);
        self.tail.drain(..excess);
        self.received += new.len() as u64;
    }

    /// The program ended. Nothing if the download is complete, or else why it is not; an error if it never will be.
    fn end(&mut self) -> io::Result<Option<String>> {
        let Some(mut run) = self.run.take() else { return Ok(None) };
        run.drain();
        let well = run.child.wait().is_ok_and(|status| status.success());
        let all_new = run.known == Known::Nothing;
        let complete = all_new && self.size.map_or(well, |size| self.received >= size);
        if complete {
            return Ok(None);
        }
        if let (true, true, Some(size)) = (well, all_new, self.size) {
            // The server sent all it has.
            let received = self.received;
            return Err(io::Error::other(format!("the file has only {received} bytes, and was to have {size}")));
        }
        if !all_new && matches!(&run.known, Known::Overlap(first) if first.is_empty()) {
            // Perhaps it is the server, perhaps the program, that knows no ranges.
            self.takes_offset = false;
        }
        let words = run.last_words();
        Ok(Some(if words.is_empty() || well { "the connection broke".to_owned() } else { words }))
    }

    /// Waits before the next try; an error when there is none.
    fn pause(&mut self, why: &str) -> io::Result<()> {
        if self.received >= self.tried_at + PROGRESS {
            self.tries = 0;
        }
        let url = &self.url;
        let pause = match self.pauses.get(self.tries) {
            Some(pause) if self.received > 0 => *pause,
            _ if self.received == 0 => return Err(io::Error::other(format!("{}: {why}", self.tool.name()))),
            _ => {
                let mb = self.received / 1_000_000;
                return Err(io::Error::other(format!(
                    "the download broke off after {mb} MB and cannot be taken up again: {why}"
                )));
            }
        };
        (self.tries, self.tried_at) = (self.tries + 1, self.received);
        log::info!("the download of {url} broke off after {} bytes ({why}); it is taken up again", self.received);
        let mut left = pause;
        while !left.is_zero() {
            is_cancelled(&self.cancel)?;
            let step = left.min(LOOK);
            std::thread::sleep(step);
            left -= step;
        }
        Ok(())
    }
}

/// Whether `bytes`, which begin at `at` of a file, agree with `known`, which begins at `known_at`.
fn agrees(bytes: &[u8], at: u64, known: &[u8], known_at: u64) -> bool {
    let (end, known_end) = (at + bytes.len() as u64, known_at + known.len() as u64);
    let (from, to) = (at.max(known_at), end.min(known_end));
    if from >= to {
        return true;
    }
    let part = |bytes: &[u8], at: u64| {
        let (from, to) = (usize::try_from(from - at).ok()?, usize::try_from(to - at).ok()?);
        bytes.get(from..to).map(<[u8]>::to_vec)
    };
    part(bytes, at) == part(known, known_at)
}

impl Run {
    /// What the program writes; none at its end. What it says meanwhile is kept.
    fn read(&mut self, buf: &mut [u8], cancel: &Cancel) -> io::Result<usize> {
        loop {
            let Some(messages) = &mut self.messages else {
                wait([self.output.as_fd()], cancel, IDLE)?;
                return self.output.read(buf);
            };
            let [output, said] = wait([self.output.as_fd(), messages.as_fd()], cancel, IDLE)?;
            if !said.is_empty() {
                let mut words = [0; 512];
                match messages.read(&mut words) {
                    Ok(length) if length > 0 => self.hear(&words[..length]),
                    _ => self.messages = None,
                }
            }
            if !output.is_empty() {
                return self.output.read(buf);
            }
        }
    }

    fn hear(&mut self, words: &[u8]) {
        self.words.extend_from_slice(words);
        let excess = self.words.len().saturating_sub(WORDS);
        self.words.drain(..excess);
    }

    /// What it has still to say. Its output has ended, and so has it, or nearly.
    fn drain(&mut self) {
        let cancel = Cancel::default();
        while let Some(messages) = &mut self.messages {
            let mut words = [0; 512];
            if wait([messages.as_fd()], &cancel, Duration::from_secs(5)).is_err() {
                // It closed its output and lives on.
                let _ = self.child.kill();
                return;
            }
            match messages.read(&mut words) {
                Ok(length) if length > 0 => self.hear(&words[..length]),
                _ => self.messages = None,
            }
        }
    }

    /// The last line of what it said: that is where programs say why.
    fn last_words(&self) -> String {
        let lines = self.words.split(|byte| matches!(byte, b'\n' | b'\r'));
        let last = lines.map(printable).map(|line| line.trim().to_owned()).rfind(|line| !line.is_empty());
        last.unwrap_or_default().chars().take(200).collect()
    }
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.size.is_some_and(|size| self.received >= size) {
                self.run = None;
                return Ok(0);
            }
            if self.run.is_none() {
                self.start()?;
            }
            let why = match self.part(buf) {
                Ok(0) => match self.end()? {
                    None => return Ok(0),
                    Some(why) => why,
                },
                Ok(length) => {
                    let left = self.size.map_or(u64::MAX, |size| size - self.received);
                    if length as u64 > left {
                        let size = self.received + left;
                        return Err(io::Error::other(format!(
                            "the file is larger than {size} bytes, which it was to have"
                        )));
                    }
                    self.remember(&buf[..length]);
                    return Ok(length);
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => format!("nothing came for {} s", IDLE.as_secs()),
                Err(error) => return Err(error),
            };
            self.run = None;
            self.pause(&why)?;
        }
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
