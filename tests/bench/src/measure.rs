//! What every area needs: processes and their CPU time, medians over interleaved rounds, the lines printed.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Why a measurement could not be made.
#[derive(Debug, Clone)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A child process that is killed and reaped when dropped.
pub struct Process {
    child: Child,
    clock: ClockId,
}

impl Process {
    /// Starts `command` with nothing on its standard input and output.
    pub fn start(command: &mut Command) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error(format!("cannot start {name}: {error}")))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        Ok(Self { child, clock: clock_getcpuclockid(pid)? })
    }

    /// CPU time of all its threads so far, those that ended included.
    pub fn cpu(&self) -> Result<Duration, Error> {
        Ok(clock_gettime(self.clock)?.into())
    }

    /// The most memory that it had resident so far, in MB.
    pub fn peak_rss(&self) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or(Error::new("no VmHWM"))?.parse()?;
        Ok(kb * 1024.0 / 1e6)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The figures of one run, by metric.
pub type Figures = BTreeMap<&'static str, f64>;

/// All runs of one case, by contestant.
#[derive(Default)]
pub struct Results(BTreeMap<&'static str, Option<Vec<Figures>>>);

impl Results {
    /// Notes a run; a contestant that fails once has failed the case.
    pub fn add(&mut self, contestant: &'static str, run: Result<Figures, Error>) {
        let runs = self.0.entry(contestant).or_insert_with(|| Some(Vec::new()));
        match (run, &mut *runs) {
            (Ok(figures), Some(all)) => all.push(figures),
            (Ok(_), None) => {}
            (Err(error), _) => {
                eprintln!("bench: {contestant} failed: {error}");
                *runs = None;
            }
        }
    }

    /// Whether this contestant has failed before: no use in trying again.
    pub fn has_failed(&self, contestant: &str) -> bool {
        matches!(self.0.get(contestant), Some(None))
    }

    fn median(&self, contestant: &str, metric: &str) -> Option<f64> {
        let mut values: Vec<f64> =
            self.0.get(contestant)?.as_ref()?.iter().filter_map(|f| f.get(metric)).copied().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len().checked_sub(1)? / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle], values[middle + 1]) })
    }

    /// Prints a line for each of `metrics` and `peers`: the median over the rounds.
    pub fn print(&self, case: &str, metrics: &[&str], peers: &[&str]) {
        for metric in metrics {
            for peer in peers {
                let (ours, theirs) = (self.median("piboot", metric), self.median(peer, metric));
                let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs).filter(|ratio| ratio.is_finite());
                println!(
                    "bench: {case} {metric} piboot={} {peer}={} ratio={}",
                    figure(ours, "failed"),
                    figure(theirs, "failed"),
                    figure(ratio, "-")
                );
            }
        }
    }
}

/// Three significant digits are more than such a measurement is worth.
fn figure(value: Option<f64>, none: &str) -> String {
    value.map_or_else(
        || none.to_owned(),
        |value| {
            format!(
                "{value:.*}",
                if value >= 100.0 {
                    0
                } else if value >= 10.0 {
                    1
                } else {
                    3
                }
            )
        },
    )
}
