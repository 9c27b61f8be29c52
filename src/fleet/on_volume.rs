//! The volume under the fleet: it may come late, go, come back, or be another one.

use std::fs::OpenOptions;

use rustix::fs::{AtFlags, FlockOperation, StatxFlags, flock};

use super::{Fleet, MAX_SEEN, Seen, Store, StoreError, probe, provision, snapshot_work};
use crate::boot::BootState;
use crate::boot::packets::Packets;
use crate::config::{Device, NfsMode};
use crate::image;
use crate::jobs::{JobKind, Running};
use crate::nfs;
use crate::storage::{self, Known, Layout, Volume, VolumeProblem};

/// A boot that began longer ago than this many milliseconds is over, whatever became of it.
const RESUMED_MS: i64 = 600_000;

impl Fleet {
    /// Looks at the volume again; true if it came, went or changed its fitness.
    pub fn check_volume(&mut self) -> bool {
        let before = std::mem::replace(&mut self.volume, look_at(&self.layout, &self.config.main.nfs));
        let identity = volume_identity(&self.layout);
        let is_another = identity != self.volume_identity;
        if is_another {
            self.volume_identity = identity;
            self.measured.stop();
            self.lock = None;
            self.store_on_volume = false;
            probe::forget();
        }
        self.tell_disks_apart();
        self.take_lock();
        let changed = is_another || self.volume.problems != before.problems;
        if changed {
            self.volume_changes = self.volume_changes.wrapping_add(1);
            self.log_volume_problems();
        }
        // A copy that filled the disk and was undone would fill it again.
        let is_full = |p: &VolumeProblem| matches!(p, VolumeProblem::Full(..) | VolumeProblem::FewInodes(..));
        let only_space_changed = !is_another && before.problems.iter().chain(&self.volume.problems).all(is_full);
        if changed && !only_space_changed {
            self.failed.clear();
        }
        let had_store = self.store_on_volume;
        self.use_volume();
        changed || self.store_on_volume != had_store
    }

    /// Finds a volume unfit that is another than the one used last and has nothing of the enrolled Pis: making their files
    /// anew, on whatever was plugged in, is nothing to do unasked. One that has files of theirs is taken as it is.
    pub(super) fn tell_disks_apart(&mut self) {
        let Some(known) = self.memory.known().filter(|known| known.data_dir == self.layout.data_dir()) else { return };
        let devices = &self.config.devices;
        if devices.is_empty() || !self.volume.is_present() {
            return;
        }
        let id = storage::read_id(&self.layout.volume_id());
        let has_files = |device: &Device| self.layout.device_root(&device.id).is_dir();
        if id.as_ref() == Some(&known.id) || devices.iter().any(has_files) {
            return;
        }
        // Worse than anything else that may be wrong with it.
        self.volume.problems.insert(
            0,
            VolumeProblem::Another {
                data_dir: self.layout.data_dir().to_owned(),
                expected: name(&known.what, Some(&known.id)),
                found: name(&self.volume.describe(), id.as_deref()),
            },
        );
    }

    /// Takes the volume that is there for the right one.
    ///
    /// # Errors
    /// [`NothingToAccept`].
    pub fn accept_volume(&mut self) -> Result<(), NothingToAccept> {
        self.check_volume();
        if !self.volume.problems.iter().any(|p| matches!(p, VolumeProblem::Another { .. })) {
            return Err(NothingToAccept);
        }
        self.memory.forget();
        self.check_volume();
        Ok(())
    }

    /// Remembers the volume that is used from now on.
    fn remember_volume(&mut self) {
        let remembered = storage::read_or_make_id(&self.layout.volume_id()).and_then(|id| {
            if let Some(old) = self.memory.known().filter(|old| old.id != id) {
                let (old, new) = (name(&old.what, Some(&old.id)), name(&self.volume.describe(), Some(&id)));
                log::warn!("the disk in use is now {new}; before it was {old}");
            }
            let (data_dir, what) = (self.layout.data_dir().to_owned(), self.volume.describe());
            self.memory.remember(Known { id, data_dir, what })
        });
        if let Err(error) = remembered {
            log::warn!("cannot write down which disk is in use ({error}): another in its place will not be noticed");
        }
    }

