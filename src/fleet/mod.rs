//! The Pis: which are enrolled, which were seen, what each needs next.
//!
//! [`Fleet`] holds what is known; [`Fleet::reconcile`] compares it with what the configuration asks for, starts the
//! jobs that close the gap, and says what the servers shall serve.

mod enrol;
pub mod provision;
mod reconcile;
mod record;
mod seen;
mod store;

pub use enrol::{EnrolError, Enrolment, Removal};
pub use reconcile::{DeviceState, Served, Wanted};
pub use record::{AdaptedFor, DeviceRecord, RecordError};
pub use seen::{MAX_SEEN, Seen, SeenPi};
pub use store::{Store, StoreError};

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FlockOperation, StatxFlags, flock};
use tokio::sync::mpsc::UnboundedSender;

use crate::boot::{Boot, Tracker, Update, Who};
use crate::clock::Clock;
use crate::config::{self, Config, Device, Problem};
use crate::events::{Event, What};
use crate::image;
use crate::jobs::{Job, Jobs};
use crate::net::AddressBook;
use crate::nfs;
use crate::pi::{Mac, Serial};
use crate::storage::{self, Layout, Volume, VolumeProblem};

/// Everything known about the Pis of this router.
#[derive(Debug)]
pub struct Fleet {
    clock: Clock,
    config_file: PathBuf,
    config: Config,
    problems: Vec<Problem>,
    layout: Layout,
    volume: Volume,
    /// Whether the store is the one on the volume.
    store_on_volume: bool,
    store: Store,
    /// Why history is not stored as it should be.
    store_problem: Option<String>,
    seen: Seen,
    tracker: Tracker,
    jobs: Jobs,
    addresses: AddressBook,
    server: Option<Ipv4Addr>,
    states: BTreeMap<String, DeviceState>,
    /// Devices as they were last served, for the time without the volume.
    served: BTreeMap<String, Served>,
    volume_changes: u32,
    /// Whether the volume was there since the start.
    volume_seen: bool,
    /// Which file system, mounted when, `data_dir` is on: another one may come in its place without a problem to see.
    volume_identity: Option<(u64, u64)>,
    /// Keeps a second agent away from the volume.
    lock: Option<File>,
    /// Devices whose trees could not be made, and why; tried again when something changes.
    failed: BTreeMap<String, String>,
}

/// Why the fleet could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] config::LoadError),
    /// Not even a database in memory can be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No worker thread.
    #[error("cannot start the job worker: {0}")]
    Worker(std::io::Error),
}

impl Fleet {
    /// Reads the configuration, looks at the volume, opens the store. A missing or unfit volume is a problem to
    /// report, not an error. Ended jobs are announced on `job_ended`; their numbers go to [`Fleet::job_ended`].
    ///
    /// # Errors
    /// When the configuration cannot be read or the process lacks the bare necessities.
    pub fn open(
        config_file: PathBuf,
        clock: Clock,
        addresses: AddressBook,
        job_ended: UnboundedSender<u32>,
    ) -> Result<Self, FleetError> {
        let (config, problems) = config::load(&config_file, None)?;
        let layout = Layout::new(config.main.data_dir.clone());
        let store = Store::in_memory()?;
        let jobs = Jobs::start(clock.clone(), 1, job_ended).map_err(FleetError::Worker)?;
        let mut fleet = Self {
            tracker: Tracker::new(clock.clone()),
            volume: look_at(&layout),
            clock,
            config_file,
            config,
            problems,
            layout,
            store_on_volume: false,
            store,
            store_problem: None,
            seen: Seen::default(),
            jobs,
            addresses,
            server: None,
            states: BTreeMap::new(),
            served: BTreeMap::new(),
            volume_changes: 0,
            volume_seen: false,
            volume_identity: None,
            lock: None,
            failed: BTreeMap::new(),
        };
        fleet.volume_identity = volume_identity(&fleet.layout);
        fleet.take_lock();
        fleet.log_volume_problems();
        fleet.use_volume();
        Ok(fleet)
    }

