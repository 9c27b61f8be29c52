//! Enrolled Pis, and those that wait.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::BootSummary;
use crate::config::{Password, PasswordHash, RootKind};
use crate::image::adapt::Change;
use crate::pi::{Evidence, Mac, Model, Serial};

/// `enroll {mac and/or serial, hostname, image, ip, ssh_keys, root, user, password or password_hash, quota}`
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
    /// How its root comes to be; `auto` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
    /// Name of the first user; as the image has it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's password, to be hashed here; none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// That user's password as crypt(5) has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// What its files may take: `8G`; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

/// `device_edit {id, …}`: what is absent stays; empty text takes an option away.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EditRequest {
    /// Device id.
    pub id: String,
    /// Host name; the id stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The address that DHCP is always to give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// All public keys for the first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_keys: Option<Vec<String>>,
    /// Name of the first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's password, to be hashed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// That user's password as crypt(5) has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<PasswordHash>,
    /// Whether nothing is served to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Its image, as long as it has no root made from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Boots that fail one after the other until it is rolled back; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_after: Option<u32>,
    /// What its files may take: `8G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// Also what a Pi that is up does not survive.
    #[serde(default)]
    pub force: bool,
}

/// `device_switch {id, image, keep, force, root}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchRequest {
    /// Device id.
    pub id: String,
    /// Image that its new root is made from.
    pub image: String,
    /// Keep the old root as a snapshot.
    #[serde(default)]
    pub keep: bool,
    /// Also while the Pi is up.
    #[serde(default)]
    pub force: bool,
    /// How its new root comes to be, from now on; as it is configured if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
}

/// `device_reset {id, keep, force, root}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResetRequest {
    /// Device id.
    pub id: String,
    /// Keep the old root as a snapshot.
    #[serde(default)]
    pub keep: bool,
    /// Also while the Pi is up.
    #[serde(default)]
    pub force: bool,
    /// How its new root comes to be, from now on; as it is configured if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
}

/// `device_edit`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edited {
    /// Device id.
    pub id: String,
    /// The job that adapts its files.
    pub job: Option<u32>,
    /// What a Pi that is up takes notice of only later.
    pub notes: Vec<String>,
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

/// `backup {id, path, live}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Device id.
    pub id: String,
    /// Absolute path of the new file, or of a pipe.
    pub path: std::path::PathBuf,
    /// Even if the Pi runs.
    #[serde(default)]
    pub live: bool,
}

/// `export {path, live}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExportRequest {
    /// Absolute path of the new file, or of a pipe.
    pub path: std::path::PathBuf,
    /// Even if Pis run.
    #[serde(default)]
    pub live: bool,
}

/// `import_all {path}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImportAllRequest {
    /// Absolute path of the export, or of a pipe.
    pub path: std::path::PathBuf,
}

/// `restore {path, id, replace}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Absolute path of the backup, or of a pipe.
    pub path: std::path::PathBuf,
    /// The device that it is to become; the one that it was, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Replace files that are there.
    #[serde(default)]
    pub replace: bool,
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
    /// Its family, as far as known: `pi3`, `pi3+`, `pi4` …
    #[serde(default)]
    pub model: Option<Model>,
    /// Image.
    pub image: String,
    /// Its root is ephemeral: what it changes is gone at its next boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// `ready`, `preparing`, `blocked`, `disabled`, `booting`, `stuck`, `running`, `off`, `lost`
    pub state: String,
    /// Bytes that its files take on the disk, once that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Bytes that its files may take, where they are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Bytes of its quota that are used, once they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
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
    /// The address that it is always to have.
    pub fixed_ip: Option<Ipv4Addr>,
    /// Public keys that are configured for it.
    pub ssh_keys: Vec<String>,
    /// Name of its first user, if one is configured.
    pub user: Option<String>,
    /// Whether a password is configured. What it is nobody is told.
    pub has_password: bool,
    /// What adapting changed in its copy of the image.
    pub changes: Vec<Change>,
    /// What adapting noticed and left alone.
    pub notes: Vec<Change>,
    /// How its root is to be made.
    #[serde(default)]
    pub root: RootKind,
    /// How its root was made, `copy`, `clone` or `ephemeral`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
    /// The device, or snapshot of one (`lion@before-upgrade`), that it began as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<String>,
    /// Failed boots in a row after which it is rolled back; 0: never.
    #[serde(default)]
    pub rollback_after: u32,
    /// How many snapshots it has.
    #[serde(default)]
    pub snapshots: usize,
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
    /// What of its image does not fit its board, as far as both are known.
    #[serde(default)]
    pub warnings: Vec<String>,
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
