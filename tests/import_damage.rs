//! Damaged file systems: whatever bytes are wrong, the reader ends with an answer or an error, never with a panic, a
//! walk without end or more data than the image holds.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use piboot::image::blocks::FileBlocks;
use piboot::image::ext4::Ext4;
use piboot::image::extract::{ExtractError, extract_ext4, extract_fat};
use piboot::image::fat::Fat;
use piboot::progress::{NoProgress, Progress};
use piboot::storage::tree_remove::remove_tree;
use piboot::storage::tree_writer::TreeWriter;
use rustix::fs::{Mode, OFlags};

/// Numbers that are the same in every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// A small tree with one of each, for mke2fs -d and mcopy.
fn sample(at: &Path, links: bool) {
    fs::create_dir_all(at.join("dir/sub")).unwrap();
    for (name, size) in
        [("empty", 0), ("tiny", 30), ("small", 130), ("block", 1024), ("dir/large", 70_000), ("dir/sub/x", 5000)]
    {
        fs::write(at.join(name), vec![0x5a; size]).unwrap();
    }
    for n in 0..40 {
        fs::write(at.join(format!("dir/entry-with-a-long-name-so-that-blocks-fill-up-{n:04}")), "").unwrap();
    }
    if links {
        symlink("tiny", at.join("symlink")).unwrap();
        symlink("t".repeat(300), at.join("long-symlink")).unwrap();
        fs::hard_link(at.join("small"), at.join("dir/second-name")).unwrap();
        fs::File::create(at.join("sparse")).unwrap().set_len(3 << 20).unwrap();
        for (name, length) in [("user.small", 20), ("user.large", 600)] {
            let value = vec![b'v'; length];
            rustix::fs::setxattr(at.join("tiny"), name, &value, rustix::fs::XattrFlags::empty()).unwrap();
        }
    }
}

/// Counts entries and stops a walk that has seen more than there can be.
struct Bounded(AtomicUsize);

const MAX_ENTRIES: usize = 20_000;

impl Progress for Bounded {
    fn add(&self, _bytes: u64, files: u64) {
        self.0.fetch_add(usize::try_from(files).unwrap(), Ordering::Relaxed);
    }
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_ENTRIES
    }
}

const ROUNDS: usize = 150;

/// In memory where that keeps attributes: ext4 is slow to make files where others were just removed.
fn place() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    let keeps = |place: &tempfile::TempDir| {
        rustix::fs::setxattr(place.path(), "user.test", b"x", rustix::fs::XattrFlags::empty()).is_ok()
    };
    memory.filter(keeps).unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// Writes a file system's tree into a directory; answers the bytes of content.
type Extract = dyn Fn(&[u8], &Path, &Bounded) -> Result<u64, ExtractError>;

