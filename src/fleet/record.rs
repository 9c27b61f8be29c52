//! `device.json`: what a device's trees were made from and adapted for. Stands beside the trees, so that they agree.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::exported::ExportedAt;
use crate::config::{Device, PasswordHash, Regional, RootKind};
use crate::image::adapt::{Change, Earlier};
use crate::storage::{Layout, write_beside};

/// File name in a device's directory.
const FILE: &str = "device.json";
/// A device has two exports, so ids are handed out in pairs; 16 bits go into a file handle.
const MAX_EXPORT_PAIRS: u16 = u16::MAX / 2;

/// What the trees depend on besides the image; when it changes they are adapted anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptedFor {
    /// Host name.
    pub hostname: String,
    /// The address that it mounts its trees from: the router's, or the admin's NFS server's.
    pub server: std::net::Ipv4Addr,
    /// What is before its id in the names of its exports.
    #[serde(default)]
    pub exports: String,
    /// Public keys for the first user.
    pub ssh_keys: Vec<String>,
    /// Its hardware address, by which its network configuration knows the interface of the root.
    #[serde(default)]
    pub mac: Option<crate::pi::Mac>,
    /// Whether its boot files are trimmed.
    #[serde(default)]
    pub trim: bool,
    /// Name of the first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// Language and time.
    #[serde(default)]
    pub regional: Regional,
}

impl AdaptedFor {
    /// What `device` asks for when it is to mount from there and all Pis have that language and time.
    #[must_use]
    pub fn of(device: &Device, exported: &ExportedAt, regional: &Regional) -> Self {
        Self {
            hostname: device.hostname.clone(),
            server: exported.server,
            exports: exported.prefix.clone(),
            ssh_keys: device.ssh_keys.clone(),
            mac: device.mac,
            trim: device.trim,
            user: device.user.clone(),
            password: device.password.clone(),
            regional: regional.clone(),
        }
    }

    /// What of it the user of the device may have changed since.
    #[must_use]
    pub fn as_earlier(&self) -> Earlier {
        Earlier {
            ssh_keys: self.ssh_keys.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            regional: self.regional.clone(),
        }
    }
}

/// What is known about a device's trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Names its exports in file handles: `2n` its root, `2n + 1` its boot directory. Never changes: the handles that
    /// a running Pi holds carry it.
    pub export_pair: u16,
    /// The image the trees were copied from.
    pub image: String,
    /// Digest of that image's file.
    pub image_sha256: String,
    /// How the root was made, `copy`, `clone` or `ephemeral`; unknown in those of the first version, which copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Unix time in ms.
    pub made_ms: i64,
    /// What they were last adapted for.
    pub adapted_for: AdaptedFor,
    /// What adapting changed in the copy.
    pub changes: Vec<Change>,
    /// What adapting noticed and left alone.
    #[serde(default)]
    pub notes: Vec<Change>,
    /// Bytes that a boot need not load because of rule `trim`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spared_bytes: u64,
    /// The image of the root before this one, until the configuration says that it is another now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_from: Option<String>,
    /// The last roll-back to a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A roll-back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Name of the snapshot.
    pub to: String,
    /// Unix time in ms.
    pub at_ms: i64,
    /// Boots that had failed when it was done without being asked for; 0 if it was asked for.
    #[serde(default)]
    pub after_failed: u32,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system's words.
    #[error("cannot use {0}: {1}")]
    Io(String, std::io::Error),
    /// The file is damaged.
    #[error("{0} is damaged ({1}): unenrol the device and enrol it again, or restore the file")]
    Damaged(String, serde_json::Error),
    /// 32767 devices.
    #[error("no export number is free")]
    NoExportFree,
}

impl DeviceRecord {
    /// Whether the trees are for a Pi that keeps its changes in memory. Their files may be the image's own: nothing may ever
    /// write to them, whatever the configuration says by now.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.root.as_deref() == Some(RootKind::Ephemeral.word())
    }

    /// Reads the record of the trees in `directory`; `None` if there are no trees.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join(FILE);
        let name = || path.display().to_string();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| RecordError::Damaged(name(), e)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RecordError::Io(name(), error)),
        }
    }

    /// Writes the record into `directory`, durably.
    ///
    /// # Errors
    /// As the file system reports.
    pub fn save(&self, directory: &Path) -> Result<(), RecordError> {
        let path = directory.join(FILE);
        let name = || path.display().to_string();
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| RecordError::Damaged(name(), e))?;
        write_beside(&path, &bytes, 0o600).map_err(|e| RecordError::Io(name(), e))
    }
}

/// An export pair that no device on the volume has.
///
/// # Errors
/// When the devices cannot be listed or all numbers are taken.
pub(super) fn free_export_pair(layout: &Layout) -> Result<u16, RecordError> {
    let name = || layout.devices().display().to_string();
    let mut taken = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(layout.devices()).map_err(|e| RecordError::Io(name(), e))? {
        let entry = entry.map_err(|e| RecordError::Io(name(), e))?;
        // A damaged record has a number that nobody knows; given away again, it would name two devices once it is restored.
        taken.extend(DeviceRecord::load(&entry.path())?.map(|record| record.export_pair));
    }
    // From 1: zero stays free for what has no device.
    (1..=MAX_EXPORT_PAIRS).find(|pair| !taken.contains(pair)).ok_or(RecordError::NoExportFree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(export_pair: u16) -> DeviceRecord {
        let adapted_for = AdaptedFor {
            hostname: "lion".into(),
            server: [10, 0, 0, 1].into(),
            exports: String::new(),
            ssh_keys: vec![],
            mac: None,
            trim: true,
            user: None,
            password: None,
            regional: Regional::default(),
        };
        DeviceRecord {
            export_pair,
            image: "lite".into(),
            image_sha256: String::new(),
            root: None,
            made_ms: 1,
            adapted_for,
            changes: vec![],
            spared_bytes: 0,
            notes: vec![],
            switched_from: None,
            rolled_back: None,
        }
    }

    #[test]
    fn numbers_are_reused_only_when_free_and_records_survive() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        layout.create().unwrap();
        for (id, pair) in [("a", 1), ("b", 3)] {
            std::fs::create_dir(layout.device(id)).unwrap();
            record(pair).save(&layout.device(id)).unwrap();
        }
        assert_eq!(free_export_pair(&layout).unwrap(), 2);
        assert_eq!(DeviceRecord::load(&layout.device("b")).unwrap(), Some(record(3)));
        assert_eq!(DeviceRecord::load(&layout.device("c")).unwrap(), None);
        std::fs::write(layout.device("a").join(FILE), "{").unwrap();
        assert!(matches!(free_export_pair(&layout), Err(RecordError::Damaged(..))), "its number is not known");
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"export_pair":1,"image":"lite","image_sha256":"","made_ms":1,"adapted_for":{"hostname":"lion",
            "server":"10.0.0.1","ssh_keys":[],"mac":null},"changes":[],"notes":[]}"#;
        // Its boot files were not trimmed, and will be.
        let mut read = record(1);
        read.adapted_for.trim = false;
        std::fs::write(dir.path().join(FILE), old).unwrap();
        assert_eq!(DeviceRecord::load(dir.path()).unwrap(), Some(read), "nothing else is adapted anew");
    }

    #[test]
    fn a_damaged_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let error = DeviceRecord::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("device.json is damaged"), "{error}");
    }
}
