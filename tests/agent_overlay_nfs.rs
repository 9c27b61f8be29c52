//! What a Pi whose root is by overlay asks of the NFS server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use emupi::{Model, Pi};
use nfs3_client::nfs3_types::nfs3::{
    COMMIT3args, CREATE3args, LINK3args, LOOKUP3args, MKDIR3args, MKNOD3args, Nfs3Option, Nfs3Result, REMOVE3args,
    RENAME3args, SETATTR3args, WRITE3args, cookieverf3, createhow3, ftype3, mknoddata3, nfsstat3, sattr3, stable_how,
};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use serde_json::Value;
use support::disk::Disk;
use support::image;
use support::layers::{forget, host, mounted, on_disk, over, read, root};
use support::nfs::{Connection, attributes, content, find, list, place, remove, rename, talk, write};

const MB: u64 = 1 << 20;

#[test]
fn a_directory_that_changes_while_it_is_listed_is_listed_whole() {
    let disk = Disk::new(500);
    let router = on_disk(&disk);
    router.start_dnsmasq();
    let plain = image::with(router.net.scratch(), "many", |root| {
        fs::create_dir(root.join("many")).unwrap();
        (0..1500).for_each(|n| fs::write(root.join(format!("many/{n}")), "").unwrap());
    });
    router.import(&plain, "many");
    let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
    over(&router, &lion, "lion", "many");
    let host = host(&router, &lion);
    let (mut names, pages) = talk(&host, "/lion/root", async |c| {
        let (dir, _) = find(c, "many").await.unwrap();
        let (mut names, mut cookie, mut verifier, mut pages) = (Vec::new(), 0, cookieverf3::default(), 0);
        loop {
            let (page, now, is_last) = list(c, &dir, cookie, verifier).await;
            pages += 1;
            // As rm -r does: what was listed goes, and the rest is asked for.
            for (name, _) in page.iter().filter(|(name, _)| !name.starts_with('.')).step_by(2) {
                let removed = c.remove(&REMOVE3args { object: place(&dir, name) }).await.unwrap();
                assert!(matches!(removed, Nfs3Result::Ok(_)), "{removed:?}");
            }
            (cookie, verifier) = (page.last().map_or(cookie, |(_, cookie)| *cookie), now);
            names.extend(page.into_iter().map(|(name, _)| name));
            if is_last {
                return (names, pages);
            }
        }
    });
    assert!(pages > 5, "{pages}");
    names.sort();
    let all = (0..1500).map(|n| n.to_string()).chain([".".to_owned(), "..".to_owned()]);
    let mut all: Vec<String> = all.collect();
    all.sort();
    assert_eq!(names.len(), all.len());
    assert_eq!(names, all);
    assert!((650..850).contains(&fs::read_dir(root(&router, "lion", "many")).unwrap().count()));
}

/// The image's files at the top that the next test works on.
const FILES: [&str; 12] = [
    "read",
    "warm",
    "cold",
    "gone-warm",
    "gone-cold",
    "never-changed",
    "replaced",
    "victim",
    "by-handle",
    "linked",
    "big",
    "kept",
];

