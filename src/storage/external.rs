//! A volume that is mounted from an NFS server, which the Pis mount from as well: is it the place that they are told,
//! and does that server keep what a root file system consists of?

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::mountinfo::{self, Mount};

/// NFS_SUPER_MAGIC (statfs(2)).
const NFS_MAGIC: u32 = 0x6969;
/// What is made and removed again.
const PROBE: &str = ".piboot-probe";
/// Somebody whom a server that maps users would not keep.
const SOMEBODY: (u32, u32) = (54_321, 54_322);
/// The null device (Documentation/admin-guide/devices.txt).
const NULL: (u32, u32) = (1, 3);

/// Whether an open file is on a file system that is mounted over NFS.
pub(crate) fn is_network(file: impl AsFd) -> bool {
    // The magic is 32 bits wide; its C type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type as u32 == NFS_MAGIC)
}

/// The same of a directory; one that cannot be opened is not.
#[must_use]
pub fn is_network_at(directory: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).is_ok_and(is_network)
}

/// Why `data_dir` is not what `server` exports as `path`, if it is not. Asks the table of mounts alone.
#[must_use]
pub fn check_external(data_dir: &Path, server: Ipv4Addr, path: &str) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let canonical = data_dir.canonicalize().ok()?;
    let how = format!("mount {server}:{path} there (vers=3,tcp,nolock,soft), or correct nfs_server and nfs_path");
    let wrong = match mountinfo::holding(&mounts, &canonical) {
        Some(mount) => mismatch(&mount, &canonical, server, path)?,
        None => "nothing is mounted there".to_owned(),
    };
    Some(format!(
        "data_dir {} is not the export of the NFS server that Pis are to mount from: {wrong}; {how}",
        data_dir.display()
    ))
}

fn mismatch(mount: &Mount, data_dir: &Path, server: Ipv4Addr, path: &str) -> Option<String> {
    if !matches!(mount.file_system.as_str(), "nfs" | "nfs4") {
        return Some(format!("it is on {}", mount.file_system));
    }
    let address = mount.options.split(',').find_map(|option| option.strip_prefix("addr="));
    if address.is_some_and(|address| address.parse() != Ok(server)) {
        return Some(format!("it is mounted from {}", address.unwrap_or_default()));
    }
    // An NFSv4 server may call the same directory by another name.
    if mount.file_system == "nfs4" {
        return None;
    }
    let (_, exported) = mount.source.split_once(':')?;
    let below = mount.root.strip_prefix("/").unwrap_or(&mount.root).join(data_dir.strip_prefix(&mount.point).ok()?);
    let found = if below.as_os_str().is_empty() { exported.into() } else { Path::new(exported).join(below) };
    (found != Path::new(path)).then(|| format!("it is {} there", found.display()))
}

/// Whether the file system that holds `directory` keeps owners and makes device files, as root sees it; tried with a file
/// that is gone again afterwards.
///
/// # Errors
/// A sentence that says what it does not.
pub fn keeps_attributes(directory: &Path) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cannot = |what: &'static str| move |errno: Errno| format!("cannot {what} there: {errno}");
    let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(cannot("open a directory"))?;
    let name = format!("{PROBE}-{}", std::process::id());
    let remove = || match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    remove().map_err(cannot("remove a file"))?;
    let tried = try_file(&directory, &name).and_then(|()| {
        remove().map_err(cannot("remove a file"))?;
        let (major, minor) = NULL;
        let made = rustix::fs::mknodat(
            &directory,
            &name,
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(major, minor),
        );
        made.map_err(|errno| {
            format!("no device files can be made there ({errno}), and a root file system may have some")
        })
    });
    let removed = remove().map_err(cannot("remove a file"));
    tried.and(removed)
}

fn try_file(directory: impl AsFd, name: &str) -> Result<(), String> {
    let squashed = |found: &dyn std::fmt::Display| {
        format!(
            "root is not root there ({found}): the export has to have no_root_squash (NFS-Ganesha: Squash = No_Root_Squash)"
        )
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| squashed(&e))?);
    let (uid, gid) = SOMEBODY;
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|e| squashed(&e))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| io::Error::from(errno).to_string())?;
    if (stat.st_uid, stat.st_gid) == SOMEBODY {
        return Ok(());
    }
    Err(squashed(&format_args!("a file for user {uid} belongs to user {}", stat.st_uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_server_and_path() {
        let line = |root: &str, source: &str, kind: &str| {
            format!("9 1 0:5 {root} /mnt/nas rw - {kind} {source} rw,vers=3,addr=192.0.2.5,mountaddr=192.0.2.5\n")
        };
        let nas = line("/", "nas:/export", "nfs");
        for (mounts, data_dir, server, path, words) in [
            (&nas, "/mnt/nas/piboot", "192.0.2.5", "/export/piboot", None),
            (&nas, "/mnt/nas", "192.0.2.5", "/export", None),
            (&nas, "/mnt/nas/piboot", "192.0.2.5", "/export", Some("it is /export/piboot there")),
            (&nas, "/mnt/nas/piboot", "192.0.2.6", "/export/piboot", Some("it is mounted from 192.0.2.5")),
            (&line("/piboot", "nas:/export", "nfs"), "/mnt/nas", "192.0.2.5", "/export/piboot", None),
            (&line("/", "nas:/", "nfs4"), "/mnt/nas/piboot", "192.0.2.5", "/export/piboot", None),
            (&line("/", "/dev/sda1", "ext4"), "/mnt/nas", "192.0.2.5", "/export", Some("it is on ext4")),
        ] {
            let mount = mountinfo::holding(mounts, Path::new(data_dir)).unwrap();
            let found = mismatch(&mount, Path::new(data_dir), server.parse().unwrap(), path);
            assert_eq!(found.as_deref(), words, "{mounts}{data_dir}");
        }
    }

    #[test]
    fn a_local_directory_keeps_everything_and_is_no_network() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(keeps_attributes(dir.path()), Ok(()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!is_network(File::open(dir.path()).unwrap()));
        let why = check_external(dir.path(), [192, 0, 2, 5].into(), "/export").unwrap();
        assert!(why.contains("is not the export of the NFS server"), "{why}");
    }
}
