//! A boot told while it happens.

use std::time::Duration;

use super::client::Client;
use super::commands::find_boot;
use super::{CliError, say_line, timeline};
use crate::api::types::{BootDetail, BootRequest};
use crate::boot::{BootState, FileOutcome, Stage};
use crate::clock::Clock;

/// How often the agent is asked.
const POLL: Duration = Duration::from_millis(400);

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    boot: i64,
    stages: usize,
    files: usize,
    quirks: usize,
    console: usize,
    findings: Vec<String>,
}

/// Tells a boot until its system is up; `which` is its number, or a device whose present or next boot it is.
pub(super) fn boot(client: &Client, which: &str) -> Result<(), CliError> {
    let clock = Clock::system();
    let mut told = Told::default();
    loop {
        match find_boot(client, which)? {
            Some(number) => {
                let detail: BootDetail = client.call("boot", BootRequest { boot: number })?;
                if told.boot != number {
                    told = Told { boot: number, ..Told::default() };
                    say_line(&timeline::heading(&detail.boot, clock.wall_ms()));
                }
                tell(&mut told, &detail);
                let over = match detail.boot.state {
                    BootState::Booting => false,
                    BootState::Running => detail.boot.reached(Stage::Ready),
                    // A device's next boot may follow.
                    BootState::Stopped | BootState::Abandoned => which.parse::<i64>().is_ok(),
                };
                if over {
                    return Ok(());
                }
            }
            None if told.boot == 0 => {
                say_line(&format!("waiting for {which} to boot"));
                told.boot = -1;
            }
            None => {}
        }
        std::thread::sleep(POLL);
    }
}

fn tell(told: &mut Told, detail: &BootDetail) {
    let boot = &detail.boot;
    for stage in boot.stages.iter().skip(told.stages) {
        say_line(&timeline::stage(stage, "=>", detail.good.as_ref()));
    }
    told.stages = boot.stages.len();
    // In order, each when it is over.
    for file in boot.files.iter().skip(told.files) {
        if file.outcome == FileOutcome::Loading {
            break;
        }
        say_line(&timeline::file(file));
        told.files += 1;
    }
    for quirk in boot.quirks.iter().skip(told.quirks) {
        say_line(&format!("            {} ({})", quirk.note, quirk.quirk));
    }
    told.quirks = boot.quirks.len();
    let lines = boot.console.len() + boot.console_dropped as usize;
    let new = lines.saturating_sub(told.console).min(boot.console.len());
    for line in &boot.console[boot.console.len() - new..] {
        say_line(&timeline::console_line(line));
    }
    told.console = lines;
    for finding in boot.findings.iter().filter(|finding| !told.findings.contains(&finding.id)) {
        say_line(timeline::finding(finding).trim_matches('\n'));
    }
    told.findings = boot.findings.iter().map(|finding| finding.id.clone()).collect();
}
