//! The verbs: one function each, typed request and answer. Knows no transport; every transport calls [`Api::call`].

pub mod call;
mod check;
pub mod methods;
mod pending;
pub mod types;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::types::*;
use crate::base64;
use crate::boot::{BootEnd, BootState, packets};
use crate::config::{Device, Severity};
use crate::fleet::{DeviceRecord, DeviceState, Enrolment, Fleet, Wanted};
use crate::image;
use crate::pi;

/// Most boots answered at once: an answer has to fit one ubus message of 1 MiB.
const MAX_BOOTS: u32 = 200;
/// A boot that makes no sound for so long is over: a Pi asks again within seconds, and Linux within a minute.
const GIVEN_UP_AFTER: std::time::Duration = std::time::Duration::from_secs(90);
/// Boots answered when no limit is given.
const DEFAULT_BOOTS: u32 = 20;

/// The servers, as far as the verbs need them.
pub trait Servers {
    /// Serve exactly this from now on.
    fn apply(&mut self, wanted: &Wanted);
    /// TFTP load.
    fn tftp(&self) -> TftpStatus;
    /// NFS load.
    fn nfs(&self) -> NfsStatus;
    /// How Pis get their boot options, in words.
    fn dhcp(&self) -> String;
    /// What is wrong with the servers.
    fn findings(&self) -> Vec<Finding>;
    /// Wire events lost.
    fn events_dropped(&self) -> u32;
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No such verb.
    #[error("there is no method '{0}'")]
    UnknownMethod(String),
    /// The parameters do not fit.
    #[error("{0}")]
    InvalidArgument(String),
    /// What was asked about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done now.
    #[error("{0}")]
    Failed(String),
}

impl ApiError {
    /// Stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownMethod(_) => "unknown_method",
            Self::InvalidArgument(_) => "invalid_argument",
            Self::NotFound(_) => "not_found",
            Self::Failed(_) => "failed",
        }
    }
}

/// The verbs over the fleet and the servers.
#[derive(Debug)]
pub struct Api<S> {
    /// What is known and wanted.
    pub fleet: Fleet,
    /// Who serves it.
    pub servers: S,
}

