//! The file work of snapshots, done by jobs: take one, make a device what it was in one.
//!
//! Rolling back leaves either the old trees or the new whenever it is killed. The snapshot is copied to the scratch
//! directory, moved to `snapshots/<id>/.swap` with a mark in it, and exchanged with the device's directory in one step
//! (renameat2(2), RENAME_EXCHANGE). By the mark [`finish_swaps`] tells on which side of that step it was killed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::layers;
use super::provision::{ROLLBACK, SNAPSHOT, discard, set_aside};
use super::record::{DeviceRecord, RolledBack};
use super::roots::{self, Way};
use super::snapshots::{BEFORE_ROLLBACK, Snapshot, free_name};
use super::trees::{Made, Trees};
use crate::config::RootKind;
use crate::progress::Progress;
use crate::storage::{Layout, SyncGuard, sync_directory};

/// Where trees wait in `snapshots/<id>` to be exchanged with the device's; no name of a snapshot.
const SWAP: &str = ".swap";
/// A file in trees that are not the device's yet.
const MARK: &str = ".incoming";

/// What a job on a device's snapshots needs to know; owned, because the job runs on another thread.
#[derive(Debug, Clone)]
pub(super) struct SnapshotWork {
    pub(super) layout: Layout,
    /// The device.
    pub(super) id: String,
    /// Unix time in ms at the start of the job.
    pub(super) now_ms: i64,
}

impl SnapshotWork {
    /// Takes a snapshot. Whatever fails, nothing is left behind.
    pub(super) fn take(&self, name: &str, progress: &dyn Progress) -> Result<String, String> {
        let partial = self.layout.scratch().join(format!("{SNAPSHOT}{}.partial", self.id));
        let (from, place) = (self.layout.device(&self.id), self.layout.snapshot(&self.id, name));
        cleaned(&partial, || {
            let (made, root) = self.copy(&from, &partial, progress)?;
            let record = DeviceRecord { root: Some(root.to_owned()), ..load(&from)? };
            record.save(&partial).map_err(|e| e.to_string())?;
            self.snapshot(name, &record, made).save(&partial).map_err(|e| cannot("write", &partial, &e))?;
            self.publish(&partial, &place, progress)?;
            Ok(format!("snapshot {name} of {} taken{}", self.id, made.words()))
        })
    }

    /// Makes the device what it was in snapshot `name`.
    pub(super) fn roll_back(
        &self,
        name: &str,
        discard_old: bool,
        after_failed: u32,
        progress: &dyn Progress,
    ) -> Result<String, String> {
        let partial = self.layout.scratch().join(format!("{ROLLBACK}{}.partial", self.id));
        let (device, snapshot) = (self.layout.device(&self.id), self.layout.snapshot(&self.id, name));
        let swap = self.layout.snapshots_of(&self.id).join(SWAP);
        let now = load(&device)?;
        unmark(&device)?;
        cleaned(&partial, || {
            let (_, root) = self.copy(&snapshot, &partial, progress)?;
            let rolled_back = RolledBack { to: name.to_owned(), at_ms: self.now_ms, after_failed };
            // Its number is the device's, whatever becomes of its files.
            let record =
                DeviceRecord { export_pair: now.export_pair, rolled_back: Some(rolled_back), ..load(&snapshot)? };
            let record = DeviceRecord { root: Some(root.to_owned()), ..record };
            record.save(&partial).map_err(|e| e.to_string())?;
            std::fs::write(partial.join(MARK), "").map_err(|e| cannot("write", &partial, &e))?;
            self.publish(&partial, &swap, progress)
        })?;
        layers::release(&device)?;
        exchange(&device, &swap).map_err(|e| {
            // Both are where they were; the next start tidies up if this does not.
            let _ = discard(&swap);
            cannot("exchange", &device, &e)
        })?;
        let keep_as = (!discard_old).then_some(BEFORE_ROLLBACK);
        for aside in finish_swap(&self.layout, &self.id, keep_as, self.now_ms)? {
            discard(&aside)?;
        }
        let kept = if discard_old { String::new() } else { format!("; what it was is snapshot {BEFORE_ROLLBACK}") };
        Ok(format!("{} is rolled back to snapshot {name}{kept}", self.id))
    }

    /// Copies trees, whole ones whatever they are; what that took, and what it made.
    fn copy(&self, from: &Path, partial: &Path, progress: &dyn Progress) -> Result<(Made, &'static str), String> {
        let content = roots::content(RootKind::Auto, &self.layout.scratch()).map_err(|e| e.to_string())?;
        if let Some(known) = Snapshot::load(from) {
            progress.set_total(known.shared_bytes.saturating_add(known.copied_bytes), known.entries);
        }
        let scratch = self.layout.scratch();
        let guard = SyncGuard::open(&scratch).map_err(|e| cannot("use", &scratch, &e.into()))?;
        std::fs::create_dir(partial).map_err(|e| cannot("create", partial, &e))?;
        let in_use = layers::open(&self.layout, from)?;
        let made = Trees::of(from).copy(content, partial, progress)?;
        drop(in_use);
        guard.finish().map_err(|e| format!("the copy could not be written to disk: {e}"))?;
        // What is for a Pi that cannot write to it stays that.
        let kind = if load(from)?.is_ephemeral() { RootKind::Ephemeral } else { RootKind::Auto };
        Ok((made, roots::word(kind, Way::Files(content))))
    }

