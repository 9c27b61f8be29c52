//! Imports from disks and streams, compared with the import of the same image from a file.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use awkward::{LoopMount, Manifest, Volume, assert_same, describe, image, run};
use piboot::image::{ImageInfo, ImportError, Source, SourceError, import, inspect};
use piboot::progress::{NoProgress, Progress};

fn import_here(volume: &Volume, source: Source, name: &str, progress: &dyn Progress) -> Result<ImageInfo, ImportError> {
    import(source, name, &volume.path().join("images"), &volume.path().join("scratch"), 0, progress)
}

fn trees(volume: &Volume, name: &str) -> [Manifest; 2] {
    ["boot", "root"].map(|tree| describe(&volume.path().join("images").join(name).join(tree)))
}

/// What a file's import gives, once for all tests.
fn reference() -> &'static (ImageInfo, [Manifest; 2]) {
    static REFERENCE: std::sync::OnceLock<(ImageInfo, [Manifest; 2])> = std::sync::OnceLock::new();
    REFERENCE.get_or_init(|| {
        let volume = Volume::new(300, &[]);
        let source = Source::open(&image("pigen", "img")).unwrap();
        let info = import_here(&volume, source, "odd", &NoProgress).unwrap();
        (info, trees(&volume, "odd"))
    })
}

fn assert_as_reference(volume: &Volume, name: &str) {
    let found = trees(volume, name);
    for (found, wanted) in found.iter().zip(&reference().1) {
        assert_same(found, wanted, name);
    }
}

/// Gives few bytes at a time, as a network does.
struct Slow(File);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1447);
        self.0.read(&mut buffer[..length])
    }
}

/// Keeps the last sum and the last total.
#[derive(Default)]
struct Sums(Mutex<(u64, u64)>);

impl Progress for Sums {
    fn add(&self, bytes: u64, _files: u64) {
        self.0.lock().unwrap().0 += bytes;
    }
    fn set_total(&self, bytes: u64, _files: u64) {
        self.0.lock().unwrap().1 = bytes;
    }
    fn cancelled(&self) -> bool {
        false
    }
}

