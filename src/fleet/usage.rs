//! How much of the disk each image and device takes: measured in the background when somebody asks, and remembered with its
//! time. Looking at every file of 25 roots takes minutes on a slow disk, so nobody waits for it. A device that has a quota has
//! its census taken by the same look.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Stat};

use super::Fleet;
use super::backup::open;
use super::quota::QuotaLevel;
use crate::clock::Moment;
use crate::progress::Progress;
use crate::quota::{Census, FileId, Quota, takes};
use crate::storage::TREES;
use crate::storage::overlay;
use crate::storage::tree_copy::identity;
use crate::storage::usage::{blocks, measure_each};

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
    /// Of every device that is configured, with a limit or without.
    pub(super) quotas: BTreeMap<String, Quota>,
    /// The worst that was said of each since all was well with it.
    pub(super) quotas_said: BTreeMap<String, QuotaLevel>,
    /// When each device's census was begun last.
    pub(super) censuses: BTreeMap<String, Moment>,
}

/// A directory to be looked at.
#[derive(Debug)]
pub(super) struct Look {
    name: String,
    path: PathBuf,
    /// What is found there counts for it.
    quota: Option<Quota>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<BTreeMap<String, Measured>>,
    queue: Mutex<Queue>,
    /// Censuses that came to nothing, by directory name.
    failures: Mutex<BTreeMap<String, Failure>>,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    /// And when it was asked for, Unix time in ms.
    waiting: VecDeque<(Look, i64)>,
    /// Whether somebody measures.
    is_busy: bool,
}

/// Why a device's files are not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Censuses in a row.
    pub(super) times: u32,
    /// For people.
    pub(super) why: String,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Measured>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be looked at next; after `None` nobody measures.
    fn next(&self) -> Option<(Look, i64)> {
        let mut queue = self.queue();
        let next = if self.cancelled() { None } else { queue.waiting.pop_front() };
        queue.is_busy = next.is_some();
        next
    }

    fn work(&self) {
        while let Some((look, asked_ms)) = self.next() {
            let disk_bytes = look.run(self);
            if !self.cancelled() {
                self.table().insert(look.name, Measured { disk_bytes, at_ms: asked_ms });
            }
        }
    }

    /// How the census of a directory ended.
    fn was_counted(&self, look: &Look, quota: &Quota, result: Result<(), String>) {
        let mut failures = self.failures();
        let Err(why) = result else {
            failures.remove(&look.name);
            return;
        };
        let times = failures.get(&look.name).map_or(0, |failure| failure.times);
        if times == 0 {
            let id = look.name.strip_prefix("devices/").unwrap_or(&look.name);
            let state = if quota.used().is_none() { "in force" } else { "kept up to date" };
            log::warn!("the quota of {id} is not {state}: {why}");
        }
        failures.insert(look.name.clone(), Failure { times: times.saturating_add(1), why });
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
        self.put_in_doubt(id);
        self.shared.failures().remove(&device(id));
        if let Some(quota) = self.quotas.get(id) {
            quota.forget();
        }
    }

    /// A job has changed a device's files.
    pub(super) fn put_in_doubt(&mut self, id: &str) {
        self.shared.table().remove(&device(id));
        self.looked_ms = 0;
        self.censuses.remove(id);
        if let Some(quota) = self.quotas.get(id) {
            quota.put_in_doubt();
        }
    }

    /// Whoever measures lets go of the volume; another one may come in its place.
    pub(super) fn stop(&mut self) {
        let before = std::mem::take(&mut self.shared);
        before.stop.store(true, Ordering::Relaxed);
        self.censuses.clear();
        self.quotas.values().for_each(Quota::forget);
    }

    /// Whether somebody measures.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.queue().is_busy
    }

    /// Why a device's files could not be counted, if that was so last.
    pub(super) fn failure(&self, id: &str) -> Option<Failure> {
        self.shared.failures().get(&device(id)).cloned()
    }

    /// Forgets failures of devices that are configured no more.
    pub(super) fn retain_failures(&self) {
        self.shared.failures().retain(|name, _| self.quotas.keys().any(|id| device(id) == *name));
    }

    /// Looks at these directories, in the background: first of all at those of which a quota has to know.
    pub(super) fn look(&self, wanted: Vec<Look>, now_ms: i64) {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
        for look in wanted {
            queue.waiting.retain(|(other, _)| other.name != look.name);
            queue.waiting.push_back((look, now_ms));
        }
        queue.waiting.make_contiguous().sort_by_key(|(look, _)| !look.is_urgent());
        if std::mem::replace(&mut queue.is_busy, true) {
            return;
        }
        drop(queue);
        let thread = std::thread::Builder::new().name("measure".to_owned()).spawn(move || {
            // Linux applies niceness to the thread whose id is given; failing to be nice is no reason not to work.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            shared.work();
        });
        if let Err(error) = thread {
            self.shared.queue().is_busy = false;
            log::warn!("cannot measure what takes how much of the disk: {error}");
        }
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
        if soon || !self.volume.is_present() || self.measured.is_busy() {
            return;
        }
        self.measured.looked_ms = now;
        let wanted = self.stale(now);
        if !wanted.is_empty() {
            self.measured.look(wanted, now);
        }
    }

    /// A look at the files of a device.
    pub(super) fn look_at_device(&self, id: &str) -> Look {
        let quota = self.measured.quotas.get(id).filter(|quota| quota.has_limit() && self.can_be_counted(id)).cloned();
        Look { name: device(id), path: self.layout.device(id), quota }
    }

    /// The directories that were not measured lately. What is gone is forgotten.
    fn stale(&self, now: i64) -> Vec<Look> {
        let mut wanted = Vec::new();
        let mut there = Vec::new();
        for (kind, directory) in [("devices", self.layout.devices()), ("images", self.layout.images())] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    there.push((format!("{kind}/{}", entry.file_name().to_string_lossy()), entry.path()));
                }
            }
        }
        let mut table = self.measured.shared.table();
        table.retain(|name, _| there.iter().any(|(other, _)| other == name));
        for (name, path) in there {
            let known = table.get(&name).map(|known| now.saturating_sub(known.at_ms));
            if !known.is_some_and(|age| (0..FRESH_MS).contains(&age)) {
                let id = name.strip_prefix("devices/");
                wanted.push(id.map_or(Look { name: name.clone(), path, quota: None }, |id| self.look_at_device(id)));
            }
        }
        wanted
    }
}

