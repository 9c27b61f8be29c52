//! What an export's files may take: counted as du(1) does, whatever is done to them, and kept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod nfs_support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nfs_support::random::Random;
use nfs_support::{
    Client, Fixture, at, config, create, export, fh, is_root, lookup, mode, scratch, some, start_with, status, write,
};
use nfs3_types::nfs3::{self, Nfs3Option, Nfs3Result, nfs_fh3, nfsstat3, stable_how};
use nfs3_types::xdr_codec::Opaque;
use nix::sched::{CloneFlags, unshare};
use piboot::nfs::Export;
use piboot::quota::{Doubt, FileId, Quota, takes};

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const DQUOT: nfsstat3 = nfsstat3::NFS3ERR_DQUOT;

/// Every file below `path` and the directory itself, each name.
fn each(path: &Path, tell: &mut dyn FnMut(&std::fs::Metadata)) {
    // What goes while it is looked for is not there.
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    tell(&metadata);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            each(&entry.path(), tell);
        }
    }
}

fn census(quota: &Quota, dir: &Path) {
    let census = quota.census();
    each(dir, &mut |file| {
        let id = FileId { device: file.dev(), inode: file.ino() };
        assert!(census.find(id, takes(file.is_file(), file.len(), file.blocks() * 512)));
    });
    census.end();
}

/// What a fresh look counts.
fn du(dir: &Path) -> u64 {
    let fresh = Quota::new(Some(u64::MAX));
    census(&fresh, dir);
    fresh.used().unwrap()
}

struct Limited {
    f: Fixture,
    dir: tempfile::TempDir,
    quota: Quota,
    root: nfs_fh3,
}

fn exported(quota: &Quota, dir: &Path) -> Export {
    Export { quota: Some(quota.clone()), ..export(1, "/pi/root", dir) }
}

/// A server with one export that may take `limit` bytes more than it does.
async fn limited(limit: u64) -> Limited {
    limited_at(scratch(), limit).await
}

