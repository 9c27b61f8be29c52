//! Is the volume that holds `data_dir` present, writable, and able to carry root file systems?

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use serde::Serialize;

use super::mountinfo;

/// Below this much free space the volume counts as full: SQLite and small edits keep working.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Below this much Pis cannot write either: what is left is for the database, and for whoever makes room again. Half of
/// [`RESERVE_BYTES`], so that a full disk is said before Pis feel it.
pub const CLIENT_RESERVE: u64 = RESERVE_BYTES / 2;
/// The same for files, whatever their size: an image has tens of thousands.
const RESERVE_FILES: u64 = 1000;

/// The volume as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The configured directory.
    pub data_dir: PathBuf,
    /// Where the file system that holds it is mounted.
    pub mount_point: Option<PathBuf>,
    /// Number of that file system (`st_dev`): another one means that another disk is in its place. 0 if unknown.
    #[serde(skip)]
    pub device: u64,
    /// Its type as the kernel names it: `ext4`, `btrfs` …
    pub file_system: Option<String>,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes free for us.
    pub free_bytes: u64,
    /// Everything that is wrong, worst first; empty when all is well.
    pub problems: Vec<VolumeProblem>,
}

/// What can be wrong with a volume. The sentence says what to do. Two are equal if they are the same problem, whatever
/// the figures.
#[derive(Debug, Clone, Eq, thiserror::Error)]
pub enum VolumeProblem {
    /// The directory is not there and would land on the router's own flash.
    #[error(
        "data_dir {0} does not exist: mount the SSD there (System > Mount Points, or /etc/fstab), or create the directory if it is meant to be on this file system"
    )]
    Missing(PathBuf),
    /// Something other than a directory is there.
    #[error("data_dir {0} is not a directory")]
    NotADirectory(PathBuf),
    /// Not even its attributes can be read.
    #[error("data_dir {0} cannot be used: {1}")]
    Unreadable(PathBuf, String),
    /// Another disk than the one that was used last, and nothing that is needed is on it.
    #[error(
        "{data_dir} is not on the disk that was used before: the enrolled Pis' files are on {expected}, and what is there now, {found}, has none of them. Put that disk back and mount it there; or, to have their files made anew on what is there, run 'piboot volume accept'"
    )]
    Another {
        /// Where it is.
        data_dir: PathBuf,
        /// The one that should be there.
        expected: String,
        /// The one that is.
        found: String,
    },
    /// Mounted read-only, by wish or because the kernel found errors.
    #[error(
        "the file system at {0} is read-only: nothing can be imported or enrolled, and Pis cannot write; see 'dmesg' for disk errors, then remount it rw"
    )]
    ReadOnly(PathBuf),
    /// Next to no space left.
    #[error("the file system at {0} is full ({1} MB free): remove an image or a device")]
    Full(PathBuf, u64),
    /// Next to no inodes left.
    #[error("the file system at {0} has room for only {1} more files (inodes): remove an image or a device")]
    FewInodes(PathBuf, u64),
    /// Mounted with `noexec`, which permission checks of the router's kernel honour.
    #[error("the file system at {0} is mounted noexec, a Pi could not start its programs: remount it with exec")]
    NoExec(PathBuf),
    /// Its file handles do not survive, or it cannot hold owners and links.
    #[error("{0}")]
    Unsuitable(String),
}

impl VolumeProblem {
    /// A word for programs that stays.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Missing(_) => "disk-missing",
            Self::NotADirectory(_) => "not-a-directory",
            Self::Unreadable(..) => "disk-unreadable",
            Self::Another { .. } => "another-disk",
            Self::ReadOnly(_) => "disk-read-only",
            Self::Full(..) => "disk-full",
            Self::FewInodes(..) => "disk-few-inodes",
            Self::NoExec(_) => "disk-noexec",
            Self::Unsuitable(_) => "disk-unsuitable",
        }
    }
}

