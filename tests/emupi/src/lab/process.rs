//! A server under test: its output is collected, it dies with its handle.

use super::{LabError, system};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines kept of a talkative server.
const KEPT: usize = 20_000;

#[derive(Debug, Default)]
struct Output {
    lines: VecDeque<String>,
    /// Lines dropped from the front.
    dropped: usize,
    /// Streams that have ended.
    ended: usize,
}

#[derive(Debug, Default)]
struct Shared {
    output: Mutex<Output>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Output> {
        // Every step under the lock leaves the lines valid.
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    pub(super) fn start(name: &str, mut command: Command) -> Result<Process, LabError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(system(format!("start {name}")))?;
        let shared = Arc::new(Shared::default());
        let mut readers = Vec::new();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let shared = Arc::clone(&shared);
            readers.push(std::thread::spawn(move || collect(stream, &shared)));
        }
        Ok(Process { name: name.to_owned(), child, shared, readers })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far, on both streams.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().lines.iter().cloned().collect()
    }

    /// Waits until a line contains `expected` (one said already counts) and returns it.
    ///
    /// # Errors
    /// [`LabError::Silent`] at the time limit, or when the program has ended without saying so.
    pub fn wait_line(&self, expected: &str, limit: Duration) -> Result<String, LabError> {
        let deadline = Instant::now() + limit;
        let mut output = self.shared.lock();
        let mut seen = 0;
        loop {
            let skip = seen.max(output.dropped) - output.dropped;
            if let Some(line) = output.lines.iter().skip(skip).find(|line| line.contains(expected)) {
                return Ok(line.clone());
            }
            seen = output.dropped + output.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || output.ended == 2 {
                let said = output.lines.iter().skip(output.lines.len().saturating_sub(40));
                return Err(LabError::Silent {
                    name: self.name.clone(),
                    expected: expected.to_owned(),
                    seconds: limit.as_secs(),
                    said: said.cloned().collect::<Vec<_>>().join("\n"),
                });
            }
            output = self.shared.news.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).map_err(|e| system(format!("signal {}", self.name))(e.into()))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(system(format!("wait for {}", self.name)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn wait(&mut self) -> Result<ExitStatus, LabError> {
        self.child.wait().map_err(system(format!("wait for {}", self.name)))
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn stop(mut self) -> Result<ExitStatus, LabError> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A grandchild may still hold the pipes; the readers end with it and need not be waited for.
        self.readers.retain(|reader| !reader.is_finished());
    }
}

fn collect(stream: Box<dyn Read + Send>, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let mut output = shared.lock();
        if output.lines.len() == KEPT {
            output.lines.pop_front();
            output.dropped += 1;
        }
        output.lines.push_back(text);
        shared.news.notify_all();
    }
    shared.lock().ended += 1;
    shared.news.notify_all();
}