async fn limited_at(dir: tempfile::TempDir, limit: u64) -> Limited {
    let quota = Quota::new(Some(du(dir.path()) + limit));
    let f = start_with(config(), vec![exported(&quota, dir.path())]);
    census(&quota, dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    Limited { f, dir, quota, root }
}

impl Limited {
    fn assert_counted(&self, when: &str) {
        assert_eq!(self.quota.used(), Some(du(self.dir.path())), "{when}");
    }

    /// total, free, available
    async fn space(&self, client: &mut Client) -> [u64; 3] {
        match client.fsstat(&nfs3::FSSTAT3args { fsroot: self.root.clone() }).await.unwrap() {
            Nfs3Result::Ok(ok) => [ok.tbytes, ok.fbytes, ok.abytes],
            Nfs3Result::Err((status, _)) => panic!("{status:?}"),
        }
    }
}

async fn put(client: &mut Client, file: &nfs_fh3, offset: u64, length: u64) -> Result<(), nfsstat3> {
    write(client, file, offset, &vec![7; usize::try_from(length).unwrap()], stable_how::UNSTABLE).await.map(|_| ())
}

async fn resize(client: &mut Client, file: &nfs_fh3, size: u64) -> nfsstat3 {
    let new_attributes = nfs3::sattr3 { size: Nfs3Option::Some(size), ..Default::default() };
    let args = nfs3::SETATTR3args { object: file.clone(), new_attributes, guard: Nfs3Option::None };
    status(&client.setattr(&args).await.unwrap())
}

async fn remove(client: &mut Client, dir: &nfs_fh3, name: &[u8]) -> nfsstat3 {
    status(&client.remove(&nfs3::REMOVE3args { object: at(dir, name) }).await.unwrap())
}

async fn mkdir(client: &mut Client, dir: &nfs_fh3, name: &[u8]) -> Result<nfs_fh3, nfsstat3> {
    match client.mkdir(&nfs3::MKDIR3args { where_: at(dir, name), attributes: mode(0o755) }).await.unwrap() {
        Nfs3Result::Ok(ok) => Ok(some(ok.obj)),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

async fn link(client: &mut Client, file: &nfs_fh3, dir: &nfs_fh3, name: &[u8]) -> nfsstat3 {
    status(&client.link(&nfs3::LINK3args { file: file.clone(), link: at(dir, name) }).await.unwrap())
}

async fn rename(client: &mut Client, from: (&nfs_fh3, &[u8]), to: (&nfs_fh3, &[u8])) -> nfsstat3 {
    let args = nfs3::RENAME3args { from: at(from.0, from.1), to: at(to.0, to.1) };
    status(&client.rename(&args).await.unwrap())
}

async fn commit(client: &mut Client, file: &nfs_fh3) -> nfsstat3 {
    status(&client.commit(&nfs3::COMMIT3args { file: file.clone(), offset: 0, count: 0 }).await.unwrap())
}

/// One thing that a Pi may do, to one of a few names so that it hits what is there.
async fn do_something(client: &mut Client, root: &nfs_fh3, random: &mut Random) {
    let names: Vec<String> = (0..12).map(|n| format!("entry-{n}")).collect();
    let name = |random: &mut Random| random.of(&names).clone().into_bytes();
    let (one, two) = (name(random), name(random));
    let inside = lookup(client, root, b"entry-0").await.unwrap_or_else(|_| root.clone());
    let dirs = [root.clone(), root.clone(), inside];
    let (dir, other) = (random.of(&dirs).clone(), random.of(&dirs).clone());
    let found = lookup(client, &dir, &one).await.ok();
    let offset = *random.of(&[0, 0, 1, 4095, 4096, 70_000, 3 << 20]) + random.u64() % 3;
    let size = *random.of(&[0, 1, 100, 4096, 5000, 40_000, 300_000, 5 << 20]);
    match (random.below(12), found) {
        (0 | 1, _) => {
            let _ = create(client, &dir, &one, 0o644).await;
        }
        (2, _) => {
            let _ = mkdir(client, &dir, &one).await;
        }
        (3, _) => {
            let target = "x".repeat(*random.of(&[5, 59, 60, 61, 1000]));
            let symlink_data = nfs3::nfspath3(Opaque::owned(target.into_bytes()));
            let symlink = nfs3::symlinkdata3 { symlink_attributes: nfs3::sattr3::default(), symlink_data };
            let _ = client.symlink(&nfs3::SYMLINK3args { where_: at(&dir, &one), symlink }).await.unwrap();
        }
        (4, _) => {
            let exclusive = nfs3::createhow3::EXCLUSIVE(nfs3::createverf3([7; 8]));
            let _ = client.create(&nfs3::CREATE3args { where_: at(&dir, &one), how: exclusive }).await.unwrap();
        }
        (5, _) => {
            let sized = nfs3::sattr3 { size: Nfs3Option::Some(size), ..mode(0o600) };
            let how = nfs3::createhow3::UNCHECKED(sized);
            let _ = client.create(&nfs3::CREATE3args { where_: at(&dir, &one), how }).await.unwrap();
        }
        (6, _) => {
            let _ = remove(client, &dir, &one).await;
        }
        (7, _) => {
            let _ = client.rmdir(&nfs3::RMDIR3args { object: at(&dir, &one) }).await.unwrap();
        }
        (8, _) => {
            let _ = rename(client, (&dir, &one), (&other, &two)).await;
        }
        (9, Some(file)) => {
            let _ = link(client, &file, &other, &two).await;
        }
        (10, Some(file)) => {
            let _ = resize(client, &file, size).await;
        }
        (_, Some(file)) => {
            let stable = *random.of(&[stable_how::UNSTABLE, stable_how::DATA_SYNC, stable_how::FILE_SYNC]);
            let data = vec![1; 1 + random.below(200_000)];
            let _ = write(client, &file, offset, &data, stable).await;
            if random.below(3) == 0 {
                let _ = commit(client, &file).await;
            }
        }
        (_, None) => {
            let _ = create(client, &dir, &one, 0o644).await;
        }
    }
}

#[tokio::test]
async fn what_is_counted_is_what_a_fresh_look_finds_whatever_was_done() {
    if !is_root() {
        return;
    }
    for (seed, limit) in [(0x5eed, u64::MAX / 2), (0xfeed, 3 * MB), (0xbeef, 300 * KB)] {
        let l = limited(limit).await;
        let mut client = l.f.root().await;
        let mut random = Random(seed);
        for n in 0..1500 {
            do_something(&mut client, &l.root, &mut random).await;
            if n % 10 == 0 {
                l.assert_counted(&format!("seed {seed:#x}, after {n}"));
            }
        }
        l.assert_counted("at the end");
        // Directories may grow by entries that are moved there.
        assert!(l.quota.used().unwrap() <= l.quota.limit().unwrap() + 16 * KB, "{:?}", l.quota);
    }
}

/// XFS sets blocks aside behind the end of a file that grows; btrfs gives out none before the data are written.
#[tokio::test]
async fn file_systems_with_ways_of_their_own_are_counted_too() {
    if !is_root() {
        return;
    }
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let place = scratch();
    // What is mounted from here on goes with this thread.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    run("mount", &["--make-rprivate", "/"]);
    for kind in ["btrfs", "xfs"] {
        let (image, mount) = (place.path().join(format!("{kind}.img")), place.path().join(kind));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(400 * MB).unwrap();
        run(&format!("mkfs.{kind}"), &["-q", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), mount.to_str().unwrap()]);
        let l = limited_at(tempfile::tempdir_in(&mount).unwrap(), 20 * MB).await;
        let mut client = l.f.root().await;
        let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
        let mut written = 0;
        while put(&mut client, &file, written, 256 * KB).await.is_ok() {
            written += 256 * KB;
        }
        assert!((19 * MB..=20 * MB).contains(&written), "{kind}: {written}");
        l.assert_counted(kind);
        l.quota.set_limit(Some(u64::MAX / 2));
        let mut random = Random(0xf11e);
        for n in 0..600 {
            do_something(&mut client, &l.root, &mut random).await;
            if n % 50 == 0 {
                l.assert_counted(&format!("{kind}, after {n}"));
            }
        }
        drop(l);
        run("umount", &["--lazy", mount.to_str().unwrap()]);
    }
}

/// Directories of several layers have one link ever after, files of the lower one a link too many.
#[tokio::test]
async fn what_is_seen_of_layers_is_counted() {
    if !is_root() {
        return;
    }
    let place = scratch();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["--make-rprivate", "/"]);
    // With room in its inodes for what overlayfs notes of directories, which would be blocks that nobody is told of.
    let (image, disk) = (place.path().join("ext4.img"), place.path().join("ext4"));
    std::fs::create_dir(&disk).unwrap();
    std::fs::File::create(&image).unwrap().set_len(100 * MB).unwrap();
    assert!(Command::new("mkfs.ext4").args(["-q", "-I", "1024"]).arg(&image).status().unwrap().success());
    mount(&["-o", "loop", image.to_str().unwrap(), disk.to_str().unwrap()]);
    for seed in 1..7 {
        let own = tempfile::tempdir_in(&disk).unwrap();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| own.path().join(name));
        let merged = tempfile::tempdir_in(&own).unwrap();
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        for n in 0..3 {
            let dir = lower.join(format!("entry-{n}"));
            std::fs::create_dir_all(dir.join("entry-11")).unwrap();
            (3..9).for_each(|m| std::fs::write(dir.join(format!("entry-{m}")), vec![3; 9000 * m]).unwrap());
            std::fs::write(lower.join(format!("entry-{}", n + 3)), vec![4; 50_000]).unwrap();
            std::fs::hard_link(dir.join("entry-3"), dir.join("entry-9")).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=on,nfs_export=on,redirect_dir=on,metacopy=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        mount(&["-t", "overlay", "-o", &options, "overlay", merged.path().to_str().unwrap()]);
        let target = merged.path().to_owned();
        let l = limited_at(merged, u64::MAX / 2).await;
        let mut client = l.f.root().await;
        let mut random = Random(seed);
        for n in 0..600 {
            do_something(&mut client, &l.root, &mut random).await;
            if n % 10 == 0 {
                l.assert_counted(&format!("seed {seed}, after {n}"));
            }
        }
        l.assert_counted("at the end");
        drop(l);
        assert!(Command::new("umount").arg("--lazy").arg(target).status().unwrap().success());
    }
    assert!(Command::new("umount").arg("--lazy").arg(&disk).status().unwrap().success());
}

#[tokio::test]
async fn a_census_while_files_change_misses_nothing() {
    if !is_root() {
        return;
    }
    let l = limited(u64::MAX / 2).await;
    let working = AtomicUsize::new(3);
    let taken = std::thread::scope(|scope| {
        let censuses = scope.spawn(|| {
            let mut taken = 0;
            while working.load(Ordering::Relaxed) > 0 {
                census(&l.quota, l.dir.path());
                taken += 1;
            }
            taken
        });
        for pi in 1..=3 {
            let (l, working) = (&l, &working);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let (mut client, mut random) = (l.f.root().await, Random(pi));
                    let own = mkdir(&mut client, &l.root, format!("pi-{pi}").as_bytes()).await.unwrap();
                    for n in 0..700 {
                        // The last census ends before the changes do, and has no quiet time to look in.
                        if n == 500 {
                            working.fetch_sub(1, Ordering::Relaxed);
                        }
                        do_something(&mut client, &own, &mut random).await;
                    }
                });
            });
        }
        censuses.join().unwrap()
    });
    assert!(taken > 3, "{taken} censuses");
    l.assert_counted("after the changes");
}

