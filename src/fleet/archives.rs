//! Starting backups and restores, and what a restore means for the configuration.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::at_rest::Plan;
use super::backup::{Head, Packing, decompress, read_head};
use super::restore::{Restored, Restoring, already_there};
use super::{EnrolError, Fleet};
use crate::archive::Input;
use crate::config::{Device, FileError, check_device_id};
use crate::jobs::{JobKind, JobsError, Running};
use crate::progress::NoProgress;

/// Why a backup or a restore was not begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The device of that id is not configured.
    #[error("no device '{0}' is enrolled: 'piboot devices' lists them")]
    Unknown(String),
    /// The Pi, or a job, uses its files.
    #[error("{0}")]
    InUse(String),
    /// They cannot be read.
    #[error("{0}")]
    Files(String),
    /// It has none yet.
    #[error("{0} has no files yet: wait until it is ready")]
    NoFiles(String),
    /// Something else works on it.
    #[error("job {1} works on {0}: wait until it has ended ('piboot job wait {1}')")]
    Busy(String, u32),
    /// A path that cannot be meant.
    #[error("{0}: {1}")]
    Path(PathBuf, &'static str),
    /// What is there cannot be restored.
    #[error("{0}: {1}")]
    Archive(PathBuf, String),
    /// There are files already.
    #[error("{0}")]
    InTheWay(String),
    /// Somebody else has what it is known by.
    #[error("{0} is enrolled already, as {1}: unenrol that first, or restore over it with --id {1} --replace")]
    Taken(String, String),
    /// The volume cannot be used.
    #[error("{0}")]
    Volume(String),
    /// A name that cannot be used.
    #[error(transparent)]
    Name(#[from] crate::config::NameError),
    /// Too many jobs.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The configuration could not be changed.
    #[error(transparent)]
    Config(#[from] FileError),
}

impl Fleet {
    /// Starts the backup of a device to a new file, or into a pipe that is there.
    ///
    /// # Errors
    /// When it runs and `live` is not wished, or the file cannot be meant.
    pub fn backup(&mut self, device: &Device, path: PathBuf, live: bool) -> Result<u32, BackupError> {
        let id = device.id.clone();
        if !live && let Some(why) = self.in_use(device, Plan::Off) {
            return Err(BackupError::InUse(format!("{why}, or give --live: what it writes meanwhile may be torn")));
        }
        if !self.layout.device_root(&id).is_dir() {
            return Err(BackupError::NoFiles(id));
        }
        self.check_idle(&id)?;
        self.check_path(&path)?;
        let packing = Packing::of_device(&self.layout, device, path, live, self.clock.wall_ms());
        let packing = packing.map_err(BackupError::Files)?;
        let task = Box::new(move |running: &Running| packing.run(running));
        let job = self.jobs.submit(JobKind::Backup, &id, task)?;
        self.note_job(job);
        if !live {
            self.claim(&id, job);
        }
        Ok(job)
    }

    /// Starts the restore of a device from its backup, as itself, or as the enrolled device `id`. What comes through a pipe
    /// cannot be looked at before, so that needs `id`.
    ///
    /// # Errors
    /// When the backup cannot be used, or what is there is in the way.
    pub fn restore(&mut self, path: PathBuf, id: Option<&str>, replace: bool) -> Result<u32, BackupError> {
        self.check_volume();
        if let Some(problem) = self.volume.problems.first() {
            return Err(BackupError::Volume(problem.to_string()));
        }
        let head = peek(&path)?;
        let own = head.as_ref().map(|head| head.manifest.id.clone());
        let id = id.map(str::to_owned).or_else(|| own.clone());
        let id =
            id.ok_or_else(|| BackupError::Path(path.clone(), "name the device by --id: a pipe is read only once"))?;
        check_device_id(&id)?;
        let configured = self.config.device(&id).cloned();
        match (&configured, &head) {
            (Some(device), _) => {
                if let Some(why) = self.in_use(device, Plan::Off) {
                    return Err(BackupError::InUse(why));
                }
            }
            (None, Some(_)) if own.as_ref() != Some(&id) => return Err(BackupError::Unknown(id)),
            (None, Some(head)) => self.check_free(&head.device)?,
            (None, None) => {}
        }
        if self.layout.device(&id).exists() {
            if !replace {
                return Err(BackupError::InTheWay(already_there(&id)));
            }
            if let Some(why) = self.no_exchange() {
                return Err(BackupError::Volume(why));
            }
        }
        self.check_idle(&id)?;
        let restoring = Restoring {
            layout: self.layout.clone(),
            path,
            id: id.clone(),
            configured,
            replace,
            exported: self.exported(),
            regional: self.config.main.regional.clone(),
            now_ms: self.clock.wall_ms(),
            results: self.restored.0.clone(),
        };
        let task = Box::new(move |running: &Running| restoring.run(running));
        let job = self.jobs.submit(JobKind::Restore, &id, task)?;
        self.note_job(job);
        self.claim(&id, job);
        Ok(job)
    }

    /// Takes up what was restored: a device that was not enrolled is now.
    pub(super) fn take_restored(&mut self) {
        while let Ok(Restored { device, was_configured }) = self.restored.1.try_recv() {
            self.failed.remove(&device.id);
            if self.config.device(&device.id).is_some() {
                self.follow_record(&device.id);
                continue;
            }
            if was_configured {
                continue;
            }
            let enrolled = self.check_free(&device).map_err(|e| e.to_string());
            let enrolled = enrolled.and_then(|()| self.add_device(&device).map_err(|e: EnrolError| e.to_string()));
            match enrolled {
                Ok(()) => {
                    log::info!("{} is enrolled, as it was when it was backed up", device.id);
                    self.config.devices.push(device);
                }
                Err(why) => log::error!(
                    "the files of {} are restored, but it could not be enrolled ({why}): enrol it as {}",
                    device.id,
                    device.hostname
                ),
            }
        }
    }

    /// Whether nobody else has what a device is known by.
    fn check_free(&self, device: &Device) -> Result<(), BackupError> {
        let taken = |what: String, other: &Device| Err(BackupError::Taken(what, other.id.clone()));
        for other in &self.config.devices {
            match (device.mac, device.serial, device.ip) {
                (Some(mac), ..) if other.mac == Some(mac) => return taken(mac.to_string(), other),
                (_, Some(serial), _) if other.serial == Some(serial) => return taken(serial.to_string(), other),
                (.., Some(ip)) if other.ip == Some(ip) => return taken(ip.to_string(), other),
                _ if other.hostname.eq_ignore_ascii_case(&device.hostname) => {
                    return taken(format!("the name {}", device.hostname), other);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn check_idle(&self, id: &str) -> Result<(), BackupError> {
        match self.jobs.all_on(id).first().copied().or_else(|| self.claimed(id)) {
            Some(job) => Err(BackupError::Busy(id.to_owned(), job)),
            None => Ok(()),
        }
    }

    /// A backup among the trees would be a part of the next, or be swept away.
    pub(super) fn check_path(&self, path: &Path) -> Result<(), BackupError> {
        let refused = |why| Err(BackupError::Path(path.to_owned(), why));
        if !path.is_absolute() {
            return refused("not an absolute path");
        }
        let Some(directory) = path.parent().and_then(|parent| parent.canonicalize().ok()) else {
            return refused("its directory does not exist");
        };
        let ours = [self.layout.images(), self.layout.devices(), self.layout.snapshots(), self.layout.scratch()];
        if ours.iter().filter_map(|own| own.canonicalize().ok()).any(|own| directory.starts_with(own)) {
            return refused("piboot's own directories take no other files: choose another");
        }
        Ok(())
    }
}

/// Looks into a backup; `None` for a pipe.
fn peek(path: &Path) -> Result<Option<Head>, BackupError> {
    if !path.is_absolute() {
        return Err(BackupError::Path(path.to_owned(), "not an absolute path"));
    }
    let unusable = |error: &dyn std::fmt::Display| BackupError::Archive(path.to_owned(), error.to_string());
    let kind = std::fs::metadata(path).map_err(|e| unusable(&e))?.file_type();
    if !kind.is_file() {
        return if kind.is_fifo() { Ok(None) } else { Err(unusable(&"it is neither a file nor a pipe")) };
    }
    let input = Input::open(path, &NoProgress).map_err(|e| unusable(&e))?;
    let mut reader = decompress(input).map_err(|e| unusable(&e))?;
    read_head(&mut reader).map(Some).map_err(|e| unusable(&e))
}
