//! A device out of its backup: built beside, and exchanged with what is there in one step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use rustix::fs::CWD;

use super::backup::{Head, decompress, open, read_head};
use super::exported::ExportedAt;
use super::layers;
use super::provision::{Provision, discard, kept, partial_name};
use super::record::{AdaptedFor, DeviceRecord, free_export_pair};
use super::snapshot_work::exchange;
use crate::archive::{ArchiveError, Input, unpack_tree};
use crate::config::{Device, Regional, RootKind};
use crate::image::adapt::{self, Pass};
use crate::progress::Progress;
use crate::storage::tree_writer::TreeWriter;
use crate::storage::{Layout, RESERVE_BYTES, SyncGuard, TREES, free_bytes, rename_new, sync_directory};

/// What came of a restore, for whoever keeps the configuration.
#[derive(Debug)]
pub(super) struct Restored {
    /// The device, as it was when it was backed up or as it is configured.
    pub(super) device: Device,
    /// It was enrolled when that began: if it is not any more, that was somebody's wish.
    pub(super) was_configured: bool,
}

/// The work of a restore; owned, because it runs on another thread.
#[derive(Debug)]
pub(super) struct Restoring {
    pub(super) layout: Layout,
    pub(super) path: PathBuf,
    /// The device that it is to become.
    pub(super) id: String,
    /// Its section, if it is enrolled.
    pub(super) configured: Option<Device>,
    /// Whether files that are there go.
    pub(super) replace: bool,
    pub(super) exported: Option<ExportedAt>,
    /// Language and time of all Pis.
    pub(super) regional: Regional,
    pub(super) now_ms: i64,
    pub(super) results: Sender<Restored>,
}

impl Restoring {
    /// Builds the trees and puts them in place. Whatever fails, what was there is there.
    pub(super) fn run(&self, progress: &dyn Progress) -> Result<String, String> {
        in_scratch(&self.layout, &self.id, |partial| self.run_in(partial, progress))
    }