#[tokio::test]
async fn at_the_limit_nothing_grows_and_everything_else_goes_on() {
    if !is_root() {
        return;
    }
    let l = limited(MB).await;
    let mut client = l.f.root().await;
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    let mut written = 0;
    while put(&mut client, &file, written, 32 * KB).await.is_ok() {
        written += 32 * KB;
        assert!(written <= MB, "more than there may be");
    }
    assert!(written > MB - 64 * KB, "{written} of a MB");
    assert_eq!(put(&mut client, &file, written, 32 * KB).await, Err(DQUOT));
    // The last of it, exactly.
    while put(&mut client, &file, written, 4 * KB).await.is_ok() {
        written += 4 * KB;
    }
    let (limit, used) = l.quota.figures().unwrap();
    assert!(used <= limit && limit - used < 4 * KB, "{used} of {limit}");
    l.assert_counted("full");
    assert_eq!(l.quota.doubt(), Doubt::Refused);

    assert_eq!(create(&mut client, &l.root, b"more", 0o644).await, Err(DQUOT));
    assert_eq!(mkdir(&mut client, &l.root, b"more").await, Err(DQUOT));
    assert_eq!(link(&mut client, &file, &l.root, b"more").await, DQUOT);
    assert_eq!(put(&mut client, &file, 1 << 30, 1).await, Err(DQUOT), "a hole, and a block behind it");
    // What is there is written over; the end of the last block is there.
    assert_eq!(put(&mut client, &file, 0, written).await, Ok(()));
    assert_eq!(put(&mut client, &file, 5, 4 * KB).await, Ok(()));
    // A hole takes nothing, and what is filled of a file with holes is still written over.
    assert_eq!(resize(&mut client, &file, 1 << 30).await, nfsstat3::NFS3_OK);
    assert_eq!(put(&mut client, &file, 8 * KB, 16 * KB).await, Ok(()));
    assert_eq!(put(&mut client, &file, 1 << 29, 1).await, Err(DQUOT), "into the hole");
    assert_eq!(create(&mut client, &l.root, b"file", 0o644).await, Err(nfsstat3::NFS3ERR_EXIST), "it is there");
    l.assert_counted("written over");

    // Cut, renamed, removed; and then there is room again.
    assert_eq!(rename(&mut client, (&l.root, b"file"), (&l.root, b"other")).await, nfsstat3::NFS3_OK);
    assert_eq!(resize(&mut client, &file, written - 100 * KB).await, nfsstat3::NFS3_OK);
    assert_eq!(put(&mut client, &file, written - 100 * KB, 64 * KB).await, Ok(()));
    assert_eq!(put(&mut client, &file, written, 64 * KB).await, Err(DQUOT));
    assert_eq!(remove(&mut client, &l.root, b"other").await, nfsstat3::NFS3_OK);
    let again = create(&mut client, &l.root, b"again", 0o644).await.unwrap();
    assert_eq!(put(&mut client, &again, 0, 900 * KB).await, Ok(()));
    l.assert_counted("at the end");
}