impl Look {
    /// Whether a quota is not in force until this was looked at.
    fn is_urgent(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.has_limit() && quota.used().is_none())
    }

    /// The two trees: what else is there is small, or shares its blocks with them. A root may be a subvolume, which is a file
    /// system of its own to whoever walks. Of layers it is the upper ones, though a quota counts what is seen of both, which
    /// is what its Pi's changes are counted with.
    fn run(&self, shared: &Shared) -> Option<u64> {
        let census = self.quota.as_ref().map(Quota::census);
        let trees =
            || -> Looked { TREES.iter().map(|tree| look_at(&self.path.join(tree), census.as_ref(), shared)).sum() };
        let (size, counted) = if overlay::is_layered(&self.path) {
            // What is not mounted looks empty.
            let check = || overlay::is_mounted(&self.path).then_some(()).ok_or("its layers are not mounted".to_owned());
            let count = || {
                check()?;
                let counted = trees()?;
                check().map(|()| counted)
            };
            let counted = if census.is_some() { count() } else { Ok(None) };
            (look_at(&self.path.join(overlay::LAYERS), None, shared), counted)
        } else {
            let size = trees();
            (size.clone(), size)
        };
        if let (Some(quota), Some(census)) = (&self.quota, census) {
            match counted {
                Ok(Some(_)) => {
                    census.end();
                    shared.was_counted(self, quota, Ok(()));
                }
                Err(why) if census.is_wanted() && !shared.cancelled() => shared.was_counted(self, quota, Err(why)),
                _ => {}
            }
        }
        size.unwrap_or_else(|why| {
            log::debug!("{} is not measured: {why}", self.name);
            None
        })
    }
}

/// Bytes, `None` if nobody waits for them any more; why not, for people.
type Looked = Result<Option<u64>, String>;

fn look_at(path: &Path, census: Option<&Census>, shared: &Shared) -> Looked {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let directory = open(path).map_err(|error| failed(&error))?;
    // The top is no entry of itself, but it grows like other directories.
    let top = rustix::fs::fstat(&directory).ok();
    let count = |stat: &Stat| census.is_none_or(|census| census.find(id(stat), counted(stat)));
    top.as_ref().map(count);
    let usage = measure_each(directory, shared, count).map_err(|error| failed(&error))?;
    Ok(usage.map(|usage| usage.disk_bytes))
}

fn counted(stat: &Stat) -> u64 {
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    takes(is_file, u64::try_from(stat.st_size).unwrap_or(0), blocks(stat))
}

fn id(stat: &Stat) -> FileId {
    let (device, inode) = identity(stat);
    FileId { device, inode }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