#[test]
fn a_pi_writes_into_its_own_layer_and_handles_stay_what_they_are() {
    let disk = Disk::new(700);
    let mut router = on_disk(&disk);
    router.start_dnsmasq();
    let plain = image::with(router.net.scratch(), "files", |root| {
        for name in FILES {
            fs::write(root.join(name), format!("image's {name}")).unwrap();
        }
        fs::write(root.join("big"), image::pattern(8 << 20, 1)).unwrap();
        fs::hard_link(root.join("linked"), root.join("linked-too")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("directory/inside"), "inside").unwrap();
    });
    router.import(&plain, "files");
    let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
    over(&router, &lion, "lion", "files");
    let host = host(&router, &lion);
    let stale = nfsstat3::NFS3ERR_STALE;
    let (handles, numbers) = talk(&host, "/lion/root", async |c| {
        let (mut handles, mut numbers) = (Vec::new(), Vec::new());
        for name in FILES {
            let (handle, attributes) = find(c, name).await.unwrap();
            assert_eq!(attributes.nlink, if name == "linked" { 2 } else { 1 }, "{name}");
            numbers.push(attributes.fileid);
            handles.push(handle);
        }
        (handles, numbers)
    });
    let of = |name: &str| handles[FILES.iter().position(|file| *file == name).unwrap()].clone();
    let number = |name: &str| numbers[FILES.iter().position(|file| *file == name).unwrap()];
    let before = disk.free();
    talk(&host, "/lion/root", async |c| {
        // Read, then written: a descriptor that is open to the image's file must not go on with it.
        assert_eq!(content(c, &of("read")).await.unwrap(), b"image's read");
        for name in ["read", "warm", "cold", "gone-warm", "gone-cold", "replaced", "victim", "linked", "big"] {
            write(c, &of(name), "A LION", stable_how::FILE_SYNC).await;
            let now = attributes(c, &of(name)).await.unwrap();
            assert_eq!((now.nlink, now.fileid), (if name == "linked" { 2 } else { 1 }, number(name)), "{name}");
            assert_eq!(find(c, name).await.unwrap().0.data, of(name).data, "{name}: its handle");
        }
        assert_eq!(content(c, &of("read")).await.unwrap(), b"A LIONs read");
        let (too, _) = find(c, "linked-too").await.unwrap();
        assert_eq!((attributes(c, &too).await.unwrap().nlink, &too.data), (2, &of("linked").data));
        remove(c, "gone-warm").await;
        assert_eq!(attributes(c, &of("gone-warm")).await.unwrap_err(), stale);
        // Never written: its handle must not lead to the image's.
        remove(c, "never-changed").await;
        assert_eq!(content(c, &of("never-changed")).await.unwrap_err(), stale);
        assert_eq!(find(c, "never-changed").await.unwrap_err(), nfsstat3::NFS3ERR_NOENT);
    });
    // From here on nothing of it is in memory.
    forget();
    talk(&host, "/lion/root", async |c| {
        for name in ["cold", "gone-cold", "victim"] {
            assert_eq!(attributes(c, &of(name)).await.unwrap().nlink, 1, "{name}, read from the disk");
        }
        assert_eq!(attributes(c, &of("linked")).await.unwrap().nlink, 2);
        remove(c, "gone-cold").await;
        assert_eq!(attributes(c, &of("gone-cold")).await.unwrap_err(), stale);
        assert_eq!(find(c, "gone-cold").await.unwrap_err(), nfsstat3::NFS3ERR_NOENT);
        // As dpkg does: beside, and renamed over what was changed before.
        let where_ = place(&c.root_nfs_fh3(), "victim.new");
        let made = c.create(&CREATE3args { where_, how: createhow3::UNCHECKED(sattr3::default()) }).await.unwrap();
        let Nfs3Result::Ok(made) = made else { panic!("{made:?}") };
        let Nfs3Option::Some(new) = made.obj else { panic!("no handle") };
        write(c, &new, "new", stable_how::FILE_SYNC).await;
        rename(c, "victim.new", "victim").await;
        assert_eq!(attributes(c, &of("victim")).await.unwrap_err(), stale);
        assert_eq!(content(c, &new).await.unwrap(), b"new");
        assert_eq!(attributes(c, &new).await.unwrap().nlink, 1);
        // A further name, and both taken away.
        let link = place(&c.root_nfs_fh3(), "cold-too");
        let linked = c.link(&LINK3args { file: of("cold"), link }).await.unwrap();
        assert!(matches!(linked, Nfs3Result::Ok(_)), "{linked:?}");
        assert_eq!(attributes(c, &of("cold")).await.unwrap().nlink, 2);
        remove(c, "cold").await;
        assert_eq!(attributes(c, &of("cold")).await.unwrap().nlink, 1);
        assert_eq!(content(c, &of("cold")).await.unwrap(), b"A LIONs cold");
        // What an update does to directories of the image.
        rename(c, "directory", "moved").await;
        let moved = find(c, "moved").await.unwrap().0;
        let inside = c.lookup(&LOOKUP3args { what: place(&moved, "inside") }).await.unwrap();
        let Nfs3Result::Ok(inside) = inside else { panic!("{inside:?}") };
        assert_eq!(content(c, &inside.object).await.unwrap(), b"inside");
        // Attributes that a router without `suid` and `dev` keeps all the same.
        let mode = sattr3 { mode: Nfs3Option::Some(0o4755), ..sattr3::default() };
        let set = SETATTR3args { object: of("kept"), new_attributes: mode, guard: Nfs3Option::None };
        assert!(matches!(c.setattr(&set).await.unwrap(), Nfs3Result::Ok(_)));
        assert_eq!(attributes(c, &of("kept")).await.unwrap().mode & 0o7777, 0o4755);
        let where_ = place(&c.root_nfs_fh3(), "pipe");
        let what = mknoddata3::NF3FIFO(sattr3::default());
        let made = c.mknod(&MKNOD3args { where_, what }).await.unwrap();
        assert!(matches!(made, Nfs3Result::Ok(_)), "{made:?}");
        let where_ = place(&c.root_nfs_fh3(), "new-directory");
        let made = c.mkdir(&MKDIR3args { where_, attributes: sattr3::default() }).await.unwrap();
        assert!(matches!(made, Nfs3Result::Ok(_)), "{made:?}");
        // 8 MB that were copied to be changed are free again once they are deleted.
        remove(c, "big").await;
    });
    let taken = before.saturating_sub(disk.free());
    assert!(taken < MB, "{taken} bytes are taken by what was deleted");

    // An agent that is killed leaves the mounts; the next one goes on with them.
    let there = mounted();
    router.kill_agent();
    assert_eq!(mounted(), there);
    router.start_agent_here();
    assert_eq!(mounted(), there);
    forget();
    talk(&host, "/lion/root", async |c| {
        // Written by its handle before anybody looked it up: what is then mounted anew has to know it.
        write(c, &of("by-handle"), "A LION", stable_how::UNSTABLE).await;
        let commit = COMMIT3args { file: of("by-handle"), offset: 0, count: 0 };
        assert!(matches!(c.commit(&commit).await.unwrap(), Nfs3Result::Ok(_)));
        assert_eq!(attributes(c, &of("by-handle")).await.unwrap().nlink, 1);
        assert_eq!(content(c, &of("read")).await.unwrap(), b"A LIONs read");
    });
    // The disk goes, and its mounts with it; it comes back, and so do they.
    disk.unmount();
    router.wait_for(&["device", "lion"], "the disk to be missed", |device| device["state"] == "blocked");
    assert_eq!(mounted(), Vec::<String>::new());
    disk.mount("disk");
    router.wait_for(&["device", "lion"], "the disk", |device| device["state"] != "blocked");
    assert_eq!(mounted(), there);
    talk(&host, "/lion/root", async |c| {
        assert_eq!(content(c, &of("by-handle")).await.unwrap(), b"A LIONs by-handle");
        assert_eq!(attributes(c, &of("gone-cold")).await.unwrap_err(), stale);
    });
    // An orderly end unmounts.
    router.stop_agent();
    assert_eq!(mounted(), Vec::<String>::new());
    assert!(fs::read_dir(root(&router, "lion", "")).unwrap().next().is_none());
    router.start_agent_here();
    forget();
    talk(&host, "/lion/root", async |c| {
        for name in ["by-handle", "read", "warm"] {
            assert_eq!(content(c, &of(name)).await.unwrap(), format!("A LIONs {name}").as_bytes());
            let (handle, now) = find(c, name).await.unwrap();
            assert_eq!((handle.data, now.nlink, now.fileid), (of(name).data, 1, number(name)), "{name}");
        }
        for name in ["gone-warm", "gone-cold", "never-changed", "victim", "big"] {
            assert_eq!(attributes(c, &of(name)).await.unwrap_err(), stale, "{name}");
        }
        assert_eq!(content(c, &of("cold")).await.unwrap(), b"A LIONs cold");
        assert_eq!(attributes(c, &of("linked")).await.unwrap().nlink, 2);
        let (_, kept) = find(c, "kept").await.unwrap();
        assert_eq!((kept.mode & 0o7777, kept.type_), (0o4755, ftype3::NF3REG));
    });
    // Nothing is left of what was deleted: the mount took it away. What was changed by its handle may be in no directory yet.
    let index = router.data_dir().join("devices/lion/overlay/root/work/index");
    for entry in fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path()) {
        let meta = entry.symlink_metadata().unwrap();
        if meta.is_file() && meta.nlink() == 1 {
            let text = fs::read_to_string(&entry).unwrap();
            let deleted = ["gone-warm", "gone-cold", "never-changed", "victim", "big"];
            let lives = FILES.iter().any(|name| !deleted.contains(name) && text.ends_with(name));
            assert!(lives, "{text:?} is left");
        }
    }
    // The image is what it was.
    for name in FILES.iter().filter(|name| **name != "big") {
        let lower = router.data_dir().join("images/files/root").join(name);
        assert_eq!(fs::read_to_string(lower).unwrap(), format!("image's {name}"));
    }
}

