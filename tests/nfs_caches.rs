//! What the server keeps between requests must not be seen from outside: nothing deleted is kept, nothing new is taken
//! for what was there before.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nfs_support::{
    at, config, create, export, getattr, is_root, lookup, read, scratch, start, start_at, status, write,
};
use nfs3_types::nfs3::{self, nfsstat3, stable_how};
use piboot::clock::Clock;

/// Descriptors of this process that point to something deleted below `dir`.
fn deleted_but_open(dir: &Path) -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let names = links.map(|link| link.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(dir.to_str().unwrap()) && name.ends_with(" (deleted)")).collect()
}

#[tokio::test]
async fn what_loses_its_last_name_is_closed_at_once() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    for name in [b"one", b"two"] {
        let file = create(c, &root, name, 0o600).await.unwrap();
        getattr(c, &file).await.unwrap();
        write(c, &file, 0, b"data", stable_how::UNSTABLE).await.unwrap();
        read(c, &file, 0, 4).await.unwrap();
    }
    let rename = nfs3::RENAME3args { from: at(&root, b"one"), to: at(&root, b"two") };
    assert_eq!(status(&c.rename(&rename).await.unwrap()), nfsstat3::NFS3_OK);
    assert_eq!(deleted_but_open(dir.path()), [""; 0]);
    let remove = nfs3::REMOVE3args { object: at(&root, b"two") };
    assert_eq!(status(&c.remove(&remove).await.unwrap()), nfsstat3::NFS3_OK);
    assert_eq!(deleted_but_open(dir.path()), [""; 0]);
}

#[tokio::test]
async fn what_is_deleted_on_the_router_is_stale() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(dir.path().join("dir/file"), "data").unwrap();
    let inner = lookup(c, &root, b"dir").await.unwrap();
    let file = lookup(c, &inner, b"file").await.unwrap();
    for handle in [&inner, &file] {
        getattr(c, handle).await.unwrap();
        getattr(c, handle).await.unwrap();
    }
    fs::remove_dir_all(dir.path().join("dir")).unwrap();
    assert_eq!(getattr(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    assert_eq!(lookup(c, &inner, b"file").await, Err(nfsstat3::NFS3ERR_STALE));
    assert_eq!(create(c, &inner, b"file", 0o600).await, Err(nfsstat3::NFS3ERR_STALE));
    assert_eq!(deleted_but_open(dir.path()), [""; 0]);
}

/// Waits until the clock of the file system has moved on.
fn next_tick(dir: &Path) {
    let born = || {
        let probe = tempfile::NamedTempFile::new_in(dir).unwrap();
        let metadata = probe.as_file().metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = born();
    while born() == before {}
}

#[tokio::test]
async fn a_remembered_handle_is_not_given_to_another_object_with_the_same_number() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    // Late enough for every handle to be remembered.
    let hour_ms = 3_600_000;
    let clock = Clock::manual(Clock::system().wall_ms() + hour_ms);
    let f = start_at(clock, config(), vec![export(1, "/pi/root", dir.path())]);
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let path = dir.path().join("file");
    let mut seen = Vec::new();
    for _ in 0..20 {
        fs::write(&path, "data").unwrap();
        let ino = fs::metadata(&path).unwrap().ino();
        let handle = lookup(c, &root, b"file").await.unwrap();
        assert_eq!(lookup(c, &root, b"file").await.unwrap().data.0, handle.data.0);
        assert_eq!(getattr(c, &handle).await.unwrap().fileid, ino);
        seen.push((ino, handle.data.0.to_vec()));
        fs::remove_file(&path).unwrap();
        assert_eq!(getattr(c, &handle).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
        next_tick(dir.path());
    }
    let inodes: std::collections::HashSet<u64> = seen.iter().map(|(ino, _)| *ino).collect();
    let handles: std::collections::HashSet<&[u8]> = seen.iter().map(|(_, handle)| handle.as_slice()).collect();
    assert_eq!(handles.len(), seen.len());
    if inodes.len() == seen.len() {
        eprintln!("this file system used no inode number twice: little was tested");
    }
}