impl PartialEq for VolumeProblem {
    fn eq(&self, other: &Self) -> bool {
        // What tells two problems of a kind apart: never a figure, which changes with each write.
        let parts = |problem: &Self| -> (PathBuf, Option<String>) {
            match problem {
                Self::Missing(path)
                | Self::NotADirectory(path)
                | Self::ReadOnly(path)
                | Self::NoExec(path)
                | Self::Full(path, _)
                | Self::FewInodes(path, _) => (path.clone(), None),
                Self::Another { data_dir, expected, found } => (data_dir.clone(), Some(format!("{expected}, {found}"))),
                Self::Unreadable(path, why) => (path.clone(), Some(why.clone())),
                Self::Unsuitable(why) => (PathBuf::new(), Some(why.clone())),
            }
        };
        std::mem::discriminant(self) == std::mem::discriminant(other) && parts(self) == parts(other)
    }
}

impl Serialize for VolumeProblem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Volume {
    /// Whether trees can be created on it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether what belongs to us on it can be changed and removed, though perhaps nothing large be added.
    #[must_use]
    pub fn is_changeable(&self) -> bool {
        use VolumeProblem::{FewInodes, Full, NoExec};
        self.problems.iter().all(|p| matches!(p, Full(..) | FewInodes(..) | NoExec(_)))
    }

    /// Whether what is on it can be served.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !self.problems.iter().any(|p| {
            use VolumeProblem::{Another, Missing, NotADirectory, Unreadable};
            matches!(p, Missing(_) | NotADirectory(_) | Unreadable(..) | Another { .. })
        })
    }

    /// Whether it will be full before long: less is free than a twentieth, but at least 1 GB and at most 5 GB, and never more
    /// than a tenth of a small disk. Says so in a sentence.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let little = (self.total_bytes / 20).clamp(1_000_000_000, 5_000_000_000).min(self.total_bytes / 10);
        if self.total_bytes == 0 || !self.problems.is_empty() || self.free_bytes >= little {
            return None;
        }
        let (free, total) = (self.free_bytes / 1_000_000, self.total_bytes / 1_000_000);
        Some(format!(
            "the file system at {} is nearly full ({free} of {total} MB free): 'piboot devices' and 'piboot images' say what takes how much; below {} MB nothing can be imported or enrolled, and below {} MB Pis cannot write",
            self.data_dir.display(),
            RESERVE_BYTES.div_ceil(1_000_000),
            CLIENT_RESERVE.div_ceil(1_000_000),
        ))
    }

    /// What people know it by.
    #[must_use]
    pub fn describe(&self) -> String {
        let file_system = self.file_system.as_deref().unwrap_or("unknown file system");
        match self.total_bytes / 1_000_000_000 {
            0 => format!("{file_system}, {} MB", self.total_bytes / 1_000_000),
            gigabytes => format!("{file_system}, {gigabytes} GB"),
        }
    }
}

/// Looks at the volume. Creates `data_dir` only where that cannot land on the router's own flash: when its nearest
/// existing parent is on another file system than `/`.
#[must_use]
pub fn check(data_dir: &Path) -> Volume {
    let mut volume = Volume {
        data_dir: data_dir.to_owned(),
        mount_point: None,
        device: 0,
        file_system: None,
        total_bytes: 0,
        free_bytes: 0,
        problems: Vec::new(),
    };
    if let Err(problem) = ensure_directory(data_dir) {
        volume.problems.push(problem);
        return volume;
    }
    volume.device = std::fs::metadata(data_dir).map_or(0, |meta| meta.dev());
    let own = data_dir.to_owned();
    match rustix::fs::statvfs(data_dir) {
        Err(error) => volume.problems.push(VolumeProblem::Unreadable(own, error.to_string())),
        Ok(stat) => {
            volume.total_bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
            volume.free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
            volume.problems.extend(problems_of(&stat, &own));
        }
    }
    if let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo")
        && let Ok(canonical) = data_dir.canonicalize()
        && let Some(mount) = mountinfo::holding(&mounts, &canonical)
    {
        // Linux 6.15 stops writing to a damaged ext4 without telling statvfs(2).
        if mount.has_stopped() && !volume.problems.iter().any(|p| matches!(p, VolumeProblem::ReadOnly(_))) {
            volume.problems.insert(0, VolumeProblem::ReadOnly(data_dir.to_owned()));
        }
        volume.mount_point = Some(mount.point);
        volume.file_system = Some(mount.file_system);
    }
    volume
}