#[test]
fn other_file_systems_can_as_well() {
    for kind in ["xfs", "btrfs"] {
        let disk = Disk::of(kind, 500);
        let mut router = on_disk(&disk);
        router.start_dnsmasq();
        router.import(&image::small(router.net.scratch()), "small");
        let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
        over(&router, &lion, "lion", "small");
        let host = host(&router, &lion);
        let init = talk(&host, "/lion/root", async |c| {
            let (etc, attributes) = find(c, "etc").await.unwrap();
            let what = place(&etc, "hostname");
            let Nfs3Result::Ok(file) = c.lookup(&LOOKUP3args { what }).await.unwrap() else { panic!("no hostname") };
            assert_eq!(content(c, &file.object).await.unwrap(), b"lion\n");
            assert_ne!(attributes.nlink, 0, "a directory's links are what the kernel says");
            let what = place(&etc, "os-release");
            let Nfs3Result::Ok(file) = c.lookup(&LOOKUP3args { what }).await.unwrap() else { panic!("no os-release") };
            file.object
        });
        router.stop_agent();
        router.start_agent_here();
        forget();
        talk(&host, "/lion/root", async |c| {
            write(c, &init, "NAME", stable_how::FILE_SYNC).await;
            assert_eq!(attributes(c, &init).await.unwrap().nlink, 1, "{kind}");
        });
        router.stop_agent();
        router.start_agent_here();
        assert!(read(&router, "lion", "etc/os-release").starts_with("NAMETY_NAME"), "{kind}");
        talk(&host, "/lion/root", async |c| assert!(content(c, &init).await.unwrap().starts_with(b"NAMETY_NAME")));
    }
}