#[tokio::test]
async fn names_and_holes_are_counted_as_du_counts_them() {
    if !is_root() {
        return;
    }
    let l = limited(10 * MB).await;
    let mut client = l.f.root().await;
    let empty = l.quota.used().unwrap();
    let used = |what: &str| {
        l.assert_counted(what);
        l.quota.used().unwrap() - empty
    };
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    put(&mut client, &file, 0, MB).await.unwrap();
    assert_eq!(link(&mut client, &file, &l.root, b"again").await, nfsstat3::NFS3_OK);
    assert_eq!(used("two names"), MB);
    assert_eq!(remove(&mut client, &l.root, b"file").await, nfsstat3::NFS3_OK);
    assert_eq!(used("one name"), MB);

    let sparse = create(&mut client, &l.root, b"sparse", 0o644).await.unwrap();
    assert_eq!(resize(&mut client, &sparse, 1 << 40).await, nfsstat3::NFS3_OK);
    put(&mut client, &sparse, 1 << 35, 100).await.unwrap();
    assert!((MB + 4 * KB..MB + 64 * KB).contains(&used("a hole")));
    assert_eq!(resize(&mut client, &sparse, 0).await, nfsstat3::NFS3_OK);
    assert_eq!(used("no hole"), MB);

    // The name that is taken over was another file's last.
    assert_eq!(rename(&mut client, (&l.root, b"sparse"), (&l.root, b"again")).await, nfsstat3::NFS3_OK);
    assert_eq!(used("renamed over"), 0);
    put(&mut client, &sparse, 0, MB).await.unwrap();
    assert_eq!(remove(&mut client, &l.root, b"again").await, nfsstat3::NFS3_OK);
    assert_eq!(put(&mut client, &sparse, MB, MB).await, Err(nfsstat3::NFS3ERR_STALE));
    assert_eq!(used("removed"), 0);

    // A directory that has grown stays large, until it goes itself.
    let dir = mkdir(&mut client, &l.root, b"dir").await.unwrap();
    for n in 0..200 {
        create(&mut client, &dir, format!("{n:0200}").as_bytes(), 0o644).await.unwrap();
    }
    used("a long list");
    for n in 0..200 {
        let name = format!("{n:0200}");
        let to = (&l.root, name.as_bytes());
        assert_eq!(rename(&mut client, (&dir, name.as_bytes()), to).await, nfsstat3::NFS3_OK);
    }
    used("two long lists");
    for n in 0..200 {
        let name = format!("{n:0200}");
        let file = lookup(&mut client, &l.root, name.as_bytes()).await.unwrap();
        assert_eq!(link(&mut client, &file, &dir, format!("{n:0240}").as_bytes()).await, nfsstat3::NFS3_OK);
        assert_eq!(remove(&mut client, &dir, format!("{n:0240}").as_bytes()).await, nfsstat3::NFS3_OK);
    }
    assert_eq!(
        status(&client.rmdir(&nfs3::RMDIR3args { object: at(&l.root, b"dir") }).await.unwrap()),
        nfsstat3::NFS3_OK
    );
    used("one long list");
}

