//! Which file systems can carry an export: they must give handles that outlive a remount.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys;
use std::os::fd::AsFd;

/// What the file system at a path is, and whether a root file system can be exported from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleSupport {
    /// Its name as in mount(8): `ext4`, `btrfs`, …; hexadecimal magic where it has none here.
    pub file_system: String,
    /// `None`: yes. Else a sentence for people that says why not and what would do.
    pub refusal: Option<String>,
}

impl HandleSupport {
    /// Whether handles are given that outlive a remount, and the file system holds what a root needs.
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        self.refusal.is_none()
    }
}

/// The file system could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the file system at {path}: {errno}", path = path.display())]
pub struct SupportError {
    /// Where.
    pub path: PathBuf,
    /// What went wrong.
    pub errno: Errno,
}

/// What is known of a file system.
enum Verdict {
    /// Handles hold the inode's generation and outlive a remount.
    Persistent,
    /// The reason why not.
    Unfit(&'static str),
}

const NO_OWNERS: &str = "holds no Unix owners, links or device files, and its file handles do not survive a remount";
const IN_MEMORY: &str = "lives in memory and is gone after a reboot";
const LAYERED: &str = "is a layered view whose file handles do not last";

/// Super-block magic (linux/magic.h and the file systems' own headers), name, verdict. Tried: ext4, f2fs, btrfs, xfs,
/// tmpfs, squashfs, vfat, exfat and overlayfs on Linux 6.1, across umount and mount.
const KNOWN: [(u32, &str, Verdict); 14] = [
    (0xef53, "ext4", Verdict::Persistent),
    (0xf2f5_2010, "f2fs", Verdict::Persistent),
    (0x9123_683e, "btrfs", Verdict::Persistent),
    (0x5846_5342, "xfs", Verdict::Persistent),
    (0x0102_1994, "tmpfs", Verdict::Unfit(IN_MEMORY)),
    (0x8584_58f6, "ramfs", Verdict::Unfit(IN_MEMORY)),
    (0x7371_7368, "squashfs", Verdict::Unfit("is read-only")),
    (0x4d44, "vfat", Verdict::Unfit(NO_OWNERS)),
    (0x2011_bab0, "exfat", Verdict::Unfit(NO_OWNERS)),
    (0x7366_746e, "ntfs3", Verdict::Unfit(NO_OWNERS)),
    (0x5346_544e, "ntfs", Verdict::Unfit(NO_OWNERS)),
    (0x794c_7630, "overlay", Verdict::Unfit(LAYERED)),
    (0x6969, "nfs", Verdict::Unfit("is itself mounted from another server")),
    (0x6573_5546, "fuse", Verdict::Unfit("is served by a program whose file handles do not survive its restart")),
];

/// Asks the file system at `path` whether a root file system can be exported from it.
///
/// # Errors
/// [`SupportError`] if `path` cannot be opened or asked.
pub fn handle_support(path: &Path) -> Result<HandleSupport, SupportError> {
    let failed = |errno| SupportError { path: path.to_owned(), errno };
    let dir =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    // The magic is 32 bits wide; its C type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
    let magic = rustix::fs::fstatfs(&dir).map_err(failed)?.f_type as u32;
    let handle = sys::name_to_handle(dir.as_fd(), c"");
    Ok(judge(magic, handle.err()))
}

fn judge(magic: u32, handle_error: Option<Errno>) -> HandleSupport {
    const CURE: &str = "Use a volume with ext4, f2fs, btrfs or xfs.";
    let known = KNOWN.iter().find(|(number, ..)| *number == magic);
    let file_system = known.map_or_else(|| format!("{magic:#x}"), |(_, name, _)| (*name).to_owned());
    let refusal = match (known.map(|(.., verdict)| verdict), handle_error) {
        (Some(Verdict::Unfit(why)), _) => Some(format!("{file_system} {why}. {CURE}")),
        (_, Some(errno)) => Some(format!("{file_system} gives no file handles here ({errno}). {CURE}")),
        (Some(Verdict::Persistent), None) => None,
        (None, None) => Some(format!("whether file handles of {file_system} survive a remount is not known. {CURE}")),
    };
    HandleSupport { file_system, refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_file_systems_known_to_last_are_accepted() {
        assert!(judge(0xef53, None).is_persistent());
        let vfat = judge(0x4d44, None);
        assert_eq!(vfat.file_system, "vfat");
        assert!(vfat.refusal.unwrap().contains("ext4"));
        assert!(!judge(0x794c_7630, Some(Errno::OPNOTSUPP)).is_persistent());
        assert!(!judge(0x794c_7630, None).is_persistent(), "nfs_export=on is not enough by itself");
        assert!(!judge(0x1234_5678, None).is_persistent());
        assert!(judge(0xef53, Some(Errno::OPNOTSUPP)).refusal.unwrap().contains("no file handles"));
    }

    #[test]
    fn the_kernel_is_really_asked() {
        assert!(matches!(handle_support(Path::new("/nonexistent")), Err(SupportError { errno: Errno::NOENT, .. })));
        let proc = handle_support(Path::new("/proc")).unwrap();
        assert!(!proc.is_persistent(), "{proc:?}");
    }
}
