//! A root made anew, from another image or the same, in the place of the one that a device has.
//!
//! The new trees are made in the scratch directory and take the old ones' place in one step (renameat2(2),
//! `RENAME_EXCHANGE`): whenever the power goes, the device has its old root or its new one, whole. The old one is deleted, or
//! becomes a snapshot.

use std::path::Path;

use super::at_rest::Plan;
use super::provision::{PARTIAL, Provision, discard};
use super::record::{DeviceRecord, free_export_pair};
use super::snapshot_work::{exchange, keep_as_snapshot};
use super::snapshots::free_name;
use super::{EnrolError, Fleet, MAX_SNAPSHOTS, SnapshotError, layers};
use crate::clock;
use crate::config::{Device, RootKind, Setting, check_image_name, set_options};
use crate::jobs::{JobKind, JobsError, Running};
use crate::progress::Progress;
use crate::storage::sync_directory;

impl Fleet {
    /// Starts to make a device's root anew from `image`; the one it has is kept as a snapshot, or deleted. What comes of
    /// `root`, if that is given, is how all its roots come to be from now on.
    ///
    /// # Errors
    /// Names why not; nothing is changed then.
    pub fn switch(
        &mut self,
        id: &str,
        image: &str,
        keep: bool,
        force: bool,
        root: Option<RootKind>,
    ) -> Result<u32, EnrolError> {
        let old = self.config.device(id).cloned().ok_or_else(|| EnrolError::Unknown(id.to_owned()))?;
        check_image_name(image)?;
        self.check_volume();
        if let Some(why) = self.volume.problems.first().map(ToString::to_string).or_else(|| self.no_exchange()) {
            return Err(EnrolError::Volume(why));
        }
        if let Some(job) = self.jobs.all_on(id).first().copied().or_else(|| self.claimed(id)) {
            return Err(JobsError::Busy(job, id.to_owned()).into());
        }
        if DeviceRecord::load(&self.layout.device(id)).ok().flatten().is_none() {
            return Err(SnapshotError::NoTrees(id.to_owned()).into());
        }
        if let Some(why) = self.used_by_pi(&old, Plan::Off).filter(|_| !force) {
            return Err(EnrolError::Up(why));
        }
        let root = root.unwrap_or(old.root);
        self.check_room_beside(image, root)?;
        let kept = keep.then(|| self.name_to_keep(id)).transpose()?;
        self.configure_root(id, root)?;
        let device = Device { image: image.to_owned(), clone_of: None, root, ..old };
        let provision = self.provision(&device);
        let as_what = kept.clone();
        let task = Box::new(move |running: &Running| provision.replace(as_what.as_deref(), running));
        let job = self.jobs.submit(JobKind::Replace, id, task)?;
        // Until it ends nothing is served to the device: whatever it booted from would go from under it.
        self.claim(id, job);
        self.claim(&layers::claim_name(image), job);
        self.note_job(job);
        self.failed.remove(id);
        let becomes = kept.map_or_else(|| "deleted".to_owned(), |name| format!("kept as snapshot {name}"));
        log::info!("{id} gets a new root from image {image}; the old one is {becomes} (job {job})");
        Ok(job)
    }

    /// Notes how the roots of a device come to be. That has no effect on the one that it has.
    pub(super) fn configure_root(&mut self, id: &str, root: RootKind) -> Result<(), EnrolError> {
        let Some(at) = self.config.devices.iter().position(|device| device.id == id && device.root != root) else {
            return Ok(());
        };
        let value = (root != RootKind::default()).then(|| Setting::One(root.word().to_owned()));
        let setting = [("root", value.unwrap_or(Setting::Absent))];
        self.edit_config(|text| set_options(text, id, &setting))?;
        if let Some(device) = self.config.devices.get_mut(at) {
            device.root = root;
        }
        Ok(())
    }

    /// The name of the snapshot that a device's root becomes.
    fn name_to_keep(&self, id: &str) -> Result<String, EnrolError> {
        let taken = self.snapshots(id);
        if taken.len() >= MAX_SNAPSHOTS {
            return Err(SnapshotError::TooMany(id.to_owned()).into());
        }
        self.make_place(id)?;
        let name = format!("replaced-{}", clock::stamp(self.clock.wall_ms()));
        Ok(free_name(&name, |name| taken.iter().any(|snapshot| snapshot.name == name)))
    }

    /// A device has a root from another image than before: so it says in the configuration from now on. Also at the next
    /// start, when the agent was killed in between.
    pub(super) fn settle_switch(&mut self, id: &str, record: &mut DeviceRecord) {
        let Some(from) = record.switched_from.take() else { return };
        if self.config.device(id).is_some_and(|device| device.image == from) {
            let settings = [("image", Setting::One(record.image.clone())), ("clone_of", Setting::Absent)];
            if let Err(error) = self.edit_config(|text| set_options(text, id, &settings)) {
                log::error!(
                    "{id} has a root from {} now, and the configuration does not say so: {error}",
                    record.image
                );
                // Tried again: what it was is still in its record.
                record.switched_from = Some(from);
                return;
            }
            if let Some(device) = self.config.devices.iter_mut().find(|device| device.id == id) {
                device.image.clone_from(&record.image);
                device.clone_of = None;
            }
        }
        if let Err(error) = record.save(&self.layout.device(id)) {
            log::error!("{error}");
        }
    }
}

impl Fleet {
    /// A switch has ended well.
    pub(super) fn after_switch(&mut self, id: &str) {
        if let Ok(Some(mut record)) = DeviceRecord::load(&self.layout.device(id)) {
            self.settle_switch(id, &mut record);
        }
    }

    /// Why trees cannot take the place of others in one step, if they cannot.
    pub(super) fn no_exchange(&self) -> Option<String> {
        self.config.main.nfs.external().map(|_| {
            "on another NFS server the files of a device cannot take the place of others in one step: unenrol it with its files, and enrol it again".to_owned()
        })
    }
}

impl Provision {
    /// Makes trees and puts them in the place of those that are there, which become snapshot `keep_as` or are deleted.
    /// Whatever fails, the old ones stay.
    fn replace(&self, keep_as: Option<&str>, progress: &dyn Progress) -> Result<String, String> {
        let partial = self.layout.scratch().join(format!("{PARTIAL}{}.partial", self.device.id));
        discard(&partial)?;
        let replaced = self.replace_by(&partial, keep_as, progress);
        if replaced.is_err() {
            discard(&partial)?;
        }
        replaced
    }

    fn replace_by(&self, partial: &Path, keep_as: Option<&str>, progress: &dyn Progress) -> Result<String, String> {
        let (id, place) = (&self.device.id, self.layout.device(&self.device.id));
        let old = DeviceRecord::load(&place).map_err(|e| e.to_string())?;
        let old = old.ok_or_else(|| format!("{id} has no root that could be replaced"))?;
        // A Pi that still holds handles of the old root, wherever that goes, must not get on with them.
        let pair = free_export_pair(&self.layout).map_err(|e| e.to_string())?;
        let built = self.build(partial, pair, Some(old.image), progress)?;
        if let Some(name) = keep_as {
            keep_as_snapshot(&self.layout, id, partial, name, self.now_ms)?;
            return Ok(format!("{built}; the old root is snapshot {name}"));
        }
        layers::release(&place)?;
        exchange(partial, &place).map_err(|e| format!("cannot replace the root of {id}: {e}"))?;
        sync_directory(&self.layout.devices()).map_err(|e| e.to_string())?;
        // What is there now is the old root, and a leftover.
        discard(partial)?;
        Ok(format!("{built}; the old root is deleted"))
    }
}
