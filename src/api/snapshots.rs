//! Verbs about snapshots of devices, and devices that begin as another.

use super::types::*;
use super::{Api, ApiError, Servers};
use crate::config::Severity;
use crate::fleet::{CloneRequest, EnrolError, Enrolment, MAX_SNAPSHOTS, SnapshotError};

impl<S: Servers> Api<S> {
    pub(super) fn snapshot(&mut self, request: SnapshotRequest) -> Result<SnapshotStarted, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        let (job, name) = self.fleet.take_snapshot(&id, request.name)?;
        self.reconcile();
        Ok(SnapshotStarted { name, job })
    }

    pub(super) fn snapshots(&self, request: &IdRequest) -> Result<Snapshots, ApiError> {
        let device = self.configured(&request.id)?;
        let (id, in_use) = (device.id.clone(), self.fleet.files_in_use(device));
        Ok(Snapshots { snapshots: self.fleet.snapshots(&id), id, most: MAX_SNAPSHOTS, in_use })
    }

    pub(super) fn rollback(&mut self, request: &RollbackRequest) -> Result<Started, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        let job = self.fleet.roll_back(&id, &request.snapshot, request.discard)?;
        // From here on it is not served.
        self.reconcile();
        Ok(Started { job })
    }

    pub(super) fn snapshot_remove(&mut self, request: &SnapshotRemoveRequest) -> Result<Removed, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        Ok(Removed { job: self.fleet.remove_snapshot(&id, &request.snapshot)? })
    }

    pub(super) fn device_clone(&mut self, request: DeviceCloneRequest) -> Result<Enrolled, ApiError> {
        let DeviceCloneRequest { from, snapshot, mac, serial, hostname, ip, ssh_keys, root } = request;
        let from = self.configured(&from)?.id.clone();
        let root = root.unwrap_or_default();
        let device = Enrolment { mac, serial, hostname, ip, ssh_keys, root, ..Enrolment::default() };
        let device = self.fleet.clone_device(CloneRequest { from, snapshot, device }).map_err(enrol_error)?;
        Ok(self.enrolled(device.id))
    }

    /// What `check` says about rolling back, and about roots of another kind than configured.
    pub(super) fn rollback_findings(&self) -> Vec<Finding> {
        let devices = self.fleet.config().devices.iter();
        let notes = devices.flat_map(|device| {
            let finding = |text| Finding::new(Severity::Warning, device.id.clone(), text);
            let notes = self.fleet.rollback_notes(&device.id).into_iter();
            notes.chain(self.fleet.root_note(&device.id)).map(finding)
        });
        notes.collect()
    }
}

fn enrol_error(error: EnrolError) -> ApiError {
    match error {
        EnrolError::Snapshot(error) => error.into(),
        other => ApiError::Failed(other.to_string()),
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::UnknownDevice(_) | SnapshotError::Unknown(..) => Self::NotFound(error.to_string()),
            SnapshotError::Name(_) | SnapshotError::Reserved => Self::InvalidArgument(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}