/// It counts nothing, so it must not grow, and whoever keeps it open by turns must not keep it.
#[tokio::test]
async fn a_file_without_a_name_does_not_grow_and_goes() {
    if !is_root() {
        return;
    }
    for has_limit in [true, false] {
        let l = limited(10 * MB).await;
        let mut clients = [l.f.root().await, l.f.client(1, 1, &[]).await];
        let file = create(&mut clients[0], &l.root, b"file", 0o666).await.unwrap();
        put(&mut clients[0], &file, 0, MB).await.unwrap();
        if !has_limit {
            l.quota.set_limit(None);
        }
        // Somebody has it open over the REMOVE, as the server has while it writes.
        let open = std::fs::File::open(l.dir.path().join("file")).unwrap();
        assert_eq!(remove(&mut clients[0], &l.root, b"file").await, nfsstat3::NFS3_OK);
        for client in &mut clients {
            let grown = put(client, &file, MB, MB).await;
            assert_eq!(grown, if has_limit { Err(nfsstat3::NFS3ERR_STALE) } else { Ok(()) });
            assert_eq!(put(client, &file, 0, MB).await, Ok(()), "written over");
        }
        assert_eq!(open.metadata().unwrap().len(), if has_limit { MB } else { 2 * MB });
        drop(open);
        for client in &mut clients {
            assert_eq!(put(client, &file, 0, 1).await, Err(nfsstat3::NFS3ERR_STALE), "nobody has it open");
        }
        if has_limit {
            l.assert_counted("gone");
        }
    }
}

