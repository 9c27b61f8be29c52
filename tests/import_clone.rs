//! A clone shares the original's blocks, and is the same in every attribute as a copy; on file systems that share none, a
//! copy is what comes of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use awkward::{LoopMount, Volume, assert_same, describe, image, run};
use piboot::progress::NoProgress;
use piboot::storage::Links;
use piboot::storage::reflink;
use piboot::storage::tree_copy::{Content, Copied, copy_tree, copy_tree_as};
use rustix::fs::{Mode, OFlags};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// An empty directory on the volume.
fn directory(volume: &Volume, name: &str) -> PathBuf {
    let path = volume.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// Bytes free once everything is on the disk.
fn free(volume: &Volume) -> u64 {
    rustix::fs::syncfs(open(&volume.path())).unwrap();
    let stat = rustix::fs::statvfs(volume.path()).unwrap();
    stat.f_bfree * stat.f_frsize
}

fn clone(from: &Path, to: &Path) -> Copied {
    copy_tree_as(Content::Shared, Links::Names, open(from), open(to), &NoProgress).unwrap()
}

const SHARING: [(&str, &[&str]); 2] = [("xfs", &["-m", "reflink=1"]), ("btrfs", &[])];

#[test]
fn a_clone_is_the_same_as_a_copy_and_shares_its_blocks() {
    let mount = LoopMount::root(&image("inline", "img"));
    for (kind, options) in SHARING {
        let volume = Volume::of(kind, 1024, options);
        reflink::probe(&volume.path()).unwrap();
        let [original, copied, cloned] = ["original", "copied", "cloned"].map(|name| directory(&volume, name));
        // All that the file system takes: xfs has no device numbers as large as one of them, and cp no paths as long.
        Command::new("cp").arg("-a").arg(mount.path.path().join(".")).arg(&original).output().unwrap();
        assert!(describe(&original).len() > 300, "{kind}");
        for n in 0..20_u8 {
            fs::write(original.join(format!("large-{n}")), vec![n; 4 << 20]).unwrap();
        }
        let at_first = free(&volume);
        let of_copy = copy_tree(open(&original), open(&copied), &NoProgress).unwrap();
        let after_copy = free(&volume);
        let of_clone = clone(&original, &cloned);
        let after_clone = free(&volume);
        let reference = describe(&original);
        assert_same(&describe(&copied), &reference, kind);
        assert_same(&describe(&cloned), &reference, kind);
        assert_eq!((of_clone.entries, of_clone.bytes, of_clone.unshared), (of_copy.entries, 0, 0), "{kind}");
        assert!(of_clone.shared >= 80 << 20, "{kind}: {of_clone:?}");
        let (copy_takes, clone_takes) = (at_first - after_copy, after_copy.saturating_sub(after_clone));
        println!("{kind}: {} entries, a copy takes {copy_takes} bytes, a clone {clone_takes}", of_clone.entries);
        assert!(copy_takes > 80 << 20 && clone_takes < 8 << 20, "{kind}: copy {copy_takes}, clone {clone_takes}");
        // What is written to one of them is not in the other.
        let (old, new) = (original.join("large-7"), cloned.join("large-7"));
        fs::File::options().write(true).open(&new).unwrap().write_all_at(b"changed", 1 << 20).unwrap();
        fs::File::options().append(true).open(&old).unwrap().write_all(b"longer").unwrap();
        let (old, new) = (fs::read(old).unwrap(), fs::read(new).unwrap());
        assert_eq!(
            (old.len(), new.len(), old[1 << 20], &new[1 << 20..][..7]),
            ((4 << 20) + 6, 4 << 20, 7, &b"changed"[..])
        );
    }
}

#[test]
fn what_cannot_be_shared_is_copied_and_counted() {
    // Files of btrfs without copy-on-write share their blocks with none that have it.
    let volume = Volume::of("btrfs", 512, &[]);
    let (from, to) = (directory(&volume, "from"), directory(&volume, "to"));
    fs::create_dir(from.join("database")).unwrap();
    run(Command::new("chattr").arg("+C").arg(from.join("database")));
    fs::write(from.join("database/file"), vec![1; 300_000]).unwrap();
    fs::write(from.join("other"), vec![2; 300_000]).unwrap();
    let done = clone(&from, &to);
    assert_eq!((done.bytes, done.unshared), (300_000, 1), "{done:?}");
    assert!((300_000 - 4096..=300_000).contains(&done.shared), "{done:?}");
    assert_eq!(fs::read(to.join("database/file")).unwrap(), vec![1; 300_000]);
    // Where none can be shared.
    for (kind, options) in [("xfs", &["-m", "reflink=0"][..]), ("ext4", &[])] {
        let volume = Volume::of(kind, 512, options);
        let refused = reflink::probe(&volume.path()).unwrap_err().to_string();
        assert!(refused.contains("reflink=1"), "{refused}");
        let (from, to) = (directory(&volume, "from"), directory(&volume, "to"));
        fs::write(from.join("file"), vec![3; 100_000]).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        let done = clone(&from, &to);
        assert_eq!(done, Copied { entries: 2, bytes: 100_000, shared: 0, unshared: 1 }, "{kind}");
        assert_same(&describe(&to), &describe(&from), kind);
    }
}
