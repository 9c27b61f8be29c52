//! Storms: many emupi Pis of mixed models are switched on together, DHCP and all, and boot from piboot or from dnsmasq's
//! own TFTP server.

mod files;
mod servers;

use std::time::Duration;

use emupi::storm::{Report, boards, delays};
use emupi::{BootOptions, many};

use crate::measure::{Error, Figures, Results};
use crate::stage;
use files::{Set, Tree};
use servers::{Contestant, PEERS};
pub use servers::{Router, usage};

/// All are on within this time.
const SPREAD: Duration = Duration::from_secs(1);
const SEED: u64 = 7;

/// Something to measure.
struct Case {
    name: &'static str,
    pis: u32,
    set: Set,
    /// Frames lost each way.
    loss: f64,
    rounds: usize,
}

const CASES: [Case; 4] = [
    Case { name: "25", pis: 25, set: Set::Usual, loss: 0.0, rounds: 3 },
    Case { name: "100", pis: 100, set: Set::Small, loss: 0.0, rounds: 3 },
    Case { name: "250", pis: 250, set: Set::Small, loss: 0.0, rounds: 1 },
    Case { name: "loss1pct-100", pis: 100, set: Set::Small, loss: 0.01, rounds: 1 },
];
const METRICS: [&str; 7] =
    ["cpu_s", "last_boot_s", "whole_p50_s", "offer_p95_ms", "rss_peak_mb", "failed", "wrong_files"];

/// Runs the cases whose name contains `filter`.
pub fn run(filter: &str) -> Result<(), Error> {
    let _one_cpu = stage::OneCpu::stay()?;
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        let mut results = Results::default();
        for round in 0..case.rounds {
            for turn in 0..2 {
                let contestant = [Contestant::Piboot, Contestant::Dnsmasq][(round + turn) % 2];
                results.add(contestant.name(), measure(case, contestant, round));
            }
        }
        results.print(&format!("storm/{}", case.name), &METRICS, &PEERS);
    }
    Ok(())
}

/// One storm against fresh servers.
fn measure(case: &Case, contestant: Contestant, round: usize) -> Result<Figures, Error> {
    let pis = boards(&emupi::storm::MIX, 0, case.pis);
    let router = Router::new()?;
    let tree = Tree::create(&router, case.set, &pis)?;
    let servers = contestant.start(&router, &tree, &pis)?;
    let link = router.net.tap_link()?;
    let before = servers.usage()?;
    let delays = delays(pis.len(), SPREAD, SEED + round as u64);
    let options = BootOptions { frame_loss: case.loss, seed: SEED, keep: false, ..BootOptions::default() };
    let boots = many::boot_spread(&pis, &delays, &link, &options, &|_| ())?;
    let used = servers.usage()?.since(before);
    let report = Report::of(&boots, &delays);
    for (why, count) in &report.failures {
        eprintln!("bench: {}/{}: {count} × {why}", case.name, contestant.name());
    }
    if link.dropped() > 0 {
        return Err(Error::new(format!("{} frames dropped: this machine is too slow for so many Pis", link.dropped())));
    }
    // A block that is sent again may reach the board's next request, if that comes from the same port.
    let wrong = many::compare(&boots, tree.as_served());
    for what in &wrong {
        eprintln!("bench: {}/{}: wrong bytes: {what}", case.name, contestant.name());
    }
    if let Some((ip, _)) = report.twice.first() {
        return Err(Error::new(format!("{ip} was given to two Pis")));
    }
    let [(_, offer), .., (_, whole)] = &report.stages;
    Ok(Figures::from([
        ("cpu_s", used.cpu.as_secs_f64()),
        ("last_boot_s", report.last_boot.as_secs_f64()),
        ("whole_p50_s", whole.percentile(50)),
        ("offer_p95_ms", offer.percentile(95) * 1e3),
        ("rss_peak_mb", used.peak_rss_kb as f64 * 1024.0 / 1e6),
        ("failed", report.failed() as f64),
        ("wrong_files", wrong.len() as f64),
    ]))
}
