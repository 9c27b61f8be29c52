//! A root made anew, from another image or the same, in the place of the one that a device has.
//!
//! The new trees are made in the scratch directory and take the old ones' place in one step (renameat2(2),
//! `RENAME_EXCHANGE`): whenever the power goes, the device has its old root or its new one, whole. Trees that are to be kept
//! go to `devices/ID.old-N`; the exchange is then with that name, and what a crash before it leaves there is known by its
//! record: it is of a later generation than the one in place.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::provision::{Origin, PARTIAL, Provision, discard};
use super::record::DeviceRecord;
use super::{EnrolError, Fleet};
use crate::config::{Setting, check_image_name, set_options};
use crate::image;
use crate::jobs::{JobKind, JobsError, Running};
use crate::progress::Progress;
use crate::storage::{Layout, RESERVE_BYTES, sync_directory};

/// Between a device's id and the number of a kept root; no id has a dot.
const KEPT: &str = ".old-";

impl Fleet {
    /// Starts to make a device's root anew from `image`; the one it has is kept beside it or deleted.
    ///
    /// # Errors
    /// Names why not; nothing is changed then.
    pub fn switch(&mut self, id: &str, image: &str, keep: bool, force: bool) -> Result<u32, EnrolError> {
        let device = self.config.device(id).cloned().ok_or_else(|| EnrolError::Unknown(id.to_owned()))?;
        check_image_name(image)?;
        self.check_volume();
        if let Some(problem) = self.volume.problems.first() {
            return Err(EnrolError::Volume(problem.to_string()));
        }
        if let Some(job) = self.jobs.active(JobKind::Provision, id) {
            return Err(JobsError::Busy(job, id.to_owned()).into());
        }
        let directory = self.layout.device(id);
        if DeviceRecord::load(&directory).ok().flatten().is_none() {
            return Err(EnrolError::NoRoot(id.to_owned()));
        }
        if self.is_up(&device) && !force {
            let what = "it would lose its root file system at once (force does it all the same)".to_owned();
            return Err(EnrolError::Up(id.to_owned(), what));
        }
        let info =
            image::load_info(&self.layout.image(image)).map_err(|_| EnrolError::UnknownImage(image.to_owned()))?;
        let needed = info.root_bytes.saturating_add(info.boot_bytes).saturating_add(RESERVE_BYTES);
        if needed > self.volume.free_bytes {
            return Err(EnrolError::Volume(format!(
                "a new copy of image '{image}' needs {} MB beside the root that {id} has, and only {} MB are free in {}: remove a device or an image",
                needed >> 20,
                self.volume.free_bytes >> 20,
                self.layout.data_dir().display()
            )));
        }
        let device = crate::config::Device { image: image.to_owned(), ..device };
        let job =
            self.submit(&device, |provision: Provision| move |running: &Running| provision.replace(keep, running))?;
        self.failed.remove(id);
        self.replacing.insert(id.to_owned(), job);
        log::info!("{id} gets a new root from image {image}; the old one is {}", if keep { "kept" } else { "deleted" });
        Ok(job)
    }

    /// The job that makes a device's root anew, while it does. Until it ends nothing is served to the device: whatever it
    /// booted from would go from under it.
    pub(super) fn replacement(&mut self, id: &str) -> Option<u32> {
        let job = *self.replacing.get(id)?;
        if self.jobs.get(job).is_some_and(|job| !job.state.is_final()) {
            return Some(job);
        }
        self.replacing.remove(id);
        None
    }

    /// A device has a root from another image than before: so it says in the configuration from now on. Also at the next
    /// start, when the agent was killed in between.
    pub(super) fn settle_switch(&mut self, id: &str, record: &mut DeviceRecord) {
        let Some(from) = record.switched_from.take() else { return };
        if let Some(device) = self.config.devices.iter_mut().find(|device| device.id == id)
            && device.image == from
        {
            device.image.clone_from(&record.image);
            let setting = Setting::One(record.image.clone());
            if let Err(error) = self.edit_config(|text| set_options(text, id, &[("image", setting)])) {
                log::error!(
                    "{id} has a root from {} now, and the configuration does not say so: {error}",
                    record.image
                );
                return;
            }
        }
        if let Err(error) = record.save(&self.layout.device(id)) {
            log::error!("{error}");
        }
    }

    /// The roots that were kept when a device got new ones.
    #[must_use]
    pub fn kept_roots(&self, id: &str) -> Vec<PathBuf> {
        let prefix = format!("{id}{KEPT}");
        directories(&self.layout).filter(|path| name(path).starts_with(&prefix)).collect()
    }
}

