//! The Pis: which are enrolled, which were seen, what each needs next.
//!
//! [`Fleet`] holds what is known; [`Fleet::reconcile`] compares it with what the configuration asks for, starts the
//! jobs that close the gap, and says what the servers shall serve.

mod addresses;
mod archives;
mod at_rest;
mod automatic;
mod backup;
mod change;
mod clone;
mod diagnose;
mod enrol;
mod exported;
mod happenings;
mod images;
mod layers;
mod on_volume;
mod os_list;
mod outlook;
mod probe;
pub mod provision;
mod quota;
mod reconcile;
mod record;
mod removal;
mod restore;
mod rollback;
mod roots;
mod seen;
mod snapshot_work;
mod snapshots;
mod space_left;
mod store;
mod switch;
mod trees;
mod usage;

pub use archives::BackupError;
pub use change::Edit;
pub use clone::CloneRequest;
pub use enrol::{EnrolError, Enrolment, Removal};
pub use exported::ExportedAt;
pub use images::ImportRefused;
pub use on_volume::NothingToAccept;
pub use os_list::Fetched;
pub use outlook::Outlook;
pub use quota::{QuotaLevel, QuotaUse};
pub use reconcile::{DeviceState, Enrolled, Served, Wanted};
pub use record::{AdaptedFor, DeviceRecord, RecordError, RolledBack};
pub use roots::RootError;
pub use seen::{Asks, MAX_SEEN, Seen, SeenPi, Unsaved};
pub use snapshots::{BEFORE_ROLLBACK, MAX_SNAPSHOTS, Snapshot, SnapshotError};
pub use store::{Store, StoreError};
pub use usage::Measured;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use self::automatic::Automatic;
use self::restore::Restored;
use self::usage::Measurements;
use crate::boot::{Boot, Stage, Tracker};
use crate::clock::{Clock, Moment};
use crate::config::{self, Config, FileError, Problem};
use crate::jobs::{Job, Jobs};
use crate::net::AddressBook;
use crate::pi::Mac;
use crate::storage::{Layout, Memory, Volume};

/// Boots of a Pi among which one that came to a running system is looked for.
const GOOD_BOOT_WITHIN: u32 = 20;

/// Everything known about the Pis of this router.
#[derive(Debug)]
pub struct Fleet {
    clock: Clock,
    config_file: PathBuf,
    /// It was changed here, and nobody was told yet.
    config_written: Cell<bool>,
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
    tree_checks: diagnose::TreeChecks,
    server: Option<Ipv4Addr>,
    /// Every address of this router where Pis are served.
    own_addresses: Vec<Ipv4Addr>,
    states: BTreeMap<String, DeviceState>,
    /// Devices as they were last served, for the time without the volume.
    served: BTreeMap<String, Served>,
    /// Since when each device has been served without interruption, Unix time in ms; 0: since before this start.
    served_since: BTreeMap<String, i64>,
    /// Nothing was reconciled yet.
    is_first_look: bool,
    volume_changes: u32,
    /// Whether the volume was there since the start.
    volume_seen: bool,
    /// Which file system, mounted when, `data_dir` is on: another one may come in its place without a problem to see.
    volume_identity: Option<(u64, u64)>,
    /// The volume that was used last, over restarts.
    memory: Memory,
    /// Keeps a second agent away from the volume.
    lock: Option<File>,
    /// Devices whose trees could not be made, and why; tried again when something changes.
    failed: BTreeMap<String, String>,
    /// Devices, and snapshots, that a job about something else needs as they are; and that job.
    claims: BTreeMap<String, u32>,
    /// Devices that are to be adapted as soon as their Pis have no root mounted.
    adapts_when_off: BTreeSet<String>,
    automatic: Automatic,
    uploads: images::Uploads,
    catalogue: os_list::Catalogue,
    /// What restores hand over when they end.
    restored: (Sender<Restored>, Receiver<Restored>),
    measured: Measurements,
    /// This agent had the lock of the volume last, or there are none: layers on it are nobody else's.
    layers_are_ours: bool,
    /// Layers could not be mounted, or unmounted: it is tried again.
    layers_unsettled: bool,
    /// When that was tried last because of time alone, and how long it is not then.
    layers_tried: Moment,
    layers_pause: Duration,
    /// Devices whose layers could not be mounted when that was tried last.
    layers_missing: BTreeMap<String, layers::Missing>,
    /// Directories that were data_dir before, where layers may be mounted.
    layers_elsewhere: Vec<PathBuf>,
}

/// Why the fleet could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] FileError),
    /// Not even a database in memory can be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No worker thread.
    #[error("cannot start the job worker: {0}")]
    Worker(std::io::Error),
}