/// REMOVE and LINK of one file at once: it lives or it does not, and counts accordingly.
#[tokio::test]
async fn a_file_that_gets_another_name_while_it_loses_one_counts() {
    if !is_root() {
        return;
    }
    let l = limited(u64::MAX / 2).await;
    let (mut one, mut other) = (l.f.root().await, l.f.root().await);
    let mut lived = 0;
    for n in 0..400 {
        let name = format!("file-{n}").into_bytes();
        let file = create(&mut one, &l.root, &name, 0o644).await.unwrap();
        // On the disk: while the kernel writes by itself, ext4 says for moments that a file has no blocks.
        write(&mut one, &file, 0, &[7; 32 << 10], stable_how::FILE_SYNC).await.unwrap();
        let again = format!("again-{n}").into_bytes();
        let (removed, linked) =
            tokio::join!(remove(&mut one, &l.root, &name), link(&mut other, &file, &l.root, &again));
        assert_eq!(removed, nfsstat3::NFS3_OK);
        lived += usize::from(linked == nfsstat3::NFS3_OK);
    }
    assert!(lived > 0);
    l.assert_counted(&format!("{lived} of 400 live"));
}

/// What is there is written over in any case, and the rest is refused when the client asks again (RFC 1813 §3.3.7).
#[tokio::test]
async fn at_the_limit_a_write_ends_where_room_does() {
    if !is_root() {
        return;
    }
    let l = limited(64 * KB).await;
    let mut client = l.f.root().await;
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    put(&mut client, &file, 0, 40_000).await.unwrap();
    assert_eq!(resize(&mut client, &file, 1 << 20).await, nfsstat3::NFS3_OK);
    let (_, used) = l.quota.figures().unwrap();
    l.quota.set_limit(Some(used));
    for (offset, length, written) in [
        // Up to the hole, which begins with the block after the last one.
        (0, 64 * KB, Ok(40 * KB)),
        (30_000, 64 * KB, Ok(40 * KB - 30_000)),
        (40 * KB, 10, Err(DQUOT)),
        (0, 40 * KB, Ok(40 * KB)),
    ] {
        let data = vec![9; usize::try_from(length).unwrap()];
        let done = write(&mut client, &file, offset, &data, stable_how::FILE_SYNC).await;
        assert_eq!(done.map(|ok| u64::from(ok.count)), written, "{offset} {length}");
    }
    assert_eq!(resize(&mut client, &file, 35_000).await, nfsstat3::NFS3_OK);
    l.quota.set_limit(Some(l.quota.used().unwrap()));
    let done = write(&mut client, &file, 0, &[8; 64 << 10], stable_how::UNSTABLE).await.unwrap();
    assert_eq!(done.count, 36 << 10, "up to the end of its last block");
    assert_eq!(put(&mut client, &file, 36 * KB, 1).await, Err(DQUOT));
    l.assert_counted("short");
}

