//! Enrolling and unenrolling: changes to the configuration, made the way an admin would make them.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Fleet;
use super::provision::{discard, set_aside};
use super::roots::RootError;
use super::snapshots::SnapshotError;
use crate::config::{
    self, CloneOf, Device, EditError, FileError, NameError, PasswordHash, RootKind, Size, check_hostname,
    check_image_name, check_user, device_id_from_hostname,
};
use crate::image;
use crate::jobs::{JobKind, JobsError};
use crate::pi::{Mac, Serial};

/// What is asked for when a Pi is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Enrolment {
    /// Hardware address; found from the serial if that Pi was seen.
    pub mac: Option<Mac>,
    /// Serial; found from the hardware address if that Pi was seen.
    pub serial: Option<Serial>,
    /// Host name; made from model and serial if absent.
    pub hostname: Option<String>,
    /// Image; the default image if absent.
    pub image: Option<String>,
    /// The address that DHCP is always to give it.
    pub ip: Option<Ipv4Addr>,
    /// Public keys for the first user.
    pub ssh_keys: Vec<String>,
    /// Name of the first user.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<PasswordHash>,
    /// What its files may take.
    pub quota: Option<Size>,
    /// How its root comes to be.
    pub root: RootKind,
    /// The device or snapshot that it begins as, instead of the image.
    pub clone_of: Option<CloneOf>,
}

/// What unenrolling left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The job that deletes its files, if they were to be deleted and there were any.
    pub job: Option<u32>,
    /// Its files that were kept.
    pub kept: Option<PathBuf>,
}

/// Why a Pi was not enrolled or unenrolled. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nothing to know it by.
    #[error("neither a MAC address nor a serial was given: 'piboot devices' lists the Pis that were seen")]
    Nobody,
    /// A multicast or empty address.
    #[error("'{0}' is no address of one device")]
    NoDevice(Mac),
    /// Several Pis say they have this serial.
    #[error("several Pis claim the serial {0}: name the right one by --mac")]
    Ambiguous(Serial),
    /// A name that cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Somebody has it already.
    #[error("{0} is enrolled already, as {1}")]
    Taken(String, String),
    /// The router's own address.
    #[error("{0} is this router's own address")]
    RoutersOwn(Ipv4Addr),
    /// A Pi that is up would not survive it.
    #[error("{0} (or force it: then the Pi loses what it uses at once)")]
    Up(String),
    /// Its root was made from another image.
    #[error("the root of {id} was made from image '{from}': 'piboot device switch {id} {image}' makes it a new one")]
    HasRoot {
        /// The device.
        id: String,
        /// What its root was made from.
        from: String,
        /// What it was to be.
        image: String,
    },
    /// The device of that id is not configured.
    #[error("no device '{0}' is enrolled: 'piboot devices' lists them")]
    Unknown(String),
    /// No image was named.
    #[error("no image was named and default_image is not set: 'piboot images' lists them")]
    NoImage,
    /// The named image is not there.
    #[error("there is no image '{0}': 'piboot images' lists them, 'piboot image import' makes one")]
    UnknownImage(String),
    /// There is nothing in it that a Pi could start.
    #[error("image '{0}' has no kernel that a Raspberry Pi starts: 'piboot images' says what each image boots")]
    NoKernel(String),
    /// A bad public key.
    #[error("{0}")]
    Key(String),
    /// The volume cannot take it.
    #[error("{0}")]
    Volume(String),
    /// The configuration could not be changed.
    #[error(transparent)]
    Config(#[from] FileError),
    /// Its root cannot be made that way.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The device that it is to begin as.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A directory could not be moved.
    #[error("cannot change {0}: {1}")]
    File(String, io::Error),
    /// The files could not be moved aside.
    #[error("{0} is unenrolled, but its files could not be moved aside: {1}")]
    Aside(String, io::Error),
    /// The deletion could not be queued.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// An image is in use.
    #[error("image '{0}' is used by {1}: unenrol them first")]
    ImageInUse(String, String),
    /// Roots lie over an image.
    #[error("image '{0}' is the lower layer of {1}: remove or switch them first")]
    LowerLayer(String, String),
}

impl Fleet {
    /// Adds a device to the configuration. [`Fleet::reconcile`] then makes its trees.
    ///
    /// # Errors
    /// Names what cannot be used; nothing is changed then.
    pub fn enrol(&mut self, request: Enrolment) -> Result<Device, EnrolError> {
        // What is known of free space may be seconds old.
        self.check_volume();
        let device = self.plan(request)?;
        self.add_device(&device)?;
        self.failed.remove(&device.id);
        self.config.devices.push(device.clone());
        log::info!("{} enrolled with image {}", device.id, device.image);
        for warning in self.image_warnings(&device) {
            log::warn!("{}: {warning}", device.id);
        }
        Ok(device)
    }

