//! The verbs: one function each, typed request and answer. Knows no transport; every transport calls [`Api::call`].

mod backups;
mod boots;
pub mod call;
mod check;
mod devices;
mod images;
pub mod methods;
mod pending;
mod snapshots;
pub mod types;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::types::*;
use crate::config::Device;
use crate::fleet::{DeviceState, Fleet, Wanted};

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
            "device_clone" => answer(self.device_clone(read(params)?)?),
            "snapshot" => answer(self.snapshot(read(params)?)?),
            "snapshots" => answer(self.snapshots(&read(params)?)?),
            "snapshot_remove" => answer(self.snapshot_remove(&read(params)?)?),
            "rollback" => answer(self.rollback(&read(params)?)?),
            "unenroll" => answer(self.unenroll(&read(params)?)?),
            "device_edit" => answer(self.device_edit(read(params)?)?),
            "device_switch" => answer(self.device_switch(&read(params)?)?),
            "device_reset" => answer(self.device_reset(&read(params)?)?),
            "images" => answer(self.images()),
            "image_import" => answer(self.image_import(&read(params)?)?),
            "image_remove" => answer(self.image_remove(&read(params)?)?),
            "os_list" => answer(self.os_list(&read(params)?)?),
            "disks" => answer(self.disks()),
            "backup" => answer(self.backup(read(params)?)?),
            "export" => answer(self.export(read(params)?)?),
            "import_all" => answer(self.import_all(read(params)?)?),
            "restore" => answer(self.restore(read(params)?)?),
            "volume_accept" => answer(self.volume_accept()?),
            "jobs" => answer(self.jobs()?),
            "job_cancel" => answer(self.job_cancel(&read(params)?)?),
            "boots" => answer(self.boots(&read(params)?)?),
            "boot" => answer(self.boot(&read(params)?)?),
            "led" => answer(boots::led(&read(params)?)?),
            "boot_packets" => answer(self.boot_packets(&read(params)?)?),
            streamed if methods::is_streamed(streamed) => Err(ApiError::InvalidArgument(format!(
                "'{streamed}' takes the image's bytes after the request: it is there on the local socket only"
            ))),
            other => Err(ApiError::UnknownMethod(other.to_owned())),
        }
    }

    /// Brings servers and jobs in line with the configuration.
    pub fn reconcile(&mut self) {
        let wanted = self.fleet.reconcile();
        self.servers.apply(&wanted);
    }

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
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ApiError> {
    let params = if params.is_null() { Value::Object(serde_json::Map::new()) } else { params };
    serde_json::from_value(params).map_err(|e| ApiError::InvalidArgument(e.to_string()))
}

fn answer<T: Serialize>(value: T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|e| ApiError::Failed(e.to_string()))
}
