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
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

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
    seen: Seen,
    tracker: Tracker,
    jobs: Jobs,
    addresses: AddressBook,
    server: Option<Ipv4Addr>,
    states: BTreeMap<String, DeviceState>,
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
        let jobs = Jobs::start(clock.clone(), 1, job_ended.clone()).map_err(FleetError::Worker)?;
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
            seen: Seen::default(),
            jobs,
            addresses,
            server: None,
            states: BTreeMap::new(),
            failed: BTreeMap::new(),
        };
        if fleet.use_volume() {
            let next = fleet.store.jobs()?.iter().map(|job| job.id).max().unwrap_or(0).wrapping_add(1).max(1);
            fleet.jobs = Jobs::start(fleet.clock.clone(), next, job_ended).map_err(FleetError::Worker)?;
        }
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
        self.check_volume();
        Ok(())
    }

    /// Looks at the volume again; true if it came, went or changed its fitness.
    pub fn check_volume(&mut self) -> bool {
        let volume = look_at(&self.layout);
        let changed = volume.problems != self.volume.problems || !self.store_on_volume && volume.is_present();
        self.volume = volume;
        if changed {
            for problem in &self.volume.problems {
                log::warn!("{problem}");
            }
            self.failed.clear();
            self.use_volume();
        }
        changed
    }

    /// Opens the store on the volume if the volume is there and the store is not open yet; true if it is open.
    fn use_volume(&mut self) -> bool {
        if !self.volume.is_present() {
            self.store_on_volume = false;
            return false;
        }
        if self.store_on_volume {
            return true;
        }
        if self.volume.is_writable() {
            if let Err(error) = self.layout.create() {
                log::error!("cannot create directories in {}: {error}", self.layout.data_dir().display());
                return false;
            }
            for leftover in image::sweep(&self.layout.scratch()) {
                log::warn!("{leftover}");
            }
        }
        match Store::open(&self.layout.database()).and_then(|store| self.adopt(store)) {
            Ok(()) => self.store_on_volume = true,
            Err(error) => {
                log::error!("{error}; history is kept in memory until this is mended");
                return false;
            }
        }
        true
    }

    fn adopt(&mut self, store: Store) -> Result<(), StoreError> {
        if self.volume.is_writable() {
            for job in store.interrupt_jobs(self.clock.wall_ms())? {
                log::warn!(
                    "job {} ({:?} of '{}') was interrupted when piboot stopped; nothing of it is left",
                    job.id,
                    job.kind,
                    job.subject
                );
            }
        }
        let unsaved = self.seen.take_unsaved();
        self.seen = Seen::new(store.pis(MAX_SEEN)?);
        self.store = store;
        self.store.save_pis(&unsaved)
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

    /// Takes an event from the wire; true if a Pi became known or told something that the servers should know.
    pub fn take_event(&mut self, event: &Event) -> bool {
        let mut news = false;
        if let What::Dhcp(message) = &event.what
            && let Some(identity) = &message.identity
        {
            // A Pi that boots from its SD card is known by its address block only, and asks for no menu.
            let listed = message.netboot || self.seen.get(identity.mac).is_some();
            news |= listed && self.seen.take(identity, self.clock.wall_ms());
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
            log::error!("{error}");
        }
        update.serial.is_some_and(|(mac, serial)| self.learn_serial(mac, serial))
    }

    /// Completes the identity of a device that was enrolled by only half of it; true if that was news.
    fn learn_serial(&mut self, mac: Mac, serial: Serial) -> bool {
        let learned = self.seen.learn_serial(mac, serial);
        let is_half_known =
            |d: &&mut Device| d.mac == Some(mac) && d.serial.is_none() || d.serial == Some(serial) && d.mac.is_none();
        let Some(device) = self.config.devices.iter_mut().find(is_half_known) else { return learned };
        (device.mac, device.serial) = (Some(mac), Some(serial));
        let device = device.clone();
        log::info!("{} is the Pi with serial {serial} and address {mac}", device.id);
        if let Err(error) = self.write_device(&device) {
            log::error!("cannot note the identity of {}: {error}", device.id);
        }
        true
    }

    /// Stores what piled up in memory; called every few seconds.
    pub fn save(&mut self) {
        let unsaved = self.seen.take_unsaved();
        if !unsaved.is_empty() {
            self.log_store_error(|store| store.save_pis(&unsaved));
        }
        let (store, tracker) = (&self.store, &mut self.tracker);
        for boot in tracker.boots_to_save() {
            if let Err(error) = store.save_boot(boot) {
                log::error!("{error}");
            }
        }
    }

    fn log_store_error(&mut self, act: impl FnOnce(&mut Store) -> Result<(), StoreError>) {
        if let Err(error) = act(&mut self.store) {
            log::error!("{error}");
        }
    }

    /// A job ended: stores it and remembers a failure so that it is not tried over and over.
    pub fn job_ended(&mut self, id: u32) {
        let Some(job) = self.jobs.get(id) else { return };
        match job.state {
            crate::jobs::JobState::Done => log::info!("job {id}: {}", job.message),
            _ => log::warn!("job {id} ({:?} of '{}') {:?}: {}", job.kind, job.subject, job.state, job.message),
        }
        if job.kind == crate::jobs::JobKind::Provision && job.state != crate::jobs::JobState::Done {
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
