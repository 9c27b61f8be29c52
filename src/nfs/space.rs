//! The last of the disk is not for clients: the agent and its database need it, and whoever is to make room again.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicIsize, Ordering};

use rustix::io::Errno;

/// What may be written before the file system is asked again how much is left: all clients together get past the reserve by
/// no more. Of 32 bits, since not every router counts 64 at once.
const STEP: u64 = 8 << 20;
/// Files that are left, where the file system counts them.
const RESERVED_FILES: u64 = 500;
/// What a new name is taken to need.
pub(super) const NAME: u64 = 4096;

/// What clients may still write.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes that are not for them; 0: all are.
    reserve: u64,
    /// Bytes that may be written without asking.
    leave: AtomicIsize,
}

impl Space {
    pub(super) const fn new(reserve: u64) -> Self {
        Self { reserve, leave: AtomicIsize::new(0) }
    }

    pub(super) const fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Takes room for `bytes` on the file system of `root`.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn take(&self, root: impl AsFd, bytes: u64) -> Result<(), Errno> {
        if self.reserve == 0 {
            return Ok(());
        }
        let wanted = isize::try_from(bytes).unwrap_or(isize::MAX);
        if self.leave.load(Ordering::Relaxed) >= wanted && self.leave.fetch_sub(wanted, Ordering::Relaxed) >= wanted {
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(root)?;
        let room = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(self.reserve);
        let has_files = stat.f_files == 0 || stat.f_favail > RESERVED_FILES;
        let Some(rest) = room.checked_sub(bytes).filter(|_| has_files) else {
            self.leave.store(0, Ordering::Relaxed);
            return Err(Errno::NOSPC);
        };
        self.leave.store(isize::try_from(rest.min(STEP)).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_given_away() {
        let place = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(place.path()).unwrap();
        let stat = rustix::fs::fstatvfs(&root).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        // Others use this disk too.
        let slack = 1 << 30;
        assert!(free > 4 * slack, "this test needs some free space");
        let space = Space::new(free - 2 * slack);
        for _ in 0..1000 {
            space.take(&root, 4096).unwrap();
        }
        assert_eq!(space.take(&root, 4 * slack), Err(Errno::NOSPC));
        space.take(&root, NAME).unwrap();
        let space = Space::new(free + slack);
        assert_eq!(space.take(&root, 1), Err(Errno::NOSPC));
        Space::new(0).take(&root, u64::MAX).unwrap();
    }
}