    /// Reads the configuration again. A configuration that cannot be read leaves the old one in force.
    ///
    /// # Errors
    /// When the file is unreadable or no UCI.
    pub fn reload(&mut self) -> Result<(), config::LoadError> {
        let (config, problems) = match config::load(&self.config_file, Some(&self.config)) {
            Ok(loaded) => loaded,
            Err(error) => {
                let why = format!("{error}; the configuration from before stays in force");
                self.problems = vec![Problem { severity: config::Severity::Error, place: "piboot".to_owned(), why }];
                return Err(error);
            }
        };
        if config.main.data_dir != self.config.main.data_dir {
            self.layout = Layout::new(config.main.data_dir.clone());
            self.store_on_volume = false;
        }
        (self.config, self.problems) = (config, problems);
        self.failed.clear();
        // An admin's SIGHUP also means: try again what could not be opened.
        self.volume_changes = self.volume_changes.wrapping_add(1);
        self.check_volume();
        Ok(())
    }

    /// Looks at the volume again; true if it came, went or changed its fitness.
    pub fn check_volume(&mut self) -> bool {
        let before = std::mem::replace(&mut self.volume, look_at(&self.layout));
        let identity = volume_identity(&self.layout);
        let is_another = identity != self.volume_identity;
        if is_another {
            self.volume_identity = identity;
            self.lock = None;
            self.store_on_volume = false;
        }
        self.take_lock();
        let changed = is_another || self.volume.problems != before.problems;
        if changed {
            self.volume_changes = self.volume_changes.wrapping_add(1);
            self.log_volume_problems();
        }
        // A copy that filled the disk and was undone would fill it again.
        let only_full = |volume: &Volume| volume.problems.iter().all(|p| matches!(p, VolumeProblem::Full(..)));
        if changed && !(only_full(&self.volume) && only_full(&before)) {
            self.failed.clear();
        }
        let had_store = self.store_on_volume;
        self.use_volume();
        changed || self.store_on_volume != had_store
    }

