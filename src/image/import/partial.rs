//! The directory in which an import grows.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::ImportError;
use crate::storage::rename_new;
use crate::storage::tree_remove::remove_tree;

const PREFIX: &str = "import-";
const SUFFIX: &str = ".partial";
const SCRATCH: &str = "disk.img";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removed with everything in it when dropped, unless published before.
pub(super) struct Partial {
    path: PathBuf,
    name: String,
    parent: OwnedFd,
    /// Holds a lock as long as the process lives, by which [`sweep`] knows an import at work.
    directory: OwnedFd,
}

impl Partial {
    pub(super) fn create(scratch_dir: &Path, image: &str) -> Result<Self, ImportError> {
        let name = format!("{PREFIX}{image}-{}{SUFFIX}", std::process::id());
        let path = scratch_dir.join(&name);
        let failed = |errno: Errno| ImportError::disk("make", &path, errno);
        let parent = rustix::fs::open(scratch_dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let parent = parent.map_err(|errno| ImportError::disk("open", scratch_dir, errno))?;
        match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
            // Left by a killed process that had our number, as in a container where the agent is always the same.
            Err(Errno::EXIST) if remove_if_abandoned(&parent, &name) == Some(Ok(())) => {
                rustix::fs::mkdirat(&parent, &name, Mode::RWXU).map_err(failed)?;
            }
            Err(Errno::EXIST) => return Err(ImportError::Running(image.to_owned())),
            other => other.map_err(failed)?,
        }
        let directory = rustix::fs::openat(&parent, &name, DIRECTORY, Mode::empty()).map_err(failed)?;
        let partial = Self { path: path.clone(), name, parent, directory };
        rustix::fs::flock(&partial.directory, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        Ok(partial)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Makes and opens an empty directory for a tree.
    pub(super) fn subdirectory(&self, name: &str) -> Result<OwnedFd, ImportError> {
        let made = rustix::fs::mkdirat(&self.directory, name, Mode::RWXU)
            .and_then(|()| rustix::fs::openat(&self.directory, name, DIRECTORY, Mode::empty()));
        made.map_err(|errno| ImportError::disk("make", &self.path.join(name), errno))
    }

    /// Makes the file for the unpacked image.
    pub(super) fn scratch(&self) -> Result<std::fs::File, ImportError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, SCRATCH, flags, Mode::RUSR | Mode::WUSR);
        file.map(Into::into).map_err(|errno| ImportError::disk("make", &self.path.join(SCRATCH), errno))
    }

    /// Removes the unpacked image, before its pages would be written to the disk for nothing.
    pub(super) fn discard_scratch(&self) -> Result<(), ImportError> {
        remove_tree(&self.directory, SCRATCH.as_bytes())
            .map_err(|errno| ImportError::disk("remove", &self.path.join(SCRATCH), errno))
    }

    /// Free bytes and inodes of the volume; inodes are endless where the file system does not count them.
    pub(super) fn free(&self) -> Result<(u64, u64), ImportError> {
        let stat = rustix::fs::fstatvfs(&self.directory);
        let stat = stat.map_err(|errno| ImportError::disk("ask for the space of", &self.path, errno))?;
        let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
    }

    /// Refuses unless `bytes` and `entries` are free.
    pub(super) fn require(&self, bytes: u64, entries: u64) -> Result<(), ImportError> {
        let (free, free_inodes) = self.free()?;
        let path = || self.path.parent().unwrap_or(&self.path).display().to_string();
        if free < bytes {
            return Err(ImportError::Space { path: path(), needed: bytes, free });
        }
        if free_inodes < entries {
            return Err(ImportError::Inodes { path: path(), needed: entries, free: free_inodes });
        }
        Ok(())
    }

    /// Refuses unless the finished image can be renamed to where it belongs.
    pub(super) fn check_target(&self, images_dir: &Path) -> Result<(), ImportError> {
        let target = rustix::fs::stat(images_dir).map_err(|errno| ImportError::disk("open", images_dir, errno))?;
        let here = rustix::fs::fstat(&self.directory).map_err(|errno| ImportError::disk("open", &self.path, errno))?;
        if target.st_dev == here.st_dev { Ok(()) } else { Err(other_volume(images_dir)) }
    }

    /// Brings everything to the disk and gives it its name.
    pub(super) fn publish(self, images_dir: &Path, image: &str) -> Result<(), ImportError> {
        let target = images_dir.join(image);
        let failed = |errno: Errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => ImportError::Exists(image.to_owned()),
            Errno::XDEV => other_volume(&target),
            other => ImportError::disk("make", &target, other),
        };
        let images = rustix::fs::open(images_dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let images = images.map_err(|errno| ImportError::disk("open", images_dir, errno))?;
        rustix::fs::fchmod(&self.directory, Mode::from_raw_mode(0o755)).map_err(failed)?;
        // A rename that lasts must not name content that does not.
        rustix::fs::syncfs(&self.directory).map_err(|errno| ImportError::disk("write", &self.path, errno))?;
        rename_new(&self.parent, self.name.as_str(), &images, image).map_err(failed)?;
        rustix::fs::fsync(&images).map_err(|errno| ImportError::disk("write", images_dir, errno))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After publishing there is nothing under this name any more.
        if let Err(errno) = remove_tree(&self.parent, self.name.as_bytes()) {
            log::warn!("cannot remove {}: {errno}; it is removed at the next start", self.path.display());
        }
    }
}

/// Removes what killed imports left in `scratch_dir` and says what it was, one line each. Imports at work, of this or
/// another process, are left alone.
#[must_use]
pub fn sweep(scratch_dir: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(parent) = rustix::fs::open(scratch_dir, flags, Mode::empty()) else { return said };
    let Ok(mut entries) = rustix::fs::Dir::read_from(&parent) else { return said };
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.read() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(PREFIX).is_some_and(|rest| rest.ends_with(SUFFIX)) {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let Some(removed) = remove_if_abandoned(&parent, &name) else { continue };
        let middle = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).unwrap_or(&name);
        let image = middle.rsplit_once('-').map_or(middle, |(image, _pid)| image);
        let path = scratch_dir.join(&name);
        said.push(match removed {
            Ok(()) => format!("the import of image '{image}' was interrupted: removed {}", path.display()),
            Err(errno) => {
                format!("the import of image '{image}' was interrupted: cannot remove {}: {errno}", path.display())
            }
        });
    }
    said
}

fn other_volume(path: &Path) -> ImportError {
    let source = io::Error::other("the images and the scratch directory are on different file systems");
    ImportError::disk("make an image in", path, source)
}

/// Removes a directory whose import is dead; `None` if it is alive.
fn remove_if_abandoned(parent: &OwnedFd, name: &str) -> Option<rustix::io::Result<()>> {
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).ok()?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(remove_tree(parent, name.as_bytes()))
}