    /// Why a device's image does not boot its board, or not as it could: for somebody who has just chosen it.
    #[must_use]
    pub fn image_warnings(&self, device: &Device) -> Vec<String> {
        let pi = device.mac.and_then(|mac| self.seen.get(mac));
        let Some(model) = pi.and_then(super::SeenPi::family) else { return Vec::new() };
        let Ok(info) = image::load_info(&self.layout.image(&device.image)) else { return Vec::new() };
        let Some(fit) = info.fit(model) else { return Vec::new() };
        let why = Some(&fit.why).filter(|_| !fit.ok);
        let misfit = why.map(|why| format!("image '{}' does not fit a {model}: {why}", device.image));
        misfit.into_iter().chain(fit.partial.iter().cloned()).collect()
    }

    fn plan(&self, request: Enrolment) -> Result<Device, EnrolError> {
        let seen = request.mac.and_then(|mac| self.seen.get(mac));
        let seen = match (seen, request.serial) {
            (None, Some(serial)) if request.mac.is_none() => match self.seen.by_serial(serial)[..] {
                [] => None,
                [only] => Some(only),
                [..] => return Err(EnrolError::Ambiguous(serial)),
            },
            (seen, _) => seen,
        };
        let mac = request.mac.or(seen.map(|pi| pi.mac));
        let serial = request.serial.or(seen.and_then(|pi| pi.serial));
        if mac.is_none() && serial.is_none() {
            return Err(EnrolError::Nobody);
        }
        if let Some(mac) = mac.filter(|mac| !mac.is_device()) {
            return Err(EnrolError::NoDevice(mac));
        }
        let taken = |what: String, other: &Device| Err(EnrolError::Taken(what, other.id.clone()));
        for other in &self.config.devices {
            if let (Some(mac), true) = (mac, other.mac == mac) {
                return taken(mac.to_string(), other);
            }
            if let (Some(serial), true) = (serial, other.serial == serial) {
                return taken(serial.to_string(), other);
            }
        }
        if let Some(ip) = request.ip {
            config::check_address(ip)?;
            if let Some(other) = self.config.devices.iter().find(|other| other.ip == Some(ip)) {
                return taken(format!("the address {ip}"), other);
            }
        }
        let hostname = request.hostname.unwrap_or_else(|| propose_hostname(seen.map(|pi| pi.board()), serial, mac));
        check_hostname(&hostname)?;
        if let Some(other) = self.config.devices.iter().find(|d| d.hostname.eq_ignore_ascii_case(&hostname)) {
            return taken(format!("the name {hostname}"), other);
        }
        let id = device_id_from_hostname(&hostname);
        config::check_device_id(&id)?;
        if self.config.device(&id).is_some() {
            return Err(EnrolError::Taken(format!("the name {hostname}"), id));
        }
        let image = request.image.or_else(|| self.config.main.default_image.clone()).ok_or(EnrolError::NoImage)?;
        check_image_name(&image)?;
        if let Some(problem) = self.volume.problems.first() {
            return Err(EnrolError::Volume(problem.to_string()));
        }
        self.check_room(&id, &image, request.root, request.clone_of.as_ref())?;
        check_keys(&request.ssh_keys)?;
        request.user.as_deref().map_or(Ok(()), check_user)?;
        Ok(Device {
            id,
            serial,
            mac,
            ip: request.ip,
            hostname,
            image,
            root: request.root,
            clone_of: request.clone_of,
            rollback_after: 0,
            ssh_keys: request.ssh_keys,
            trim: true,
            user: request.user,
            password: request.password,
            quota: request.quota.filter(|size| size.0 > 0),
            disabled: false,
        })
    }

    /// Takes a device out of the configuration, and its files away if `delete`.
    ///
    /// # Errors
    /// When it is unknown or the configuration cannot be written.
    pub fn unenrol(&mut self, id: &str, delete: bool) -> Result<Removal, EnrolError> {
        let Some(device) = self.config.device(id) else { return Err(EnrolError::Unknown(id.to_owned())) };
        let mac = device.mac;
        if let Some(job) = self.needed_by(id).filter(|_| delete) {
            return Err(JobsError::Busy(job, id.to_owned()).into());
        }
        for job in self.jobs.all_on(id) {
            // It ends by itself and leaves nothing; an error here means it just did.
            let _ = self.jobs.cancel(job);
        }
        self.edit_config(|text| config::remove_device(text, id).map(Some))?;
        self.config.devices.retain(|d| d.id != id);
        mac.into_iter().for_each(|mac| self.automatic.leave_alone(mac));
        self.failed.remove(id);
        self.served.remove(id);
        log::info!("{id} unenrolled");
        if delete {
            self.remove_snapshots(id)?;
        }
        let directory = self.layout.device(id);
        if !directory.exists() {
            return Ok(Removal { job: None, kept: None });
        }
        if !delete {
            return Ok(Removal { job: None, kept: Some(directory) });
        }
        let aside = set_aside(&self.layout, &directory).map_err(|e| EnrolError::Aside(id.to_owned(), e))?;
        Ok(Removal { job: self.delete(aside, format!("files of {id} deleted")), kept: None })
    }