/// Why something was refused, if it was.
fn status<T, E>(result: Nfs3Result<T, E>) -> Option<nfsstat3> {
    match result {
        Nfs3Result::Ok(_) => None,
        Nfs3Result::Err((status, _)) => Some(status),
    }
}

#[test]
fn a_full_disk_takes_no_copies_of_the_images_files() {
    const FILES: [&str; 5] = ["written", "cut", "mode", "deleted", "moved"];
    let disk = Disk::new(500);
    let router = on_disk(&disk);
    router.start_dnsmasq();
    let plain = image::with(router.net.scratch(), "files", |root| {
        for name in FILES.iter().chain(&["copied"]) {
            fs::write(root.join(name), image::pattern(8 << 20, 1)).unwrap();
        }
    });
    router.import(&plain, "files");
    let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
    over(&router, &lion, "lion", "files");
    let host = host(&router, &lion);
    talk(&host, "/lion/root", async |c| {
        let (copied, _) = find(c, "copied").await.unwrap();
        write(c, &copied, "A LION", stable_how::FILE_SYNC).await;
    });
    let (_, [filled, over]) = support::nfs::fill(&host, "/lion/root");
    assert_eq!((&*filled, &*over), ("NFS3ERR_NOSPC", "written"));
    let before = disk.free();
    let everything = async |c: &mut Connection| {
        let mut told = Vec::new();
        let [mut written, mut cut, mut mode] = [const { None }; 3];
        for (name, handle) in FILES.iter().zip([&mut written, &mut cut, &mut mode]) {
            *handle = Some(find(c, name).await.unwrap().0);
        }
        let (count, data) = (6, Opaque::borrowed(b"A LION"));
        let args = WRITE3args { file: written.unwrap(), offset: 0, count, stable: stable_how::FILE_SYNC, data };
        told.push(status(c.write(&args).await.unwrap()));
        let sets = [
            (cut, sattr3 { size: Nfs3Option::Some(1), ..sattr3::default() }),
            (mode, sattr3 { mode: Nfs3Option::Some(0o4755), ..sattr3::default() }),
        ];
        for (file, new_attributes) in sets {
            let args = SETATTR3args { object: file.unwrap(), new_attributes, guard: Nfs3Option::None };
            told.push(status(c.setattr(&args).await.unwrap()));
        }
        let object = place(&c.root_nfs_fh3(), "deleted");
        told.push(status(c.remove(&REMOVE3args { object }).await.unwrap()));
        let (from, to) = (place(&c.root_nfs_fh3(), "moved"), place(&c.root_nfs_fh3(), "to"));
        told.push(status(c.rename(&RENAME3args { from, to }).await.unwrap()));
        told
    };
    let told = talk(&host, "/lion/root", async |c| {
        let told = everything(c).await;
        // What was copied before needs no more room, and its deletion gives some back.
        let (copied, _) = find(c, "copied").await.unwrap();
        write(c, &copied, "A LION", stable_how::FILE_SYNC).await;
        told
    });
    assert_eq!(told, [const { Some(nfsstat3::NFS3ERR_NOSPC) }; 5]);
    assert!(disk.free().abs_diff(before) < MB, "{} instead of {before}", disk.free());
    talk(&host, "/lion/root", async |c| {
        remove(c, "copied").await;
        remove(c, "fills-the-disk").await;
    });
    assert_eq!(talk(&host, "/lion/root", everything), [const { None }; 5]);
}

