//! Opens a file for reading below a directory that a device itself may write to: nothing outside can be reached.

use std::collections::HashMap;
use std::ffi::CString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RawDir, ResolveFlags, fstat, open};
use rustix::io::Errno;

use super::tree::RelativePath;
use crate::openat2::openat2;
use crate::storage::reopen_regular;

/// Directory entries looked at for a name in another case; a boot partition has some 60 files and 300 overlays.
const MAX_SCANNED: usize = 4096;
/// Directories whose names are remembered; two per device, a kilobyte or two each.
const MAX_LISTINGS: usize = 128;

/// An open regular file.
#[derive(Debug)]
pub struct File {
    /// Open for reading.
    pub fd: OwnedFd,
    /// Size in bytes when it was opened.
    pub size: u64,
    /// Device and inode: tells files apart.
    pub identity: (u64, u64),
}

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not exist, or is no regular file.
    #[error("no such file")]
    NotFound,
    /// A link leads out of the tree, or permissions forbid reading.
    #[error("access denied")]
    Denied,
    /// The device's boot directory is not there.
    #[error("boot directory {0} is missing: is the volume mounted and the device set up?")]
    NoDirectory(String),
    /// File descriptors or memory are short; the same request may succeed later.
    #[error("out of file descriptors or memory")]
    Busy,
    /// The file system failed.
    #[error("cannot open: {0}")]
    Failed(#[source] io::Error),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ISDIR => Self::NotFound,
            // XDEV: RESOLVE_BENEATH stopped a link that leaves the tree (openat2(2)).
            Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP => Self::Denied,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::Busy,
            other => Self::Failed(other.into()),
        }
    }
}

/// Opens `path` below `directory`. Symbolic links may point to places below it, never out of it. If no file has
/// exactly that name, one that differs only in ASCII case will do: boot trees come from FAT, which ignores case.
///
/// # Errors
/// [`OpenError`].
pub fn open_beneath(directory: &Path, path: &RelativePath<'_>, names: &mut Names) -> Result<File, OpenError> {
    open_with(directory, path, names, INSIDE)
}

/// The same, but no symbolic link below `directory` is followed at all: a file of the agent's own choice, for anybody.
///
/// # Errors
/// [`OpenError`].
pub fn open_without_links(directory: &Path, path: &RelativePath<'_>, names: &mut Names) -> Result<File, OpenError> {
    open_with(directory, path, names, INSIDE.union(ResolveFlags::NO_SYMLINKS))
}

fn open_with(
    directory: &Path,
    path: &RelativePath<'_>,
    names: &mut Names,
    how: ResolveFlags,
) -> Result<File, OpenError> {
    // Held only for the request: a descriptor kept would keep the volume from being unmounted.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = open(directory, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => OpenError::NoDirectory(directory.display().to_string()),
        other => other.into(),
    })?;
    let name = path.components().join(&b'/');
    if name.is_empty() {
        return Err(OpenError::NotFound);
    }
    match resolve(&base, &name, how) {
        Err(Errno::NOENT) => {
            let name = other_case(&base, path, names, how).ok_or(OpenError::NotFound)?;
            reopen(&resolve(&base, &name, how)?)
        }
        found => reopen(&found?),
    }
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn resolve(base: &OwnedFd, name: &[u8], how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut attempts = 0;
    loop {
        match openat2(base, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename raced with the look-up of `..` in a link (openat2(2)).
            Err(Errno::AGAIN) if attempts < 8 => attempts += 1,
            result => return result,
        }
    }
}

fn reopen(found: &OwnedFd) -> Result<File, OpenError> {
    let (fd, stat) = reopen_regular(found)?.ok_or(OpenError::NotFound)?;
    Ok(File { fd, size: u64::try_from(stat.st_size).unwrap_or(0), identity: (stat.st_dev, stat.st_ino) })
}

/// The name under which `path` exists when case does not count.
fn other_case(base: &OwnedFd, path: &RelativePath<'_>, names: &mut Names, how: ResolveFlags) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for (index, component) in path.components().iter().enumerate() {
        let parent = name.len();
        if parent > 0 {
            name.push(b'/');
        }
        let at = name.len();
        name.extend_from_slice(component);
        let is_last = index + 1 == path.components().len();
        if !is_last && resolve(base, &name, how).is_ok() {
            continue;
        }
        let actual = if parent == 0 {
            names.find(base, component)?
        } else {
            names.find(&resolve(base, &name[..parent], how).ok()?, component)?
        };
        name.truncate(at);
        name.extend_from_slice(actual.as_bytes());
    }
    Some(name)
}

