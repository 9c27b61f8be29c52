//! Disks as sources: an SD card or USB stick in the router, read where it is.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::SourceError;

/// Opens a disk for reading. Claims it (`O_EXCL`, open(2)), so that nobody mounts it meanwhile; one that is mounted, but
/// nowhere read-write, is read all the same.
pub(super) fn open(path: &Path, metadata: &Metadata) -> Result<File, SourceError> {
    let shown = || path.display().to_string();
    let number = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
    if sys.join("partition").exists() {
        let real = std::fs::canonicalize(&sys).ok();
        let disk = real.as_deref().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
        return Err(SourceError::OnePartition { path: shown(), disk: format!("/dev/{}", disk.display()) });
    }
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        File::options().read(true).custom_flags(flags).open(path)
    };
    match open(OFlags::EXCL | OFlags::NONBLOCK) {
        Err(error) if is(&error, Errno::BUSY) => {
            if let Some((by, cure)) = writer(&sys, number) {
                return Err(SourceError::InUse { path: shown(), by, cure });
            }
            open(OFlags::NONBLOCK).map_err(|source| SourceError::Read { path: shown(), source })
        }
        Err(error) if is(&error, Errno::NOMEDIUM) => {
            Err(SourceError::Read { path: shown(), source: io::Error::other("no card in the reader") })
        }
        other => other.map_err(|source| SourceError::Read { path: shown(), source }),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Who may write to a disk that is in use, or to a partition of it, and what to do about that; `None` if everybody
/// mounted it read-only.
fn writer(sys: &Path, number: (u32, u32)) -> Option<(String, &'static str)> {
    let mut numbers = vec![number];
    let mut holder = holder(sys);
    for entry in std::fs::read_dir(sys).into_iter().flatten().flatten() {
        if entry.path().join("partition").exists() {
            numbers.extend(read_number(&entry.path().join("dev")));
            holder = holder.or_else(|| self::holder(&entry.path()));
        }
    }
    if let Some(holder) = holder {
        return Some((format!("part of {holder}"), "detach it first"));
    }
    // Of a thread: mounts are a matter of namespaces.
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let ours = |number: &(u32, u32)| numbers.contains(number);
    let (found, mounted) = mounted(&mounts, &ours);
    if let Some(point) = found {
        return Some((format!("mounted read-write at {point}"), "unmount it first"));
    }
    if swaps.lines().skip(1).filter_map(|line| device_number(line.split_ascii_whitespace().next()?)).any(|n| ours(&n)) {
        return Some(("used as swap space".to_owned(), "turn that off first"));
    }
    (!mounted).then(|| ("in use by another program".to_owned(), "stop that first"))
}

/// Of the lines of `/proc/self/mountinfo` (proc(5)) about one of `ours`: where the first is mounted read-write, and
/// whether there is any.
fn mounted(mountinfo: &str, ours: &dyn Fn(&(u32, u32)) -> bool) -> (Option<String>, bool) {
    let mut any = false;
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let mount: Vec<&str> = mount.split(' ').collect();
        let file_system: Vec<&str> = file_system.split(' ').collect();
        let (Some(number), Some(point)) = (mount.get(2), mount.get(4)) else { continue };
        let (Some(device), Some(options)) = (file_system.get(1), file_system.get(2)) else { continue };
        // btrfs counts its own device numbers; its device's path tells.
        let same = parse_number(number).is_some_and(|n| ours(&n)) || device_number(device).is_some_and(|n| ours(&n));
        if !same {
            continue;
        }
        any = true;
        // The file system's own options: a mount may be read-only of one that others write to.
        if options.split(',').any(|option| option == "rw") {
            return (Some(point.replace("\\040", " ")), true);
        }
    }
    (None, any)
}

/// The first device made of this one (LVM, dm-crypt, RAID).
fn holder(sys: &Path) -> Option<String> {
    let first = std::fs::read_dir(sys.join("holders")).ok()?.flatten().next()?;
    Some(format!("/dev/{}", first.file_name().display()))
}

fn read_number(path: &Path) -> Option<(u32, u32)> {
    parse_number(std::fs::read_to_string(path).ok()?.trim())
}

fn parse_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn device_number(path: &str) -> Option<(u32, u32)> {
    let metadata = path.starts_with('/').then(|| std::fs::metadata(path).ok()).flatten()?;
    let number = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    metadata.file_type().is_block_device().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_write_is_in_the_way() {
        let info = "36 25 8:1 / /mnt/ro rw,relatime shared:1 - ext4 /dev/none1 ro\n\
                    37 25 8:2 / /mnt/a\\040b ro,relatime - ext4 /dev/none2 rw,errors=continue\n";
        let of = |minor| mounted(info, &move |n| *n == (8, minor));
        assert_eq!(of(1), (None, true));
        assert_eq!(of(2), (Some("/mnt/a b".to_owned()), true), "what is writable through another mount counts");
        assert_eq!(of(3), (None, false));
        assert_eq!(mounted("nonsense\n- - -", &|_| true), (None, false));
    }
}