#[test]
fn layers_that_somebody_took_apart_are_put_together_again() {
    let disk = Disk::new(500);
    let router = on_disk(&disk);
    router.start_dnsmasq();
    let plain = image::with(router.net.scratch(), "files", |root| fs::write(root.join("file"), "image's").unwrap());
    router.import(&plain, "files");
    let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
    over(&router, &lion, "lion", "files");
    let host = host(&router, &lion);
    let file = talk(&host, "/lion/root", async |c| find(c, "file").await.unwrap().0);
    rustix::mount::unmount(root(&router, "lion", ""), rustix::mount::UnmountFlags::DETACH).unwrap();
    let upper = router.data_dir().join("devices/lion/overlay/root/upper");
    fs::rename(&upper, upper.with_extension("away")).unwrap();
    router.reload();
    router.wait_for(&["device", "lion"], "the refusal", |device| device["state"] == "blocked");
    // A Pi that runs waits.
    talk(&host, "/lion/boot", async |c| {
        assert_eq!(content(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX);
    });
    // Nobody says that it can be mounted again.
    let before = router.said("its layers over image files are mounted");
    fs::rename(upper.with_extension("away"), &upper).unwrap();
    router.wait_until("it to be mounted", || router.said("its layers over image files are mounted") > before);
    // Answered when the servers know.
    router.json(&["device", "lion"]);
    talk(&host, "/lion/root", async |c| {
        write(c, &file, "A LION", stable_how::FILE_SYNC).await;
        assert_eq!(content(c, &file).await.unwrap(), b"A LIONs");
    });
    assert_eq!(read(&router, "lion", "file"), "A LIONs");
}

#[test]
fn a_quota_counts_what_the_pi_sees() {
    const MB: u64 = 1_000_000;
    let disk = Disk::new(500);
    let router = on_disk(&disk);
    let plain = image::with(router.net.scratch(), "big", |root| {
        fs::write(root.join("big"), image::pattern(8_000_000, 1)).unwrap();
    });
    router.import(&plain, "big");
    let lion = Pi::new(Model::Pi4B, 0x5b15_4510);
    over(&router, &lion, "lion", "big");
    router.piboot(&["device", "edit", "lion", "--quota", "64M"]).unwrap();
    let figures = |devices: &Value| devices["devices"][0]["used"].as_u64();
    let used = || figures(&router.json(&["devices"])).unwrap();
    router.wait_for(&["devices"], "the census", |devices| figures(devices).is_some());
    let first = used();
    assert!((8 * MB..30 * MB).contains(&first), "{first}");
    let host = router.net.add_host(lion.mac, [10, 77, 0, 20].into()).unwrap();
    let about = |expected: u64, what: &str| {
        let now = used();
        assert!(now.abs_diff(expected) < MB, "{now} instead of {expected} {what}");
    };
    talk(&host, "/lion/root", async |c| {
        let (big, _) = find(c, "big").await.unwrap();
        write(c, &big, "A LION", stable_how::FILE_SYNC).await;
        about(first, "once it is copied");
        remove(c, "big").await;
        assert_eq!(attributes(c, &big).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
        about(first - 8 * MB, "without it");
    });
    let (written, [filled, over]) = support::nfs::fill(&host, "/lion/root");
    assert_eq!((&*filled, &*over), ("NFS3ERR_DQUOT", "written"));
    assert!(written.abs_diff(64 * MB - (first - 8 * MB)) < MB, "{written}");
}
