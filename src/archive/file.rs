//! The file that an archive is written to or read from: one on a disk, which appears under its name when it is complete, or
//! a pipe to or from another program.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;

use crate::progress::Progress;
use crate::storage::{rename_new, sync_directory};

/// How often a pipe that stands still is asked whether to go on.
const PATIENCE_MS: u8 = 200;
/// How often the space that is left is looked at.
const LOOK_EVERY: u64 = 8 << 20;

/// Where an archive goes.
#[derive(Debug)]
enum Place {
    /// Nowhere until it is complete.
    Unnamed(PathBuf),
    /// Beside, where the file system has no files without names.
    Beside(PathBuf, PathBuf),
    /// To whoever reads.
    Pipe,
}

/// An archive being written.
pub struct Output<'a> {
    file: File,
    place: Place,
    written: u64,
    looked_at: u64,
    keep_free: u64,
    progress: &'a dyn Progress,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What writing and reading say when the job was cancelled; not `Interrupted`, after which callers try again.
pub(super) const CANCELLED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

impl<'a> Output<'a> {
    /// Begins a file, root's alone, at `path`, where there must be none yet; or goes on into a pipe that is there. Writing
    /// ends with an error when less than `keep_free` bytes would be left, or when `progress` is cancelled.
    ///
    /// # Errors
    /// As the system reports.
    pub fn create(path: &Path, keep_free: u64, progress: &'a dyn Progress) -> io::Result<Self> {
        let output = |file, place| Self { file, place, written: 0, looked_at: 0, keep_free, progress };
        match std::fs::metadata(path) {
            Ok(meta) if meta.file_type().is_fifo() => {
                let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
                let file = File::options().write(true).custom_flags(flags).open(path)?;
                return Ok(output(file, Place::Pipe));
            }
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let directory = path.parent().ok_or(io::ErrorKind::InvalidFilename)?;
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(output(fd.into(), Place::Unnamed(path.to_owned()))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let mut name = std::ffi::OsString::from(".");
                name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
                name.push(".part");
                let beside = path.with_file_name(name);
                // Left by a killed agent: nobody else gives files such names.
                let _ = std::fs::remove_file(&beside);
                let file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
                Ok(output(file, Place::Beside(beside, path.to_owned())))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Gives the complete file its name, durably.
    ///
    /// # Errors
    /// As the system reports; then nothing is left of it.
    pub fn publish(mut self) -> io::Result<()> {
        let path = match &self.place {
            Place::Pipe => return Ok(()),
            Place::Unnamed(path) => {
                self.file.set_permissions(Permissions::from_mode(0o600))?;
                self.file.sync_all()?;
                let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
                linkat(CWD, link, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
                path.clone()
            }
            Place::Beside(beside, path) => {
                self.file.sync_all()?;
                rename_new(CWD, beside, CWD, path)?;
                path.clone()
            }
        };
        self.place = Place::Pipe;
        sync_directory(path.parent().unwrap_or(Path::new("/")))
    }

    fn check_space(&mut self) -> io::Result<()> {
        if matches!(self.place, Place::Pipe) || self.written < self.looked_at + LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = self.written;
        let stat = rustix::fs::fstatvfs(&self.file)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.keep_free {
            let what = format!("the disk is full ({} MB are kept free)", self.keep_free >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if let Place::Beside(beside, _) = &self.place {
            // What matters was said already.
            let _ = std::fs::remove_file(beside);
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_space()?;
        let written = patiently(&self.file, PollFlags::POLLOUT, self.progress, || (&self.file).write(bytes))?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive being read.
pub struct Input<'a> {
    file: File,
    progress: &'a dyn Progress,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<'a> Input<'a> {
    /// Opens a file or a pipe.
    ///
    /// # Errors
    /// As the system reports; anything else than a file or a pipe.
    pub fn open(path: &Path, progress: &'a dyn Progress) -> io::Result<Self> {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_fifo() {
            return Err(io::Error::other("it is neither a file nor a pipe"));
        }
        Ok(Self { file: File::options().read(true).custom_flags(flags).open(path)?, progress })
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        patiently(&self.file, PollFlags::POLLIN, self.progress, || (&self.file).read(buffer))
    }
}

/// Does what a pipe may make wait for, until it is done or cancelled.
fn patiently(
    file: &File,
    event: PollFlags,
    progress: &dyn Progress,
    mut act: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        if progress.cancelled() {
            return Err(CANCELLED.into());
        }
        match act() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(file.as_fd(), event)], PollTimeout::from(PATIENCE_MS)) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;

    #[test]
    fn a_file_appears_when_it_is_complete_and_replaces_nothing() {
        for place in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let path = place.path().join("a");
            let names = || std::fs::read_dir(place.path()).unwrap().count();
            let mut output = Output::create(&path, 0, &NoProgress).unwrap();
            output.write_all(b"half").unwrap();
            assert!(!path.exists());
            drop(output);
            assert_eq!(names(), 0);
            let mut output = Output::create(&path, 0, &NoProgress).unwrap();
            output.write_all(b"whole").unwrap();
            output.publish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"whole");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(), 1);
            let error = Output::create(&path, 0, &NoProgress).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn what_would_fill_the_disk_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let mut output = Output::create(&place.path().join("a"), u64::MAX, &NoProgress).unwrap();
        let piece = vec![1; 1 << 20];
        let error = (0..100).find_map(|_| output.write_all(&piece).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
