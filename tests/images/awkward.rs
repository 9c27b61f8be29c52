//! Help for tests that use the awkward images: building them once, mounting their root by the kernel, and describing a
//! tree entry by entry with every attribute.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::useless_conversion, reason = "test code")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};
use sha2::{Digest, Sha256};

/// Where the partitions of an awkward image begin, in bytes.
pub const BOOT_START: u64 = 8192 * 512;
pub const ROOT_START: u64 = BOOT_START + (40 << 20);

/// Path of an awkward image, built if the cache has it not: `.img` or `.img.xz`.
pub fn image(variant: &str, extension: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/awkward.sh");
    let digest = Sha256::digest(fs::read(&script).unwrap());
    let key: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    let cache = std::env::var_os("PIBOOT_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache/piboot"),
        PathBuf::from,
    );
    let directory = cache.join(format!("awkward-{key}"));
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(format!(".{variant}.lock"))).unwrap();
    lock.lock().unwrap();
    let wanted = directory.join(format!("{variant}.{extension}"));
    if !wanted.exists() || !directory.join(format!("{variant}.img")).exists() {
        let status = Command::new("bash").arg(&script).arg(variant).arg(&directory).status().unwrap();
        assert!(status.success(), "{} {variant} failed: it needs root and a loop device", script.display());
    }
    wanted
}

/// A read-only kernel mount of an image's root partition, undone when dropped.
pub struct LoopMount {
    pub path: tempfile::TempDir,
}

impl LoopMount {
    pub fn root(image: &Path) -> Self {
        let path = tempfile::tempdir().unwrap();
        let disk = piboot::image::blocks::FileBlocks::new(File::open(image).unwrap()).unwrap();
        let root = piboot::image::partition::read(&disk).unwrap().root().unwrap();
        let options = format!("ro,noload,loop,offset={},sizelimit={}", root.start, root.size);
        run(Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(image).arg(path.path()));
        Self { path }
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path.path()).status();
    }
}

/// A volume to import to: an ext4 of its own, of `megabytes`, undone when dropped. On a file system where files were just
/// removed ext4 takes long to make new ones.
pub struct Volume {
    directory: tempfile::TempDir,
}

impl Volume {
    pub fn new(megabytes: u64, options: &[&str]) -> Self {
        Self::of("ext4", megabytes, options)
    }

    /// The same of another file system; `options` are its mkfs's.
    pub fn of(kind: &str, megabytes: u64, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        File::create(&disk).unwrap().set_len(megabytes << 20).unwrap();
        let mut mkfs = match kind {
            "ext4" => Command::new("mke2fs"),
            other => Command::new(format!("mkfs.{other}")),
        };
        if kind == "ext4" {
            mkfs.args(["-F", "-t", "ext4", "-b", "4096", "-m", "0"]);
        }
        run(mkfs.arg("-q").args(options).arg(&disk));
        let volume = Self { directory };
        fs::create_dir(volume.path()).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(volume.path()));
        for name in ["images", "scratch"] {
            fs::create_dir(volume.path().join(name)).unwrap();
        }
        volume
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// Everything that exists in the volume but the two directories an import needs.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let names = ["images", "scratch", "lost+found"].map(PathBuf::from);
        files(&self.path()).into_keys().filter(|path| !names.contains(path)).collect()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One entry of a tree. Directories' sizes and link counts are the file system's own business and left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    pub mtime: (i64, i64),
    pub size: u64,
    pub device: (u32, u32),
    pub target: Option<OsString>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Digest over the 4 KiB pages that are not all zero, with their offsets: holes and zeros are equal.
    pub pages: Option<String>,
    /// Of several names of one file, the first in the order of the walk.
    pub same_as: Option<Vec<u8>>,
}

pub type Manifest = BTreeMap<Vec<u8>, Described>;

