//! Snapshots of devices, and devices that begin as another.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::config::RootKind;
use crate::fleet::Snapshot;
use crate::pi::{Mac, Serial};

/// `snapshot {id, name}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// Device id.
    pub id: String,
    /// Name it gets; date and time (UTC) if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `snapshot`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotStarted {
    /// Name of the snapshot.
    pub name: String,
    /// The job that takes it.
    pub job: u32,
}

/// `snapshots {id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshots {
    /// Device id.
    pub id: String,
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
    /// How many there may be.
    pub most: usize,
    /// Why none can be taken, and the device not be rolled back, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<String>,
}

/// `rollback {id, snapshot, discard}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// Device id.
    pub id: String,
    /// Name of the snapshot.
    pub snapshot: String,
    /// Do not keep what the device is now.
    #[serde(default)]
    pub discard: bool,
}

/// `snapshot_remove {id, snapshot}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotRemoveRequest {
    /// Device id.
    pub id: String,
    /// Name of the snapshot.
    pub snapshot: String,
}

/// `device_clone {from, snapshot, mac and/or serial, hostname, ip, ssh_keys, root}`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeviceCloneRequest {
    /// Id of the device that the new one begins as.
    pub from: String,
    /// One of its snapshots, instead of what it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Hardware address of the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Serial of the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// Host name of the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The address that DHCP is always to give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Public keys for the first user; those of the original if absent.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// How its root comes to be; `auto` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootKind>,
}
