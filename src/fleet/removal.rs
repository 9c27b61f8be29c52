//! All of a router's images and Pis in one file, and what of that another router lacks taken from it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::at_rest::Plan;
use super::backup::{Packing, Part, decompress, open, read_manifest, read_member};
use super::layers::as_copy;
use super::record::{DeviceRecord, free_export_pair};
use super::restore::{Restored, check_space, in_scratch, leave_reserve};
use super::{BackupError, Fleet};
use crate::archive::{ArchiveError, Input, unpack_tree};
use crate::config::{self, Config, Device, check_device_id, check_image_name};
use crate::image;
use crate::jobs::{JobKind, Running};
use crate::progress::Progress;
use crate::storage::overlay;
use crate::storage::tree_writer::TreeWriter;
use crate::storage::{Layout, SyncGuard, TREES, rename_new, sync_directory};

/// The members of an export before its trees.
const MANIFEST: &str = "export.json";
const SECTIONS: &str = "piboot.uci";
/// The trees.
const IMAGES: &str = "images";
const DEVICES: &str = "devices";
/// What the jobs are about; no device has such an id.
const ALL: &str = "-all";

impl Fleet {
    /// Starts the export of all images and devices to a new file, or into a pipe that is there.
    ///
    /// # Errors
    /// When a Pi runs and `live` is not wished, or the file cannot be meant.
    pub fn export(&mut self, path: PathBuf, live: bool) -> Result<u32, BackupError> {
        if !live && let Some(why) = self.config.devices.iter().find_map(|device| self.in_use(device, Plan::Off)) {
            return Err(BackupError::InUse(format!("{why}, or give --live: what it writes meanwhile may be torn")));
        }
        self.check_idle(ALL)?;
        self.check_path(&path)?;
        let sections = self.config.devices.iter().try_fold(String::new(), |text, d| config::put_device(&text, d));
        let sections = sections.map_err(|e| BackupError::Files(e.to_string()))?;
        let packing = Packing {
            id: "everything".to_owned(),
            manifest: MANIFEST,
            members: vec![(SECTIONS, sections.into_bytes())],
            parts: self.parts(),
            path,
            live,
            now_ms: self.clock.wall_ms(),
            layout: self.layout.clone(),
        };
        let task = Box::new(move |running: &Running| packing.run(running));
        let job = self.jobs.submit(JobKind::Backup, ALL, task)?;
        self.note_job(job);
        if !live {
            let ids: Vec<String> = self.config.devices.iter().map(|device| device.id.clone()).collect();
            ids.iter().for_each(|id| self.claim(id, job));
        }
        Ok(job)
    }

    /// Everything that has both trees and a description; nothing else of a directory matters elsewhere.
    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let kinds = [(IMAGES, self.layout.images(), "image.json"), (DEVICES, self.layout.devices(), "device.json")];
        for (kind, directory, description) in kinds {
            parts.push(Part::Directory(kind.to_owned()));
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            for name in names {
                let place = self.layout.data_dir().join(kind).join(&name);
                let has_trees = TREES.iter().all(|tree| place.join(tree).is_dir());
                let Some(content) = std::fs::read(place.join(description)).ok().filter(|_| has_trees) else { continue };
                parts.push(Part::Directory(format!("{kind}/{name}")));
                parts.push(Part::Description(format!("{kind}/{name}/{description}"), content));
                parts.extend(TREES.map(|tree| Part::Tree(format!("{kind}/{name}/{tree}"), place.join(tree))));
            }
        }
        parts
    }

    /// Starts to take what this router lacks from the export of another: images and devices. What is here stays as it is.
    ///
    /// # Errors
    /// When the volume cannot take it, or the path cannot be meant.
    pub fn import_all(&mut self, path: PathBuf) -> Result<u32, BackupError> {
        self.check_volume();
        if let Some(problem) = self.volume.problems.first() {
            return Err(BackupError::Volume(problem.to_string()));
        }
        if !path.is_absolute() {
            return Err(BackupError::Path(path, "not an absolute path"));
        }
        self.check_idle(ALL)?;
        let work = ImportAll {
            layout: self.layout.clone(),
            path,
            enrolled: self.config.devices.iter().map(|device| device.id.clone()).collect(),
            results: self.restored.0.clone(),
        };
        let task = Box::new(move |running: &Running| work.run(running));
        let job = self.jobs.submit(JobKind::Restore, ALL, task)?;
        self.note_job(job);
        Ok(job)
    }
}