    /// Deletes what was set aside, by a job; if none can be had, the next start does it.
    pub(super) fn delete(&self, aside: PathBuf, done: String) -> Option<u32> {
        let subject = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let task = Box::new(move |_: &crate::jobs::Running| discard(&aside).map(|()| done));
        match self.jobs.submit(JobKind::Delete, &subject, task) {
            Ok(job) => {
                self.note_job(job);
                Some(job)
            }
            Err(error) => {
                log::warn!("{subject} is deleted when piboot starts the next time: {error}");
                None
            }
        }
    }

    /// Adds a device's section. One that is in the file but not in force is the admin's to correct.
    pub(super) fn add_device(&self, device: &Device) -> Result<(), EnrolError> {
        self.edit_config(|text| {
            if config::has_section(text, &device.id)? {
                return Err(EditError::Exists(device.id.clone()));
            }
            config::put_device(text, device).map(Some)
        })?;
        Ok(())
    }

    /// Notes what a device showed of its identity, if the file has it and lacks it.
    pub(super) fn note_identity(&self, id: &str, mac: Mac, serial: Serial) -> Result<(), EnrolError> {
        self.edit_config(|text| config::complete_identity(text, id, mac, serial))?;
        Ok(())
    }

    /// Notes which address each of these devices is to have, where the file has the device and names none.
    pub(super) fn note_addresses(&self, fixed: &[(String, Ipv4Addr)]) -> Result<(), FileError> {
        self.edit_config(|text| {
            let mut changed = None;
            for (id, ip) in fixed {
                let now = changed.as_deref().unwrap_or(text);
                changed = config::complete_address(now, id, *ip)?.or(changed);
            }
            Ok(changed)
        })
    }

    /// Changes the configuration file; `None` leaves it alone.
    pub(super) fn edit_config(
        &self,
        edit: impl FnOnce(&str) -> Result<Option<String>, EditError>,
    ) -> Result<(), FileError> {
        if config::file::edit(&self.config_file, edit)? {
            self.config_written.set(true);
        }
        Ok(())
    }
}

/// Checks public keys, as lines of an authorized_keys file.
pub(super) fn check_keys(keys: &[String]) -> Result<(), EnrolError> {
    let Some(bad) = keys.iter().find(|key| !config::is_ssh_key(key)) else { return Ok(()) };
    let shown: String = bad.chars().take(24).filter(|c| !c.is_control()).collect();
    Err(EnrolError::Key(format!("'{shown}…' is not a public key line (ssh-ed25519 AAAA… name)")))
}

/// `pi-4b-5b154510`: what it is and which one.
fn propose_hostname(board: Option<String>, serial: Option<Serial>, mac: Option<Mac>) -> String {
    let board = board.unwrap_or_default();
    // "Raspberry Pi 4B v1.1, 1 GB" -> "4b"
    let kind: String = board
        .strip_prefix("Raspberry Pi")
        .unwrap_or_default()
        .split([',', 'v'])
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    let which =
        serial.map(|s| s.to_string()).or_else(|| mac.map(|m| m.to_string().replace(':', ""))).unwrap_or_default();
    if kind.is_empty() { format!("pi-{which}") } else { format!("pi-{kind}-{which}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_name_is_a_host_name() {
        let serial = Some(Serial(0x5b15_4510));
        let mac: Mac = "dc:a6:32:2e:f8:ed".parse().unwrap();
        for (board, serial, mac, name) in [
            (Some("Raspberry Pi 4B v1.1, 1 GB"), serial, None, "pi-4b-5b154510"),
            (Some("Raspberry Pi 3"), None, Some(mac), "pi-3-dca6322ef8ed"),
            (Some("Raspberry Pi Zero 2 W v1.0"), serial, None, "pi-zero2w-5b154510"),
            (None, serial, None, "pi-5b154510"),
        ] {
            let proposed = propose_hostname(board.map(str::to_owned), serial, mac);
            assert_eq!(proposed, name);
            check_hostname(&proposed).unwrap();
        }
    }
}
