//! New devices that begin as another device is, instead of as its image.

use super::at_rest::Plan;
use super::record::DeviceRecord;
use super::snapshots::claim_name;
use super::{DeviceState, EnrolError, Enrolment, Fleet, SnapshotError};
use crate::config::{CloneOf, Device, check_snapshot_name};

/// What is asked for when a device is cloned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloneRequest {
    /// Id of the device whose files the new one begins with.
    pub from: String,
    /// One of its snapshots, instead of what it is now.
    pub snapshot: Option<String>,
    /// The new one. Its image is the original's, and so are its keys if none are given.
    pub device: Enrolment,
}

impl Fleet {
    /// Adds a device to the configuration that begins as another. [`Fleet::reconcile`] then makes its trees, and gives
    /// them an identity of their own.
    ///
    /// # Errors
    /// Names what cannot be used, or who uses the original's files; nothing is changed then.
    pub fn clone_device(&mut self, request: CloneRequest) -> Result<Device, EnrolError> {
        let CloneRequest { from, snapshot, mut device } = request;
        let original = match &snapshot {
            None => self.at_rest(&from, Plan::Off)?,
            // A snapshot stays what it is, whatever the device does.
            Some(name) => {
                let found = self.config.device(&from).cloned();
                let original = found.ok_or_else(|| SnapshotError::UnknownDevice(from.clone()))?;
                self.find_snapshot(&from, name)?;
                original
            }
        };
        let directory = match &snapshot {
            Some(name) => self.layout.snapshot(&from, name),
            None => self.layout.device(&from),
        };
        let record = DeviceRecord::load(&directory).map_err(|e| EnrolError::Volume(e.to_string()))?;
        device.image = Some(record.ok_or_else(|| SnapshotError::NoTrees(from.clone()))?.image);
        if device.ssh_keys.is_empty() {
            device.ssh_keys = original.ssh_keys;
        }
        // The user is in the files already.
        device.user = device.user.or(original.user);
        device.password = device.password.or(original.password);
        device.quota = device.quota.or(original.quota);
        device.clone_of = Some(CloneOf { device: from, snapshot });
        self.enrol(device)
    }

    /// Why nothing can begin as `original` now.
    pub(super) fn not_to_be_cloned(&self, original: &CloneOf) -> Option<String> {
        let CloneOf { device: id, snapshot } = original;
        if let Some(name) = snapshot {
            // In the configuration it may be anything that was a name when it was read.
            let is_there = check_snapshot_name(name).is_ok() && self.layout.snapshot(id, name).join("root").is_dir();
            return (!is_there).then(|| {
                format!(
                    "it is to begin as snapshot '{name}' of {id}, which is not there: correct or remove option clone_of"
                )
            });
        }
        if !self.layout.device_root(id).is_dir() {
            return Some(format!("it is to begin as {id}, which has no files: correct or remove option clone_of"));
        }
        // Files of a device that is no longer enrolled change no more.
        let why = self.config.device(id).and_then(|device| self.in_use(device, Plan::Off));
        why.map(|why| format!("it is to begin as {id}, but {why}"))
    }

    /// Whether a device that is adapted between two boots is there now.
    #[must_use]
    pub fn can_adapt_now(&self) -> bool {
        let is_off = |id: &String| {
            let device = self.config.device(id);
            device.is_some_and(|device| self.used_by_pi(device, Plan::NotMounted).is_none())
        };
        self.volume.is_writable() && self.adapts_when_off.iter().any(is_off)
    }

    /// Whether a device that could not begin as another, because that was in use, can by now.
    #[must_use]
    pub fn waits_no_longer(&self) -> bool {
        let waits = |device: &&Device| {
            matches!(self.state(&device.id), Some(DeviceState::Blocked { .. }))
                && !self.failed.contains_key(&device.id)
                && !self.layout.device_root(&device.id).is_dir()
        };
        let originals = self.config.devices.iter().filter(waits).filter_map(|device| device.clone_of.as_ref());
        self.volume.is_writable() && originals.into_iter().any(|original| self.not_to_be_cloned(original).is_none())
    }

    /// Keeps what job `job` reads as it is.
    pub(super) fn claim_original(&mut self, original: &CloneOf, job: u32) {
        match &original.snapshot {
            Some(name) => self.claim(&claim_name(&original.device, name), job),
            None => self.claim(&original.device, job),
        }
    }
}