#[tokio::test]
async fn names_elsewhere_take_room_and_who_needs_none_is_not_said_to_be_refused() {
    if !is_root() {
        return;
    }
    let l = limited(64 * KB).await;
    let mut client = l.f.root().await;
    let dir = mkdir(&mut client, &l.root, b"dir").await.unwrap();
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    create(&mut client, &dir, b"there", 0o644).await.unwrap();
    put(&mut client, &file, 0, 8 * KB).await.unwrap();
    assert_eq!(resize(&mut client, &file, MB).await, nfsstat3::NFS3_OK);
    l.quota.set_limit(Some(l.quota.used().unwrap()));
    // A name that is there, and blocks that are there though others are not.
    let how = nfs3::createhow3::UNCHECKED(nfs3::sattr3::default());
    let made = client.create(&nfs3::CREATE3args { where_: at(&l.root, b"file"), how }).await.unwrap();
    assert_eq!(status(&made), nfsstat3::NFS3_OK);
    assert_eq!(link(&mut client, &file, &dir, b"there").await, nfsstat3::NFS3ERR_EXIST);
    assert_eq!(put(&mut client, &file, 0, 8 * KB).await, Ok(()));
    assert_eq!(rename(&mut client, (&l.root, b"file"), (&l.root, b"other")).await, nfsstat3::NFS3_OK);
    assert!(!l.quota.has_refused());
    assert_eq!(rename(&mut client, (&l.root, b"other"), (&dir, b"new")).await, DQUOT);
    assert!(l.quota.has_refused());
    assert_eq!(rename(&mut client, (&l.root, b"other"), (&dir, b"there")).await, nfsstat3::NFS3_OK, "it takes a place");
    l.assert_counted("renamed");
}

#[tokio::test]
async fn many_who_write_at_once_do_not_get_past_the_limit() {
    if !is_root() {
        return;
    }
    for uids in [[0; 8], [0, 1, 2, 3, 4, 5, 6, 7]] {
        let l = limited(4 * MB).await;
        let mut client = l.f.root().await;
        let file = create(&mut client, &l.root, b"file", 0o666).await.unwrap();
        // Each begins at the same place and writes on, in turns that nobody orders.
        let writers = uids.map(|uid| {
            let (address, file) = (l.f.address(), fh(&file.data));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    let io = nfs3_client::tokio::TokioIo::new(stream);
                    let auth = nfs_support::auth(uid, uid, &[]);
                    let mut client = nfs3_client::Nfs3Client::new_with_auth(io, auth, Default::default());
                    let mut refused = 0;
                    for n in 0..200 {
                        match put(&mut client, &file, n * 32 * KB, 40 * KB).await {
                            Ok(()) => {}
                            Err(status) => {
                                assert_eq!(status, DQUOT);
                                refused += 1;
                            }
                        }
                    }
                    refused
                })
            })
        });
        let refused = writers.map(|writer| writer.join().unwrap());
        assert!(refused.iter().all(|refused| *refused > 50), "{refused:?}");
        l.assert_counted("8 writers");
        let (limit, used) = l.quota.figures().unwrap();
        assert!(used <= limit + 64 * KB && used > limit - 64 * KB, "{used} of {limit}");
    }
}

