//! The table of mounts, /proc/self/mountinfo (proc(5)): which of them holds a path, and what is mounted at one; the mounts of a
//! volume that went away may be hidden under those of another.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    pub(super) point: PathBuf,
    /// The part of the file system that is mounted there: `/` for all of it.
    pub(super) root: PathBuf,
    pub(super) file_system: String,
    /// A device, or `server:/path`.
    pub(super) source: String,
    /// Options of the file system, separated by commas.
    pub(super) options: String,
}

impl Mount {
    /// Whether the kernel found errors and writes no more.
    pub(super) fn has_stopped(&self) -> bool {
        self.options.split(',').any(|option| option == "emergency_ro" || option == "shutdown")
    }
}

/// The table's text. Of this thread: what it sees is what it mounts into.
pub(super) fn read() -> io::Result<String> {
    std::fs::read_to_string("/proc/thread-self/mountinfo")
}

/// All mounts, in the order in which they were made.
pub(super) fn all(text: &str) -> impl Iterator<Item = Mount> + '_ {
    text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let id = left.next()?.parse().ok()?;
        let mut places = left.skip(2).map(|place| PathBuf::from(unescape(place)));
        let (root, point) = (places.next()?, places.next()?);
        let mut right = right.split(' ');
        let (file_system, source) = (right.next()?.to_owned(), unescape(right.next()?));
        let options = right.next().unwrap_or_default().to_owned();
        Some(Mount { id, point, root, file_system, source, options })
    })
}

/// The file system that holds `path`, by the table's text.
pub(super) fn holding(text: &str, path: &Path) -> Option<Mount> {
    // Of two mounts on one directory the later line is the one on top.
    all(text).filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.as_os_str().len())
}

/// What is mounted exactly there, on top of whatever else is.
pub(super) fn at(path: &Path) -> io::Result<Option<Mount>> {
    let flags = StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, flags)?;
    let path = path.canonicalize()?;
    Ok(all(&read()?).find(|mount| mount.id == stat.stx_mnt_id && mount.point == path))
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |t, (from, to)| t.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_wins() {
        let text =
            "1 0 8:1 / / rw - overlay overlay rw\n2 1 8:2 / /mnt/my\\040ssd rw,noatime shared:1 - ext4 /dev/sda1 rw\n";
        let found = holding(text, Path::new("/mnt/my ssd/piboot"));
        let ssd = Mount {
            id: 2,
            point: "/mnt/my ssd".into(),
            root: "/".into(),
            file_system: "ext4".to_owned(),
            source: "/dev/sda1".to_owned(),
            options: "rw".to_owned(),
        };
        assert!(!ssd.has_stopped());
        assert_eq!(found, Some(ssd));
        assert_eq!(holding(text, Path::new("/mnt/other")).unwrap().file_system, "overlay");
        let stopped = text.replace("/dev/sda1 rw", "/dev/sda1 rw,emergency_ro");
        assert!(holding(&stopped, Path::new("/mnt/my ssd")).unwrap().has_stopped());
    }

    #[test]
    fn a_line_is_taken_apart() {
        let text = "41 28 8:1 / /mnt/my\\040ssd rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                    77 41 0:52 / /mnt/my\\040ssd/devices/lion/root rw,nosuid - overlay piboot rw,lowerdir=a,upperdir=b\n\
                    nonsense\n";
        let mounts: Vec<Mount> = all(text).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[1].id, mounts[1].point.to_str()), (77, Some("/mnt/my ssd/devices/lion/root")));
        assert_eq!((&*mounts[1].source, &*mounts[1].options), ("piboot", "rw,lowerdir=a,upperdir=b"));
        assert!(at(Path::new("/proc")).unwrap().is_some_and(|mount| mount.file_system == "proc"));
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
    }
}
