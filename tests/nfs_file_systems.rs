//! Handles on each file system that a root may lie on: they outlive a remount, and die with their object and their disk.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::path::Path;
use std::process::Command;

use nfs_support::{Client, Fixture, config, create, export, getattr, is_root, lookup, read, scratch, status, write};
use nfs_support::{at, start_with};
use nfs3_types::nfs3::{self, nfs_fh3, nfsstat3, stable_how};
use nix::sched::CloneFlags;
use piboot::nfs::handle_support;

/// Smallest volume that each of them makes.
const SIZE: &str = "320M";

/// Runs a program; what it said if it fails.
fn run(program: &str, arguments: &[&str], path: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).args(path).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// From here on what this thread and its children mount is theirs alone, and goes with them.
fn own_mounts() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    run("mount", &["--make-rprivate", "/"], &[]).unwrap();
}

/// A volume that is mounted at `mount`.
struct Volume<'a> {
    mount: &'a Path,
}

impl<'a> Volume<'a> {
    fn mount(image: &Path, mount: &'a Path) -> Result<Self, String> {
        run("mount", &["-o", "loop"], &[image, mount]).map(|()| Self { mount })
    }

    /// Not lazily: fails if anything of it is still open.
    fn unmount(self) {
        run("umount", &[], &[self.mount]).unwrap();
    }
}

fn make(image: &Path, mkfs: &[&str]) -> Result<(), String> {
    let _ = std::fs::remove_file(image);
    run("truncate", &["-s", SIZE], &[image])?;
    run(mkfs[0], &mkfs[1..], &[image])
}

async fn serve(mount: &Path) -> (Fixture, Client, nfs_fh3) {
    let f = start_with(config(), vec![export(1, "/pi/root", mount)]);
    let root = f.mount("/pi/root").await.unwrap();
    let client = f.root().await;
    (f, client, root)
}

/// Uses what servers keep open, then takes the export away: nothing of the volume may be open after that.
async fn retire(f: Fixture, c: &mut Client, root: &nfs_fh3, file: &nfs_fh3) {
    getattr(c, root).await.unwrap();
    read(c, file, 0, 10).await.unwrap();
    write(c, file, 0, b"data", stable_how::UNSTABLE).await.unwrap();
    assert_eq!(f.server.set_exports(vec![]), []);
    assert_eq!(getattr(c, file).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
}

async fn handles_last(mkfs: &[&str]) -> Result<(), String> {
    let scratch = scratch();
    let (image, mount) = (scratch.path().join("disk"), scratch.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    make(&image, mkfs)?;
    let volume = Volume::mount(&image, &mount)?;
    assert!(handle_support(&mount).unwrap().is_persistent());

    let (f, mut c, root) = serve(&mount).await;
    let c = &mut c;
    let mkdir = nfs3::MKDIR3args { where_: at(&root, b"dir"), attributes: nfs_support::mode(0o755) };
    assert_eq!(status(&c.mkdir(&mkdir).await.unwrap()), nfsstat3::NFS3_OK);
    let dir = lookup(c, &root, b"dir").await.unwrap();
    let file = create(c, &dir, b"file", 0o644).await.unwrap();
    write(c, &file, 0, b"kept", stable_how::FILE_SYNC).await.unwrap();
    let fileid = getattr(c, &file).await.unwrap().fileid;
    retire(f, c, &root, &file).await;
    volume.unmount();

    let volume = Volume::mount(&image, &mount)?;
    let (f, mut c, same_root) = serve(&mount).await;
    let c = &mut c;
    assert_eq!(same_root.data.0, root.data.0);
    assert_eq!(getattr(c, &file).await.unwrap().fileid, fileid);
    assert_eq!(read(c, &file, 0, 10).await.unwrap().0, b"data", "the volume was unmounted in order");
    assert_eq!(lookup(c, &dir, b"file").await.unwrap().data.0, file.data.0);
    let remove = nfs3::REMOVE3args { object: at(&dir, b"file") };
    assert_eq!(status(&c.remove(&remove).await.unwrap()), nfsstat3::NFS3_OK);
    let other = create(c, &dir, b"file", 0o644).await.unwrap();
    assert_ne!(other.data.0, file.data.0);
    assert_eq!(getattr(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    retire(f, c, &root, &other).await;
    volume.unmount();

    // Another disk in the place of the first, with the same names.
    make(&image, mkfs)?;
    let volume = Volume::mount(&image, &mount)?;
    std::fs::create_dir(mount.join("dir")).unwrap();
    std::fs::write(mount.join("dir/file"), "foreign").unwrap();
    let (f, mut c, _) = serve(&mount).await;
    for old in [&dir, &other] {
        assert_eq!(getattr(&mut c, old).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    }
    drop(f);
    volume.unmount();
    Ok(())
}

#[tokio::test]
async fn handles_outlive_a_remount_and_die_with_object_and_disk() {
    if !is_root() {
        return;
    }
    own_mounts();
    for mkfs in [&["mkfs.ext4", "-q", "-F"][..], &["mkfs.btrfs", "-q", "-f"], &["mkfs.xfs", "-q", "-f"]] {
        // A kernel need not have them all.
        let known = std::fs::read_to_string("/proc/filesystems").unwrap();
        let name = mkfs[0].trim_start_matches("mkfs.");
        if !known.lines().any(|line| line.trim() == name) {
            eprintln!("skipped: this kernel has no {name}");
            continue;
        }
        handles_last(mkfs).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn what_cannot_carry_a_root_is_refused_by_name() {
    if !is_root() {
        return;
    }
    own_mounts();
    let scratch = scratch();
    let dir = |name: &str| {
        let path = scratch.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (tmpfs, lower, overlay) = (dir("tmpfs"), dir("lower"), dir("overlay"));
    run("mount", &["-t", "tmpfs", "tmpfs"], &[&tmpfs]).unwrap();
    for name in ["upper", "work"] {
        std::fs::create_dir(tmpfs.join(name)).unwrap();
    }
    let at = |path: &Path| path.display().to_string();
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", at(&lower), at(&tmpfs.join("upper")), at(&tmpfs.join("work")));
    run("mount", &["-t", "overlay", "overlay", "-o", &layers], &[&overlay]).unwrap();
    for (path, name) in [(&tmpfs, "tmpfs"), (&overlay, "overlay"), (&Path::new("/proc").to_owned(), "0x9fa0")] {
        let support = handle_support(path).unwrap();
        assert_eq!(support.file_system, name);
        let refusal = support.refusal.unwrap();
        assert!(refusal.contains(name) && refusal.contains("Use a volume with ext4, f2fs, btrfs or xfs"), "{refusal}");
    }
}
