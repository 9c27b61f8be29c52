//! The file work of enrolment, done by jobs: make a device's trees, adapt them, delete them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::exported::ExportedAt;
use super::layers;
use super::record::{AdaptedFor, DeviceRecord, free_export_pair};
use super::roots::{self, Way};
use super::trees::{Made, Trees, delete_subvolumes, open_directory};
use crate::config::{CloneOf, Device, Regional, RootKind};
use crate::image;
use crate::image::adapt::{self, Change, Earlier, Pass, Target};
use crate::progress::Progress;
use crate::storage::overlay::{self, InUse};
use crate::storage::tree_copy::Content;
use crate::storage::{Layout, SyncGuard, free_bytes, sync_directory, tree_remove};

/// Changes kept in a device's record; adapting a fresh copy makes about 40.
const MAX_CHANGES: usize = 400;

/// What trees that are being made are called in the scratch directory, and what those that are to go.
pub(super) const PARTIAL: &str = "device-";
const DELETED: &str = "deleted-";
/// And what snapshots that are being made, and what devices that are being rolled back.
pub(super) const SNAPSHOT: &str = "snapshot-";
pub(super) const ROLLBACK: &str = "rollback-";

/// What a job on a device's trees needs to know; owned, because the job runs on another thread.
#[derive(Debug, Clone)]
pub struct Provision {
    /// Where things live.
    pub layout: Layout,
    /// The device as configured.
    pub device: Device,
    /// Where the Pi shall mount from.
    pub exported: ExportedAt,
    /// Language and time of all Pis.
    pub regional: Regional,
    /// Unix time in ms at the start of the job.
    pub now_ms: i64,
}

impl Provision {
    /// What trees are adapted to; whether they are `ephemeral` is decided when they are made, and in their record from then on.
    pub(super) fn target(&self, earlier: Option<Earlier>, ephemeral: bool) -> Target {
        Target {
            ephemeral,
            id: self.device.id.clone(),
            hostname: self.device.hostname.clone(),
            server: self.exported.server.into(),
            root_export: self.exported.root(&self.device.id),
            boot_export: self.exported.boot(&self.device.id),
            mac: self.device.mac,
            ssh_keys: self.device.ssh_keys.clone(),
            trim: self.device.trim,
            user: self.device.user.clone(),
            password: self.device.password.clone(),
            regional: self.regional.clone(),
            earlier,
        }
    }

    /// Copies the image's trees, or another device's, adapts the copy and renames it into place. Whatever fails, nothing is
    /// left behind.
    ///
    /// # Errors
    /// A sentence for the job's message.
    pub fn make(&self, progress: &dyn Progress) -> Result<String, String> {
        let partial = self.layout.scratch().join(partial_name(&self.device.id));
        discard(&partial)?;
        let made = self.make_in(&partial, progress);
        if made.is_err() {
            discard(&partial)?;
        }
        made
    }

    fn make_in(&self, partial: &Path, progress: &dyn Progress) -> Result<String, String> {
        let place = self.layout.device(&self.device.id);
        if place.exists() {
            return Err(format!("{} exists already", place.display()));
        }
        let export_pair = free_export_pair(&self.layout).map_err(|e| e.to_string())?;
        let built = self.build(partial, export_pair, None, progress)?;
        std::fs::rename(partial, &place)
            .map_err(|e| format!("cannot move the finished trees to {}: {e}", place.display()))?;
        sync_directory(&self.layout.devices()).map_err(|e| e.to_string())?;
        Ok(built)
    }