/// What directories do not contain, whatever the case: half of a Pi's requests are for files that are not there, and
/// most of the directories have hundreds of entries.
#[derive(Debug, Default)]
pub struct Names {
    listings: HashMap<(u64, u64), Listing>,
    /// The key of the hashes: who can choose names must not be able to choose ones that collide.
    key: RandomState,
    /// Directories read so far.
    #[cfg(test)]
    scans: usize,
}

#[derive(Debug)]
struct Listing {
    changed: (i64, u32),
    /// Hashes of the names in lower case, sorted; `None` for a directory that has more entries than any boot
    /// directory. Nothing in it is found until it changes.
    hashes: Option<Vec<u64>>,
}

impl Names {
    /// The entry of `directory` that equals `wanted` but for case.
    fn find(&mut self, directory: &OwnedFd, wanted: &[u8]) -> Option<CString> {
        let stat = fstat(directory).ok()?;
        let identity = (stat.st_dev, stat.st_ino);
        // Every change of its entries changes a directory's ctime. A file that appears within one tick of the clock
        // after a listing was made may be missed, but only under a name in another case.
        let changed = (stat.st_ctime, nanoseconds(stat.st_ctime_nsec));
        let hash = hash_of(&self.key, wanted);
        if let Some(listing) = self.listings.get(&identity)
            && listing.changed == changed
            && listing.hashes.as_ref().is_none_or(|hashes| hashes.binary_search(&hash).is_err())
        {
            return None;
        }
        #[cfg(test)]
        {
            self.scans += 1;
        }
        let (found, mut hashes) = scan(directory, wanted, &self.key)?;
        if let Some(hashes) = &mut hashes {
            hashes.sort_unstable();
        }
        if self.listings.len() >= MAX_LISTINGS {
            self.listings.clear();
        }
        self.listings.insert(identity, Listing { changed, hashes });
        found
    }
}

/// Of whatever width the platform has them.
fn nanoseconds(field: impl TryInto<u32>) -> u32 {
    field.try_into().unwrap_or(0)
}

/// Hash of the name in lower case. A collision costs a scan, nothing else.
fn hash_of(key: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = key.build_hasher();
    for byte in name {
        hasher.write_u8(byte.to_ascii_lowercase());
    }
    hasher.finish()
}