    /// Makes sure that no other agent works on the volume.
    pub(super) fn take_lock(&mut self) {
        if self.lock.is_some() || !self.volume.is_changeable() {
            return;
        }
        let path = self.layout.data_dir().join(".lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let locked = open.and_then(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(file)
        });
        match locked {
            Ok(file) => (self.lock, self.layers_are_ours) = (Some(file), true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.layers_are_ours = false;
                let why = format!("another piboot works on data_dir {}: stop it", self.layout.data_dir().display());
                self.volume.problems.push(VolumeProblem::Unsuitable(why));
            }
            // The mount has no locks, and the server's other clients have no business in this directory.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) => {
                self.layers_are_ours = true;
                log::warn!("{} cannot be locked: make sure that no other piboot works on it", path.display());
            }
            Err(error) => {
                self.volume
                    .problems
                    .push(VolumeProblem::Unsuitable(format!("cannot write {}: {error}", path.display())));
            }
        }
    }

    pub(super) fn log_volume_problems(&self) {
        for problem in &self.volume.problems {
            log::warn!("{problem}");
        }
    }

    /// Opens the store on the volume if the volume is there and the store is not open yet.
    pub(super) fn use_volume(&mut self) {
        if !self.volume.is_present() || self.volume_identity.is_none() {
            if self.store_on_volume || self.lock.is_some() {
                // Nothing of ours keeps the volume from being unmounted.
                self.measured.stop();
                self.leave_store();
            }
            return;
        }
        if self.store_on_volume {
            return;
        }
        // History on a volume that cannot be written, or will not be used, would help nobody.
        if !self.volume.is_changeable() {
            return;
        }
        if let Err(error) = self.layout.create() {
            let directory = self.layout.data_dir().display();
            self.note_store_problem(Some(format!("cannot create directories in {directory}: {error}")));
            return;
        }
        self.remember_volume();
        let open = match storage::is_network_at(self.layout.data_dir()) {
            true => Store::open_on_network,
            false => Store::open,
        };
        let adopted = open(&self.layout.database()).and_then(|store| self.adopt(store));
        self.store_on_volume = adopted.is_ok();
        self.note_store_problem(adopted.err().map(|e| format!("{e}; history is kept in memory until this is mended")));
        if self.store_on_volume {
            self.sweep();
            self.examine_images();
        }
    }

    /// Goes on in memory when the volume is gone.
    fn leave_store(&mut self) {
        (self.store_on_volume, self.lock) = (false, None);
        match Store::in_memory() {
            Ok(store) => self.store = store,
            Err(error) => log::error!("{error}"),
        }
    }

    /// Goes on with the store that was found on the volume, and hands over what memory holds.
    fn adopt(&mut self, store: Store) -> Result<(), StoreError> {
        for job in store.interrupt_jobs(self.clock.wall_ms())? {
            log::warn!(
                "job {} ({:?} of '{}') was interrupted when piboot stopped; nothing of it is left",
                job.id,
                job.kind,
                job.subject
            );
        }
        self.resume_boots(&store)?;
        self.jobs.number_from(store.jobs()?.last().map_or(0, |job| job.id).saturating_add(1));
        self.tracker.number_anew(|boot| !matches!(store.boot(boot.id), Ok(Some(stored)) if stored.is_same(boot)));
        let unsaved = self.seen.list().into_iter().cloned().collect::<Vec<_>>();
        // What memory holds is let go only when the store has shown that it can be written.
        let mut store = store;
        store.save_pis(&unsaved, &[])?;
        self.seen = Seen::new(store.pis(MAX_SEEN)?);
        let before = std::mem::replace(&mut self.store, store);
        // Boots that are over are in the old store only.
        for mut boot in before.boots(None, u32::MAX)?.into_iter().rev() {
            let followed = self.tracker.boot(boot.mac).is_some_and(|current| current.is_same(&boot));
            if !followed && !self.store.boot(boot.id)?.is_some_and(|stored| stored.is_same(&boot)) {
                let packets = before.packets(boot.id)?;
                boot.id = 0;
                self.store.save_boot(&mut boot)?;
                if !packets.is_empty() {
                    self.store.save_packets(boot.id, &packets)?;
                }
            }
        }
        self.save();
        Ok(())
    }

    /// Goes on with the boots that an earlier run of the agent left under way; those that are too old are over.
    fn resume_boots(&mut self, store: &Store) -> Result<(), StoreError> {
        for mut boot in store.unfinished_boots()? {
            let age = self.clock.wall_ms().saturating_sub(boot.started_ms);
            // A router without a battery may not know the time yet.
            let is_recent = (0..RESUMED_MS).contains(&age);
            let is_followed = self.tracker.boot(boot.mac).is_some();
            if !is_followed && (is_recent || boot.state == BootState::Running) {
                boot.packets = Packets::resume(store.packets(boot.id)?);
                self.tracker.resume(boot, u32::try_from(age.max(0)).unwrap_or(u32::MAX));
            } else if boot.state == BootState::Booting {
                boot.state = BootState::Abandoned;
                store.save_boot(&mut boot)?;
            }
        }
        Ok(())
    }

    /// Removes what killed jobs left in the scratch directory. Trees take their time: a job does it.
    fn sweep(&mut self) {
        for id in snapshot_work::finish_swaps(&self.layout, self.clock.wall_ms()) {
            self.follow_record(&id);
        }
        let scratch = self.layout.scratch();
        if std::fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_none()) {
            return;
        }
        let leftovers = provision::leftovers(&self.layout);
        let task = Box::new(move |_: &Running| {
            let imports = image::sweep(&scratch);
            for leftover in &imports {
                log::warn!("{leftover}");
            }
            leftovers.iter().try_for_each(|path| provision::discard(path))?;
            let count = leftovers.len().saturating_add(imports.len());
            Ok(format!("{count} unfinished or deleted trees of an earlier run removed"))
        });
        match self.jobs.submit(JobKind::Delete, "scratch", task) {
            Ok(job) => self.note_job(job),
            Err(error) => log::warn!("cannot tidy {}: {error}", self.layout.scratch().display()),
        }
    }

    /// Says once what is wrong with the store.
    pub(super) fn note_store_problem(&mut self, problem: Option<String>) {
        if let Some(text) = problem.as_ref().filter(|_| problem != self.store_problem) {
            log::error!("{text}");
        }
        self.store_problem = problem;
    }
}

