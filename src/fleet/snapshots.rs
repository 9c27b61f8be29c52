//! Snapshots of devices: what a device's trees were like at a point in time, to go back to.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::at_rest::Plan;
use super::provision::set_aside;
use super::record::DeviceRecord;
use super::snapshot_work::SnapshotWork;
use super::{EnrolError, Fleet};
use crate::clock;
use crate::config::{Device, NameError, check_snapshot_name};
use crate::jobs::{JobKind, JobsError, Running};
use crate::storage::write_beside;

/// Snapshots of one device: more are forgotten rather than wanted, and on ext4 each takes as much as the root.
pub const MAX_SNAPSHOTS: usize = 16;
/// What a device was like before it was last rolled back.
pub const BEFORE_ROLLBACK: &str = "before-rollback";
/// File name in a snapshot's directory.
const FILE: &str = "snapshot.json";

/// A snapshot, as `snapshot.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Unix time in ms.
    pub made_ms: i64,
    /// The image that the device was made from.
    pub image: String,
    /// The device's host name then.
    pub hostname: String,
    /// Files and directories in it; 0 if they were not counted.
    pub entries: u64,
    /// Bytes of content that it shares, or shared, with the device.
    pub shared_bytes: u64,
    /// Bytes of content that were copied.
    pub copied_bytes: u64,
    /// The root shares all of its content with the device's, which the two figures do not count.
    #[serde(default)]
    pub whole: bool,
}

/// Why a snapshot was not made, used or removed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No such device.
    #[error("no device '{0}' is enrolled: 'piboot devices' lists them")]
    UnknownDevice(String),
    /// No such snapshot.
    #[error("{0} has no snapshot '{1}': 'piboot snapshots {0}' lists them")]
    Unknown(String, String),
    /// A name that cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name stands for something.
    #[error("'{BEFORE_ROLLBACK}' is what a device was like before it was rolled back: choose another name")]
    Reserved,
    /// The name is taken.
    #[error("{0} has a snapshot '{1}' already: remove it, or choose another name")]
    Exists(String, String),
    /// Too many.
    #[error("{0} has {MAX_SNAPSHOTS} snapshots, the most there may be: remove one first")]
    TooMany(String),
    /// The Pi, or a job, uses the files.
    #[error("{0}")]
    InUse(String),
    /// There is nothing in it that is not in the image.
    #[error(
        "{0} has an ephemeral root: what it changes is in its memory, and there is nothing of it on the disk that a snapshot could keep"
    )]
    Ephemeral(String),
    /// There is nothing to take.
    #[error("{0} has no files yet: wait until its root is made")]
    NoTrees(String),
    /// The volume.
    #[error("{0}")]
    Volume(String),
    /// A directory.
    #[error("cannot change {0}: {1}")]
    File(String, std::io::Error),
    /// No job to be had.
    #[error(transparent)]
    Jobs(#[from] JobsError),
}

impl Snapshot {
    /// Reads what is known of the snapshot in `directory`; `None` if that is none.
    pub(super) fn load(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()
    }

    /// Writes it into `directory`, durably.
    pub(super) fn save(&self, directory: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        write_beside(&directory.join(FILE), &bytes, 0o600)
    }
}