/// Extracts many copies of `image` damaged in its first `area` bytes; answers how many were refused.
fn torture(image: &[u8], area: usize, seed: u64, extract: &Extract) -> usize {
    let mut random = Random(seed);
    let place = place();
    let parent = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let used: Vec<usize> = (0..area / 256).filter(|n| image[n * 256..][..256].iter().any(|b| *b != 0)).collect();
    let mut refused = 0;
    for round in 0..ROUNDS {
        let mut damaged = image.to_vec();
        for _ in 0..=random.below(12) {
            // Where something is: zeros are mostly unused.
            let at = used[random.below(used.len())] * 256 + random.below(64) * 4;
            match random.below(4) {
                0 => damaged[at] ^= 1 << random.below(8),
                1 => damaged[at + random.below(4)] = u8::try_from(random.below(256)).unwrap(),
                2 => damaged[at..at + 4].fill(0xff),
                _ => damaged[at..at + 4].copy_from_slice(&u32::try_from(random.below(4096)).unwrap().to_le_bytes()),
            }
        }
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let progress = Bounded(AtomicUsize::new(0));
        match extract(&damaged, &tree, &progress) {
            Ok(bytes) => assert!(bytes <= image.len() as u64, "round {round}: {bytes} bytes from {}", image.len()),
            Err(ExtractError::Cancelled) => panic!("round {round} does not end"),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
        remove_tree(&parent, b"tree").unwrap();
    }
    refused
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn writer(tree: &Path) -> TreeWriter {
    TreeWriter::new(rustix::fs::open(tree, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()).unwrap()
}

fn ext4_rounds(options: &[&str], seed: u64) {
    let place = place();
    sample(&place.path().join("tree"), true);
    let path = place.path().join("fs");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-N", "256"]).args(options).arg("-d").arg(place.path().join("tree"));
    succeed(mke2fs.arg(&path).arg("1500k"));
    let image = fs::read(&path).unwrap();
    let extract = |data: &[u8], tree: &Path, progress: &Bounded| {
        extract_ext4(&Ext4::open(&data)?, &mut writer(tree), progress).map(|done| done.bytes)
    };
    let intact = place.path().join("intact");
    fs::create_dir(&intact).unwrap();
    assert!(extract(&image, &intact, &Bounded(AtomicUsize::new(0))).unwrap() >= 70_000);
    let refused = torture(&image, image.len(), seed, &extract);
    assert!((10..=140).contains(&refused), "{refused} of 150 refused: the damage misses what matters");
}

#[test]
fn extents_and_inline_data() {
    ext4_rounds(&["-t", "ext4", "-b", "1024", "-I", "512", "-O", "inline_data,^has_journal"], 1);
}

#[test]
fn block_maps() {
    ext4_rounds(&["-t", "ext3", "-b", "1024", "-I", "128", "-O", "^has_journal"], 2);
}

#[test]
fn blocks_of_4_kib() {
    ext4_rounds(&["-t", "ext4", "-b", "4096", "-O", "^has_journal,metadata_csum,64bit"], 3);
}

#[test]
fn fat_volumes() {
    let place = place();
    sample(&place.path().join("tree"), false);
    let path = place.path().join("fs");
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    succeed(Command::new("mkfs.vfat").args(["-F", "12", "-s", "1"]).arg(&path));
    let tree = place.path().join("tree");
    let entries = fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().path());
    succeed(Command::new("mcopy").args(["-s", "-i"]).arg(&path).args(entries).arg("::"));
    let image = fs::read(&path).unwrap();
    let extract = |data: &[u8], tree: &Path, progress: &Bounded| {
        extract_fat(&Fat::open(&data)?, &mut writer(tree), progress).map(|done| done.bytes)
    };
    let intact = place.path().join("intact");
    fs::create_dir(&intact).unwrap();
    assert_eq!(extract(&image, &intact, &Bounded(AtomicUsize::new(0))).unwrap(), 30 + 130 + 1024 + 70_000 + 5000);
    let refused = torture(&image, 24 << 10, 4, &extract);
    assert!((10..=140).contains(&refused), "{refused} of 150 refused: the damage misses what matters");
}

#[test]
fn block_sizes_up_to_64_kib() {
    // The kernel cannot mount what is larger than its pages; mke2fs -d fills such file systems itself.
    let place = place();
    let tree = place.path().join("tree");
    sample(&tree, true);
    for size in ["8192", "16384", "32768", "65536"] {
        let path = place.path().join(size);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", size, "-O", "^has_journal", "-d"]).arg(&tree);
        succeed(mke2fs.arg(&path).arg("40M"));
        let image = fs::read(&path).unwrap();
        let out = place.path().join(format!("out-{size}"));
        fs::create_dir(&out).unwrap();
        extract_ext4(&Ext4::open(&image.as_slice()).unwrap(), &mut writer(&out), &Bounded(AtomicUsize::new(0)))
            .unwrap();
        fs::remove_dir(out.join("lost+found")).unwrap();
        let same = Command::new("diff").args(["-r", "--no-dereference"]).arg(&tree).arg(&out).output().unwrap();
        assert!(same.status.success(), "{size}: {}", String::from_utf8_lossy(&same.stdout));
    }
}

/// Directories inside each other, each with many long names of one file, the way down first in each.
fn deep_and_wide(at: &Path, levels: usize, names: usize) {
    let mut directory = at.to_owned();
    for _ in 0..levels {
        directory.push("0");
        fs::create_dir_all(&directory).unwrap();
        let first = directory.join("x".repeat(240));
        fs::write(&first, "").unwrap();
        for n in 1..names {
            fs::hard_link(&first, directory.join(format!("{}{n:06}", "x".repeat(240)))).unwrap();
        }
    }
}

/// What a child process of [`a_crafted_tree_needs_little_memory`] does.
#[test]
fn child_that_is_measured() {
    let Some(place) = std::env::var_os("PIBOOT_TEST_WIDE_TREE").map(PathBuf::from) else { return };
    let source = FileBlocks::new(fs::File::open(place.join("fs")).unwrap()).unwrap();
    let high_water = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    let before = high_water();
    let done = extract_ext4(&Ext4::open(&source).unwrap(), &mut writer(&place.join("out")), &NoProgress).unwrap();
    println!("\nmeasured {} {}", done.entries, high_water() - before);
}

#[test]
fn a_crafted_tree_needs_little_memory() {
    const LEVELS: usize = 80;
    const NAMES: usize = 600;
    let place = place();
    deep_and_wide(&place.path().join("tree"), LEVELS, NAMES);
    fs::create_dir(place.path().join("out")).unwrap();
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-N", "4096", "-d"]);
    succeed(mke2fs.arg(place.path().join("tree")).arg(place.path().join("fs")).arg("40M"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_measured", "--nocapture"])
        .env("PIBOOT_TEST_WIDE_TREE", place.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("measured ")).unwrap_or_else(|| panic!("{output:?}"));
    let (entries, kilobytes) = line.split_once(' ').unwrap();
    // lost+found and the directories besides the names.
    assert_eq!(entries, (LEVELS * (NAMES + 1) + 1).to_string());
    // All names at once would be 15 MB.
    let kilobytes: u32 = kilobytes.parse().unwrap();
    assert!(kilobytes < 11 * 1024, "{kilobytes} kB");
}
