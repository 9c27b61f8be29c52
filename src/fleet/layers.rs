//! Devices whose trees are layers over an image's: put together before they are served or read, taken apart when they are moved.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::Fleet;
use super::provision::{PARTIAL, discard};
use super::record::DeviceRecord;
use crate::nfs::trial;
use crate::progress::Progress;
use crate::storage::overlay::{self, InUse};
use crate::storage::{Layout, Links, TREES};

/// What such a root is called, in the configuration and in a device's record.
pub(super) const KIND: &str = "overlay";
/// How long a job waits for files that the servers have open: they close what nobody uses within 20 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long what cannot be mounted or unmounted is left alone after it was tried again, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Why the layers of a device could not be mounted when that was tried last.
#[derive(Debug)]
pub(super) struct Missing {
    /// Somebody had them.
    is_busy: bool,
    /// For people.
    why: String,
}

/// Whether the trees in a directory are layers. Either sign will do: what lies where they are mounted is nothing to read.
pub(super) fn is_layered(directory: &Path, record: &DeviceRecord) -> bool {
    record.root.as_deref() == Some(KIND) || overlay::is_layered(directory)
}

/// Makes the trees of a directory readable, if they are layers, for as long as the answer lives; those of a snapshot are taken
/// apart then, those of a device are left to [`Fleet::tidy_layers`].
///
/// # Errors
/// A sentence for people.
pub(super) fn open(layout: &Layout, directory: &Path) -> Result<Option<InUse>, String> {
    let Some(record) = DeviceRecord::load(directory).map_err(|e| e.to_string())? else { return Ok(None) };
    if !is_layered(directory, &record) {
        return Ok(None);
    }
    let is_device = directory.parent() == Some(&layout.devices());
    InUse::begin(layout, directory, &record.image, !is_device).map(Some).map_err(|e| e.to_string())
}

/// Takes apart what is mounted in a directory or below, before it is moved or deleted.
///
/// # Errors
/// A sentence for people.
pub(super) fn release(directory: &Path) -> Result<(), String> {
    overlay::release(directory, PATIENCE).map_err(|e| format!("cannot unmount {}: {e}", directory.display()))
}

/// Makes an image ready to be a lower layer, if it is not.
///
/// # Errors
/// A sentence for people.
pub(super) fn hold(layout: &Layout, image: &str, progress: &dyn Progress) -> Result<(), String> {
    if layout.image(image).join(overlay::HELD).is_dir() {
        return Ok(());
    }
    // A device's id has no hyphen: this is none's.
    let partial = layout.scratch().join(format!("{PARTIAL}{}-{image}.partial", overlay::HELD));
    discard(&partial)?;
    std::fs::create_dir(&partial).map_err(|e| format!("cannot create {}: {e}", partial.display()))?;
    let held = overlay::hold(layout, image, &partial, progress);
    if held.is_err() {
        discard(&partial)?;
    }
    held.map_err(|e| e.to_string())
}