    fn run_in(&self, partial: &Path, progress: &dyn Progress) -> Result<String, String> {
        let shown = self.path.display();
        let cannot = |e: ArchiveError| format!("{shown}: {e}");
        let input = Input::open(&self.path, progress).map_err(|e| format!("cannot use {shown}: {e}"))?;
        let mut reader = decompress(input).map_err(cannot)?;
        let head = read_head(&mut reader).map_err(cannot)?;
        let device = self.configured.clone().unwrap_or_else(|| head.device.clone());
        if device.id != self.id {
            return Err(format!("{shown} is of {}: to make it the device {}, enrol that first", device.id, self.id));
        }
        progress.set_total(head.manifest.bytes, head.manifest.entries);
        let note = if self.replace { " (the old files go when the new ones are complete)" } else { "" };
        check_space(&self.layout, &self.path, head.manifest.bytes, note)?;
        let failed = |e: &dyn std::fmt::Display| format!("cannot write {}: {e}", partial.display());
        let guard = SyncGuard::open(&self.layout.scratch()).map_err(|e| failed(&e))?;
        std::fs::create_dir(partial).map_err(|e| failed(&e))?;
        let writer = TreeWriter::new(open(partial).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        let done =
            unpack_tree(&mut reader, writer, &TREES, progress, || leave_reserve(&self.layout)).map_err(cannot)?;
        let record = self.record(&head, &device, partial)?;
        record.save(partial).map_err(|e| e.to_string())?;
        // Everything reaches the disk before the rename that publishes it.
        guard.finish().map_err(|e| format!("the files could not be written to disk: {e}"))?;
        if progress.cancelled() {
            return Err("cancelled".to_owned());
        }
        self.publish(partial)?;
        let message = format!(
            "{} restored from {shown}: {} MB in {} files",
            self.id,
            done.bytes.div_ceil(1_000_000),
            done.entries
        );
        // Nobody listens only while the agent stops; its next start finds the files.
        let _ = self.results.send(Restored { device, was_configured: self.configured.is_some() });
        Ok(message)
    }

    /// The record that belongs to the restored trees. A device that becomes another one gets an identity of its own.
    fn record(&self, head: &Head, device: &Device, partial: &Path) -> Result<DeviceRecord, String> {
        let mut record = head.record.clone();
        // The device's own files, but they may be made so that they boot only where nobody writes to them.
        let is_another = head.manifest.id != device.id;
        let ephemeral = if is_another { device.root == RootKind::Ephemeral } else { record.is_ephemeral() };
        record.root = Some(if ephemeral { RootKind::Ephemeral } else { RootKind::Copy }.word().to_owned());
        // Handles of another router, or of another device, must not be taken for those of this one.
        record.export_pair = match DeviceRecord::load(&self.layout.device(&self.id)) {
            // Those of the files that it had before, which a Pi may hold, must lead nowhere.
            Ok(_) => free_export_pair(&self.layout).map_err(|e| e.to_string())?,
            Err(error) => return Err(error.to_string()),
        };
        if !is_another {
            return Ok(record);
        }
        let exported = self.exported.clone().ok_or("none of the configured interfaces has an IPv4 address")?;
        let (layout, device, regional) = (self.layout.clone(), device.clone(), self.regional.clone());
        let provision = Provision { layout, device, exported, regional, now_ms: self.now_ms };
        let target = provision.target(Some(record.adapted_for.as_earlier()), ephemeral);
        let (boot, root) = (partial.join("boot"), partial.join("root"));
        let report = adapt::adapt(&boot, &root, &target, Pass::Fresh).map_err(|e| e.to_string())?;
        record.adapted_for = AdaptedFor::of(&provision.device, &provision.exported, &provision.regional);
        (record.changes, record.notes) = (kept(report.changes), kept(report.notes));
        (record.made_ms, record.spared_bytes) = (self.now_ms, report.spared_bytes);
        Ok(record)
    }

    fn publish(&self, partial: &Path) -> Result<(), String> {
        let place = self.layout.device(&self.id);
        layers::release(&place)?;
        // In one step: at no moment is there neither.
        let moved = if place.exists() && self.replace {
            exchange(partial, &place)
        } else {
            rename_new(CWD, partial, CWD, &place).map_err(io::Error::from)
        };
        moved.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => already_there(&self.id),
            _ => format!("cannot move the restored files to {}: {error}", place.display()),
        })?;
        sync_directory(&self.layout.devices())
            .and_then(|()| sync_directory(&self.layout.scratch()))
            .map_err(|e| e.to_string())
    }
}

/// Works in a directory of the scratch that is new, and is removed whatever comes of it: what is left there is not wanted, or
/// is what was replaced. What cannot be removed now goes at the next start.
pub(super) fn in_scratch(
    layout: &Layout,
    name: &str,
    work: impl FnOnce(&Path) -> Result<String, String>,
) -> Result<String, String> {
    let partial = layout.scratch().join(partial_name(name));
    discard(&partial)?;
    let done = work(&partial);
    let removed = discard(&partial);
    let message = done?;
    removed?;
    Ok(message)
}

/// Refuses what would not fit into the volume with `bytes` of content.
pub(super) fn check_space(layout: &Layout, path: &Path, bytes: u64, note: &str) -> Result<(), String> {
    let free = free_bytes(layout.data_dir()).map_err(|e| format!("cannot ask for free space: {e}"))?;
    if free >= bytes.saturating_add(RESERVE_BYTES) {
        return Ok(());
    }
    Err(format!(
        "what is in {} needs {} MB and {} MB are free in {}: remove a device or an image{note}",
        path.display(),
        bytes.saturating_add(RESERVE_BYTES) >> 20,
        free >> 20,
        layout.data_dir().display(),
    ))
}

/// However much an archive holds, and whatever it says of that: what others need is left.
pub(super) fn leave_reserve(layout: &Layout) -> Result<(), ArchiveError> {
    let free = free_bytes(layout.data_dir()).map_err(ArchiveError::Write)?;
    if free < RESERVE_BYTES { Err(ArchiveError::NoSpace(free >> 20)) } else { Ok(()) }
}

/// What to say where files of a device are in the way.
pub(super) fn already_there(id: &str) -> String {
    format!("there are files of {id} already: give --replace to have them replaced, there is no way back")
}
