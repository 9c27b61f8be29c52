//! The table of mounts, and what of it is at a path: the mounts of a volume that went away may be hidden under those of another.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::storage::volume::unescape;

/// A line of /proc/self/mountinfo (proc(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) id: u64,
    pub(super) point: PathBuf,
    pub(super) file_system: String,
    pub(super) source: String,
    /// Options of the file system, separated by commas.
    pub(super) options: String,
}

/// The table's text. Of this thread: what it sees is what it mounts into.
pub(super) fn read() -> io::Result<String> {
    std::fs::read_to_string("/proc/thread-self/mountinfo")
}

/// All mounts, in the order in which they were made.
pub(super) fn all(text: &str) -> impl Iterator<Item = Mounted> + '_ {
    text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, point) = (left.next()?.parse().ok()?, PathBuf::from(unescape(left.nth(3)?)));
        let mut right = right.split(' ');
        let (file_system, source) = (right.next()?.to_owned(), unescape(right.next()?));
        Some(Mounted { id, point, file_system, source, options: right.next().unwrap_or_default().to_owned() })
    })
}

/// What is mounted exactly there, on top of whatever else is.
pub(super) fn at(path: &Path) -> io::Result<Option<Mounted>> {
    let flags = StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, flags)?;
    let path = path.canonicalize()?;
    Ok(all(&read()?).find(|mount| mount.id == stat.stx_mnt_id && mount.point == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let text = "41 28 8:1 / /mnt/my\\040ssd rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                    77 41 0:52 / /mnt/my\\040ssd/devices/lion/root rw,nosuid - overlay piboot rw,lowerdir=a,upperdir=b\n\
                    nonsense\n";
        let mounts: Vec<Mounted> = all(text).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[1].id, mounts[1].point.to_str()), (77, Some("/mnt/my ssd/devices/lion/root")));
        assert_eq!((&*mounts[1].source, &*mounts[1].options), ("piboot", "rw,lowerdir=a,upperdir=b"));
        assert!(at(Path::new("/proc")).unwrap().is_some_and(|mount| mount.file_system == "proc"));
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
