//! A device's root is a full copy of an image's: the same in every attribute.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use awkward::{LoopMount, assert_same, describe, image, run};
use piboot::progress::{NoProgress, Progress};
use piboot::storage::tree_copy::{CopyError, copy_tree};
use rustix::fs::{Mode, OFlags};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn a_copy_is_the_same_in_every_attribute() {
    let mount = LoopMount::root(&image("inline", "img"));
    let copy = tempfile::tempdir().unwrap();
    let done = copy_tree(open(mount.path.path()), open(copy.path()), &NoProgress).unwrap();
    let reference = describe(mount.path.path());
    assert_same(&describe(copy.path()), &reference, "copy");
    assert_eq!(done.entries, reference.len() as u64 - 1);
    // 6 GiB of holes were not written.
    assert!(done.bytes < 60 << 20, "{} bytes written", done.bytes);
}

#[test]
fn a_mount_inside_the_tree_is_refused_by_its_path() {
    let from = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(from.path().join("a/proc")).unwrap();
    for options in [&["-t", "tmpfs", "tmpfs"][..], &["--bind", "/etc"]] {
        run(Command::new("mount").args(options).arg(from.path().join("a/proc")));
        let to = tempfile::tempdir().unwrap();
        let error = copy_tree(open(from.path()), open(to.path()), &NoProgress).unwrap_err();
        run(Command::new("umount").arg(from.path().join("a/proc")));
        assert!(matches!(error, CopyError::Mount(ref path) if path == "/a/proc"), "{error}");
    }
}

struct CancelAfter(AtomicUsize);

impl Progress for CancelAfter {
    fn add(&self, bytes: u64, _files: u64) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(usize::try_from(bytes).unwrap()), Ordering::Relaxed);
    }
    fn set_total(&self, _bytes: u64, _files: u64) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_cancel_is_seen_within_a_mebibyte() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(from.path().join("large"), vec![7; 8 << 20]).unwrap();
    let progress = CancelAfter(AtomicUsize::new(2 << 20));
    let error = copy_tree(open(from.path()), open(to.path()), &progress).unwrap_err();
    assert!(matches!(error, CopyError::Cancelled), "{error}");
    let written = std::fs::metadata(to.path().join("large")).unwrap().len();
    assert!((2 << 20..=3 << 20).contains(&written), "{written} bytes written");
}

/// Files and directories in turn, more than are taken at once, on whatever file system temporary files are.
#[test]
fn a_large_directory_is_copied_whole() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..2500 {
        std::fs::write(from.path().join(format!("file-{n}")), "").unwrap();
        if n % 50 == 0 {
            std::fs::create_dir(from.path().join(format!("dir-{n}"))).unwrap();
            std::fs::write(from.path().join(format!("dir-{n}/inside")), "").unwrap();
        }
    }
    let done = copy_tree(open(from.path()), open(to.path()), &NoProgress).unwrap();
    assert_eq!(done.entries, 2600);
    let names = |path: &Path| {
        let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(to.path()), names(from.path()));
}

/// What a child process of [`a_huge_directory_needs_little_memory`] does.
#[test]
fn child_that_is_measured() {
    let Some(place) = std::env::var_os("PIBOOT_TEST_HUGE_DIRECTORY").map(std::path::PathBuf::from) else { return };
    let high_water = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    let before = high_water();
    let done = copy_tree(open(&place.join("from")), open(&place.join("to")), &NoProgress).unwrap();
    println!("\nmeasured {} {}", done.entries, high_water() - before);
}

#[test]
fn a_huge_directory_needs_little_memory() {
    const NAMES: usize = 60_000;
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(place.path().join("to")).unwrap();
    std::fs::create_dir(place.path().join("from")).unwrap();
    let first = place.path().join("from/first");
    std::fs::write(&first, "").unwrap();
    for n in 1..NAMES {
        std::fs::hard_link(&first, place.path().join(format!("from/{}{n}", "x".repeat(240)))).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_measured", "--nocapture"])
        .env("PIBOOT_TEST_HUGE_DIRECTORY", place.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("measured ")).unwrap_or_else(|| panic!("{output:?}"));
    let (entries, kilobytes) = line.split_once(' ').unwrap();
    assert_eq!(entries, NAMES.to_string());
    // All names at once would be 16 MB.
    let kilobytes: u32 = kilobytes.parse().unwrap();
    assert!(kilobytes < 4 * 1024, "{kilobytes} kB");
}