impl Fleet {
    /// The snapshots of a device, oldest first.
    #[must_use]
    pub fn snapshots(&self, id: &str) -> Vec<Snapshot> {
        let entries = std::fs::read_dir(self.layout.snapshots_of(id)).into_iter().flatten().flatten();
        // One that is being swapped in or out has a name that nobody can give.
        let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|n| check_snapshot_name(n).is_ok()));
        let mut snapshots: Vec<Snapshot> = named.filter_map(|entry| Snapshot::load(&entry.path())).collect();
        snapshots.sort_by(|a, b| (a.made_ms, &a.name).cmp(&(b.made_ms, &b.name)));
        snapshots
    }

    /// Starts the job that takes a snapshot; without a name it is called by date and time (UTC).
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn take_snapshot(&mut self, id: &str, name: Option<String>) -> Result<(u32, String), SnapshotError> {
        let device = self.at_rest(id, Plan::Off)?;
        let record = DeviceRecord::load(&self.layout.device(id)).ok().flatten();
        if record.is_some_and(|record| record.is_ephemeral()) {
            return Err(SnapshotError::Ephemeral(id.to_owned()));
        }
        let taken = self.snapshots(id);
        let name = match name {
            Some(name) => name,
            None => free_name(&clock::stamp(self.clock.wall_ms()), |name| taken.iter().any(|s| s.name == name)),
        };
        check_snapshot_name(&name)?;
        if name == BEFORE_ROLLBACK {
            return Err(SnapshotError::Reserved);
        }
        if taken.iter().any(|snapshot| snapshot.name == name) {
            return Err(SnapshotError::Exists(id.to_owned(), name));
        }
        if taken.len() >= MAX_SNAPSHOTS {
            return Err(SnapshotError::TooMany(id.to_owned()));
        }
        self.make_place(id)?;
        let work = self.work(&device);
        let wanted = name.clone();
        let task = Box::new(move |running: &Running| work.take(&wanted, running));
        Ok((self.begin(JobKind::Snapshot, id, task)?, name))
    }

    /// Starts the job that makes a device what it was in a snapshot. What it is now is kept as `before-rollback`, unless
    /// `discard`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn roll_back(&mut self, id: &str, name: &str, discard: bool) -> Result<u32, SnapshotError> {
        let device = self.at_rest(id, Plan::Off)?;
        self.begin_rollback(&device, name, discard, 0)
    }

    pub(super) fn begin_rollback(
        &mut self,
        device: &Device,
        name: &str,
        discard: bool,
        after_failed: u32,
    ) -> Result<u32, SnapshotError> {
        self.find_snapshot(&device.id, name)?;
        if let Some(why) = self.no_exchange() {
            return Err(SnapshotError::Volume(why));
        }
        let work = self.work(device);
        let wanted = name.to_owned();
        let task = Box::new(move |running: &Running| work.roll_back(&wanted, discard, after_failed, running));
        self.begin(JobKind::Rollback, &device.id, task)
    }

    /// Removes a snapshot; its files go by the job that is answered, if one can be had now.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn remove_snapshot(&mut self, id: &str, name: &str) -> Result<Option<u32>, SnapshotError> {
        self.find_snapshot(id, name)?;
        // A job may be reading it.
        if let Some(job) = self.jobs.all_on(id).first().copied().or_else(|| self.claimed(&claim_name(id, name))) {
            return Err(SnapshotError::Jobs(JobsError::Busy(job, id.to_owned())));
        }
        let directory = self.layout.snapshot(id, name);
        let aside = set_aside(&self.layout, &directory).map_err(|e| SnapshotError::File(name.to_owned(), e))?;
        Ok(self.delete(aside, format!("snapshot {name} of {id} deleted")))
    }

    /// Takes all snapshots of a device that is unenrolled away.
    pub(super) fn remove_snapshots(&self, id: &str) -> Result<(), EnrolError> {
        let directory = self.layout.snapshots_of(id);
        match set_aside(&self.layout, &directory) {
            Ok(aside) => drop(self.delete(aside, format!("snapshots of {id} deleted"))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(EnrolError::Aside(id.to_owned(), error)),
        }
        Ok(())
    }

    /// The device, if its files can be worked on now.
    pub(super) fn at_rest(&mut self, id: &str, plan: Plan) -> Result<Device, SnapshotError> {
        // What is known of the volume may be seconds old.
        self.check_volume();
        let device = self.config.device(id).cloned().ok_or_else(|| SnapshotError::UnknownDevice(id.to_owned()))?;
        if let Some(problem) = self.volume.problems.first() {
            return Err(SnapshotError::Volume(problem.to_string()));
        }
        if let Some(why) = self.in_use(&device, plan) {
            return Err(SnapshotError::InUse(why));
        }
        if !self.layout.device_root(id).is_dir() {
            return Err(SnapshotError::NoTrees(id.to_owned()));
        }
        Ok(device)
    }

    pub(super) fn find_snapshot(&self, id: &str, name: &str) -> Result<Snapshot, SnapshotError> {
        check_snapshot_name(name)?;
        let found = Snapshot::load(&self.layout.snapshot(id, name));
        found.ok_or_else(|| SnapshotError::Unknown(id.to_owned(), name.to_owned()))
    }

    /// The directory that a device's snapshots are in. A job never makes it: if the device is unenrolled meanwhile, the job
    /// finds no place for what it made.
    pub(super) fn make_place(&self, id: &str) -> Result<(), SnapshotError> {
        let place = self.layout.snapshots_of(id);
        match std::fs::create_dir(&place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(SnapshotError::File(place.display().to_string(), error))
            }
            _ => Ok(()),
        }
    }

    fn work(&self, device: &Device) -> SnapshotWork {
        SnapshotWork { layout: self.layout.clone(), id: device.id.clone(), now_ms: self.clock.wall_ms() }
    }

    fn begin(&mut self, kind: JobKind, id: &str, task: crate::jobs::Task) -> Result<u32, SnapshotError> {
        if kind == JobKind::Rollback {
            self.make_place(id)?;
        }
        let job = self.jobs.submit(kind, id, task)?;
        self.claim(id, job);
        self.note_job(job);
        Ok(job)
    }
}

/// What a snapshot that a job reads is claimed as.
pub(super) fn claim_name(id: &str, snapshot: &str) -> String {
    format!("{id}@{snapshot}")
}

/// `name`, or `name-2` and so on if that is taken.
pub(super) fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered).take(MAX_SNAPSHOTS + 1);
    names.find(|name| !is_taken(name)).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_date_do_not_meet() {
        assert_eq!(free_name("a", |_| false), "a");
        assert_eq!(free_name("a", |name| ["a", "a-2"].contains(&name)), "a-3");
        assert!(check_snapshot_name(&clock::stamp(1_795_000_000_000)).is_ok());
    }
}
