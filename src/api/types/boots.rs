//! Boots and blink codes.

use serde::{Deserialize, Serialize};

use crate::boot::{Boot, BootEnd, BootState, StageSeen};
use crate::config::Severity;
use crate::pi::{Flashes, LedCode, Mac};

/// `boots {device, limit}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BootsRequest {
    /// Device id; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// At most so many, 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `boot {boot}` and `boot_packets {boot}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootRequest {
    /// Boot number.
    pub boot: i64,
}

/// `led {flashes}`
#[derive(Debug, Clone, Default, Deserialize)]
pub struct LedRequest {
    /// `7` or `4-3`; all if absent.
    #[serde(default)]
    pub flashes: Option<Flashes>,
}

/// `led`
#[derive(Debug, Clone, Serialize)]
pub struct Leds {
    /// What they mean.
    pub codes: Vec<LedCode>,
}

/// `boots`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Boots {
    /// Newest first.
    pub boots: Vec<BootSummary>,
}

/// A boot in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootSummary {
    /// Its number.
    pub id: i64,
    /// Device, if enrolled.
    pub device: Option<String>,
    /// Hardware address.
    pub mac: Mac,
    /// Unix time in ms.
    pub started_ms: i64,
    /// Where it stands.
    pub state: BootState,
    /// The stage reached last, in words.
    pub stage: String,
    /// Milliseconds from the first packet to that stage.
    pub took_ms: u32,
    /// Bytes loaded over TFTP.
    pub tftp_bytes: u64,
    /// How it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<BootEnd>,
    /// What stands in its way, worst first, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// How bad that is: an error holds it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// `boot {boot}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootDetail {
    /// Its story.
    #[serde(flatten)]
    pub boot: Boot,
    /// Milliseconds since its first packet.
    pub age_ms: u32,
    /// The last boot of the same Pi that came to a running system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<GoodBoot>,
}

/// What a boot is compared with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoodBoot {
    /// Its number.
    pub id: i64,
    /// Its stages.
    pub stages: Vec<StageSeen>,
}

impl From<&Boot> for BootSummary {
    fn from(boot: &Boot) -> Self {
        let last = boot.last_stage();
        Self {
            id: boot.id,
            device: boot.device.clone(),
            mac: boot.mac,
            started_ms: boot.started_ms,
            state: boot.state,
            stage: last.map(|s| s.stage.text().to_owned()).unwrap_or_default(),
            took_ms: last.map_or(0, |s| s.at_ms),
            tftp_bytes: boot.files.iter().map(|f| f.acknowledged).sum(),
            end: boot.end,
            finding: boot.findings.first().map(|finding| finding.cause.clone()),
            severity: boot.findings.first().map(|finding| finding.severity),
        }
    }
}

/// `boot_packets {boot}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootPackets {
    /// Its number.
    pub boot: i64,
    /// How many packets there are.
    pub packets: usize,
    /// A pcap file in base64; empty if no packets were kept.
    pub pcap: String,
}
