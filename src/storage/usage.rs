//! How much of the disk a tree takes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::Stat;

use super::tree_copy::identity;
use super::tree_walk::{Walk, WalkError};
use crate::progress::Progress;

/// Files with several names that are told apart, 32 MB of memory at most; more count once a name.
const MAX_SHARED: usize = 1 << 20;

/// What a tree takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of blocks on the disk, each file once, whatever it is called. Blocks that clones share count for each.
    pub disk_bytes: u64,
    /// Bytes of content, holes left out.
    pub bytes: u64,
    /// Names, the tree's own not counted.
    pub entries: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.disk_bytes = self.disk_bytes.saturating_add(other.disk_bytes);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.entries = self.entries.saturating_add(other.entries);
    }
}

/// Bytes of the blocks of a file.
#[must_use]
pub fn blocks(stat: &Stat) -> u64 {
    // They are of 512 bytes in stat(2), whatever the file system's are.
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Looks at every file below `tree`; `None` when `progress` was cancelled.
///
/// # Errors
/// [`WalkError`].
pub fn measure(tree: OwnedFd, progress: &dyn Progress) -> Result<Option<Usage>, WalkError> {
    measure_each(tree, progress, |_| true)
}

/// The same, and shows each name's file to `each`, which ends it by `false`.
///
/// # Errors
/// [`WalkError`].
pub fn measure_each(
    tree: OwnedFd,
    progress: &dyn Progress,
    mut each: impl FnMut(&Stat) -> bool,
) -> Result<Option<Usage>, WalkError> {
    let mut walk = Walk::new(tree)?;
    let (mut usage, mut shared) = (Usage::default(), HashSet::new());
    while let Some(found) = walk.next()? {
        let stat = &found.stat;
        if progress.cancelled() || !each(stat) {
            return Ok(None);
        }
        usage.entries += 1;
        let is_shared = stat.st_nlink > 1 && !found.kind().is_dir();
        if is_shared && shared.len() < MAX_SHARED && !shared.insert(identity(stat).1) {
            continue;
        }
        let on_disk = blocks(stat);
        usage.disk_bytes = usage.disk_bytes.saturating_add(on_disk);
        if found.kind().is_file() {
            usage.bytes = usage.bytes.saturating_add(on_disk.min(u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    Ok(Some(usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;
    use rustix::fs::{Mode, OFlags};
    use std::process::Command;

    #[test]
    fn a_tree_takes_what_du_says() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        std::fs::write(place.path().join("a/file"), vec![1; 300_000]).unwrap();
        std::fs::hard_link(place.path().join("a/file"), place.path().join("a/b/again")).unwrap();
        std::fs::File::create(place.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("x".repeat(200), place.path().join("link")).unwrap();
        // Blocks of what was just written are counted once they are given out.
        rustix::fs::sync();
        let tree = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let usage = measure(tree, &NoProgress).unwrap().unwrap();
        let du = |path: &std::path::Path, more: &[&str]| {
            let output = Command::new("du").args(["-s", "-B1"]).args(more).arg(path).output().unwrap();
            String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse::<u64>().unwrap()
        };
        // du counts the top as well.
        let top = u64::try_from(rustix::fs::stat(place.path()).unwrap().st_blocks).unwrap() * 512;
        assert_eq!(usage.disk_bytes + top, du(place.path(), &[]));
        assert_eq!((usage.bytes, usage.entries), (300_000, 6));
    }
}
