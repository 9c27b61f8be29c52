//! A power cut is over: many boards come on at about the same time. How they fared, stage by stage.

use crate::board::{Boot, Outcome};
use crate::json::Object;
use crate::many::{nth, percentile};
use crate::model::{Family, Model, Pi};
use crate::record::{Event, Fetched};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A room with a bit of everything.
pub const MIX: [Model; 4] = [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5];

/// `count` boards from number `first` on, the models taking turns.
pub fn boards(models: &[Model], first: u32, count: u32) -> Vec<Pi> {
    models.iter().copied().cycle().zip(first..first + count).map(|(model, n)| nth(model, n)).collect()
}

/// When each board comes on: somewhere within `spread`, the same for the same seed.
pub fn delays(count: usize, spread: Duration, seed: u64) -> Vec<Duration> {
    let mut rng = Rng::new(seed);
    let micros = u32::try_from(spread.as_micros()).unwrap_or(u32::MAX);
    (0..count).map(|_| Duration::from_micros(rng.below(micros).into())).collect()
}

/// How long a stage took, boards that came through it.
#[derive(Debug, Clone, Default)]
pub struct Stage {
    /// Sorted.
    times: Vec<Duration>,
}

impl Stage {
    /// Boards that came through.
    pub fn boards(&self) -> usize {
        self.times.len()
    }

    /// Seconds within which `percent` of them came through; 100: the slowest.
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.times, percent)
    }
}

/// Names of the stages, in order.
const STAGES: [&str; 6] = ["discover-offer", "offer-tftp", "firmware", "kernel", "initramfs", "whole"];

