//! File systems that were not shut down: the journal replayed in memory gives what the kernel finds after its own replay.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use awkward::{assert_same, describe, run};
use piboot::image::blocks::{BlockSource, FileBlocks};
use piboot::image::ext4::{Ext4, Ext4Error, SUPERBLOCK_OFFSET};
use piboot::image::extract::extract_ext4;
use piboot::progress::NoProgress;
use piboot::storage::tree_writer::TreeWriter;
use rustix::fs::{Mode, OFlags};

struct Mounted {
    at: tempfile::TempDir,
}

impl Mounted {
    fn new(file_system: &Path, options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(file_system).arg(at.path()));
        Self { at }
    }

    /// What is on the disk after a power cut, right after the journal was written. Unmounting would write the rest.
    fn cut(self, file_system: &Path) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(self.at.path()));
        let copy = file_system.with_extension("copy");
        run(Command::new("cp").arg("--sparse=always").arg(file_system).arg(&copy));
        drop(self);
        fs::rename(copy, file_system).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.at.path()).status();
    }
}

/// Changes of every kind, most of which only the journal has in the end.
fn work(at: &Path) {
    // Commits to the journal; unlike sync, it writes nothing to its place.
    let sync = || {
        let mut marker = File::options().append(true).create(true).open(at.join("marker")).unwrap();
        marker.write_all(b"x").and_then(|()| marker.sync_all()).unwrap();
    };
    fs::create_dir(at.join("directory")).unwrap();
    for n in 0..700 {
        fs::write(at.join(format!("directory/file-with-quite-a-long-name-{n}")), format!("content {n}")).unwrap();
    }
    symlink("directory/file-1", at.join("link")).unwrap();
    fs::hard_link(at.join("directory/file-with-quite-a-long-name-5"), at.join("second-name")).unwrap();
    sync();
    // Blocks of directories that are gone are used again for data: what the journal has of them must not come back.
    fs::create_dir(at.join("gone")).unwrap();
    for n in 0..2000 {
        File::create(at.join(format!("gone/{n}-{}", "x".repeat(100)))).unwrap();
    }
    sync();
    fs::remove_dir_all(at.join("gone")).unwrap();
    sync();
    for n in 0..30 {
        fs::write(at.join(format!("reused-{n}")), vec![u8::try_from(n).unwrap() + 1; 40_000]).unwrap();
    }
    let mut filler = File::create(at.join("filler")).unwrap();
    while filler.write_all(&[0xf1; 65536]).is_ok() {}
    filler.sync_all().unwrap();
    filler.set_len(filler.metadata().unwrap().len().saturating_sub(8 << 20)).unwrap();
    sync();
    // A block that begins with the journal's own magic number.
    let mut block = vec![0x5a; 70_000];
    for at in (0..block.len()).step_by(1024) {
        block[at..][..4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
    }
    fs::write(at.join("escaped"), &block).unwrap();
    rustix::fs::setxattr(at.join("escaped"), "user.x", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    fs::rename(at.join("directory/file-with-quite-a-long-name-7"), at.join("renamed")).unwrap();
    fs::remove_file(at.join("directory/file-with-quite-a-long-name-9")).unwrap();
    File::options().write(true).open(at.join("reused-3")).unwrap().set_len(100).unwrap();
    sync();
    fs::write(at.join("last"), "not synced").unwrap();
}

/// A file system that was cut off.
fn dirty(place: &Path, make: &[&str], options: &str) -> PathBuf {
    let path = place.join("fs");
    let _ = fs::remove_file(&path);
    run(Command::new("mke2fs").args(["-q", "-F", "-N", "6000"]).args(make).arg(&path).arg("48M"));
    let mounted = Mounted::new(&path, options);
    work(mounted.at.path());
    mounted.cut(&path);
    path
}

fn needs_recovery(path: &Path) -> bool {
    let mut word = [0; 4];
    File::open(path).unwrap().read_exact_at(&mut word, SUPERBLOCK_OFFSET + 0x60).unwrap();
    u32::from_le_bytes(word) & 4 != 0
}

fn extract(source: &dyn BlockSource, to: &Path) -> Result<(), String> {
    let root = rustix::fs::open(to, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let fs = Ext4::open(source).map_err(|error| error.to_string())?;
    extract_ext4(&fs, &mut TreeWriter::new(root).unwrap(), &NoProgress).map_err(|error| error.to_string())?;
    Ok(())
}

#[test]
fn a_replay_gives_what_the_kernel_finds() {
    let place = tempfile::tempdir().unwrap();
    for (make, options) in [
        (&["-t", "ext4", "-O", "metadata_csum,64bit", "-J", "size=8"][..], "rw"),
        (&["-t", "ext4", "-O", "^metadata_csum,64bit", "-J", "size=8"], "data=journal"),
        (&["-t", "ext4", "-O", "metadata_csum,64bit", "-J", "size=16"], "data=journal"),
        (&["-t", "ext4", "-O", "^metadata_csum,^64bit", "-b", "1024", "-J", "size=4"], "journal_checksum"),
        (&["-t", "ext3", "-b", "1024", "-J", "size=4"], "data=ordered"),
        (&["-t", "ext3", "-b", "2048", "-J", "size=8"], "data=journal"),
    ] {
        let what = format!("{make:?} {options}");
        let path = dirty(place.path(), make, options);
        assert!(needs_recovery(&path), "{what}: nothing to replay");
        let ours = tempfile::tempdir().unwrap();
        extract(&FileBlocks::new(File::open(&path).unwrap()).unwrap(), ours.path())
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(needs_recovery(&path), "{what}: reading changed it");
        // Without the replay there is something else.
        let unreplayed = tempfile::tempdir().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[1024 + 0x60] &= !4;
        let plain = extract(&bytes.as_slice(), unreplayed.path()).map(|()| describe(unreplayed.path()));
        let mounted = Mounted::new(&path, "rw");
        let reference = describe(mounted.at.path());
        assert!(reference.len() > 700 && plain.as_ref() != Ok(&reference), "{what}: the journal does not matter");
        assert_same(&describe(ours.path()), &reference, &what);
    }
}

/// Whatever is wrong in a journal, there is an answer or an error.
#[test]
fn damaged_journals_end_in_an_error_or_a_tree() {
    let place = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for make in [&["-t", "ext4", "-b", "1024", "-J", "size=4"][..], &["-t", "ext3", "-b", "1024", "-J", "size=4"]] {
        let path = dirty(place.path(), make, "rw");
        let image = fs::read(&path).unwrap();
        // The journal's blocks, by its magic number.
        let magic = 0xc03b_3998_u32.to_be_bytes();
        let blocks: Vec<usize> =
            (0..image.len() / 1024).map(|n| n * 1024).filter(|at| image[*at..].starts_with(&magic)).collect();
        assert!(blocks.len() > 6, "{} blocks", blocks.len());
        let mut state = 7_u64;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % limit
        };
        for _ in 0..120 {
            let mut damaged = image.clone();
            for _ in 0..=below(3) {
                let at = blocks[below(blocks.len())] + below(16) * 4;
                match below(3) {
                    0 => damaged[at] ^= 1 << below(8),
                    1 => damaged[at..at + 4].fill(0xff),
                    _ => damaged[at..at + 4].copy_from_slice(&u32::try_from(below(5000)).unwrap().to_be_bytes()),
                }
            }
            if let Err(error) = Ext4::open(&damaged.as_slice()) {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    // Without checksums most damage only looks like the end of the log.
    assert!(refused > 20, "{refused} of 240 refused");
}

/// Sets the flag that says that there is something to replay.
fn pretend(path: &Path, journal: Option<u32>) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, SUPERBLOCK_OFFSET + 0x60).unwrap();
    file.write_all_at(&[byte[0] | 4], SUPERBLOCK_OFFSET + 0x60).unwrap();
    if let Some(journal) = journal {
        file.write_all_at(&journal.to_le_bytes(), SUPERBLOCK_OFFSET + 0xe0).unwrap();
    }
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fs");
    let make = |options: &[&str]| {
        let _ = fs::remove_file(&path);
        run(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).args(options).arg(&path).arg("16M"));
    };
    let why = || match Ext4::open(&FileBlocks::new(File::open(&path).unwrap()).unwrap()) {
        Err(Ext4Error::Journal(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => "",
    };
    make(&[]);
    pretend(&path, None);
    assert_eq!(why(), "", "an empty journal is no hindrance");
    pretend(&path, Some(0));
    assert_eq!(why(), "it is on another device");
    // The root directory is no journal.
    pretend(&path, Some(2));
    assert_eq!(why(), "it has no superblock");
    make(&["-O", "fast_commit"]);
    let mounted = Mounted::new(&path, "rw");
    File::create(mounted.at.path().join("x")).unwrap().write_all(b"x").unwrap();
    mounted.cut(&path);
    assert_eq!(why(), "it uses fast commits, which are not supported");
}