    /// Makes sure that no other agent works on the volume.
    fn take_lock(&mut self) {
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
            Ok(file) => self.lock = Some(file),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let why = format!("another piboot works on data_dir {}: stop it", self.layout.data_dir().display());
                self.volume.problems.push(VolumeProblem::Unsuitable(why));
            }
            Err(error) => {
                self.volume
                    .problems
                    .push(VolumeProblem::Unsuitable(format!("cannot write {}: {error}", path.display())));
            }
        }
    }

    fn log_volume_problems(&self) {
        for problem in &self.volume.problems {
            log::warn!("{problem}");
        }
    }

    /// Opens the store on the volume if the volume is there and the store is not open yet.
    fn use_volume(&mut self) {
        if !self.volume.is_present() || self.volume_identity.is_none() {
            if self.store_on_volume || self.lock.is_some() {
                // Nothing of ours keeps the volume from being unmounted.
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
        let adopted = Store::open(&self.layout.database()).and_then(|store| self.adopt(store));
        self.store_on_volume = adopted.is_ok();
        self.note_store_problem(adopted.err().map(|e| format!("{e}; history is kept in memory until this is mended")));
        if self.store_on_volume {
            self.sweep();
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
        store.end_boots()?;
        self.jobs.number_from(store.jobs()?.last().map_or(0, |job| job.id).saturating_add(1));
        self.tracker.number_anew(|boot| !matches!(store.boot(boot.id), Ok(Some(stored)) if stored.is_same(boot)));
        let unsaved = self.seen.list().into_iter().cloned().collect::<Vec<_>>();
        let before = std::mem::replace(&mut self.store, store);
        self.store.save_pis(&unsaved)?;
        self.seen = Seen::new(self.store.pis(MAX_SEEN)?);
        // Boots that are over are in the old store only.
        for mut boot in before.boots(None, u32::MAX)?.into_iter().rev() {
            let followed = self.tracker.boot(boot.mac).is_some_and(|current| current.is_same(&boot));
            if !followed && !self.store.boot(boot.id)?.is_some_and(|stored| stored.is_same(&boot)) {
                boot.id = 0;
                self.store.save_boot(&mut boot)?;
            }
        }
        self.save();
        Ok(())
    }

    /// Removes what killed jobs left in the scratch directory. Trees take their time: a job does it.
    fn sweep(&self) {
        let scratch = self.layout.scratch();
        if std::fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_none()) {
            return;
        }
        let leftovers = provision::leftovers(&self.layout);
        let task = Box::new(move |_: &crate::jobs::Running| {
            let imports = image::sweep(&scratch);
            for leftover in &imports {
                log::warn!("{leftover}");
            }
            leftovers.iter().try_for_each(|path| provision::discard(path))?;
            let count = leftovers.len().saturating_add(imports.len());
            Ok(format!("{count} unfinished or deleted trees of an earlier run removed"))
        });
        match self.jobs.submit(crate::jobs::JobKind::Delete, "scratch", task) {
            Ok(job) => self.note_job(job),
            Err(error) => log::warn!("cannot tidy {}: {error}", self.layout.scratch().display()),
        }
    }

    /// Says once what is wrong with the store.
    fn note_store_problem(&mut self, problem: Option<String>) {
        if let Some(text) = problem.as_ref().filter(|_| problem != self.store_problem) {
            log::error!("{text}");
        }
        self.store_problem = problem;
    }

    // === what is known ===

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is wrong with the configuration.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Where things live.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The volume as last looked at.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Why history is not stored as it should be.
    #[must_use]
    pub fn store_problem(&self) -> Option<&str> {
        self.store_problem.as_deref()
    }

    /// The Pis seen.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The jobs.
    #[must_use]
    pub const fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The address that Pis are told, once an interface has one.
    #[must_use]
    pub const fn server(&self) -> Option<Ipv4Addr> {
        self.server
    }

    /// The router's address changed.
    pub fn set_server(&mut self, server: Option<Ipv4Addr>) {
        if self.server != server {
            self.failed.clear();
            self.server = server;
        }
    }

    /// How far a configured device is.
    #[must_use]
    pub fn state(&self, id: &str) -> Option<&DeviceState> {
        self.states.get(id)
    }

    /// The current or last boot of a Pi since the agent started.
    #[must_use]
    pub fn current_boot(&self, mac: Mac) -> Option<&Boot> {
        self.tracker.boot(mac)
    }

    /// The current or last boot of a Pi, from an earlier run of the agent if it has not booted since.
    #[must_use]
    pub fn last_boot(&self, mac: Mac) -> Option<Boot> {
        let stored = || self.store.boots(Some(mac), 1).ok().and_then(|boots| boots.into_iter().next());
        self.tracker.boot(mac).cloned().or_else(stored)
    }

    /// Past and current boots, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn boots(&self, mac: Option<Mac>, limit: u32) -> Result<Vec<Boot>, StoreError> {
        let mut boots = self.store.boots(mac, limit)?;
        // What is under way is fresher in memory than in the store.
        for boot in &mut boots {
            if let Some(current) = self.tracker.boot(boot.mac).filter(|current| current.id == boot.id) {
                *boot = current.clone();
            }
        }
        Ok(boots)
    }

    /// One boot by its number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn boot(&self, id: i64) -> Result<Option<Boot>, StoreError> {
        match self.tracker.boots().find(|boot| boot.id == id) {
            Some(boot) => Ok(Some(boot.clone())),
            None => self.store.boot(id),
        }
    }

    /// Jobs of this run, and those of earlier runs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_jobs(&self) -> Result<Vec<Job>, StoreError> {
        let current = self.jobs.list();
        let mut jobs = self.store.jobs()?;
        jobs.retain(|old| current.iter().all(|job| job.id != old.id));
        jobs.extend(current);
        jobs.sort_by_key(|job| job.id);
        Ok(jobs)
    }

    // === what happens ===

    /// Takes an event from the wire; true if a device told something that the servers should know.
    pub fn take_event(&mut self, event: &Event) -> bool {
        let mut news = false;
        if let What::Dhcp(message) = &event.what
            && let Some(identity) = &message.identity
        {
            // A Pi that boots from its SD card is known by its address block only, and asks for no menu.
            let listed = message.netboot || self.seen.get(identity.mac).is_some();
            if listed {
                self.seen.take(identity, self.clock.wall_ms());
            }
            news |= identity.serial.is_some_and(|serial| listed && self.learn_serial(identity.mac, serial));
        }
        let who = Directory { config: &self.config, addresses: &self.addresses };
        let update = self.tracker.take(event, &who);
        news |= self.after(update);
        news
    }

    fn after(&mut self, update: Update) -> bool {
        if let Some(mut ended) = update.ended {
            self.log_store_error(|store| store.save_boot(&mut ended));
        }
        if update.notable
            && let Some(boot) = update.boot.and_then(|mac| self.tracker.boot_mut(mac))
            && let Err(error) = self.store.save_boot(boot)
        {
            boot.unsaved = true;
            self.note_store_problem(Some(error.to_string()));
        }
        update.serial.is_some_and(|(mac, serial)| self.learn_serial(mac, serial))
    }

    /// Completes the identity of a device that was enrolled by only half of it; true if that was news for the servers.
    ///
    /// Only a Pi that showed itself as one over DHCP, and whose serial fits its address, is believed; and only where no
    /// other device is known by either.
    fn learn_serial(&mut self, mac: Mac, serial: Serial) -> bool {
        if self.seen.get(mac).is_none() || !serial.may_belong_to(mac) {
            return false;
        }
        self.seen.learn_serial(mac, serial);
        let known_by = |d: &Device| d.mac == Some(mac) || d.serial == Some(serial);
        let mut known = self.config.devices.iter_mut().filter(|d| known_by(d));
        let (Some(device), None) = (known.next(), known.next()) else { return false };
        let is_half_known = device.mac.is_none() || device.serial.is_none();
        if !is_half_known || device.mac.is_some_and(|m| m != mac) || device.serial.is_some_and(|s| s != serial) {
            return false;
        }
        (device.mac, device.serial) = (Some(mac), Some(serial));
        let id = device.id.clone();
        log::info!("{id} is the Pi with serial {serial} and address {mac}");
        if let Err(error) = self.note_identity(&id, mac, serial) {
            log::error!("cannot note the identity of {id}: {error}");
        }
        true
    }

    /// Stores what piled up in memory; called every few seconds. What cannot be stored is kept for the next time.
    pub fn save(&mut self) {
        let unsaved = self.seen.take_unsaved();
        let mut saved = if unsaved.is_empty() { Ok(()) } else { self.store.save_pis(&unsaved) };
        if saved.is_err() {
            self.seen.keep_unsaved(&unsaved);
        }
        let mut tried = !unsaved.is_empty();
        for boot in self.tracker.boots_to_save() {
            tried = true;
            if let Err(error) = self.store.save_boot(boot) {
                boot.unsaved = true;
                saved = Err(error);
            }
        }
        if tried && self.store_on_volume {
            self.note_store_problem(saved.err().map(|e| e.to_string()));
        }
    }

    fn log_store_error(&mut self, act: impl FnOnce(&mut Store) -> Result<(), StoreError>) {
        if let Err(error) = act(&mut self.store) {
            self.note_store_problem(Some(error.to_string()));
        }
    }

    /// A job ended: stores it and remembers a failure so that it is not tried over and over.
    pub fn job_ended(&mut self, id: u32) {
        let Some(job) = self.jobs.get(id) else { return };
        match job.state {
            crate::jobs::JobState::Done => log::info!("job {id}: {}", job.message),
            _ => log::warn!("job {id} ({:?} of '{}') {:?}: {}", job.kind, job.subject, job.state, job.message),
        }
        // A device that was unenrolled, and perhaps enrolled anew, has nothing to do with its old job's end.
        let concerns = self.config.device(&job.subject).is_some() && self.jobs.active(job.kind, &job.subject).is_none();
        if job.kind == crate::jobs::JobKind::Provision && job.state != crate::jobs::JobState::Done && concerns {
            self.failed.insert(job.subject.clone(), job.message.clone());
        }
        self.log_store_error(|store| store.save_job(&job));
    }

    /// Stops the jobs and stores everything.
    pub fn stop(&mut self) {
        self.jobs.stop();
        for job in self.jobs.list() {
            self.log_store_error(|store| store.save_job(&job));
        }
        self.save();
    }
}

/// The volume, and whether a root can be exported from it: its file handles have to outlive a remount.
fn look_at(layout: &Layout) -> Volume {
    let mut volume = storage::check(layout.data_dir());
    if volume.is_present() {
        match nfs::handle_support(layout.data_dir()) {
            Ok(support) => volume.problems.extend(support.refusal.map(VolumeProblem::Unsuitable)),
            Err(error) => volume.problems.push(VolumeProblem::Unsuitable(error.to_string())),
        }
    }
    volume
}

/// Device number and mount id of the file system that holds `data_dir`.
fn volume_identity(layout: &Layout) -> Option<(u64, u64)> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(rustix::fs::CWD, layout.data_dir(), AtFlags::empty(), flags).ok()?;
    Some((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_mnt_id))
}

/// Answers the tracker's questions.
struct Directory<'a> {
    config: &'a Config,
    addresses: &'a AddressBook,
}

impl Who for Directory<'_> {
    fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        self.addresses.mac_of(ip)
    }

    fn device_of(&self, mac: Mac) -> Option<String> {
        self.config.devices.iter().find(|d| d.mac == Some(mac)).map(|d| d.id.clone())
    }
}