impl Fleet {
    /// Reads the configuration, looks at the volume, opens the store. `volume_file` is where the router remembers which
    /// volume it used last. A missing or unfit volume is a problem to
    /// report, not an error. Ended jobs are announced on `job_ended`; their numbers go to [`Fleet::job_ended`].
    ///
    /// # Errors
    /// When the configuration cannot be read or the process lacks the bare necessities.
    pub fn open(
        config_file: PathBuf,
        volume_file: PathBuf,
        clock: Clock,
        addresses: AddressBook,
        job_ended: UnboundedSender<u32>,
    ) -> Result<Self, FleetError> {
        let (config, problems) = config::load(&config_file, None)?;
        let layout = Layout::new(config.main.data_dir.clone());
        let store = Store::in_memory()?;
        let jobs = Jobs::start(clock.clone(), 1, job_ended).map_err(FleetError::Worker)?;
        let automatic = Automatic::new(clock.now());
        let mut fleet = Self {
            tracker: Tracker::new(clock.clone()),
            volume: on_volume::look_at(&layout, &config.main.nfs),
            memory: Memory::load(volume_file),
            clock,
            config_file,
            config_written: Cell::new(false),
            config,
            problems,
            layout,
            store_on_volume: false,
            store,
            store_problem: None,
            seen: Seen::default(),
            jobs,
            addresses,
            tree_checks: diagnose::TreeChecks::default(),
            server: None,
            own_addresses: Vec::new(),
            states: BTreeMap::new(),
            served: BTreeMap::new(),
            served_since: BTreeMap::new(),
            is_first_look: true,
            volume_changes: 0,
            volume_seen: false,
            volume_identity: None,
            lock: None,
            failed: BTreeMap::new(),
            adapts_when_off: BTreeSet::new(),
            claims: BTreeMap::new(),
            automatic,
            uploads: images::Uploads::new(),
            catalogue: os_list::Catalogue::default(),
            restored: std::sync::mpsc::channel(),
            measured: Measurements::default(),
            layers_are_ours: false,
            layers_unsettled: false,
            layers_tried: Moment::default(),
            layers_pause: Duration::ZERO,
            layers_missing: BTreeMap::new(),
            layers_elsewhere: Vec::new(),
        };
        fleet.volume_identity = on_volume::volume_identity(&fleet.layout);
        fleet.tell_disks_apart();
        fleet.take_lock();
        fleet.log_volume_problems();
        fleet.use_volume();
        Ok(fleet)
    }

    /// Whether the configuration was changed here since this was asked last: others on the router may want to know.
    pub fn take_config_written(&self) -> bool {
        self.config_written.take()
    }

    /// Reads the configuration again. A configuration that cannot be read leaves the old one in force.
    ///
    /// # Errors
    /// When the file is unreadable or no UCI.
    pub fn reload(&mut self) -> Result<(), FileError> {
        let (config, problems) = match config::load(&self.config_file, Some(&self.config)) {
            Ok(loaded) => loaded,
            Err(error) => {
                let why = format!("{error}; the configuration from before stays in force");
                self.problems = vec![Problem { severity: config::Severity::Error, place: "piboot".to_owned(), why }];
                return Err(error);
            }
        };
        if config.main.data_dir != self.config.main.data_dir {
            if self.layers_are_ours {
                self.layers_elsewhere.push(self.layout.data_dir().to_owned());
            }
            (self.layers_unsettled, self.layers_pause) = (true, Duration::ZERO);
            // Of the other directory, which may be on the same file system.
            (self.lock, self.layers_are_ours) = (None, false);
            self.layout = Layout::new(config.main.data_dir.clone());
            self.store_on_volume = false;
        }
        let before = std::mem::replace(&mut self.config, config);
        for mac in before.devices.iter().filter_map(|device| device.mac) {
            if !self.config.devices.iter().any(|device| device.mac == Some(mac)) {
                self.automatic.leave_alone(mac);
            }
        }
        self.automatic.forget_problem();
        self.problems = problems;
        self.failed.clear();
        // An admin's SIGHUP also means: try again what could not be opened.
        self.volume_changes = self.volume_changes.wrapping_add(1);
        self.check_volume();
        Ok(())
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

    /// The router's addresses changed: the one that Pis are told, and all where Pis are served.
    pub fn set_server(&mut self, server: Option<Ipv4Addr>, own: Vec<Ipv4Addr>) {
        self.own_addresses = own;
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

    /// The current or last boot of a Pi, from an earlier run of the agent if it has not booted since.
    #[must_use]
    pub fn last_boot(&self, mac: Mac) -> Option<Boot> {
        let stored = || self.store.boots(Some(mac), 1).ok().and_then(|boots| boots.into_iter().next());
        self.tracker.boot(mac).cloned().or_else(stored)
    }

    /// The boots under way, and the last of each Pi in this run of the agent.
    pub fn current_boots(&self) -> impl Iterator<Item = &Boot> {
        self.tracker.boots()
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

    /// The boot of the same Pi before this one that came to a running system, to compare it with.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn good_boot_before(&self, boot: &Boot) -> Result<Option<Boot>, StoreError> {
        let before = self.store.boots(Some(boot.mac), GOOD_BOOT_WITHIN)?;
        Ok(before
            .into_iter()
            .find(|other| other.id < boot.id && (other.reached(Stage::FirstWrite) || other.reached(Stage::Ready))))
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

    /// The packets of a boot as a pcap file; empty if none were kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn packets(&self, id: i64) -> Result<Vec<u8>, StoreError> {
        match self.tracker.boots().find(|boot| boot.id == id && boot.packets.unsaved) {
            Some(boot) => Ok(boot.packets.file().to_vec()),
            None => self.store.packets(id),
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
}