struct ImportAll {
    layout: Layout,
    path: PathBuf,
    /// Devices that this router has.
    enrolled: Vec<String>,
    results: Sender<Restored>,
}

impl ImportAll {
    fn run(&self, progress: &dyn Progress) -> Result<String, String> {
        in_scratch(&self.layout, ALL, |partial| self.run_in(partial, progress))
    }

    fn run_in(&self, partial: &Path, progress: &dyn Progress) -> Result<String, String> {
        let shown = self.path.display();
        let cannot = |e: ArchiveError| format!("{shown}: {e}");
        let input = Input::open(&self.path, progress).map_err(|e| format!("cannot use {shown}: {e}"))?;
        let mut reader = decompress(input).map_err(cannot)?;
        let manifest = read_manifest(&mut reader, MANIFEST).map_err(cannot)?;
        let sections = read_member(&mut reader, SECTIONS).map_err(cannot)?;
        let devices = read_sections(&sections).ok_or_else(|| format!("{shown}: {SECTIONS} is not understood"))?;
        progress.set_total(manifest.bytes, manifest.entries);
        check_space(&self.layout, &self.path, manifest.bytes, "")?;
        let failed = |e: &dyn std::fmt::Display| format!("cannot write {}: {e}", partial.display());
        let guard = SyncGuard::open(&self.layout.scratch()).map_err(|e| failed(&e))?;
        std::fs::create_dir(partial).map_err(|e| failed(&e))?;
        let writer = TreeWriter::new(open(partial).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        let tops = [IMAGES, DEVICES];
        unpack_tree(&mut reader, writer, &tops, progress, || leave_reserve(&self.layout)).map_err(cannot)?;
        let mut said = Vec::new();
        guard.finish().map_err(|e| format!("the files could not be written to disk: {e}"))?;
        if progress.cancelled() {
            return Err("cancelled".to_owned());
        }
        let images = self.take(&partial.join(IMAGES), &self.layout.images(), &mut said, |path, name| {
            // What piboot itself puts beside them would not be what it takes that for.
            if let Some(other) = beside(path, &["image.json"]) {
                return Err(format!("holds {other}, which is no part of an image"));
            }
            let known =
                is_whole(path, "image.json") && check_image_name(name).is_ok() && image::load_info(path).is_ok();
            if known { Ok(()) } else { Err("is no image".to_owned()) }
        })?;
        let taken = self.take(&partial.join(DEVICES), &self.layout.devices(), &mut said, |path, name| {
            check_device_id(name).map_err(|e| e.to_string())?;
            if !is_whole(path, "device.json") {
                return Err("is incomplete".to_owned());
            }
            let record = DeviceRecord::load(path).map_err(|e| e.to_string())?;
            let mut record = record.ok_or("has no device.json")?;
            check_image_name(&record.image).map_err(|e| e.to_string())?;
            // Numbers are given by each router.
            if overlay::is_layered(path) {
                return Err("has layers without what is below them".to_owned());
            }
            // Its files were packed as what they are together.
            as_copy(&mut record);
            record.export_pair = free_export_pair(&self.layout).map_err(|e| e.to_string())?;
            record.save(path).map_err(|e| e.to_string())
        })?;
        let mut enrolled = 0;
        for device in devices {
            // Also where an import was cut off between the files and the configuration; not those of another device, whose
            // files were left here.
            let is_from_here = || self.is_same(&device.id, &partial.join(DEVICES).join(&device.id));
            if (taken.contains(&device.id) || is_from_here()) && !self.enrolled.contains(&device.id) {
                enrolled += 1;
                // Nobody listens only while the agent stops; the files are there then.
                let _ = self.results.send(Restored { device, was_configured: false });
            }
        }
        let left = if said.is_empty() { String::new() } else { format!("; left out: {}", said.join(", ")) };
        let (images, taken) = (images.len(), taken.len());
        Ok(format!("{images} images and the files of {taken} Pis taken from {shown}, {enrolled} Pis enrolled{left}"))
    }

    /// Whether the files that a device has here are those of the export.
    fn is_same(&self, id: &str, exported: &Path) -> bool {
        let load = |path: &Path| DeviceRecord::load(path).ok().flatten();
        let (here, there) = (load(&self.layout.device(id)), load(exported));
        let origin = |record: DeviceRecord| (record.made_ms, record.image, record.image_sha256);
        here.is_some() && here.map(origin) == there.map(origin)
    }

    /// Moves what is in `from` to `to`, each in one step, unless there is one of that name or `fit` has something against it.
    fn take(
        &self,
        from: &Path,
        to: &Path,
        said: &mut Vec<String>,
        fit: impl Fn(&Path, &str) -> Result<(), String>,
    ) -> Result<Vec<String>, String> {
        let mut taken = Vec::new();
        let entries = std::fs::read_dir(from).map_err(|e| format!("cannot read {}: {e}", from.display()))?;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let shown = crate::printable::printable(name.as_bytes());
            let place = to.join(&name);
            if place.symlink_metadata().is_ok() {
                said.push(format!("{shown} (there already)"));
                continue;
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let none = || Err("is no directory".to_owned());
            let fits = if is_directory { fit(&path, &name.to_string_lossy()) } else { none() };
            if let Err(why) = fits {
                said.push(format!("{shown} ({why})"));
                continue;
            }
            match rename_new(CWD, &path, CWD, &place) {
                Err(Errno::EXIST) => said.push(format!("{shown} (there already)")),
                other => {
                    other.map_err(|e| format!("cannot move {shown} to {}: {e}", to.display()))?;
                    taken.push(name.to_string_lossy().into_owned());
                }
            }
        }
        sync_directory(to).map_err(|e| format!("cannot write {}: {e}", to.display()))?;
        Ok(taken)
    }
}

/// The devices in a text of UCI; what is wrong with one leaves the others.
fn read_sections(text: &[u8]) -> Option<Vec<Device>> {
    let sections = config::uci::parse(std::str::from_utf8(text).ok()?).ok()?;
    Some(Config::from_sections(&sections).0.devices)
}

/// What a directory holds beside two trees and these.
fn beside(directory: &Path, known: &[&str]) -> Option<String> {
    let Ok(mut entries) = std::fs::read_dir(directory) else { return Some("what cannot be read".to_owned()) };
    entries.find_map(|entry| {
        let name = entry.map_or_else(|_| "what cannot be read".into(), |entry| entry.file_name());
        let is_known = TREES.iter().chain(known).any(|known| name == *known);
        (!is_known).then(|| crate::printable::printable(name.as_bytes()).to_string())
    })
}

/// Whether a directory holds two trees and their description, and no links in their place: they are opened as what they are
/// called.
fn is_whole(directory: &Path, description: &str) -> bool {
    let kind = |name: &str| directory.join(name).symlink_metadata().map(|meta| meta.file_type());
    TREES.iter().all(|tree| kind(tree).is_ok_and(|kind| kind.is_dir()))
        && kind(description).is_ok_and(|kind| kind.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_the_trees_of_an_image_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("boot")).unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("image.json"), "").unwrap();
        assert_eq!(beside(dir.path(), &["image.json"]), None);
        std::fs::create_dir(dir.path().join(overlay::HELD)).unwrap();
        assert_eq!(beside(dir.path(), &["image.json"]).as_deref(), Some("held"));
        assert!(beside(&dir.path().join("absent"), &[]).is_some());
    }
}
