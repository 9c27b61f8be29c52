//! Verbs about enrolled Pis.

use super::types::*;
use super::{Api, ApiError, GIVEN_UP_AFTER, Servers};
use crate::boot::{BootEnd, BootState};
use crate::config::{Device, ParseSizeError, Password, PasswordHash, RootKind, Severity, Size};
use crate::fleet::{DeviceRecord, DeviceState, Edit, EnrolError, Enrolment};
use crate::jobs::JobKind;

impl<S: Servers> Api<S> {
    pub(super) fn devices(&mut self) -> Devices {
        self.fleet.measure_usage();
        let devices = self.fleet.config().devices.iter().map(|d| self.device_info(d)).collect();
        Devices { devices, pending: self.pending() }
    }

    pub(super) fn device(&self, id: &str) -> Result<DeviceDetail, ApiError> {
        let device = self.configured(id)?;
        let info = self.device_info(device);
        // A damaged record shows as the device's state.
        let record = DeviceRecord::load(&self.fleet.layout().device(&device.id)).ok().flatten();
        let (changes, notes, made_by) = record.map(|r| (r.changes, r.notes, r.root)).unwrap_or_default();
        Ok(DeviceDetail {
            info,
            fixed_ip: device.ip,
            ssh_keys: device.ssh_keys.clone(),
            user: device.user.clone(),
            has_password: device.password.is_some(),
            changes,
            notes,
            root: device.root,
            made_by,
            clone_of: device.clone_of.as_ref().map(ToString::to_string),
            rollback_after: device.rollback_after,
            snapshots: self.fleet.snapshots(&device.id).len(),
        })
    }

    pub(super) fn configured(&self, id: &str) -> Result<&Device, ApiError> {
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
            Some(DeviceState::Disabled) => state = "disabled",
            None => {}
        }
        DeviceInfo {
            id: device.id.clone(),
            hostname: device.hostname.clone(),
            mac: device.mac,
            serial: device.serial,
            board: seen.map(crate::fleet::SeenPi::board),
            model: seen.and_then(crate::fleet::SeenPi::family),
            image: device.image.clone(),
            ephemeral: self.fleet.is_served_read_only(&device.id),
            state: state.to_owned(),
            disk_bytes: self.fleet.device_usage(&device.id).and_then(|measured| measured.disk_bytes),
            quota: device.quota.map(|size| size.0),
            used: self.fleet.quota_use(&device.id).map(|quota| quota.used),
            job,
            why,
            ip: boot.and_then(|b| b.ip),
            boot: boot.map(BootSummary::from),
        }
    }

    pub(super) fn enroll(&mut self, request: EnrollRequest) -> Result<Enrolled, ApiError> {
        let EnrollRequest { mac, serial, hostname, image, ip, ssh_keys, root, user, password, password_hash, quota } =
            request;
        let enrolment = Enrolment {
            mac,
            serial,
            hostname,
            image,
            ip,
            ssh_keys,
            root: root.unwrap_or_default(),
            clone_of: None,
            user: user.filter(|user| !user.is_empty()),
            password: hashed(password, password_hash)?.flatten(),
            quota: quota.map(|text| size(&text)).transpose()?.flatten(),
        };
        let device = self.fleet.enrol(enrolment).map_err(failed)?;
        Ok(self.enrolled(device.id))
    }

    /// Starts what a device that was just added to the configuration needs, and says what that is.
    pub(super) fn enrolled(&mut self, id: String) -> Enrolled {
        self.reconcile();
        let (job, why) = match self.fleet.state(&id) {
            Some(DeviceState::Preparing { job }) => (Some(*job), None),
            Some(DeviceState::Blocked { why }) => (None, Some(why.clone())),
            _ => (None, None),
        };
        let warnings = self.fleet.config().device(&id).map(|device| self.fleet.image_warnings(device));
        Enrolled { id, job, why, warnings: warnings.unwrap_or_default() }
    }

    pub(super) fn device_edit(&mut self, request: EditRequest) -> Result<Edited, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        let ip = request.ip.map(|ip| if ip.is_empty() { Ok(None) } else { address(&ip).map(Some) }).transpose()?;
        let edit = Edit {
            hostname: request.hostname,
            ip,
            ssh_keys: request.ssh_keys,
            user: request.user.map(|user| Some(user).filter(|user| !user.is_empty())),
            password: hashed(request.password, request.password_hash)?,
            disabled: request.disabled,
            image: request.image,
            rollback_after: request.rollback_after,
            quota: request.quota.map(|text| size(&text)).transpose()?,
            force: request.force,
        };
        let (device, notes) = self.fleet.edit(&id, edit).map_err(failed)?;
        self.reconcile();
        let job = self.fleet.jobs().active(JobKind::Provision, &device.id);
        Ok(Edited { id, job, notes })
    }

    pub(super) fn device_switch(&mut self, request: &SwitchRequest) -> Result<Started, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        self.replace_root(&id, &request.image, request.keep, request.force, request.root)
    }

    pub(super) fn device_reset(&mut self, request: &ResetRequest) -> Result<Started, ApiError> {
        let device = self.configured(&request.id)?;
        let (id, image) = (device.id.clone(), device.image.clone());
        self.replace_root(&id, &image, request.keep, request.force, request.root)
    }

    fn replace_root(
        &mut self,
        id: &str,
        image: &str,
        keep: bool,
        force: bool,
        root: Option<RootKind>,
    ) -> Result<Started, ApiError> {
        let job = self.fleet.switch(id, image, keep, force, root).map_err(failed)?;
        // The door closes before anything changes behind it.
        self.reconcile();
        Ok(Started { job })
    }

    pub(super) fn unenroll(&mut self, request: &UnenrollRequest) -> Result<Unenrolled, ApiError> {
        let id = self.configured(&request.id)?.id.clone();
        // The door closes before the files go.
        let removal = self.fleet.unenrol(&id, request.delete);
        self.reconcile();
        let removal = removal.map_err(|e| ApiError::Failed(e.to_string()))?;
        Ok(Unenrolled { id, job: removal.job, kept: removal.kept.map(|p| p.display().to_string()) })
    }
}

fn failed(error: EnrolError) -> ApiError {
    ApiError::Failed(error.to_string())
}

/// No text is no limit, nor is 0.
fn size(text: &str) -> Result<Option<Size>, ApiError> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|e: ParseSizeError| ApiError::InvalidArgument(format!("quota: {e}"))),
    }
}

fn address(text: &str) -> Result<std::net::Ipv4Addr, ApiError> {
    text.parse().map_err(|_| ApiError::InvalidArgument(format!("ip: '{text}' is not an IPv4 address")))
}

/// The hash of a password given as either; an empty password is none, and means that none is configured.
fn hashed(password: Option<Password>, hash: Option<PasswordHash>) -> Result<Option<Option<PasswordHash>>, ApiError> {
    match (password, hash) {
        (Some(_), Some(_)) => {
            Err(ApiError::InvalidArgument("password and password_hash are given: one of them is enough".to_owned()))
        }
        (Some(Password(text)), None) if text.is_empty() => Ok(Some(None)),
        (Some(Password(text)), None) => {
            PasswordHash::of(&text).map(|hash| Some(Some(hash))).map_err(|e| ApiError::InvalidArgument(e.to_string()))
        }
        (None, hash) => Ok(hash.map(Some)),
    }
}
