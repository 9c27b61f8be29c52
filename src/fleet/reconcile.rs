//! From what the configuration asks for to what is served, by way of jobs for what is missing.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use super::at_rest::Plan;
use super::exported::ExportedAt;
use super::provision::Provision;
use super::record::{AdaptedFor, DeviceRecord};
use super::{Fleet, layers};
use crate::config::{Device, RootKind};
use crate::jobs::{JobKind, JobsError, Running};
use crate::pi::{Mac, Serial};
use crate::quota::Quota;

/// How far a configured device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeviceState {
    /// Its trees are served.
    Ready,
    /// A job is making its trees.
    Preparing {
        /// The job's number.
        job: u32,
    },
    /// Nothing is served to it, because so it is configured.
    Disabled,
    /// It cannot boot until something is done.
    Blocked {
        /// What, for people.
        why: String,
    },
}

/// A device as the servers serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Its id.
    pub id: String,
    /// Serial, once known.
    pub serial: Option<Serial>,
    /// Hardware address: who may read and write.
    pub mac: Option<Mac>,
    /// TFTP directory and boot export.
    pub boot: PathBuf,
    /// Root export.
    pub root: PathBuf,
    /// Names its exports in file handles.
    pub export_pair: u16,
    /// Nobody may write to either.
    pub read_only: bool,
    /// Bytes that its boots need not load because of rule `trim`.
    pub spared_bytes: u64,
    /// What its files may take.
    pub quota: Quota,
    /// Both are layers that have to be mounted.
    pub layered: bool,
}

/// An enrolled Pi as a DHCP server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Hardware address.
    pub mac: Mac,
    /// Host name.
    pub hostname: String,
    /// The address that it is to have.
    pub ip: Option<Ipv4Addr>,
}

/// What the servers shall do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Devices with trees.
    pub served: Vec<Served>,
    /// Every enrolled Pi whose hardware address is known, with trees or not.
    pub enrolled: Vec<Enrolled>,
    /// Whether the volume was there since the start: until then nobody is told that a file or an export does not exist.
    pub ready: bool,
    /// How often the volume, or layers on it, came or went: exports on it have to be opened anew.
    pub volume_changes: u32,
    /// Directory with a `bootcode.bin` for Pi 3s that ask before their address is known.
    pub bootcode: Option<PathBuf>,
}

impl Fleet {
    /// Compares what is asked for with what exists, starts jobs for the difference, and says what to serve.
    /// Doing it twice does nothing the second time.
    pub fn reconcile(&mut self) -> Wanted {
        self.fix_addresses();
        self.adapts_when_off.clear();
        self.set_quotas();
        self.volume_seen |= self.volume.is_present();
        let mut wanted = Wanted { ready: self.volume_seen, ..Wanted::default() };
        let devices = self.config.devices.clone();
        self.states.retain(|id, _| devices.iter().any(|d| d.id == *id));
        self.layers_missing.retain(|id, _| devices.iter().any(|d| d.id == *id));
        self.served.retain(|id, _| devices.iter().any(|d| d.id == *id));
        for device in &devices {
            if device.disabled {
                self.served.remove(&device.id);
                self.states.insert(device.id.clone(), DeviceState::Disabled);
                continue;
            }
            wanted.enrolled.extend(device.mac.map(|mac| Enrolled {
                mac,
                hostname: device.hostname.clone(),
                ip: device.ip,
            }));
            let (served, state) = self.reconcile_device(device);
            if let Some(served) = served {
                // From the image, which no Pi can write: what strangers run must not be one Pi's choice.
                let image_boot = self.layout.image(&device.image).join("boot");
                if wanted.bootcode.is_none() && image_boot.join("bootcode.bin").is_file() {
                    wanted.bootcode = Some(image_boot);
                }
                self.served.insert(served.id.clone(), served.clone());
                wanted.served.push(served);
            }
            if let DeviceState::Blocked { why } = &state
                && self.states.get(&device.id) != Some(&state)
            {
                log::warn!("{} cannot boot: {why}", device.id);
            }
            self.states.insert(device.id.clone(), state);
        }
        self.withhold_claimed(&mut wanted);
        self.tidy_layers(&wanted.served);
        self.note_served_since(&wanted);
        // Counted in what was just done, too.
        wanted.volume_changes = self.volume_changes;
        wanted
    }

