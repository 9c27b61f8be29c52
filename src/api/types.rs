//! Requests and answers, the same for every transport.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::boot::{Boot, BootEnd, BootState, StageSeen};
use crate::config::{Problem, Severity};
use crate::image::ImageInfo;
use crate::image::adapt::Change;
use crate::jobs::Job;
use crate::pi::{Evidence, Flashes, LedCode, Mac, Model, Serial};

// === requests ===

/// `device {id}`, and every verb that takes nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdRequest {
    /// Device id.
    pub id: String,
}

/// `enroll {mac and/or serial, hostname, image, ip, ssh_keys}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// Hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Serial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Image name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The address that DHCP is always to give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Public keys for the first user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
}

/// `unenroll {id, delete}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnenrollRequest {
    /// Device id.
    pub id: String,
    /// Delete its files too.
    #[serde(default)]
    pub delete: bool,
}

/// `image_import {source, name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Absolute path of the file.
    pub source: std::path::PathBuf,
    /// Name the image gets.
    pub name: String,
}

/// `image_remove {name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NameRequest {
    /// Image name.
    pub name: String,
}

/// `job_cancel {job}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRequest {
    /// Job number.
    pub job: u32,
}

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

// === answers ===

/// `led`
#[derive(Debug, Clone, Serialize)]
pub struct Leds {
    /// What they mean.
    pub codes: Vec<LedCode>,
}

/// `status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The address Pis are told.
    pub server: Option<std::net::Ipv4Addr>,
    /// How Pis get their boot options, in words.
    pub dhcp: String,
    /// Directory, file system and space.
    pub storage: StorageStatus,
    /// TFTP load.
    pub tftp: TftpStatus,
    /// NFS load.
    pub nfs: NfsStatus,
    /// Enrolled devices.
    pub devices: usize,
    /// Devices whose trees are served.
    pub devices_ready: usize,
    /// Pis that wait to be enrolled.
    pub pending: usize,
    /// Jobs that wait or run.
    pub jobs: usize,
    /// Wire events lost because the agent was too busy.
    pub events_dropped: u32,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StorageStatus {
    /// `data_dir`
    pub data_dir: String,
    /// Type of its file system.
    pub file_system: Option<String>,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free bytes.
    pub free_bytes: u64,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TftpStatus {
    /// Whether it runs.
    pub serving: bool,
    /// Transfers under way.
    pub active: u32,
    /// Transfers since start.
    pub transfers: u64,
    /// Bytes acknowledged since start.
    pub bytes: u64,
    /// Blocks sent again since start.
    pub retransmissions: u64,
}

/// Part of [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NfsStatus {
    /// Whether it runs.
    pub serving: bool,
    /// Connections open.
    pub connections: usize,
    /// Requests since start; wraps on small machines.
    pub requests: usize,
    /// Who tells clients its port, in words.
    #[serde(default)]
    pub portmapper: String,
}

/// Something that may stop a boot, with its cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What and where: `piboot.main.dhcp`, `storage`, `running_lion` …
    pub place: String,
    /// The sentence that says why and what to do.
    pub text: String,
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        Self { severity: problem.severity, place: problem.place, text: problem.why }
    }
}

/// `check`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Everything found; empty when all is well.
    pub findings: Vec<Finding>,
}

/// `devices`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Devices {
    /// Enrolled.
    pub devices: Vec<DeviceInfo>,
    /// Seen and not enrolled.
    pub pending: Vec<PendingInfo>,
}

/// An enrolled device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Serial.
    pub serial: Option<Serial>,
    /// The board, once it was seen.
    pub board: Option<String>,
    /// Image.
    pub image: String,
    /// `ready`, `preparing`, `blocked`, `booting`, `stuck`, `running`, `off`, `lost`
    pub state: String,
    /// The job that prepares it.
    pub job: Option<u32>,
    /// Why it is blocked, or what its boot is stuck at.
    pub why: Option<String>,
    /// Its address.
    pub ip: Option<std::net::IpAddr>,
    /// Its current or last boot.
    pub boot: Option<BootSummary>,
}

/// `device {id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeviceDetail {
    /// What `devices` says of it.
    #[serde(flatten)]
    pub info: DeviceInfo,
    /// What adapting changed in its copy of the image.
    pub changes: Vec<Change>,
    /// What adapting noticed and left alone.
    pub notes: Vec<Change>,
}

/// A Pi that waits to be enrolled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingInfo {
    /// Hardware address.
    pub mac: Mac,
    /// Serial, if it showed it.
    pub serial: Option<Serial>,
    /// The board as far as known.
    pub board: String,
    /// Its family, as far as known: `pi3`, `pi3+`, `pi4` …
    pub model: Option<Model>,
    /// Its memory, if it showed it.
    pub memory_mb: Option<u32>,
    /// Why we believe that it is a Pi: `guid`, `rom_xid`, `serial_guid`, `oui`.
    pub evidence: Evidence,
    /// How sure that is, in words.
    pub sure: String,
    /// What it waits for, in words.
    pub waits_for: String,
    /// How often it asked to boot.
    pub asked: u32,
    /// Whether it will ask again by itself, as far as that can be told.
    pub asks_again: bool,
    /// What it will do next, and what to do for it, in words.
    pub next: String,
    /// Unix time in ms.
    pub first_seen_ms: i64,
    /// Unix time in ms.
    pub last_seen_ms: i64,
}

/// `enroll`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// Id of the new device.
    pub id: String,
    /// The job that makes its trees, unless they exist already.
    pub job: Option<u32>,
    /// Why it cannot boot yet, if nothing is being done about it.
    pub why: Option<String>,
}

/// `unenroll`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unenrolled {
    /// Id of the former device.
    pub id: String,
    /// The job that deletes its files.
    pub job: Option<u32>,
    /// Where its files are kept.
    pub kept: Option<String>,
}

/// `image_remove`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// The job that deletes its files.
    pub job: Option<u32>,
}

/// `image_import`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// The job.
    pub job: u32,
}

/// `images`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Images {
    /// By name.
    pub images: Vec<ImageSummary>,
}

/// An image and who uses it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageSummary {
    /// What `image.json` says.
    #[serde(flatten)]
    pub info: ImageInfo,
    /// Devices made from it.
    pub used_by: Vec<String>,
}

/// `jobs`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobList {
    /// Oldest first.
    pub jobs: Vec<Job>,
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

/// Nothing to say but that it was done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Nothing {}