/// Describes a tree by walking directory descriptors: its paths may be longer than PATH_MAX.
pub fn describe(root: &Path) -> Manifest {
    let directory = rustix::fs::open(root, DIRECTORY, Mode::empty()).unwrap();
    let mut manifest = Manifest::new();
    let mut names = HashMap::new();
    let own = describe_entry(&directory, b".", b"", &mut names);
    manifest.insert(b"/".to_vec(), own);
    walk(&directory, &mut Vec::new(), &mut manifest, &mut names);
    manifest
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn walk(directory: &OwnedFd, path: &mut Vec<u8>, manifest: &mut Manifest, names: &mut HashMap<u64, Vec<u8>>) {
    let mut entries: Vec<_> = Dir::read_from(directory).unwrap().map(|e| e.unwrap().file_name().to_owned()).collect();
    entries.sort();
    for name in entries {
        let name = name.as_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let before = path.len();
        path.push(b'/');
        path.extend_from_slice(name);
        let described = describe_entry(directory, name, path, names);
        let is_dir = FileType::from_raw_mode(described.mode).is_dir();
        assert!(manifest.insert(path.clone(), described).is_none(), "{} twice", String::from_utf8_lossy(path));
        if is_dir {
            let child = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()).unwrap();
            walk(&child, path, manifest, names);
        }
        path.truncate(before);
    }
}

fn describe_entry(directory: &OwnedFd, name: &[u8], path: &[u8], names: &mut HashMap<u64, Vec<u8>>) -> Described {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let kind = FileType::from_raw_mode(stat.st_mode);
    let proc_path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(proc_path.as_slice(), &mut list[..]).unwrap();
    let xattrs = list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).map(|xattr| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(proc_path.as_slice(), xattr, &mut value[..]).unwrap();
        value.truncate(length);
        (xattr.to_vec(), value)
    });
    let same_as = (!kind.is_dir() && stat.st_nlink > 1)
        .then(|| names.entry(stat.st_ino).or_insert_with(|| path.to_vec()).clone());
    Described {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: if kind.is_dir() { 0 } else { u64::from(stat.st_nlink) },
        mtime: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap()),
        size: if kind.is_dir() { 0 } else { stat.st_size.cast_unsigned() },
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        target: kind
            .is_symlink()
            .then(|| OsString::from_vec(rustix::fs::readlinkat(directory, name, Vec::new()).unwrap().into_bytes())),
        xattrs: xattrs.collect(),
        pages: kind.is_file().then(|| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            pages(&File::from(rustix::fs::openat(directory, name, flags, Mode::empty()).unwrap()))
        }),
        same_as,
    }
}

fn pages(file: &File) -> String {
    let mut hash = Sha256::new();
    let mut at = 0;
    // With blocks smaller than a page, one page may hold several data segments.
    let mut done = 0;
    let size = file.metadata().unwrap().len();
    while let Ok(data) = rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
        let end = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data)).unwrap();
        for offset in ((data / 4096 * 4096).max(done)..end.min(size)).step_by(4096) {
            done = offset + 4096;
            let mut page = [0; 4096];
            let length = usize::try_from((size - offset).min(4096)).unwrap();
            file.read_exact_at(&mut page[..length], offset).unwrap();
            if page != [0; 4096] {
                hash.update(offset.to_le_bytes());
                hash.update(page);
            }
        }
        at = end;
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Panics with the first differences unless both trees are the same.
pub fn assert_same(ours: &Manifest, reference: &Manifest, what: &str) {
    let mut differences = Vec::new();
    for path in ours.keys().chain(reference.keys().filter(|path| !ours.contains_key(*path))) {
        let (a, b) = (ours.get(path), reference.get(path));
        if a != b {
            let path = String::from_utf8_lossy(path);
            differences.push(format!("{path}\n      ours {a:?}\n  expected {b:?}"));
        }
    }
    let shown: Vec<_> = differences.iter().take(8).cloned().collect();
    assert!(
        differences.is_empty(),
        "{what}: {} of {} differ:\n{}",
        differences.len(),
        reference.len(),
        shown.join("\n")
    );
}

/// Every file below a directory on an ordinary file system, with its content and mtime in seconds.
pub fn files(root: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, i64)> {
    fn walk(at: &Path, root: &Path, out: &mut BTreeMap<PathBuf, (Option<Vec<u8>>, i64)>) {
        use std::os::unix::fs::MetadataExt;
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = meta.is_file().then(|| {
                let mut data = Vec::new();
                File::open(&path).unwrap().read_to_end(&mut data).unwrap();
                data
            });
            out.insert(path.strip_prefix(root).unwrap().to_owned(), (content, meta.mtime()));
            if meta.is_dir() {
                walk(&path, root, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}
