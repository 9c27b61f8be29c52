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