fn stream(extension: &str, size: impl FnOnce(u64) -> Option<u64>) {
    let file = File::open(image("pigen", extension)).unwrap();
    let length = file.metadata().unwrap().len();
    let label = format!("http://server/images/pigen.{extension}");
    let source = Source::from_reader(Box::new(Slow(file)), size(length), label).unwrap();
    let volume = Volume::new(300, &[]);
    let sums = Sums::default();
    let info = import_here(&volume, source, "streamed", &sums).unwrap();
    assert_as_reference(&volume, "streamed");
    assert_eq!((info.source, info.source_bytes), (format!("pigen.{extension}"), length));
    let sum = Command::new("sha256sum").arg(image("pigen", extension)).output().unwrap();
    assert_eq!(info.sha256.as_bytes(), &sum.stdout[..64]);
    let (done, total) = sums.0.into_inner().unwrap();
    assert!(total > length && done > length && done <= total, "{done} of {total} bytes of progress, {length} to read");
    assert_eq!(std::fs::read_dir(volume.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn a_stream_of_known_size() {
    stream("img.xz", Some);
}

#[test]
fn a_stream_of_unknown_size_that_is_not_packed() {
    stream("img", |_| None);
}

#[test]
fn a_stream_that_breaks_off_leaves_nothing() {
    let head = File::open(image("pigen", "img.xz")).unwrap().take(600_000);
    let source = Source::from_reader(Box::new(head), None, "http://server/x.img.xz".into()).unwrap();
    let volume = Volume::new(300, &[]);
    let error = import_here(&volume, source, "streamed", &NoProgress).unwrap_err();
    assert!(matches!(error, ImportError::Source(SourceError::Truncated(_))), "{error}");
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
}

/// A disk: a loop device over a copy of an image, with its partitions.
struct Disk {
    device: PathBuf,
    _copy: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("disk.img");
        run(Command::new("cp").arg("--sparse=always").arg(image("pigen", "img")).arg(&path));
        // An SD card is larger than what was written to it.
        File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        // Not every kernel reads partition tables by itself.
        run(Command::new("partx").arg("--update").arg(&device));
        Self { device, _copy: copy }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("partx").arg("--delete").arg(&self.device).status();
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Undone when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(device: &Path, options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-o", options]).arg(device).arg(at.path()));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// A node for the root partition: nobody makes one in a container.
fn root_partition(disk: &Disk) -> (tempfile::TempDir, PathBuf) {
    let name = disk.device.file_name().unwrap().to_str().unwrap();
    let number = std::fs::read_to_string(format!("/sys/block/{name}/{name}p2/dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    let place = tempfile::tempdir().unwrap();
    let node = place.path().join("root");
    run(Command::new("mknod").arg(&node).args(["b", major, minor]));
    (place, node)
}

#[test]
fn a_disk_is_read_where_it_is() {
    let disk = Disk::new();
    let found = inspect(&disk.device).unwrap();
    assert_eq!((found.format.as_str(), found.source_bytes), ("img", 1 << 30));
    assert_eq!(found.os.as_deref(), Some("Raspberry Pi OS (awkward)"));
    let source = Source::open(&disk.device).unwrap();
    let (_place, partition) = root_partition(&disk);
    let at = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").arg(&partition).arg(at.path()).output().unwrap();
    assert!(!mount.status.success(), "the source has claimed it");
    let volume = Volume::new(300, &[]);
    let info = import_here(&volume, source, "card", &NoProgress).unwrap();
    assert_as_reference(&volume, "card");
    assert_eq!((info.source_bytes, info.sha256.as_str()), (reference().0.source_bytes, reference().0.sha256.as_str()));
}

#[test]
fn a_disk_somebody_may_write_to_is_refused() {
    let disk = Disk::new();
    let (_place, partition) = root_partition(&disk);
    let read_only = Mounted::new(&partition, "ro,noload");
    assert!(Source::open(&disk.device).is_ok(), "a read-only mount changes nothing");
    drop(read_only);
    let mounted = Mounted::new(&partition, "rw");
    let error = Source::open(&disk.device).unwrap_err().to_string();
    let point = mounted.0.path().display();
    assert!(error.contains(&format!("is mounted read-write at {point}")), "{error}");
    drop(mounted);
    let other = File::options().read(true).custom_flags(libc::O_EXCL).open(&disk.device).unwrap();
    let error = Source::open(&disk.device).unwrap_err().to_string();
    assert!(error.contains("in use by another program"), "{error}");
    drop(other);
    let error = Source::open(&partition).unwrap_err().to_string();
    assert!(error.ends_with(&format!("import the whole disk, {}", disk.device.display())), "{error}");
    assert!(matches!(Source::open(Path::new("/dev/null")), Err(SourceError::NotAFile(_))));
}

/// The reference image packed by a shell command, as every format there is.
fn packed(place: &Path) -> Vec<PathBuf> {
    let commands = [
        ("x.img.gz", "gzip -1 -c pigen.img"),
        ("x.img.zst", "zstd -q -1 --long=24 -c pigen.img"),
        ("x.zip", "zip -q -1 - pigen.img"),
        ("x.img.xz", "xz -0 -T1 --lzma2=preset=0,dict=32MiB -c pigen.img"),
    ];
    let make = |(name, command): (&str, &str)| {
        let path = place.join(name);
        let mut shell = Command::new("sh");
        shell.current_dir(image("pigen", "img").parent().unwrap()).args(["-c", command]);
        assert!(shell.stdout(File::create(&path).unwrap()).status().unwrap().success(), "{command}");
        path
    };
    commands.into_iter().map(make).collect()
}

/// What a child process of [`every_format_gives_the_same_trees_in_little_memory`] does.
#[test]
fn child_that_is_measured() {
    let Some(path) = std::env::var_os("PIBOOT_TEST_SOURCE").map(PathBuf::from) else { return };
    let volume = PathBuf::from(std::env::var_os("PIBOOT_TEST_VOLUME").unwrap());
    let high_water = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = high_water();
    let source = Source::open(&path).unwrap();
    import(source, "odd", &volume.join("images"), &volume.join("scratch"), 0, &NoProgress).unwrap();
    println!("\nmeasured {}", high_water() - before);
}

/// Imports in a process of its own; answers how much more memory it took.
fn measured(source: &Path, volume: &Volume) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_measured", "--nocapture"])
        .env("PIBOOT_TEST_SOURCE", source)
        .env("PIBOOT_TEST_VOLUME", volume.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("measured "));
    let kilobytes = kilobytes.unwrap_or_else(|| panic!("{output:?}")).parse().unwrap();
    println!("{}: {kilobytes} kB", source.display());
    kilobytes
}

#[test]
fn every_format_gives_the_same_trees_in_little_memory() {
    let place = tempfile::tempdir().unwrap();
    for path in packed(place.path()) {
        let volume = Volume::new(300, &[]);
        let kilobytes = measured(&path, &volume);
        // xz with as large a dictionary as is allowed; nothing packs images so.
        let limit = if path.ends_with("x.img.xz") { 48 } else { 32 };
        assert!(kilobytes < limit << 10, "{}: {kilobytes} kB", path.display());
        assert_as_reference(&volume, "odd");
    }
}

#[test]
fn a_root_in_an_archive_needs_little_memory() {
    let place = tempfile::tempdir().unwrap();
    let mount = LoopMount::root(&image("shallow", "img"));
    let path = place.path().join("root.tar.xz");
    let options = ["--format=posix", "--sparse", "--xattrs", "--xattrs-include=*", "-I", "xz -6 -T1", "-cf"];
    run(Command::new("tar").arg("-C").arg(mount.path.path()).args(options).arg(&path).arg("."));
    let kilobytes = measured(&path, &Volume::new(300, &[]));
    assert!(kilobytes < 32 << 10, "{kilobytes} kB");
}