    /// Makes the device's trees in `partial`, all of it on the disk when this returns; `export_pair` and `switched_from`
    /// are for their record. Says what they are.
    pub(super) fn build(
        &self,
        partial: &Path,
        export_pair: u16,
        switched_from: Option<String>,
        progress: &dyn Progress,
    ) -> Result<String, String> {
        let kind = self.device.root;
        let is_of_device = self.device.clone_of.is_some();
        let way = roots::way(kind, &self.layout, is_of_device).map_err(|e| e.to_string())?;
        let origin = self.origin()?;
        roots::check_overlay(kind, &origin.directory, &origin.what).map_err(|e| e.to_string())?;
        progress.set_total(origin.bytes, origin.entries);
        self.check_space(way, &origin)?;
        let guard =
            SyncGuard::open(&self.layout.scratch()).map_err(|e| format!("cannot use the scratch directory: {e}"))?;
        std::fs::create_dir(partial).map_err(|e| format!("cannot create {}: {e}", partial.display()))?;
        let (made, in_use) = self.fill(way, partial, &origin, progress)?;
        let target = self.target(origin.earlier, kind == RootKind::Ephemeral);
        let report = adapt::adapt(&partial.join("boot"), &partial.join("root"), &target, Pass::Fresh)
            .map_err(|e| e.to_string())?;
        let changes = report.changes.len();
        let record = DeviceRecord {
            export_pair,
            image: origin.image,
            image_sha256: origin.image_sha256,
            root: Some(roots::word(kind, way).to_owned()),
            made_ms: self.now_ms,
            adapted_for: AdaptedFor::of(&self.device, &self.exported, &self.regional),
            changes: kept(report.changes),
            notes: kept(report.notes),
            spared_bytes: report.spared_bytes,
            switched_from,
            rolled_back: None,
        };
        record.save(partial).map_err(|e| e.to_string())?;
        drop(in_use);
        layers::release(partial)?;
        // Everything reaches the disk before the rename that publishes it.
        guard.finish().map_err(|e| format!("the copy could not be written to disk: {e}"))?;
        // Last thing before it is there: bringing a whole root to the disk takes its time.
        if progress.cancelled() {
            return Err("cancelled".to_owned());
        }
        let (id, phrase) = (&self.device.id, roots::phrase(kind, way));
        Ok(format!("{id} boots from {phrase} of {} ({changes} changes{})", origin.what, made.words()))
    }

    /// Makes both trees in `partial`, ready to be adapted for as long as what comes with the answer lives.
    fn fill(
        &self,
        way: Way,
        partial: &Path,
        origin: &Origin,
        progress: &dyn Progress,
    ) -> Result<(Made, Option<InUse>), String> {
        let content = match way {
            Way::Files(content) => content,
            Way::Layers => {
                if let Some(id) = layers::linked_to(&self.layout, &origin.image) {
                    return Err(layers::not_both(&origin.image, &id));
                }
                layers::hold(&self.layout, &origin.image, progress)?;
                let made = overlay::create(&self.layout, partial, &origin.image);
                let in_use = made.and_then(|()| InUse::begin(&self.layout, partial, &origin.image, false));
                return Ok((Made::default(), Some(in_use.map_err(|e| e.to_string())?)));
            }
        };
        if content == Content::Linked
            && let Some(why) = layers::is_below(&self.layout, &origin.image)
        {
            return Err(why);
        }
        let in_use = layers::open(&self.layout, &origin.directory)?;
        let trees = match &self.device.clone_of {
            None => Trees::of_image(content, &self.layout, &origin.image, progress)?,
            Some(_) => Trees::of(&origin.directory),
        };
        let made = trees.copy(content, partial, progress);
        drop(in_use);
        Ok((made?, None))
    }

    /// What the trees are made from.
    fn origin(&self) -> Result<Origin, String> {
        let Some(CloneOf { device, snapshot }) = &self.device.clone_of else {
            let directory = self.layout.image(&self.device.image);
            let info = image::load_info(&directory).map_err(|e| e.to_string())?;
            return Ok(Origin {
                directory,
                what: info.name,
                image: self.device.image.clone(),
                image_sha256: info.sha256,
                bytes: info.boot_bytes.saturating_add(info.root_bytes),
                entries: info.boot_entries.saturating_add(info.root_entries),
                earlier: None,
            });
        };
        let (directory, what) = match snapshot {
            Some(name) => (self.layout.snapshot(device, name), format!("snapshot {name} of {device}")),
            None => (self.layout.device(device), device.clone()),
        };
        let record = DeviceRecord::load(&directory).map_err(|e| e.to_string())?;
        let record = record.ok_or_else(|| {
            format!(
                "it is to begin as {what}, which is not there: correct or remove option clone_of of {}",
                self.device.id
            )
        })?;
        // How much it has by now nobody knows; what it began with is a hint for the display.
        let info = image::load_info(&self.layout.image(&record.image)).ok();
        let (bytes, entries) = info.map_or((0, 0), |info| {
            (info.boot_bytes.saturating_add(info.root_bytes), info.boot_entries.saturating_add(info.root_entries))
        });
        let earlier = Some(record.adapted_for.as_earlier());
        Ok(Origin { directory, what, image: record.image, image_sha256: record.image_sha256, bytes, entries, earlier })
    }