/// Bytes that are free for us on the file system of `path`.
///
/// # Errors
/// As statvfs(3).
pub fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What statvfs(2) tells of a file system that is there.
fn problems_of(stat: &StatVfs, own: &Path) -> Vec<VolumeProblem> {
    let mut problems = Vec::new();
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        problems.push(VolumeProblem::ReadOnly(own.to_owned()));
    } else if free < RESERVE_BYTES {
        problems.push(VolumeProblem::Full(own.to_owned(), free >> 20));
    } else if stat.f_files > 0 && stat.f_favail < RESERVE_FILES {
        // File systems that make inodes as needed (btrfs) count none.
        problems.push(VolumeProblem::FewInodes(own.to_owned(), stat.f_favail));
    }
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        problems.push(VolumeProblem::NoExec(own.to_owned()));
    }
    problems
}

fn ensure_directory(data_dir: &Path) -> Result<(), VolumeProblem> {
    match std::fs::metadata(data_dir) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(VolumeProblem::NotADirectory(data_dir.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(VolumeProblem::Unreadable(data_dir.to_owned(), error.to_string())),
    }
    let device_of = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    let parent_device = data_dir.ancestors().skip(1).find_map(device_of);
    if parent_device.is_none() || parent_device == device_of(Path::new("/")) {
        return Err(VolumeProblem::Missing(data_dir.to_owned()));
    }
    std::fs::create_dir_all(data_dir).map_err(|e| VolumeProblem::Unreadable(data_dir.to_owned(), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{MountFlags, UnmountFlags};

    #[test]
    fn a_missing_directory_on_the_root_file_system_is_not_created() {
        let path = Path::new("/piboot-test-that-does-not-exist/data");
        let volume = check(path);
        assert!(matches!(volume.problems[..], [VolumeProblem::Missing(_)]));
        assert!(!volume.is_present() && !path.exists());
    }

    #[test]
    fn a_missing_directory_on_a_mounted_disk_is_created() {
        // /dev/shm is a file system of its own everywhere.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let data = dir.path().join("a/b");
        let volume = check(&data);
        assert!(data.is_dir(), "{volume:?}");
        assert_eq!(volume.file_system.as_deref(), Some("tmpfs"));
        assert!(volume.free_bytes > 0);
    }

    #[test]
    fn a_mount_without_exec_and_one_without_inodes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let own = || dir.path().to_owned();
        for (flags, options, expected) in [
            (MountFlags::NOEXEC, c"size=200m,nr_inodes=5000", VolumeProblem::NoExec(own())),
            (MountFlags::empty(), c"size=200m,nr_inodes=500", VolumeProblem::FewInodes(own(), 0)),
            (MountFlags::empty(), c"size=20m,nr_inodes=5000", VolumeProblem::Full(own(), 0)),
        ] {
            rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(options)).expect("run as root");
            let volume = check(dir.path());
            rustix::mount::unmount(dir.path(), UnmountFlags::DETACH).unwrap();
            assert_eq!(volume.problems, [expected]);
            assert!(!volume.is_writable() && volume.is_changeable() && volume.is_present());
            assert_ne!(volume.device, 0);
            assert_ne!(volume.device, check(dir.path()).device, "another file system in the same place");
        }
    }

    #[test]
    fn a_problem_stays_the_same_whatever_its_figure() {
        let full = |mb| VolumeProblem::Full("/a".into(), mb);
        assert_eq!(full(3), full(4));
        assert_ne!(full(3), VolumeProblem::Full("/b".into(), 3));
        assert_ne!(full(3), VolumeProblem::FewInodes("/a".into(), 3));
        let unsuitable = |why: &str| VolumeProblem::Unsuitable(why.to_owned());
        assert_ne!(unsuitable("a"), unsuitable("b"));
    }

    #[test]
    fn a_disk_that_fills_up_is_said_in_time() {
        const GB: u64 = 1_000_000_000;
        for (total, enough, little) in [
            (GB / 2, 51_000_000, 49_000_000),
            (8 * GB, 810_000_000, 790_000_000),
            (32 * GB, 1_610_000_000, 1_590_000_000),
            (2000 * GB, 5_010_000_000, 4_990_000_000),
        ] {
            let mut volume = check(Path::new("/"));
            (volume.total_bytes, volume.free_bytes, volume.problems) = (total, enough, Vec::new());
            assert_eq!(volume.warning(), None);
            volume.free_bytes = little;
            assert!(volume.warning().is_some_and(|said| said.contains("is nearly full")), "{total}");
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(check(file.path()).problems[..], [VolumeProblem::NotADirectory(_)]));
    }
}