impl Provision {
    /// Makes trees and puts them in the place of those that are there. Whatever fails, the old ones stay.
    fn replace(&self, keep: bool, progress: &dyn Progress) -> Result<String, String> {
        let partial = self.layout.scratch().join(format!("{PARTIAL}{}.partial", self.device.id));
        discard(&partial)?;
        let replaced = self.replace_by(&partial, keep, progress);
        if replaced.is_err() {
            discard(&partial)?;
        }
        replaced
    }

    fn replace_by(&self, partial: &Path, keep: bool, progress: &dyn Progress) -> Result<String, String> {
        let (id, place) = (&self.device.id, self.layout.device(&self.device.id));
        let old = DeviceRecord::load(&place).map_err(|e| e.to_string())?;
        let old = old.ok_or_else(|| format!("{id} has no root that could be replaced"))?;
        let origin = Origin {
            export_pair: old.export_pair,
            generation: old.generation.saturating_add(1),
            switched_from: (old.image != self.device.image).then(|| old.image.clone()),
        };
        let changes = self.build(partial, origin, progress)?;
        let made = format!("{id} boots from a new copy of {} ({changes} changes)", self.device.image);
        let cannot = |what: &str, e: std::io::Error| format!("cannot {what} of {id}: {e}");
        if !keep {
            exchange(partial, &place).map_err(|e| cannot("replace the root", e))?;
            sync_directory(&self.layout.devices()).map_err(|e| e.to_string())?;
            // From here on the old root is a leftover.
            discard(partial)?;
            return Ok(format!("{made}; the old one is deleted"));
        }
        let kept = free_name(&self.layout, id);
        std::fs::rename(partial, &kept).map_err(|e| cannot("move the new root", e))?;
        if let Err(error) = exchange(&kept, &place) {
            discard(&kept)?;
            return Err(cannot("replace the root", error));
        }
        sync_directory(&self.layout.devices()).map_err(|e| e.to_string())?;
        Ok(format!("{made}; the old one is kept in {}", kept.display()))
    }
}

/// Two directories change places, both there all the time.
fn exchange(a: &Path, b: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

fn free_name(layout: &Layout, id: &str) -> PathBuf {
    let names = (1..).map(|n| layout.devices().join(format!("{id}{KEPT}{n}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| layout.devices().join(format!("{id}{KEPT}0")))
}

/// New roots that a crash kept from taking their places: they stand where the old ones were to be kept.
pub(super) fn unplaced(layout: &Layout) -> Vec<PathBuf> {
    let generation = |path: &Path| DeviceRecord::load(path).ok().flatten().map(|record| record.generation);
    let is_unplaced = |path: &PathBuf| {
        let Some((id, _)) = name(path).split_once(KEPT).map(|(id, n)| (id.to_owned(), n.to_owned())) else {
            return false;
        };
        generation(path).zip(generation(&layout.device(&id))).is_some_and(|(kept, placed)| kept > placed)
    };
    directories(layout).filter(is_unplaced).collect()
}

fn directories(layout: &Layout) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(layout.devices()).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::AdaptedFor;

    fn put(layout: &Layout, name: &str, generation: u32) {
        let directory = layout.devices().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let adapted_for: AdaptedFor =
            serde_json::from_str(r#"{"hostname":"a","server":"10.0.0.1","ssh_keys":[]}"#).unwrap();
        let record = DeviceRecord {
            export_pair: 1,
            image: "lite".into(),
            image_sha256: String::new(),
            made_ms: 1,
            adapted_for,
            changes: vec![],
            notes: vec![],
            generation,
            switched_from: None,
        };
        record.save(&directory).unwrap();
    }

    #[test]
    fn only_a_root_that_never_was_in_place_is_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        for (name, generation) in
            [("a", 2), ("a.old-1", 0), ("a.old-2", 1), ("b", 1), ("b.old-1", 2), ("gone.old-1", 9)]
        {
            put(&layout, name, generation);
        }
        std::fs::create_dir(layout.devices().join("a.old-x")).unwrap();
        assert_eq!(unplaced(&layout), [layout.devices().join("b.old-1")]);
        assert_eq!(free_name(&layout, "a"), layout.devices().join("a.old-3"));
    }

    #[test]
    fn an_exchange_leaves_both() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("is"), name).unwrap();
        }
        exchange(&dir.path().join("a"), &dir.path().join("b")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a/is")).unwrap(), "b");
        assert_eq!(std::fs::read_to_string(dir.path().join("b/is")).unwrap(), "a");
        assert!(exchange(&dir.path().join("a"), &dir.path().join("c")).is_err());
    }
}
