//! Why a boot does not go on, and what to do about it.

use serde::{Deserialize, Serialize};

use crate::config::Severity;

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