/// How a storm went.
#[derive(Debug, Clone)]
pub struct Report {
    /// Boards.
    pub boards: usize,
    /// Boards that came as far as they should.
    pub ok: usize,
    /// From the first power-on to the last board that was ready.
    pub last_boot: Duration,
    /// Time from the first DISCOVER to the first OFFER, from there to the first request for a file, time spent on
    /// firmware, kernel and ramdisk, and from power-on to the end; in this order.
    pub stages: [(&'static str, Stage); 6],
    /// Why boards failed: family and reason, with how many.
    pub failures: BTreeMap<String, usize>,
    /// Addresses that more than one board took, with the boards.
    pub twice: Vec<(Ipv4Addr, Vec<String>)>,
    /// Boards whose boot stages took different addresses one after the other.
    pub moved: usize,
    /// Bytes of all whole files.
    pub bytes: u64,
    /// Requests for files.
    pub requests: usize,
    /// Packets that boards sent again, those of DHCP included.
    pub resent: u64,
    /// Packets that boards received twice.
    pub duplicates: u64,
}

impl Report {
    /// Sums up. `delays` is when each was switched on.
    pub fn of(boots: &[Boot], delays: &[Duration]) -> Report {
        let mut stages = STAGES.map(|name| (name, Stage::default()));
        let mut failures = BTreeMap::new();
        let mut holders: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
        let mut last_boot = Duration::ZERO;
        let (mut resent, mut duplicates, mut moved) = (0, 0, 0);
        for (boot, delay) in boots.iter().zip(delays) {
            for ((_, stage), time) in stages.iter_mut().zip(times(boot)) {
                stage.times.extend(time);
            }
            let mut own = BTreeSet::new();
            for entry in &boot.log {
                match &entry.event {
                    Event::Address { ip, .. } => {
                        own.insert(*ip);
                        holders.entry(*ip).or_default().insert(boot.pi.mac.to_string());
                    }
                    Event::Discover { attempt, .. } => resent += u64::from(*attempt > 1),
                    Event::File(file) => {
                        resent += u64::from(file.resent);
                        duplicates += u64::from(file.duplicates);
                    }
                    _ => {}
                }
            }
            moved += usize::from(own.len() > 1);
            match &boot.outcome {
                Outcome::Failed { stage, why, .. } => {
                    *failures.entry(reason(boot, stage, why)).or_insert(0) += 1;
                }
                _ => last_boot = last_boot.max(*delay + end(boot)),
            }
        }
        stages.iter_mut().for_each(|(_, stage)| stage.times.sort());
        let twice = holders.into_iter().filter(|(_, boards)| boards.len() > 1);
        Report {
            boards: boots.len(),
            ok: boots.iter().filter(|boot| boot.ok()).count(),
            last_boot,
            stages,
            failures,
            twice: twice.map(|(ip, boards)| (ip, boards.into_iter().collect())).collect(),
            moved,
            bytes: boots.iter().map(Boot::bytes).sum(),
            requests: boots.iter().map(|boot| boot.requests().count()).sum(),
            resent,
            duplicates,
        }
    }

    /// Boards that did not come as far as they should.
    pub fn failed(&self) -> usize {
        self.boards - self.ok
    }

    /// One JSON object; `server` is what the server used, if that was measured.
    pub fn to_json(&self, server: Option<Usage>) -> String {
        let mut stages = Object::default();
        for (name, stage) in &self.stages {
            let p = |percent| round(stage.percentile(percent));
            let times = Object::default().raw("boards", stage.boards()).raw("p50_s", p(50)).raw("p95_s", p(95));
            stages = stages.raw(name, times.raw("p99_s", p(99)).raw("last_s", p(100)).end());
        }
        let mut failures = Object::default();
        for (why, count) in &self.failures {
            failures = failures.raw(why, count);
        }
        let mut twice = Object::default();
        for (ip, boards) in &self.twice {
            twice = twice.raw(&ip.to_string(), boards.len());
        }
        let line = Object::default()
            .raw("boards", self.boards)
            .raw("ok", self.ok)
            .raw("last_boot_s", round(self.last_boot.as_secs_f64()))
            .raw("stages", stages.end())
            .raw("failures", failures.end())
            .raw("addresses_twice", twice.end())
            .raw("moved", self.moved)
            .raw("bytes", self.bytes)
            .raw("requests", self.requests)
            .raw("resent", self.resent)
            .raw("duplicates", self.duplicates);
        match server {
            Some(usage) => {
                line.raw("server_cpu_s", round(usage.cpu.as_secs_f64())).raw("server_peak_rss_kb", usage.peak_rss_kb)
            }
            None => line,
        }
        .end()
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}

/// When the last step was made, since power-on.
fn end(boot: &Boot) -> Duration {
    boot.log.last().map_or(Duration::ZERO, |entry| entry.at)
}

/// What a board's failure is counted as: the same reason in the same words, whatever its serial number.
fn reason(boot: &Boot, stage: &str, why: &str) -> String {
    let family = match boot.pi.model.family() {
        Family::Rom => "Pi 3",
        Family::Bcm2711 => "Pi 4",
        Family::Bcm2712 => "Pi 5",
        Family::Other => "other",
    };
    let bytes = |word: &str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_digit());
    let why: Vec<&str> = why.split(' ').map(|word| if bytes(word) { "some" } else { word }).collect();
    format!("{family}: {stage}: {}", why.join(" ").replace(&boot.pi.prefix(), ""))
}

/// The time this board took for each of [`STAGES`], where it came through.
fn times(boot: &Boot) -> [Option<Duration>; 6] {
    let at = |wanted: fn(&Event) -> bool| boot.log.iter().find(|e| wanted(&e.event)).map(|e| e.at);
    let discover = at(|event| matches!(event, Event::Discover { .. }));
    let offer = at(|event| matches!(event, Event::Dhcp { kind: "OFFER", .. }));
    let request = boot.log.iter().find_map(|entry| match &entry.event {
        Event::File(file) => Some(entry.at.saturating_sub(file.took)),
        _ => None,
    });
    let between = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
    let spent = |wanted: &dyn Fn(&str) -> bool| {
        let whole = boot.requests().filter(|r| matches!(r.fetched, Fetched::Whole { .. }) && wanted(&r.path));
        let times: Vec<Duration> = whole.map(|r| r.took).collect();
        (!times.is_empty()).then(|| times.into_iter().sum())
    };
    let is_firmware = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name == "bootcode.bin" || (name.starts_with("start") && name.ends_with(".elf")) || name.starts_with("fixup")
    };
    let ready = boot.ready();
    let kernel = |path: &str| ready.is_some_and(|ready| ready.kernel.path == path);
    let ramdisk = |path: &str| ready.is_some_and(|ready| ready.initramfs.iter().any(|file| file.path == path));
    [
        between(discover, offer),
        between(offer, request),
        spent(&is_firmware),
        spent(&kernel),
        spent(&ramdisk),
        boot.ok().then(|| end(boot)),
    ]
}

/// What a server used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads.
    pub cpu: Duration,
    /// The most memory it had resident.
    pub peak_rss_kb: u64,
}