    /// Takes out what a job has claimed meanwhile: the original of a clone comes before the clone, as a rule.
    fn withhold_claimed(&mut self, wanted: &mut Wanted) {
        let served = std::mem::take(&mut wanted.served);
        for device in served {
            match self.claimed(&device.id) {
                Some(job) => {
                    self.states.insert(device.id, DeviceState::Preparing { job });
                }
                None => wanted.served.push(device),
            }
        }
    }

    /// Boots that began while a device was not served, or before it was served again, say nothing of its files.
    fn note_served_since(&mut self, wanted: &Wanted) {
        // What was served when the agent stopped, and is now, counts as served in between.
        let now_ms = if self.is_first_look && self.volume.is_present() { 0 } else { self.clock.wall_ms() };
        self.is_first_look = false;
        let is_served = |id: &String| wanted.served.iter().any(|served| served.id == *id);
        let here = self.volume.is_present();
        self.served_since.retain(|id, _| here && is_served(id));
        for served in wanted.served.iter().filter(|_| here) {
            self.served_since.entry(served.id.clone()).or_insert(now_ms);
        }
    }

    fn reconcile_device(&mut self, device: &Device) -> (Option<Served>, DeviceState) {
        if !self.volume.is_present() {
            let why = self.volume.problems.first().map(ToString::to_string).unwrap_or_default();
            return (self.served_before(device), DeviceState::Blocked { why });
        }
        if let Some(job) = self.claimed(&device.id) {
            // Its files are being replaced, or read as they are. It is off, and must not start from them now.
            return (None, DeviceState::Preparing { job });
        }
        let record = match DeviceRecord::load(&self.layout.device(&device.id)) {
            Ok(Some(mut record)) => {
                self.settle_switch(&device.id, &mut record);
                record
            }
            Ok(None) => {
                let state = self.prepare(device);
                return (self.served_before(device), state);
            }
            Err(error) => return (self.served_before(device), DeviceState::Blocked { why: error.to_string() }),
        };
        if record.is_ephemeral()
            && let Err(error) = self.check_kind(RootKind::Ephemeral)
        {
            return (None, DeviceState::Blocked { why: error.to_string() });
        }
        if record.is_ephemeral() {
            self.quota(&device.id).set_limit(None);
        }
        let layered = match self.put_together(&device.id, &record) {
            Ok(layered) => layered,
            // What is there then is nothing to be served: a Pi that runs waits. What was served before may have been no layers.
            Err(why) => {
                let served = self.served_before(device).map(|_| self.as_served(device, &record, true));
                return (served, DeviceState::Blocked { why });
            }
        };
        let served = self.as_served(device, &record, layered);
        let regional = &self.config.main.regional;
        let outdated = self.exported().is_some_and(|at| record.adapted_for != AdaptedFor::of(device, &at, regional));
        // Its overlay cannot follow what changes under it: such a Pi is adapted between two boots.
        let waits = outdated && record.is_ephemeral() && self.used_by_pi(device, Plan::NotMounted).is_some();
        if waits {
            self.adapts_when_off.insert(device.id.clone());
        }
        if outdated && !waits && self.volume.is_writable() && !self.failed.contains_key(&device.id) {
            let adapt = |provision: Provision| move |_: &Running| provision.adapt();
            if let Err(error) = self.submit(device, adapt) {
                log::warn!("cannot adapt {}: {error}", device.id);
            }
        }
        let state = match self.failed.get(&device.id) {
            Some(why) => DeviceState::Blocked { why: why.clone() },
            // As it is by now: a switch may just have been written down.
            None if self.config.device(&device.id).is_some_and(|device| device.image != record.image) => {
                let (id, from, image) = (&device.id, &record.image, &device.image);
                let why = format!(
                    "its root was made from image '{from}', and '{image}' is configured now: 'piboot device switch {id} {image}' makes it a new one, and 'piboot device edit {id} --image {from}' goes on with the old one"
                );
                DeviceState::Blocked { why }
            }
            None => DeviceState::Ready,
        };
        (Some(served), state)
    }

