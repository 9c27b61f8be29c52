//! Why a boot does not go on, and what to do about it.
//!
//! A [`Rule`] is data with one function: it looks at a [`Case`] (the boot as the wire showed it, how long it has been silent,
//! and what else is known of the Pi and this router) and says what is wrong, or nothing. Rules know no sockets and no
//! clock. `docs/diagnosis.md` lists them all, and what the wire cannot show.

mod case;
mod dhcp;
mod files;
mod kernel;
mod root;
mod transfers;

use serde::{Deserialize, Serialize};

use super::session::Boot;
use super::stage::Stage;
use crate::clock::Moment;
use crate::config::Severity;
pub use case::{Case, Context, Readiness, TreeFinding};

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The wire shows it.
    Certain,
    /// Nothing else is known to look like this.
    Likely,
    /// One of several causes that look alike; the others are named, too.
    Possible,
}

/// Something that stands, or stood, in the way of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule found it; stable.
    pub id: String,
    /// How bad: an error stops the boot, a warning makes it slow or spoils something.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What happened and why, in one or two sentences.
    pub cause: String,
    /// What to do, for this model.
    pub todo: String,
    /// Where this is known from.
    pub source: String,
    /// Milliseconds since the boot began when it was found.
    pub at_ms: u32,
}

/// One thing that can be wrong.
#[derive(Debug)]
pub struct Rule {
    /// Stable name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How sure the symptom makes it.
    pub confidence: Confidence,
    /// Asked only when no other rule has found an error: it knows where the boot stands, not why.
    pub last_resort: bool,
    /// It is about a system that came up, too.
    pub after_start: bool,
    /// Where it is known from: `ee#N` is rpi-eeprom issue N, `fw#N` firmware issue N, `doc` raspberrypi/documentation.
    pub source: &'static str,
    /// What happened, if it did.
    symptom: fn(&Case<'_>) -> Option<String>,
    /// What to do.
    todo: fn(&Case<'_>) -> String,
}

/// All rules, in the order of a boot.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [dhcp::RULES, files::RULES, transfers::RULES, kernel::RULES, root::RULES].into_iter().flatten()
}

/// What stands in the way of `boot` at this moment. What was found before keeps its time.
#[must_use]
pub fn examine(boot: &Boot, now: Moment, context: &Context) -> Vec<Finding> {
    let case = Case::new(boot, now, context);
    let has_succeeded = boot.reached(Stage::FirstWrite) || boot.reached(Stage::Ready);
    let mut findings: Vec<Finding> = Vec::new();
    for last_resort in [false, true] {
        if last_resort && findings.iter().any(|f| f.severity == Severity::Error) {
            break;
        }
        // What was in the way of a boot that succeeded was not in its way.
        let concerns = |rule: &&Rule| rule.severity != Severity::Error || !has_succeeded || rule.after_start;
        for rule in rules().filter(|rule| rule.last_resort == last_resort).filter(concerns) {
            let Some(cause) = (rule.symptom)(&case) else { continue };
            let before = boot.findings.iter().find(|finding| finding.id == rule.id);
            findings.push(Finding {
                id: rule.id.to_owned(),
                severity: rule.severity,
                confidence: rule.confidence,
                cause,
                todo: (rule.todo)(&case),
                source: rule.source.to_owned(),
                at_ms: before.map_or_else(|| boot.offset(now), |finding| finding.at_ms),
            });
        }
    }
    findings.sort_by_key(|finding| finding.severity != Severity::Error);
    findings
}

#[cfg(test)]
mod tests;