#[tokio::test]
async fn the_limit_is_what_the_client_sees_of_the_disk() {
    if !is_root() {
        return;
    }
    let l = limited(4 * MB).await;
    let mut client = l.f.root().await;
    let disk = rustix::fs::statvfs(l.dir.path()).unwrap();
    let limit = l.quota.limit().unwrap();
    assert_eq!(l.space(&mut client).await, [limit, 4 * MB, 4 * MB]);
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    put(&mut client, &file, 0, MB).await.unwrap();
    assert_eq!(l.space(&mut client).await, [limit, 3 * MB, 3 * MB]);
    // Less than is there: nothing is left, and nothing is taken away.
    l.quota.set_limit(Some(limit - 4 * MB + 4 * KB));
    assert_eq!(l.space(&mut client).await[1..], [0, 0]);
    assert_eq!(put(&mut client, &file, MB, 1).await, Err(DQUOT));
    assert_eq!(put(&mut client, &file, 0, MB).await, Ok(()));
    assert_eq!(resize(&mut client, &file, MB / 2).await, nfsstat3::NFS3_OK);
    assert_eq!(create(&mut client, &l.root, b"more", 0o644).await, Err(DQUOT));
    assert_eq!(remove(&mut client, &l.root, b"file").await, nfsstat3::NFS3_OK);
    assert_eq!(l.space(&mut client).await[1..], [4 * KB, 4 * KB]);
    // More than the disk has, and no limit at all: the disk.
    for limit in [Some(u64::MAX), None] {
        l.quota.set_limit(limit);
        let [total, free, available] = l.space(&mut client).await;
        assert_eq!(total, disk.f_blocks * disk.f_frsize);
        assert!(free <= total && available <= free);
    }
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    // Set again, and nobody has counted yet: nothing is refused until somebody has.
    l.quota.set_limit(Some(MB));
    assert_eq!((l.quota.used(), l.quota.doubt()), (None, Doubt::Unknown));
    assert_eq!(put(&mut client, &file, 0, 2 * MB / 2).await, Ok(()));
    assert_eq!(l.space(&mut client).await[0], disk.f_blocks * disk.f_frsize);
    census(&l.quota, l.dir.path());
    assert_eq!(put(&mut client, &file, MB, 1).await, Err(DQUOT));
    l.assert_counted("counted late");
}

#[tokio::test]
async fn a_limit_that_changes_under_load_leaves_handles_and_verifier_alone() {
    if !is_root() {
        return;
    }
    let l = limited(8 * MB).await;
    let mut client = l.f.root().await;
    let file = create(&mut client, &l.root, b"file", 0o644).await.unwrap();
    let verifier = write(&mut client, &file, 0, b"x", stable_how::UNSTABLE).await.unwrap().verf;
    let limit = l.quota.limit().unwrap();
    let done = AtomicBool::new(false);
    let (quota, dir) = (l.quota.clone(), l.dir.path().to_owned());
    let changes = std::thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let mut changes = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let next = match changes % 3 {
                    0 => Some(limit - 7 * MB),
                    1 => None,
                    _ => Some(limit),
                };
                quota.set_limit(next);
                // As the agent does at every change of its configuration.
                assert_eq!(l.f.server.set_exports(vec![exported(&quota, &dir)]), []);
                if quota.doubt() == Doubt::Unknown {
                    census(&quota, &dir);
                }
                changes += 1;
            }
            changes
        });
        let writer = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut client = l.f.root().await;
                for n in 0..2000 {
                    let data = vec![3; 8192];
                    match write(&mut client, &file, (n * 4096) % (6 * MB), &data, stable_how::UNSTABLE).await {
                        Ok(ok) => assert_eq!(ok.verf, verifier, "the export was opened anew"),
                        Err(status) => assert_eq!(status, DQUOT),
                    }
                }
            });
        });
        writer.join().unwrap();
        done.store(true, Ordering::Relaxed);
        changer.join().unwrap()
    });
    assert!(changes > 10, "{changes}");
    l.quota.set_limit(Some(limit));
    census(&l.quota, l.dir.path());
    l.assert_counted("at the end");
}
