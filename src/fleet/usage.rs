//! How much of the disk each image and device takes: measured in the background when somebody asks, and remembered with its
//! time. Looking at every file of 25 roots takes minutes on a slow disk, so nobody waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Fleet;
use super::backup::{TREES, open};
use crate::progress::Progress;
use crate::storage::usage::measure;

/// Measurements older than this are made anew when somebody asks.
const FRESH_MS: i64 = 3600 * 1000;
/// How often it is looked whether there is something to measure, at most.
const LOOK_EVERY_MS: i64 = 10 * 1000;
/// Niceness of the thread: lower than that of jobs.
const NICE: i32 = 15;

/// What a directory took when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes on the disk, where they could be counted.
    pub disk_bytes: Option<u64>,
    /// Unix time in ms.
    pub at_ms: i64,
}

/// Measurements by directory name: `devices/lion`, `images/lite`.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    shared: Arc<Shared>,
    looked_ms: i64,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<BTreeMap<String, Measured>>,
    /// Whether somebody measures.
    busy: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Measured>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Shared {
    fn add(&self, _bytes: u64, _files: u64) {}
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Measurements {
    /// A device's files are others now.
    pub(super) fn forget(&mut self, id: &str) {
        self.shared.table().remove(&device(id));
        self.looked_ms = 0;
    }

    /// Whoever measures lets go of the volume.
    pub(super) fn stop(&mut self) {
        let before = std::mem::take(&mut self.shared);
        before.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Measurements {
    fn drop(&mut self) {
        self.stop();
    }
}

fn device(id: &str) -> String {
    format!("devices/{id}")
}

impl Fleet {
    /// What a device's files take, as far as it was measured.
    #[must_use]
    pub fn device_usage(&self, id: &str) -> Option<Measured> {
        self.measured.shared.table().get(&device(id)).copied()
    }

    /// What an image takes, as far as it was measured.
    #[must_use]
    pub fn image_usage(&self, name: &str) -> Option<Measured> {
        self.measured.shared.table().get(&format!("images/{name}")).copied()
    }

    /// Has what was not measured lately measured. Whoever shows the figures asks for this, and does not wait.
    pub fn measure_usage(&mut self) {
        let now = self.clock.wall_ms();
        let soon = (0..LOOK_EVERY_MS).contains(&now.saturating_sub(self.measured.looked_ms));
        if soon || !self.volume.is_present() || self.measured.shared.busy.load(Ordering::Relaxed) {
            return;
        }
        self.measured.looked_ms = now;
        let shared = Arc::clone(&self.measured.shared);
        let wanted = self.stale(now, &shared);
        if wanted.is_empty() {
            return;
        }
        shared.busy.store(true, Ordering::Relaxed);
        let thread = std::thread::Builder::new().name("measure".to_owned()).spawn(move || {
            // Linux applies niceness to the thread whose id is given; failing to be nice is no reason not to work.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            for (name, path) in wanted {
                let disk_bytes = look(&path, &shared);
                if shared.cancelled() {
                    break;
                }
                shared.table().insert(name, Measured { disk_bytes, at_ms: now });
            }
            shared.busy.store(false, Ordering::Relaxed);
        });
        if let Err(error) = thread {
            self.measured.shared.busy.store(false, Ordering::Relaxed);
            log::warn!("cannot measure what takes how much of the disk: {error}");
        }
    }

    /// The directories that were not measured lately. What is gone is forgotten.
    fn stale(&self, now: i64, shared: &Shared) -> Vec<(String, PathBuf)> {
        let mut wanted = Vec::new();
        let mut there = Vec::new();
        for (kind, directory) in [("devices", self.layout.devices()), ("images", self.layout.images())] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    there.push((format!("{kind}/{}", entry.file_name().to_string_lossy()), entry.path()));
                }
            }
        }
        let mut table = shared.table();
        table.retain(|name, _| there.iter().any(|(other, _)| other == name));
        for (name, path) in there {
            let known = table.get(&name).map(|known| now.saturating_sub(known.at_ms));
            if !known.is_some_and(|age| (0..FRESH_MS).contains(&age)) {
                wanted.push((name, path));
            }
        }
        wanted
    }
}

/// The two trees: what else is there is small, or shares its blocks with them. A root may be a subvolume, which is a file
/// system of its own to whoever walks.
fn look(path: &Path, shared: &Shared) -> Option<u64> {
    TREES.iter().map(|tree| look_at(&path.join(tree), shared)).sum()
}

fn look_at(path: &Path, shared: &Shared) -> Option<u64> {
    match open(path).map(|directory| measure(directory, shared)) {
        Ok(Ok(usage)) => usage.map(|usage| usage.disk_bytes),
        Ok(Err(error)) => {
            log::debug!("{} is not measured: {error}", path.display());
            None
        }
        Err(error) => {
            log::debug!("{} is not measured: {error}", path.display());
            None
        }
    }
}