    /// The device as its record says that it is to be served.
    fn as_served(&self, device: &Device, record: &DeviceRecord, layered: bool) -> Served {
        Served {
            id: device.id.clone(),
            serial: device.serial,
            mac: device.mac,
            boot: self.layout.device_boot(&device.id),
            root: self.layout.device_root(&device.id),
            export_pair: record.export_pair,
            read_only: record.is_ephemeral(),
            spared_bytes: record.spared_bytes,
            quota: self.quota(&device.id),
            layered,
        }
    }

    /// The device as it was served while its volume could be read. A Pi that runs waits for its root to come back; a
    /// removed export would end it.
    fn served_before(&self, device: &Device) -> Option<Served> {
        self.served.get(&device.id).filter(|served| served.mac == device.mac).cloned()
    }

    /// Whether nobody may write to a device's files, as they were served last.
    #[must_use]
    pub fn is_served_read_only(&self, id: &str) -> bool {
        self.served.get(id).is_some_and(|served| served.read_only)
    }

    /// Starts the job that makes a device's trees, or says why not.
    fn prepare(&mut self, device: &Device) -> DeviceState {
        let blocked = |why: String| DeviceState::Blocked { why };
        if let Some(job) = self.jobs.active(JobKind::Provision, &device.id) {
            return DeviceState::Preparing { job };
        }
        if let Some(job) = self.jobs.active(JobKind::Restore, &device.id) {
            return DeviceState::Preparing { job };
        }
        if let Some(why) = self.failed.get(&device.id) {
            return blocked(format!("its root could not be made: {why}"));
        }
        if let Some(problem) = self.volume.problems.first() {
            return blocked(problem.to_string());
        }
        if let Err(error) = self.check_kind(device.root) {
            return blocked(error.to_string());
        }
        if let Some(original) = &device.clone_of {
            if let Some(why) = self.not_to_be_cloned(original) {
                return blocked(why);
            }
        } else if !self.layout.image(&device.image).is_dir() {
            return blocked(format!("there is no image '{}': 'piboot image import' makes one", device.image));
        }
        if self.server.is_none() {
            return blocked("none of the configured interfaces has an IPv4 address".to_owned());
        }
        let make = |provision: Provision| move |running: &Running| provision.make(running);
        match self.submit(device, make) {
            Ok(job) => {
                match &device.clone_of {
                    Some(original) => self.claim_original(original, job),
                    None => self.claim(&layers::claim_name(&device.image), job),
                }
                DeviceState::Preparing { job }
            }
            Err(error) => blocked(error.to_string()),
        }
    }

    fn submit<T>(&self, device: &Device, task: impl FnOnce(Provision) -> T) -> Result<u32, JobsError>
    where
        T: FnOnce(&Running) -> Result<String, String> + Send + 'static,
    {
        match self.jobs.submit(JobKind::Provision, &device.id, Box::new(task(self.provision(device)))) {
            Err(JobsError::Busy(job, _)) => Ok(job),
            other => {
                if let Ok(job) = other {
                    self.note_job(job);
                }
                other
            }
        }
    }

    /// What a job on a device's trees needs to know.
    pub(super) fn provision(&self, device: &Device) -> Provision {
        Provision {
            layout: self.layout.clone(),
            device: device.clone(),
            exported: ExportedAt::of(&self.config.main.nfs, self.server.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            regional: self.config.main.regional.clone(),
            now_ms: self.clock.wall_ms(),
        }
    }

    /// Stores a job that was just queued, so that a crash under it is noticed.
    pub(super) fn note_job(&self, id: u32) {
        if let Some(job) = self.jobs.get(id)
            && let Err(error) = self.store.save_job(&job)
        {
            log::error!("{error}");
        }
    }
}