/// The volume that is there is not held back.
#[derive(Debug, thiserror::Error)]
#[error("there is no other disk to accept: 'piboot status' says which one is in use")]
pub struct NothingToAccept;

/// A disk as people may know it.
fn name(what: &str, id: Option<&str>) -> String {
    let id = id.and_then(|id| id.get(..8));
    id.map_or_else(|| what.to_owned(), |id| format!("disk {id} ({what})"))
}

/// The volume, and whether a root can be exported from it: its file handles have to outlive a remount. Where another
/// server exports it, it has to be what that calls it.
pub(super) fn look_at(layout: &Layout, nfs: &NfsMode) -> Volume {
    let mut volume = storage::check(layout.data_dir());
    if let Some(external) = nfs.external() {
        // Nobody starts programs from it here.
        volume.problems.retain(|problem| !matches!(problem, VolumeProblem::NoExec(_)));
        if volume.is_present() {
            let wrong = storage::check_external(layout.data_dir(), external.server, &external.path);
            volume.problems.extend(wrong.map(VolumeProblem::Unsuitable));
        }
        return volume;
    }
    if volume.is_present() {
        match nfs::handle_support(layout.data_dir()) {
            Ok(support) => volume.problems.extend(support.refusal.map(VolumeProblem::Unsuitable)),
            Err(error) => volume.problems.push(VolumeProblem::Unsuitable(error.to_string())),
        }
    }
    volume
}

/// Device number and mount id of the file system that holds `data_dir`.
pub(super) fn volume_identity(layout: &Layout) -> Option<(u64, u64)> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(rustix::fs::CWD, layout.data_dir(), AtFlags::empty(), flags).ok()?;
    Some((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_mnt_id))
}