impl<S: Servers> Api<S> {
    /// Calls the verb `method`. Unknown members of `params` are ignored: rpcd adds `ubus_rpc_session` to every call.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, ApiError> {
        match method {
            "status" => answer(self.status()),
            "check" => answer(Check { findings: self.check() }),
            "devices" => answer(self.devices()),
            "device" => answer(self.device(&read::<IdRequest>(params)?.id)?),
            "enroll" => answer(self.enroll(read(params)?)?),
            "unenroll" => answer(self.unenroll(&read(params)?)?),
            "images" => answer(self.images()),
            "image_import" => answer(self.image_import(read(params)?)?),
            "image_remove" => answer(self.image_remove(&read(params)?)?),
            "volume_accept" => answer(self.volume_accept()?),
            "jobs" => answer(self.jobs()?),
            "job_cancel" => answer(self.job_cancel(&read(params)?)?),
            "boots" => answer(self.boots(&read(params)?)?),
            "boot" => answer(self.boot(&read(params)?)?),
            "led" => answer(led(&read(params)?)?),
            "boot_packets" => answer(self.boot_packets(&read(params)?)?),
            other => Err(ApiError::UnknownMethod(other.to_owned())),
        }
    }

    /// Brings servers and jobs in line with the configuration.
    pub fn reconcile(&mut self) {
        let wanted = self.fleet.reconcile();
        self.servers.apply(&wanted);
    }

    // === state ===

    fn status(&self) -> Status {
        let fleet = &self.fleet;
        let volume = fleet.volume();
        let ready = |d: &&Device| fleet.state(&d.id) == Some(&DeviceState::Ready);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: fleet.clock().now().since_start().as_secs(),
            server: fleet.server(),
            dhcp: self.servers.dhcp(),
            storage: StorageStatus {
                data_dir: volume.data_dir.display().to_string(),
                file_system: volume.file_system.clone(),
                total_bytes: volume.total_bytes,
                free_bytes: volume.free_bytes,
            },
            tftp: self.servers.tftp(),
            nfs: self.servers.nfs(),
            devices: fleet.config().devices.len(),
            devices_ready: fleet.config().devices.iter().filter(ready).count(),
            pending: self.strangers().count(),
            jobs: fleet.jobs().list().iter().filter(|j| !j.state.is_final()).count(),
            events_dropped: self.servers.events_dropped(),
            findings: self.findings(),
        }
    }

    fn devices(&self) -> Devices {
        let devices = self.fleet.config().devices.iter().map(|d| self.device_info(d)).collect();
        Devices { devices, pending: self.pending() }
    }

    fn device(&self, id: &str) -> Result<DeviceDetail, ApiError> {
        let device = self.configured(id)?;
        let info = self.device_info(device);
        // A damaged record shows as the device's state.
        let record = DeviceRecord::load(&self.fleet.layout().device(&device.id)).ok().flatten();
        let (changes, notes) = record.map(|r| (r.changes, r.notes)).unwrap_or_default();
        Ok(DeviceDetail { info, changes, notes })
    }

    fn configured(&self, id: &str) -> Result<&Device, ApiError> {
        let config = self.fleet.config();
        // People know their Pis by host name.
        let by_name = || config.devices.iter().find(|d| d.hostname == id);
        let unknown = || ApiError::NotFound(format!("no device '{id}' is enrolled: 'piboot devices' lists them"));
        config.device(id).or_else(by_name).ok_or_else(unknown)
    }

    pub(crate) fn device_info(&self, device: &Device) -> DeviceInfo {
        let seen = device.mac.and_then(|mac| self.fleet.seen().get(mac));
        let boot = device.mac.and_then(|mac| self.fleet.last_boot(mac));
        let boot = boot.as_ref();
        let (mut state, mut job, mut why) = ("unknown", None, None);
        match self.fleet.state(&device.id) {
            Some(DeviceState::Ready) => {
                let silent = |b: &crate::boot::Boot| b.silent_for(self.fleet.clock().now()) > GIVEN_UP_AFTER;
                let finding = boot.and_then(|b| b.findings.first()).map(|f| (f.severity, f.cause.clone()));
                state = match boot.map(|b| (b.state, b.end)) {
                    Some((BootState::Booting, _)) if matches!(finding, Some((Severity::Error, _))) => "stuck",
                    Some((BootState::Booting, _)) if boot.is_some_and(silent) => "ready",
                    Some((BootState::Booting, _)) => "booting",
                    Some((BootState::Running, _)) => "running",
                    Some((BootState::Stopped, Some(BootEnd::ShutDown))) => "off",
                    Some((BootState::Stopped, _)) => "lost",
                    _ => "ready",
                };
                why = finding.map(|(_, cause)| cause).filter(|_| matches!(state, "stuck" | "booting" | "lost"));
            }
            Some(DeviceState::Preparing { job: number }) => (state, job) = ("preparing", Some(*number)),
            Some(DeviceState::Blocked { why: reason }) => (state, why) = ("blocked", Some(reason.clone())),
            None => {}
        }
        DeviceInfo {
            id: device.id.clone(),
            hostname: device.hostname.clone(),
            mac: device.mac,
            serial: device.serial,
            board: seen.map(crate::fleet::SeenPi::board),
            image: device.image.clone(),
            state: state.to_owned(),
            job,
            why,
            ip: boot.and_then(|b| b.ip),
            boot: boot.map(BootSummary::from),
        }
    }

    // === enrolment ===

    fn enroll(&mut self, request: EnrollRequest) -> Result<Enrolled, ApiError> {
        let EnrollRequest { mac, serial, hostname, image, ip, ssh_keys } = request;
        let enrolment = Enrolment { mac, serial, hostname, image, ip, ssh_keys };
        let device = self.fleet.enrol(enrolment).map_err(|e| ApiError::Failed(e.to_string()))?;
        self.reconcile();
        let (job, why) = match self.fleet.state(&device.id) {
            Some(DeviceState::Preparing { job }) => (Some(*job), None),
            Some(DeviceState::Blocked { why }) => (None, Some(why.clone())),
            _ => (None, None),
        };
        Ok(Enrolled { id: device.id, job, why })
    }

    fn unenroll(&mut self, request: &UnenrollRequest) -> Result<Unenrolled, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        // The door closes before the files go.
        let removal = self.fleet.unenrol(&id, request.delete);
        self.reconcile();
        let removal = removal.map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(Unenrolled { id, job: removal.job, kept: removal.kept.map(|p| p.display().to_string()) })
    }

    // === images and jobs ===

    fn images(&self) -> Images {
        let Ok(entries) = std::fs::read_dir(self.fleet.layout().images()) else { return Images { images: Vec::new() } };
        let mut images: Vec<ImageSummary> = entries
            .flatten()
            .filter_map(|entry| image::load_info(&entry.path()).ok())
            .map(|info| {
                let devices = self.fleet.config().devices.iter();
                let used_by = devices.filter(|d| d.image == info.name).map(|d| d.id.clone()).collect();
                ImageSummary { info, used_by }
            })
            .collect();
        images.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        Images { images }
    }

    fn image_import(&mut self, request: ImportRequest) -> Result<Started, ApiError> {
        if !request.source.is_absolute() {
            let path = request.source.display();
            return Err(ApiError::InvalidArgument(format!("source: '{path}' is not an absolute path")));
        }
        let job = self.fleet.import_image(request.source, &request.name);
        job.map(|job| Started { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    fn image_remove(&mut self, request: &NameRequest) -> Result<Removed, ApiError> {
        let job = self.fleet.remove_image(&request.name);
        job.map(|job| Removed { job }).map_err(|e| ApiError::Failed(e.to_string()))
    }

    /// Goes on with another disk than before.
    fn volume_accept(&mut self) -> Result<Nothing, ApiError> {
        self.fleet.accept_volume().map_err(|e| ApiError::Failed(e.to_string()))?;
        self.reconcile();
        Ok(Nothing {})
    }

    fn jobs(&self) -> Result<JobList, ApiError> {
        let jobs = self.fleet.all_jobs().map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(JobList { jobs })
    }

    fn job_cancel(&mut self, request: &JobRequest) -> Result<Nothing, ApiError> {
        self.fleet.jobs().cancel(request.job).map_err(|e| ApiError::NotFound(e.to_string()))?;
        Ok(Nothing {})
    }

    // === boots ===

    fn boots(&self, request: &BootsRequest) -> Result<Boots, ApiError> {
        let mac = match request.device.as_deref() {
            None => None,
            Some(id) => match id.parse() {
                Ok(mac) => Some(mac),
                Err(_) => {
                    let device = self.configured(id)?;
                    let unknown = || ApiError::Failed(format!("the hardware address of {id} is not known yet"));
                    Some(device.mac.ok_or_else(unknown)?)
                }
            },
        };
        let limit = request.limit.unwrap_or(DEFAULT_BOOTS).min(MAX_BOOTS);
        let boots = self.fleet.boots(mac, limit).map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(Boots { boots: boots.iter().map(BootSummary::from).collect() })
    }

    fn boot(&self, request: &BootRequest) -> Result<BootDetail, ApiError> {
        let failed = |e: crate::fleet::StoreError| ApiError::Failed(e.to_string());
        let unknown = || ApiError::NotFound(format!("there is no boot {}: 'piboot boots' lists them", request.boot));
        let boot = self.fleet.boot(request.boot).map_err(failed)?.ok_or_else(unknown)?;
        let good = self.fleet.good_boot_before(&boot).map_err(failed)?;
        Ok(BootDetail {
            age_ms: boot.age_ms(self.fleet.clock()),
            good: good.map(|good| GoodBoot { id: good.id, stages: good.stages }),
            boot,
        })
    }

    fn boot_packets(&self, request: &BootRequest) -> Result<BootPackets, ApiError> {
        let boot = self.boot(request)?.boot.id;
        let file = self.fleet.packets(boot).map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(BootPackets { boot, packets: packets::count(&file), pcap: base64::encode(&file) })
    }
}

fn led(request: &LedRequest) -> Result<Leds, ApiError> {
    let unknown = || ApiError::NotFound("that is no blink code of a Raspberry Pi".to_owned());
    let codes = pi::led(request.flashes).ok_or_else(unknown)?.to_vec();
    Ok(Leds { codes })
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ApiError> {
    let params = if params.is_null() { Value::Object(serde_json::Map::new()) } else { params };
    serde_json::from_value(params).map_err(|e| ApiError::InvalidArgument(e.to_string()))
}

fn answer<T: Serialize>(value: T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|e| ApiError::Failed(e.to_string()))
}