    /// Moves finished trees to their place, durably.
    fn publish(&self, partial: &Path, place: &Path, progress: &dyn Progress) -> Result<(), String> {
        // The records, which were written after the trees.
        let written = sync_directory(partial).and_then(|()| sync_directory(&self.layout.scratch()));
        written.map_err(|e| cannot("write", partial, &e))?;
        if progress.cancelled() {
            return Err("cancelled".to_owned());
        }
        let moved = std::fs::rename(partial, place).and_then(|()| sync_directory(&self.layout.snapshots_of(&self.id)));
        moved.map_err(|e| cannot("move the finished trees to", place, &e))
    }

    fn snapshot(&self, name: &str, record: &DeviceRecord, made: Made) -> Snapshot {
        Snapshot {
            name: name.to_owned(),
            made_ms: self.now_ms,
            image: record.image.clone(),
            hostname: record.adapted_for.hostname.clone(),
            entries: made.copied.entries,
            shared_bytes: made.copied.shared,
            copied_bytes: made.copied.bytes,
            whole: made.whole,
        }
    }
}

/// Ends what a kill left between two steps of a roll-back, of whatever device. Trees that are not wanted are set aside
/// for whoever sweeps the scratch directory.
pub(super) fn finish_swaps(layout: &Layout, now_ms: i64) -> Vec<String> {
    let mut done = Vec::new();
    for entry in std::fs::read_dir(layout.snapshots()).into_iter().flatten().flatten() {
        let (name, swap) = (entry.file_name(), entry.path().join(SWAP));
        let Some(id) = name.to_str().filter(|_| swap.exists()) else { continue };
        let ended = if swap.join(MARK).exists() {
            // The exchange did not come to pass.
            set_aside(layout, &swap).map(drop).map_err(|e| cannot("move", &swap, &e))
        } else {
            // Whatever is called so already may be all that is left of it.
            let name = free_name(BEFORE_ROLLBACK, |name| layout.snapshot(id, name).exists());
            done.push(id.to_owned());
            finish_swap(layout, id, Some(&name), now_ms).map(drop)
        };
        match ended {
            Ok(()) => {
                log::warn!("a roll-back of {id} was interrupted; it is now as it was before or after, as a whole")
            }
            Err(error) => log::error!("a roll-back of {id} was interrupted and cannot be tidied up: {error}"),
        }
    }
    done
}

/// Puts finished trees in the place of a device's, which become a snapshot. Killed in the middle, the device has its old
/// trees or the new ones, and the old ones are then called `before-rollback`.
pub(super) fn keep_as_snapshot(
    layout: &Layout,
    id: &str,
    finished: &Path,
    name: &str,
    now_ms: i64,
) -> Result<(), String> {
    let (device, swap) = (layout.device(id), layout.snapshots_of(id).join(SWAP));
    std::fs::write(finished.join(MARK), "").map_err(|e| cannot("write", finished, &e))?;
    let marked = sync_directory(finished).and_then(|()| sync_directory(&layout.scratch()));
    marked.map_err(|e| cannot("write", finished, &e))?;
    layers::release(&device)?;
    let moved = std::fs::rename(finished, &swap).and_then(|()| sync_directory(&layout.snapshots_of(id)));
    moved.map_err(|e| cannot("move the finished trees to", &swap, &e))?;
    exchange(&device, &swap).map_err(|e| {
        // Both are where they were; the next start tidies up if this does not.
        let _ = discard(&swap);
        cannot("exchange", &device, &e)
    })?;
    finish_swap(layout, id, Some(name), now_ms)?.iter().try_for_each(|aside| discard(aside))
}

/// After the exchange: the device's old trees become a snapshot, or are set aside. Answers where what is to be deleted went.
fn finish_swap(layout: &Layout, id: &str, keep_as: Option<&str>, now_ms: i64) -> Result<Vec<PathBuf>, String> {
    let (device, swap) = (layout.device(id), layout.snapshots_of(id).join(SWAP));
    let mut gone = Vec::new();
    // The mark goes while `.swap` still shows that something is to be ended.
    unmark(&device)?;
    for directory in [device, layout.devices(), layout.snapshots_of(id)] {
        sync_directory(&directory).map_err(|e| cannot("write", &directory, &e))?;
    }
    let Some(name) = keep_as else {
        gone.push(set_aside(layout, &swap).map_err(|e| cannot("move", &swap, &e))?);
        return Ok(gone);
    };
    let record = load(&swap)?;
    let snapshot = Snapshot {
        name: name.to_owned(),
        made_ms: now_ms,
        image: record.image,
        hostname: record.adapted_for.hostname,
        entries: 0,
        shared_bytes: 0,
        copied_bytes: 0,
        whole: false,
    };
    snapshot.save(&swap).map_err(|e| cannot("write", &swap, &e))?;
    let place = layout.snapshot(id, name);
    if place.exists() {
        gone.push(set_aside(layout, &place).map_err(|e| cannot("move", &place, &e))?);
    }
    let moved = std::fs::rename(&swap, &place).and_then(|()| sync_directory(&layout.snapshots_of(id)));
    moved.map_err(|e| cannot("move the old trees to", &place, &e))?;
    Ok(gone)
}

/// The trees are the device's now.
fn unmark(device: &Path) -> Result<(), String> {
    match std::fs::remove_file(device.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("tidy", device, &error)),
        _ => Ok(()),
    }
}

/// Swaps two directories of one file system in one step.
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

fn load(directory: &Path) -> Result<DeviceRecord, String> {
    let record = DeviceRecord::load(directory).map_err(|e| e.to_string())?;
    record.ok_or_else(|| format!("there are no trees in {}", directory.display()))
}

/// Work on `partial`, of which nothing is left if it fails.
fn cleaned<T>(partial: &Path, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    discard(partial)?;
    let result = work();
    if result.is_err() {
        discard(partial)?;
    }
    result
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