/// A device with an ephemeral root of this image, whose files may be the image's own. The kernel tells the links of a file in an
/// overlay from those of what is below (fs/overlayfs, `overlay.nlink`): while Pis lie over an image, nobody may link to it.
pub(super) fn linked_to(layout: &Layout, image: &str) -> Option<String> {
    std::fs::read_dir(layout.devices()).ok()?.flatten().find_map(|entry| {
        let record = DeviceRecord::load(&entry.path()).ok().flatten()?;
        let is_it = record.is_ephemeral() && record.image == image;
        is_it.then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// What to say where one image is to have both kinds of roots.
pub(super) fn not_both(image: &str, id: &str) -> String {
    format!(
        "{id} has an ephemeral root of image '{image}', and on this disk an image cannot have that and roots by 'overlay': import it once more under another name"
    )
}

/// Why nobody can link to an image's files.
pub(super) fn is_below(layout: &Layout, image: &str) -> Option<String> {
    layout.image(image).join(overlay::HELD).is_dir().then(|| {
        format!(
            "roots by 'overlay' were made of image '{image}', and on this disk it cannot have those and ephemeral ones: import it once more under another name"
        )
    })
}

/// The record of a device whose layers were packed, or copied, as what they are together.
pub(super) fn as_copy(record: &mut DeviceRecord) {
    if record.root.as_deref() == Some(KIND) {
        record.root = Some("copy".to_owned());
    }
}

/// What the links of a tree's files are, of a device, a snapshot or an image.
pub(super) fn links(tree: &Path) -> Links {
    let beside = |name: &str| tree.with_file_name(name).is_dir();
    match tree.file_name().and_then(|name| name.to_str()) {
        Some(name) if !TREES.contains(&name) => Links::Names,
        _ if beside(overlay::LAYERS) => Links::Layers(trial::is_held),
        _ if beside(overlay::HELD) => Links::Held,
        _ => Links::Names,
    }
}

/// What an image is claimed as by jobs that put layers over it.
pub(super) fn claim_name(image: &str) -> String {
    format!("image {image}")
}

impl Fleet {
    /// Mounts the layers of a device that is to be served, if it has any; whether it has.
    ///
    /// # Errors
    /// A sentence for people: it cannot be served.
    pub(super) fn put_together(&mut self, id: &str, record: &DeviceRecord) -> Result<bool, String> {
        let directory = self.layout.device(id);
        if !is_layered(&directory, record) {
            return Ok(false);
        }
        if !self.layers_are_ours {
            // Another agent's, as a rule, which may have them mounted.
            let why = self.volume.problems.first().map(ToString::to_string);
            return Err(why.unwrap_or_else(|| format!("{} is not locked", self.layout.data_dir().display())));
        }
        let known = self.layers_missing.remove(id);
        // Who waited for one device does not wait for each of the others, nor for the same one again.
        let waits = known.is_none() && !self.layers_unsettled;
        let patience = if waits { overlay::BUSY } else { Duration::ZERO };
        let mounted = overlay::mount(&self.layout, &directory, &record.image, patience);
        // Servers open anew what came, and let go what went: as long as that is open nothing can be mounted over it.
        let is_news = mounted.as_ref().map_or(known.is_none(), |mounted| *mounted || known.is_some());
        if is_news {
            self.volume_changes = self.volume_changes.wrapping_add(1);
        }
        match mounted {
            Ok(mounted) => {
                if mounted {
                    log::info!("{id}: its layers over image {} are mounted", record.image);
                }
                Ok(true)
            }
            Err(error) => {
                self.layers_unsettled = true;
                // Looking for whoever has them means reading what every process has mounted.
                let is_busy = error.is_busy();
                let why = match known.filter(|known| is_busy && known.is_busy) {
                    Some(known) => known.why,
                    None => error.with_holder().to_string(),
                };
                self.layers_missing.insert(id.to_owned(), Missing { is_busy, why: why.clone() });
                Err(why)
            }
        }
    }

    /// Unmounts layers of devices that are served no more, once the servers have closed what they had open there.
    pub(super) fn tidy_layers(&mut self, served: &[super::Served]) {
        // Not detached: a job may be reading there.
        let now = self.layout.data_dir().to_owned();
        self.layers_elsewhere.retain(|before| *before != now && overlay::unmount_below(before).is_err());
        self.layers_unsettled |= !self.layers_elsewhere.is_empty();
        if !self.volume.is_present() || !self.layers_are_ours {
            return;
        }
        let devices = self.layout.devices();
        let Ok(devices) = devices.canonicalize() else { return };
        for point in overlay::mounted_below(&devices) {
            let id = point.strip_prefix(&devices).ok().and_then(|below| below.iter().next()).and_then(|id| id.to_str());
            let Some(id) = id else { continue };
            let is_needed = served.iter().any(|served| served.id == id) || self.needed_by(id).is_some();
            if is_needed || !self.jobs.all_on(id).is_empty() || self.claimed(id).is_some() {
                continue;
            }
            match overlay::unmount(&devices.join(id)) {
                Ok(()) => {}
                Err(Errno::BUSY) => self.layers_unsettled = true,
                Err(errno) => log::warn!("cannot unmount the layers of {id}: {errno}"),
            }
        }
    }

    /// Whether layers could not be mounted or unmounted, and may be by now: what goes on failing is tried ever more rarely.
    pub fn has_unsettled_layers(&mut self) -> bool {
        if !self.layers_unsettled {
            self.layers_pause = Duration::ZERO;
            return false;
        }
        let now = self.clock.now();
        if now.since(self.layers_tried) < self.layers_pause {
            return false;
        }
        self.layers_tried = now;
        self.layers_pause = self.layers_pause.saturating_mul(2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.layers_unsettled = false;
        true
    }

    /// Takes everything apart: nothing of ours keeps the volume from being unmounted. Servers and jobs have stopped.
    pub(super) fn take_layers_apart(&self) {
        let here = self.layers_are_ours.then(|| self.layout.data_dir());
        for directory in self.layers_elsewhere.iter().map(PathBuf::as_path).chain(here) {
            if let Err(errno) = overlay::release(directory, Duration::ZERO) {
                log::warn!("cannot unmount layers in {}: {errno}", directory.display());
            }
        }
    }

    /// Devices and snapshots whose files lie over an image, which they need for as long as they are; of layers that say
    /// nothing of what they lie over, all.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(super) fn layers_over(&self, image: &str) -> std::io::Result<Vec<String>> {
        let is_over = |directory: &Path| match DeviceRecord::load(directory) {
            Ok(Some(record)) => record.image == image && is_layered(directory, &record),
            Ok(None) | Err(_) => overlay::is_layered(directory),
        };
        let names = |directory: &Path| -> std::io::Result<Vec<String>> {
            let entries = match std::fs::read_dir(directory) {
                // Or a file that nobody knows.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(Vec::new());
                }
                other => other?,
            };
            let mut names = Vec::new();
            for entry in entries {
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        };
        let mut over = Vec::new();
        for id in names(&self.layout.devices())? {
            if is_over(&self.layout.device(&id)) {
                over.push(id);
            }
        }
        for id in names(&self.layout.snapshots())? {
            let of = self.layout.snapshots_of(&id);
            let snapshots = names(&of)?.into_iter().filter(|name| is_over(&of.join(name)));
            over.extend(snapshots.map(|name| format!("snapshot {name} of {id}")));
        }
        Ok(over)
    }
}