/// The entry that equals `wanted` but for case, and the hashes of all names, or neither if there are more than in any
/// boot directory; `None` if the directory cannot be read.
fn scan(directory: &OwnedFd, wanted: &[u8], key: &RandomState) -> Option<(Option<CString>, Option<Vec<u64>>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat2(directory, ".", flags, Mode::empty(), ResolveFlags::BENEATH).ok()?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let (mut found, mut hashes) = (None, Vec::new());
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        let name = entry.file_name();
        if found.is_none() && name.to_bytes().eq_ignore_ascii_case(wanted) {
            found = Some(name.to_owned());
        }
        hashes.push(hash_of(key, name.to_bytes()));
        if hashes.len() > MAX_SCANNED {
            return Some((None, None));
        }
    }
    Some((found, Some(hashes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn read(directory: &Path, path: &str) -> Result<String, OpenError> {
        read_with(directory, path, &mut Names::default())
    }

    fn read_with(directory: &Path, path: &str, names: &mut Names) -> Result<String, OpenError> {
        let path = RelativePath::new(path.as_bytes()).expect("plain path");
        let file = open_beneath(directory, &path, names)?;
        let mut bytes = vec![0; 64];
        let length = rustix::io::pread(&file.fd, &mut bytes, 0).expect("readable");
        assert_eq!(length as u64, file.size);
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    fn tree() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let boot = scratch.path().join("boot");
        fs::create_dir_all(boot.join("overlays")).unwrap();
        fs::write(scratch.path().join("secret"), "secret").unwrap();
        fs::write(boot.join("config.txt"), "config").unwrap();
        fs::write(boot.join("START4.ELF"), "firmware").unwrap();
        fs::write(boot.join("overlays/Disable-BT.dtbo"), "overlay").unwrap();
        scratch
    }

    #[test]
    fn files_are_found_exactly_or_but_for_case() {
        let scratch = tree();
        let boot = scratch.path().join("boot");
        assert_eq!(read(&boot, "config.txt").unwrap(), "config");
        assert_eq!(read(&boot, "start4.elf").unwrap(), "firmware");
        assert_eq!(read(&boot, "OVERLAYS/disable-bt.dtbo").unwrap(), "overlay");
        assert_eq!(read(&boot, "overlays/disable-bt.dtbo").unwrap(), "overlay");
        fs::write(boot.join("start4.elf"), "exact").unwrap();
        assert_eq!(read(&boot, "start4.elf").unwrap(), "exact", "the exact name wins");
        for missing in ["start.elf", "overlays/x", "nowhere/x", "config.txt/x", "overlays"] {
            assert!(matches!(read(&boot, missing), Err(OpenError::NotFound)), "{missing}");
        }
        let long = "x".repeat(300);
        assert!(matches!(read(&boot, &long), Err(OpenError::NotFound)));
    }

    #[test]
    fn what_is_remembered_of_a_directory_does_not_hide_what_changes() {
        let scratch = tree();
        let boot = scratch.path().join("boot");
        let mut names = Names::default();
        assert!(read_with(&boot, "ssh.txt", &mut names).is_err());
        assert!(read_with(&boot, "ssh.txt", &mut names).is_err(), "from memory");
        fs::write(boot.join("ssh.txt"), "exact names are always looked for").unwrap();
        assert!(read_with(&boot, "ssh.txt", &mut names).is_ok());
        assert!(read_with(&boot, "overlays/new.dtbo", &mut names).is_err());
        // Until the clock of the file system has moved on, a change does not show (see `Names::find`).
        let ctime = |path: &Path| fs::metadata(path).map(|m| std::os::unix::fs::MetadataExt::ctime_nsec(&m)).unwrap();
        let before = ctime(&boot.join("overlays"));
        while ctime(&boot.join("overlays")) == before {
            fs::write(boot.join("overlays/NEW.dtbo"), "new").unwrap();
            fs::remove_file(boot.join("overlays/NEW.dtbo")).unwrap();
        }
        fs::write(boot.join("overlays/NEW.dtbo"), "new").unwrap();
        assert_eq!(read_with(&boot, "overlays/new.dtbo", &mut names).unwrap(), "new");
    }

    #[test]
    fn a_directory_without_bounds_is_read_once() {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let first = place.path().join("x");
        fs::write(&first, "").unwrap();
        for n in 0..=MAX_SCANNED {
            fs::hard_link(&first, place.path().join(format!("{n}"))).unwrap();
        }
        let mut names = Names::default();
        for missing in ["a", "b", "c"] {
            assert!(matches!(read_with(place.path(), missing, &mut names), Err(OpenError::NotFound)));
        }
        assert_eq!(names.scans, 1);
        assert!(read_with(place.path(), "x", &mut names).is_ok(), "exact names are always looked for");
    }

    #[test]
    fn links_stay_inside_the_tree() {
        let scratch = tree();
        let boot = scratch.path().join("boot");
        symlink("config.txt", boot.join("inside")).unwrap();
        symlink("../boot/config.txt", boot.join("out-and-in")).unwrap();
        symlink("../secret", boot.join("relative")).unwrap();
        symlink(scratch.path().join("secret"), boot.join("absolute")).unwrap();
        symlink("..", boot.join("up")).unwrap();
        symlink("/proc/self/root", boot.join("magic")).unwrap();
        symlink("loop", boot.join("loop")).unwrap();
        assert_eq!(read(&boot, "inside").unwrap(), "config");
        for outside in ["relative", "absolute", "up/secret", "out-and-in", "magic/etc/passwd", "loop"] {
            assert!(matches!(read(&boot, outside), Err(OpenError::Denied)), "{outside}");
        }
        assert!(read(&boot, "UP/secret").is_err(), "nor by the case-insensitive way");
    }

    #[test]
    fn a_file_for_anybody_is_no_link() {
        let scratch = tree();
        let boot = scratch.path().join("boot");
        symlink("config.txt", boot.join("inside")).unwrap();
        symlink("overlays", boot.join("linked")).unwrap();
        let open = |path: &str| {
            let path = RelativePath::new(path.as_bytes()).expect("plain path");
            open_without_links(&boot, &path, &mut Names::default()).map(|file| file.size)
        };
        assert_eq!(open("config.txt").unwrap(), 6);
        assert_eq!(open("start4.elf").unwrap(), 8, "in another case");
        for link in ["inside", "INSIDE", "linked/Disable-BT.dtbo"] {
            assert!(matches!(open(link), Err(OpenError::Denied)), "{link}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let scratch = tree();
        let boot = scratch.path().join("boot");
        nix::unistd::mkfifo(&boot.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
        // As the device itself could make one over NFS: /dev/zero reads as an endless file, a watchdog reboots the router.
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o644));
        nix::sys::stat::mknod(&boot.join("device"), kind, mode, nix::sys::stat::makedev(1, 5)).expect("run as root");
        assert!(matches!(read(&boot, "fifo"), Err(OpenError::NotFound)));
        assert!(matches!(read(&boot, "device"), Err(OpenError::NotFound)));
        assert!(matches!(read(&boot, ""), Err(OpenError::NotFound)));
        let missing = read(&scratch.path().join("absent"), "config.txt").unwrap_err();
        assert!(missing.to_string().contains("absent"), "{missing}");
    }
}