    /// Whether that much fits now: others may have taken the space since this was asked for.
    fn check_space(&self, way: Way, origin: &Origin) -> Result<(), String> {
        let free = free_bytes(&self.layout.scratch()).map_err(|e| format!("cannot ask for free space: {e}"))?;
        let needed = roots::needed(way, origin.bytes, origin.entries);
        if free >= needed {
            return Ok(());
        }
        Err(format!(
            "{} of {} needs {} MB and {} MB are free in {}: remove a device or an image, then send the agent SIGHUP",
            roots::phrase(self.device.root, way),
            origin.what,
            needed >> 20,
            free >> 20,
            self.layout.data_dir().display()
        ))
    }

    /// Adapts existing trees to what the device and the router are called now.
    ///
    /// # Errors
    /// A sentence for the job's message.
    pub fn adapt(&self) -> Result<String, String> {
        let place = self.layout.device(&self.device.id);
        let mut record = DeviceRecord::load(&place)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("{} has no trees", self.device.id))?;
        let _in_use = layers::open(&self.layout, &place)?;
        let target = self.target(Some(record.adapted_for.as_earlier()), record.is_ephemeral());
        let report =
            adapt::adapt(&place.join("boot"), &place.join("root"), &target, Pass::Again).map_err(|e| e.to_string())?;
        let count = report.changes.len();
        record.changes.extend(report.changes);
        // A router that moves between two networks must not grow the record for ever.
        record.changes = kept(record.changes);
        (record.notes, record.spared_bytes) = (kept(report.notes), report.spared_bytes);
        record.adapted_for = AdaptedFor::of(&self.device, &self.exported, &self.regional);
        record.save(&place).map_err(|e| e.to_string())?;
        Ok(format!("{} adapted ({count} changes)", self.device.id))
    }
}

/// The last of what adapting did, as much as a record keeps: an image may be made so that it is very much.
pub(super) fn kept(mut changes: Vec<Change>) -> Vec<Change> {
    let excess = changes.len().saturating_sub(MAX_CHANGES);
    changes.drain(..excess);
    changes
}

/// What a device's trees are called in the scratch directory while they are being made.
pub(super) fn partial_name(id: &str) -> String {
    format!("{PARTIAL}{id}.partial")
}

/// What trees are made from.
struct Origin {
    /// Where `boot` and `root` are.
    directory: PathBuf,
    /// What it is called.
    what: String,
    image: String,
    image_sha256: String,
    /// As far as known.
    bytes: u64,
    entries: u64,
    /// What it was adapted for, where it is a device's.
    earlier: Option<Earlier>,
}

/// Moves a device's or image's directory out of sight at once; the returned path is then deleted at leisure.
///
/// # Errors
/// As rename(2).
pub fn set_aside(layout: &Layout, directory: &Path) -> std::io::Result<PathBuf> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    // A name from an earlier, interrupted deletion may still be there.
    let free = (0..).map(|n| layout.scratch().join(format!("{DELETED}{name}-{n}"))).find(|path| !path.exists());
    let aside = free.unwrap_or_else(|| layout.scratch().join(format!("{DELETED}{name}")));
    std::fs::rename(directory, &aside)?;
    if let Some(parent) = directory.parent() {
        sync_directory(parent)?;
    }
    Ok(aside)
}

/// Deletes a tree; nothing there is fine.
///
/// # Errors
/// A sentence for the job's message.
pub fn discard(path: &Path) -> Result<(), String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    layers::release(path)?;
    delete_subvolumes(path);
    let removed = open_directory(parent).and_then(|parent| tree_remove::remove_tree(parent, name.as_bytes()));
    removed.map_err(|e| format!("cannot delete {}: {e}", path.display()))
}

/// What killed jobs left in the scratch directory: half-made trees, and trees not yet deleted.
#[must_use]
pub fn leftovers(layout: &Layout) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(layout.scratch()) else { return Vec::new() };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        [PARTIAL, DELETED, SNAPSHOT, ROLLBACK].iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    entries.flatten().map(|entry| entry.path()).filter(is_ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_the_last_changes() {
        let change = |n: usize| Change { rule: String::new(), path: n.to_string(), what: String::new() };
        let changes = kept((0..MAX_CHANGES + 5).map(change).collect());
        assert_eq!((changes.len(), changes[0].path.as_str()), (MAX_CHANGES, "5"));
        assert_eq!(kept(vec![change(1)]).len(), 1);
    }
}