impl Usage {
    /// What the process `pid` has used so far; `None` if there is none.
    pub fn of(pid: i32) -> Option<Usage> {
        let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid)).ok()?;
        let cpu = nix::time::clock_gettime(clock).ok()?.into();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(Usage { cpu, peak_rss_kb: line.trim().strip_suffix(" kB")?.parse().ok()? })
    }

    /// Since `before`; the memory is the most there ever was.
    pub fn since(self, before: Usage) -> Usage {
        Usage { cpu: self.cpu.saturating_sub(before.cpu), ..self }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last_boot.as_secs_f64();
        writeln!(
            f,
            "{} boards, {} ok, {} failed, the last ready after {last:.3} s",
            self.boards,
            self.ok,
            self.failed()
        )?;
        writeln!(f, "{:<16}{:>7}{:>10}{:>10}{:>10}{:>10}", "stage", "boards", "p50 s", "p95 s", "p99 s", "last s")?;
        for (name, stage) in &self.stages {
            let p = |percent| stage.percentile(percent);
            let [a, b, c, d] = [p(50), p(95), p(99), p(100)];
            writeln!(f, "{name:<16}{:>7}{a:>10.3}{b:>10.3}{c:>10.3}{d:>10.3}", stage.boards())?;
        }
        let (requests, bytes, resent) = (self.requests, self.bytes, self.resent);
        write!(f, "{requests} requests, {bytes} bytes, {resent} packets resent, {} received twice", self.duplicates)?;
        if self.moved > 0 {
            write!(f, "\n{} boards changed their address between boot stages", self.moved)?;
        }
        for (ip, boards) in &self.twice {
            write!(f, "\n{ip} was taken by {}", boards.join(" and "))?;
        }
        for (why, count) in &self.failures {
            write!(f, "\n{count} × {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::Faults;
    use crate::record::{Entry, FileRequest};

    const MS: Duration = Duration::from_millis(1);

    fn file(path: &str, took: u32) -> Event {
        Event::File(FileRequest {
            path: path.into(),
            fetched: Fetched::Whole { bytes: 10, digest: 0 },
            took: MS * took,
            first_answer: None,
            resent: 1,
            duplicates: 2,
            block_size: 512,
            port: 1,
        })
    }

    fn boot(index: u32, log: Vec<(u32, Event)>, outcome: Outcome) -> Boot {
        let pi = nth(Model::Pi3B, index);
        let log = log.into_iter().map(|(at, event)| Entry { at: MS * at, event }).collect();
        Boot { pi, ip: None, server: None, log, outcome, faults: Faults::default() }
    }

    #[test]
    fn stages_are_told_apart_and_an_address_taken_twice_is_named() {
        let ip = Ipv4Addr::new(10, 0, 0, 9);
        let log = |late: u32| {
            vec![
                (1, Event::Discover { xid: 1, attempt: 1 }),
                (2, Event::Discover { xid: 1, attempt: 2 }),
                (3 + late, Event::Dhcp { kind: "OFFER", server: ip, ip, note: String::new() }),
                (4 + late, Event::Address { ip, server: ip }),
                (20 + late, file("bootcode.bin", 10)),
                (60 + late, file("42000001/start.elf", 30)),
            ]
        };
        let prefix = nth(Model::Pi3B, 1).prefix();
        let why = format!("{prefix}start.elf: gave up after 512 bytes: no answer");
        let failed = Outcome::Failed { stage: "bootcode.bin", why, led: None };
        let boots = [boot(0, log(0), Outcome::Address), boot(1, log(4), failed)];
        let report = Report::of(&boots, &[MS * 100, MS * 900]);
        assert_eq!(
            (report.ok, report.failed(), report.last_boot),
            (1, 1, MS * 160),
            "the one that failed does not count"
        );
        assert_eq!((report.resent, report.duplicates, report.bytes, report.requests), (6, 8, 40, 4));
        let p = |n: usize, percent| (report.stages[n].1.percentile(percent) * 1e3).round();
        assert_eq!([p(0, 50), p(0, 100), p(1, 50), p(2, 50)], [2.0, 6.0, 7.0, 40.0]);
        assert_eq!((report.stages[3].1.boards(), report.stages[5].1.boards()), (0, 1));
        assert_eq!(report.twice.len(), 1);
        assert_eq!(report.twice[0].1.len(), 2);
        let counted: Vec<_> = report.failures.iter().collect();
        assert_eq!(counted, [(&"Pi 3: bootcode.bin: start.elf: gave up after some bytes: no answer".to_owned(), &1)]);
        let json = report.to_json(Some(Usage { cpu: MS * 1500, peak_rss_kb: 7 }));
        assert!(
            json.contains(r#""addresses_twice":{"10.0.0.9":2}"#)
                && json.ends_with(r#""server_cpu_s":1.5,"server_peak_rss_kb":7}"#),
            "{json}"
        );
    }

    #[test]
    fn the_same_seed_switches_on_at_the_same_times() {
        let second = Duration::from_secs(1);
        let times = delays(100, second, 3);
        assert_eq!(times, delays(100, second, 3));
        assert_ne!(times, delays(100, second, 4));
        assert!(times.iter().all(|t| *t < second) && times.iter().max() > Some(&(second / 2)));
        assert_eq!(delays(2, Duration::ZERO, 3), [Duration::ZERO; 2]);
    }

    #[test]
    fn a_process_is_measured_and_a_missing_one_is_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Usage::of(own).is_some_and(|usage| usage.peak_rss_kb > 0));
        assert_eq!(Usage::of(i32::MAX), None);
    }
}
