//! A classroom of boards on one link, switched on together.

use crate::board::{Boot, BootOptions, Outcome, boot_with};
use crate::digest::Digest;
use crate::link::{Link, LinkError};
use crate::model::{Model, Pi};
use crate::reactor::{self, Alarm, Task};
use crate::record::Event;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Board number `index` of a model: serial numbers and MAC addresses differ from board to board and are the same each time.
pub fn nth(model: Model, index: u32) -> Pi {
    // An odd factor spreads the numbers over the low 24 bits, which make up the MAC, without repeats.
    let low = (u64::from(index) * 0x9e_3779 + 0x10_0001) & 0xff_ffff;
    Pi::new(model, 0x4200_0000 + low)
}

/// Boots all boards at once and returns their boots in the same order. `done` hears of each as it ends.
///
/// # Errors
/// When the link fails.
pub fn boot_all(pis: &[Pi], link: &Link, options: &BootOptions, done: &dyn Fn(&Boot)) -> Result<Vec<Boot>, LinkError> {
    let at_once: Vec<Duration> = pis.iter().map(|_| Duration::ZERO).collect();
    boot_spread(pis, &at_once, link, options, done)
}

/// The same, each board switched on after its own delay. All of them run on the caller's thread.
///
/// # Errors
/// When the link fails.
pub fn boot_spread(
    pis: &[Pi],
    delays: &[Duration],
    link: &Link,
    options: &BootOptions,
    done: &dyn Fn(&Boot),
) -> Result<Vec<Boot>, LinkError> {
    let begun = Instant::now();
    let boards = pis.iter().zip(delays).enumerate().map(|(number, (pi, delay))| {
        let alarm = Alarm::new(number);
        let task = run_one(pi, link, options, alarm.clone(), begun + *delay, done);
        (alarm, Box::pin(task) as Task<'_, Result<Boot, LinkError>>)
    });
    reactor::run(link, boards.collect())?.into_iter().collect()
}

async fn run_one(
    pi: &Pi,
    link: &Link,
    options: &BootOptions,
    alarm: Alarm,
    power_on: Instant,
    done: &dyn Fn(&Boot),
) -> Result<Boot, LinkError> {
    std::future::poll_fn(|_| alarm.wait::<()>(power_on)).await;
    let boot = boot_with(pi, link, options, None, Some(alarm)).await?;
    done(&boot);
    Ok(boot)
}

/// Compares every file the boards fetched with the server's tree, `root/<path as asked>`. Returns what differs.
pub fn compare(boots: &[Boot], root: &Path) -> Vec<String> {
    let mut known: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for boot in boots {
        for file in boot.ready().map(|r| r.files.as_slice()).unwrap_or_default() {
            let expected = known
                .entry(file.path.clone())
                .or_insert_with(|| fs::read(root.join(&file.path)).ok().map(|bytes| Digest::of(&bytes)));
            if *expected != Some(file.digest) {
                wrong.push(format!("{} received by {}", file.path, boot.pi.mac));
            }
        }
    }
    wrong
}

/// How a classroom did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Boards.
    pub count: usize,
    /// Boards that ended as they should.
    pub ok: usize,
    /// For each stage: its name and the times since power-on at which boards reached it, sorted.
    pub stages: Vec<(&'static str, Vec<Duration>)>,
    /// Bytes of all whole files.
    pub bytes: u64,
    /// Requests for files.
    pub requests: usize,
    /// Packets boards had to send again, and packets they received twice.
    pub resent: (u64, u64),
    /// Why boards failed, with how many.
    pub failures: BTreeMap<String, usize>,
}

impl Summary {
    /// Sums up.
    pub fn of(boots: &[Boot]) -> Summary {
        let mut stages: Vec<(&'static str, Vec<Duration>)> = Vec::new();
        let mut reached = |name: &'static str, at: Duration| match stages.iter_mut().find(|(n, _)| *n == name) {
            Some((_, times)) => times.push(at),
            None => stages.push((name, vec![at])),
        };
        let mut failures = BTreeMap::new();
        for boot in boots {
            let mut address = false;
            for entry in &boot.log {
                match &entry.event {
                    Event::Stage(name) if *name != "rom" && *name != "eeprom" => reached(name, entry.at),
                    Event::Address { .. } if !std::mem::replace(&mut address, true) => reached("address", entry.at),
                    _ => {}
                }
            }
            match (&boot.outcome, boot.log.last()) {
                (Outcome::Ready(_), Some(last)) => reached("kernel", last.at),
                (Outcome::Failed { stage, why, .. }, _) => *failures.entry(format!("{stage}: {why}")).or_insert(0) += 1,
                _ => {}
            }
        }
        stages.iter_mut().for_each(|(_, times)| times.sort());
        let sum = |f: fn(&crate::record::FileRequest) -> u32| {
            boots.iter().flat_map(Boot::requests).map(|r| u64::from(f(r))).sum()
        };
        Summary {
            count: boots.len(),
            ok: boots.iter().filter(|b| b.ok()).count(),
            stages,
            bytes: boots.iter().map(Boot::bytes).sum(),
            requests: boots.iter().map(|b| b.requests().count()).sum(),
            resent: (sum(|r| r.resent), sum(|r| r.duplicates)),
            failures,
        }
    }
}

/// The time by which `percent` of the boards that got there had got there.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(0.0, Duration::as_secs_f64)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} boards, {} ok, {} failed", self.count, self.ok, self.count - self.ok)?;
        writeln!(f, "{:<14}{:>7}{:>10}{:>10}{:>10}", "stage", "boards", "p50 s", "p95 s", "last s")?;
        for (name, times) in &self.stages {
            let p = |percent| percentile(times, percent);
            writeln!(f, "{name:<14}{:>7}{:>10.3}{:>10.3}{:>10.3}", times.len(), p(50), p(95), p(100))?;
        }
        let (resent, twice) = self.resent;
        write!(f, "{} requests, {} bytes, {resent} packets resent, {twice} received twice", self.requests, self.bytes)?;
        for (why, count) in &self.failures {
            write!(f, "\n{count} × {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_boards_are_alike() {
        for model in [Model::Pi3B, Model::Pi4B] {
            let pis: Vec<Pi> = (0..5000).map(|i| nth(model, i)).collect();
            assert_eq!(pis.iter().map(|p| p.mac).collect::<HashSet<_>>().len(), 5000);
            assert_eq!(pis.iter().map(Pi::serial32).collect::<HashSet<_>>().len(), 5000);
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=10).map(Duration::from_secs).collect();
        assert_eq!((percentile(&times, 50), percentile(&times, 95), percentile(&times, 100)), (5.0, 10.0, 10.0));
        assert_eq!(percentile(&times[..1], 50), 1.0);
    }
}
