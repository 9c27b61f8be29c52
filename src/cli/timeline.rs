//! One boot as a story.

use std::fmt::Write as _;

use super::show::{ago, megabytes, seconds};
use crate::api::types::{BootDetail, GoodBoot};
use crate::boot::{Boot, BootEnd, BootState, ConsoleLine, FileOutcome, FileSeen, Finding, StageSeen};
use crate::config::Severity;

/// Width of the bars.
const BAR: u32 = 24;
/// A stage that comes later than in the last good boot by less than this is as it was, in milliseconds.
const AS_BEFORE: u32 = 500;
/// Lines of the console that are shown; the whole of it is in the JSON.
const CONSOLE_LINES: usize = 40;

/// The whole story.
pub(super) fn boot(detail: &BootDetail, now_ms: i64) -> String {
    let boot = &detail.boot;
    let mut text = format!("{}\n", heading(boot, now_ms));
    for finding in &boot.findings {
        text += &self::finding(finding);
    }
    text.push('\n');
    let end = boot.stages.last().map_or(0, |s| s.at_ms);
    for (n, stage) in boot.stages.iter().enumerate() {
        let until = boot.stages.get(n + 1).map_or(stage.at_ms, |next| next.at_ms);
        let _ = writeln!(text, "{}", self::stage(stage, &bar(stage.at_ms, until, end), detail.good.as_ref()));
    }
    if let Some(good) = &detail.good {
        let _ = writeln!(text, "compared with boot {}, the last that came to a running system", good.id);
    }
    if !boot.files.is_empty() {
        text += &files(boot);
    }
    if !boot.quirks.is_empty() {
        text += "\nDone for this board:\n";
        for quirk in &boot.quirks {
            let _ = writeln!(text, "{:>10}  {} ({})", seconds(quirk.at_ms), quirk.note, quirk.quirk);
        }
    }
    if !boot.console.is_empty() {
        text += &console(boot);
    }
    text
}

/// Whose boot, when, and where it stands.
pub(super) fn heading(boot: &Boot, now_ms: i64) -> String {
    let who = boot.device.clone().unwrap_or_else(|| "a Pi that is not enrolled".to_owned());
    let state = match boot.state {
        BootState::Booting => "under way",
        BootState::Running => "the system runs",
        BootState::Stopped => boot.end.map_or("it does not run any more", BootEnd::text),
        BootState::Abandoned => boot.end.map_or("given up: the Pi began anew", BootEnd::text),
    };
    format!("boot {} of {who} ({}), began {}: {state}", boot.id, boot.mac, ago(boot.started_ms, now_ms))
}

/// A finding in two lines.
pub(super) fn finding(finding: &Finding) -> String {
    let sign = if finding.severity == Severity::Error { "!!" } else { " !" };
    format!(
        "\n{sign} {}\n   {}\n   ({}, {}; {})\n",
        finding.cause,
        finding.todo,
        finding.id,
        super::show::word(&finding.confidence),
        finding.source
    )
}

/// A stage in a line.
pub(super) fn stage(stage: &StageSeen, bar: &str, good: Option<&GoodBoot>) -> String {
    let detail = stage.detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default();
    let before = good.and_then(|good| good.stages.iter().find(|other| other.stage == stage.stage));
    let compared = before.and_then(|before| {
        let later = stage.at_ms.checked_sub(before.at_ms).filter(|ms| *ms >= AS_BEFORE);
        let earlier = before.at_ms.checked_sub(stage.at_ms).filter(|ms| *ms >= AS_BEFORE);
        later
            .map(|ms| format!("  [{} later]", seconds(ms)))
            .or_else(|| earlier.map(|ms| format!("  [{} earlier]", seconds(ms))))
    });
    format!("{:>10}  {bar}  {}{detail}{}", seconds(stage.at_ms), stage.stage.text(), compared.unwrap_or_default())
}

/// A file in a line.
pub(super) fn file(file: &FileSeen) -> String {
    format!("{:>10}  {:32}  {}", seconds(file.at_ms), file.name, outcome(file))
}

/// A line of the console.
pub(super) fn console_line(line: &ConsoleLine) -> String {
    format!("{:>10}  | {}", seconds(line.at_ms), line.text)
}

/// Where a stage lies between the first packet and the last stage.
fn bar(from: u32, until: u32, end: u32) -> String {
    let place = |ms: u32| u32::try_from(u64::from(ms) * u64::from(BAR) / u64::from(end.max(1))).unwrap_or(BAR);
    let (from, until) = (place(from), place(until));
    (0..BAR).map(|n| if n >= from && n < until.max(from + 1) { '█' } else { '·' }).collect()
}

fn files(boot: &Boot) -> String {
    let count = |wanted: fn(&FileOutcome) -> bool| boot.files.iter().filter(|f| wanted(&f.outcome)).count();
    let loaded = count(|o| *o == FileOutcome::Done);
    let bytes: u64 = boot.files.iter().map(|f| f.acknowledged).sum();
    let again: u64 = boot.files.iter().map(|f| u64::from(f.retransmissions)).sum();
    let spared = match boot.spared_bytes {
        0 => String::new(),
        bytes => format!("; up to {} less by 'trim', without the initramfs", megabytes(bytes)),
    };
    let mut text = format!(
        "\nTFTP: {} requests, {loaded} files loaded ({}{spared}), {} not there and {} only probed (both normal), {again} blocks sent again\n",
        boot.files.len() + boot.files_dropped as usize,
        megabytes(bytes),
        count(|o| *o == FileOutcome::Missing),
        count(|o| *o == FileOutcome::Probed),
    );
    for file in &boot.files {
        let _ = writeln!(text, "{}", self::file(file));
    }
    text
}

fn outcome(file: &FileSeen) -> String {
    match &file.outcome {
        FileOutcome::Done => {
            let rate = file.acknowledged.saturating_mul(1000) / u64::from(file.took_ms.max(1));
            format!("{} in {} ({}/s)", megabytes(file.acknowledged), seconds(file.took_ms), megabytes(rate))
        }
        FileOutcome::Loading => format!("loading, {} in all", megabytes(file.size)),
        FileOutcome::Missing => "not there".to_owned(),
        FileOutcome::Probed => "there (probed)".to_owned(),
        FileOutcome::Refused(code) => format!("refused (TFTP error {code})"),
        FileOutcome::Aborted(why) => format!("the Pi gave up: {why}"),
        FileOutcome::Lost => format!("the Pi fell silent after {}", megabytes(file.acknowledged)),
        FileOutcome::ReadError(why) => format!("could not be read: {why}"),
    }
}

fn console(boot: &Boot) -> String {
    let hidden = boot.console.len().saturating_sub(CONSOLE_LINES);
    let mut text = format!("\nConsole, {} lines", boot.console.len());
    match (hidden, boot.console_dropped) {
        (0, 0) => text += ":\n",
        (hidden, dropped) => {
            let _ = writeln!(text, ", {hidden} more before these (--json shows them), {dropped} were not kept:");
        }
    }
    for line in boot.console.iter().skip(hidden) {
        let _ = writeln!(text, "{}", console_line(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_in_their_place() {
        assert_eq!(bar(0, 50, 100).chars().filter(|c| *c == '█').count(), 12);
        assert!(bar(100, 100, 100).chars().all(|c| c == '·'));
        assert_eq!(bar(0, 0, 0).chars().count(), 24);
    }
}
