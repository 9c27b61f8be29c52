//! Everything written below a directory is on the disk, or the caller hears of it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Watches a file system for failed writes from before the first byte is written until all are on the disk.
///
/// syncfs(2) tells of write-back errors that happened since its descriptor was opened: with one opened after the
/// writing, pages that the kernel tried to write and dropped meanwhile would count as written.
#[derive(Debug)]
#[must_use = "what is not finished may not be on the disk"]
pub struct SyncGuard(OwnedFd);

impl SyncGuard {
    /// Begins to watch the file system that holds `directory`.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(directory: &Path) -> rustix::io::Result<Self> {
        // Not O_PATH, which syncfs(2) does not accept.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(directory, flags, Mode::empty())?))
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// What any write to this file system met since [`SyncGuard::open`] (on Linux before 5.8: only what this call met).
    pub fn finish(self) -> rustix::io::Result<()> {
        rustix::fs::syncfs(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_guard_outlives_changes_and_needs_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("new");
        std::fs::create_dir(&inside).unwrap();
        let guard = SyncGuard::open(&inside).unwrap();
        std::fs::write(inside.join("file"), "x").unwrap();
        std::fs::rename(&inside, place.path().join("moved")).unwrap();
        guard.finish().unwrap();
        assert_eq!(SyncGuard::open(&inside).unwrap_err(), Errno::NOENT);
        assert_eq!(SyncGuard::open(&place.path().join("moved/file")).unwrap_err(), Errno::NOTDIR);
    }
}
