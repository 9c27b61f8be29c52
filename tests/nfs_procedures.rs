//! All procedures of NFSv3 and MOUNT, over TCP, with a client of an independent implementation; what they did is
//! looked at on the server's side of the directory.

mod nfs_support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use nfs_support::{at, create, fh, getattr, is_root, lookup, mode, read, scratch, some, start, status, write};
use nfs3_types::nfs3::{self, Nfs3Option, nfsstat3, stable_how};
use nfs3_types::xdr_codec::Opaque;

#[tokio::test]
async fn files_are_made_written_read_and_removed() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    c.null().await.unwrap();
    let file = create(c, &root, b"file", 0o4751).await.unwrap();
    assert_eq!(fs::metadata(dir.path().join("file")).unwrap().mode() & 0o7777, 0o4751);
    assert_eq!(create(c, &root, b"file", 0o600).await, Err(nfsstat3::NFS3ERR_EXIST));
    let first = write(c, &file, 3, b"hello", stable_how::UNSTABLE).await.unwrap();
    assert_eq!((first.count, first.committed), (5, stable_how::UNSTABLE));
    let Nfs3Option::Some(before) = first.file_wcc.before else { panic!("no attributes before") };
    assert_eq!((before.size, some(first.file_wcc.after).size), (0, 8));
    for stable in [stable_how::DATA_SYNC, stable_how::FILE_SYNC] {
        let ok = write(c, &file, 8, b"!", stable).await.unwrap();
        assert_eq!((ok.committed, ok.verf), (stable, nfs3::writeverf3(first.verf.0)));
    }
    let commit = c.commit(&nfs3::COMMIT3args { file: file.clone(), offset: 0, count: 0 }).await.unwrap().unwrap();
    assert_eq!(commit.verf.0, first.verf.0);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"\0\0\0hello!");
    assert_eq!(read(c, &file, 3, 4).await.unwrap(), (b"hell".to_vec(), false));
    assert_eq!(read(c, &file, 3, 4096).await.unwrap(), (b"hello!".to_vec(), true));
    assert_eq!(read(c, &file, 9, 10).await.unwrap(), (vec![], true));
    assert_eq!(read(c, &file, u64::MAX, 10).await.unwrap(), (vec![], true));
    assert_eq!(write(c, &file, u64::MAX - 3, b"far", stable_how::UNSTABLE).await.unwrap_err(), nfsstat3::NFS3ERR_FBIG);
    assert_eq!(read(c, &root, 0, 10).await, Err(nfsstat3::NFS3ERR_ISDIR));

    let removed = c.remove(&nfs3::REMOVE3args { object: at(&root, b"file") }).await.unwrap();
    assert_eq!(status(&removed), nfsstat3::NFS3_OK);
    assert!(!dir.path().join("file").exists());
    assert_eq!(getattr(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    assert_eq!(read(c, &file, 0, 1).await, Err(nfsstat3::NFS3ERR_STALE), "an open file does not keep it alive");
    let again = create(c, &root, b"file", 0o600).await.unwrap();
    assert_ne!(again.data.0, file.data.0, "even if the inode number is the same");
    assert_eq!(getattr(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    assert_eq!(lookup(c, &root, b"absent").await, Err(nfsstat3::NFS3ERR_NOENT));
}

#[tokio::test]
async fn large_reads_and_writes_are_byte_exact() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let file = create(c, &root, b"big", 0o600).await.unwrap();
    let data: Vec<u8> = (0..(1_u32 << 20)).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for offset in [0, 1 << 20] {
        let ok = write(c, &file, offset, &data, stable_how::UNSTABLE).await.unwrap();
        assert_eq!(ok.count as usize, data.len());
    }
    assert_eq!(fs::read(dir.path().join("big")).unwrap(), [&data[..], &data].concat());
    // Through the copying path, the one with leave from the budget, and sendfile; with and without padding.
    for count in [1, 4095, 4096, 32 << 10, (128 << 10) + 1, 256 << 10, (512 << 10) + 3, 1 << 20] {
        let (got, eof) = read(c, &file, 7, count).await.unwrap();
        assert!(got == data[7..].iter().chain(&data).copied().take(count as usize).collect::<Vec<_>>(), "{count}");
        assert!(!eof);
    }
    let (rest, eof) = read(c, &file, (1 << 20) + 5, u32::MAX).await.unwrap();
    assert!(rest == data[5..] && eof);
    let sparse = create(c, &root, b"sparse", 0o600).await.unwrap();
    write(c, &sparse, 5 << 30, b"end", stable_how::UNSTABLE).await.unwrap();
    let attr = getattr(c, &sparse).await.unwrap();
    assert_eq!(attr.size, (5 << 30) + 3);
    assert!(attr.used < 1 << 20, "{}", attr.used);
    assert_eq!(read(c, &sparse, 1 << 30, 4096).await.unwrap(), (vec![0; 4096], false));
}

#[tokio::test]
async fn a_large_write_may_be_the_first_request_of_a_connection() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let file = create(&mut f.root().await, &root, b"f", 0o600).await.unwrap();
    // As after a broken connection: the client sends again what was not answered.
    let data = vec![7; 1 << 20];
    write(&mut f.root().await, &file, 0, &data, stable_how::UNSTABLE).await.unwrap();
    assert!(fs::read(dir.path().join("f")).unwrap() == data);
}

#[tokio::test]
async fn attributes_are_set_in_the_right_order_and_guarded() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let object = create(c, &root, b"f", 0o644).await.unwrap();
    let ctime = getattr(c, &object).await.unwrap().ctime;
    let new_attributes = nfs3::sattr3 {
        mode: Nfs3Option::Some(0o6711),
        uid: Nfs3Option::Some(4_294_967_290),
        gid: Nfs3Option::Some(70_000),
        size: Nfs3Option::Some(1000),
        atime: nfs3::set_atime::SET_TO_CLIENT_TIME(nfs3::nfstime3 { seconds: 1, nseconds: 2 }),
        mtime: nfs3::set_mtime::SET_TO_CLIENT_TIME(nfs3::nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 }),
    };
    let args = nfs3::SETATTR3args { object: object.clone(), new_attributes, guard: Nfs3Option::Some(ctime) };
    assert_eq!(status(&c.setattr(&args).await.unwrap()), nfsstat3::NFS3_OK);
    let meta = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.len()), (0o6711, 4_294_967_290, 70_000, 1000));
    assert_eq!((meta.atime(), meta.atime_nsec()), (1, 2));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (i64::from(u32::MAX), 999_999_999));
    assert_eq!(status(&c.setattr(&args).await.unwrap()), nfsstat3::NFS3ERR_NOT_SYNC, "the guard has changed");
    for (wrong, wanted) in [
        (nfs3::sattr3 { uid: Nfs3Option::Some(u32::MAX), ..Default::default() }, nfsstat3::NFS3ERR_INVAL),
        (nfs3::sattr3 { size: Nfs3Option::Some(u64::MAX), ..Default::default() }, nfsstat3::NFS3ERR_FBIG),
    ] {
        let args = nfs3::SETATTR3args { object: object.clone(), new_attributes: wrong, guard: Nfs3Option::None };
        assert_eq!(status(&c.setattr(&args).await.unwrap()), wanted);
    }
}

#[tokio::test]
async fn every_kind_of_object_can_be_made() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let args = nfs3::MKDIR3args { where_: at(&root, b"dir"), attributes: mode(0o1777) };
    let sub = some(c.mkdir(&args).await.unwrap().unwrap().obj);
    assert_eq!(fs::metadata(dir.path().join("dir")).unwrap().mode() & 0o7777, 0o1777);
    let spec = |major, minor| nfs3::specdata3 { specdata1: major, specdata2: minor };
    let device = |spec| nfs3::devicedata3 { dev_attributes: mode(0o640), spec };
    let nodes = [
        (&b"chr"[..], nfs3::mknoddata3::NF3CHR(device(spec(1, 3)))),
        (b"blk", nfs3::mknoddata3::NF3BLK(device(spec(259, 300_000)))),
        (b"fifo", nfs3::mknoddata3::NF3FIFO(mode(0o600))),
        (b"sock", nfs3::mknoddata3::NF3SOCK(mode(0o600))),
    ];
    for (name, what) in nodes {
        let made = c.mknod(&nfs3::MKNOD3args { where_: at(&sub, name), what }).await.unwrap();
        assert_eq!(status(&made), nfsstat3::NFS3_OK, "{}", name.escape_ascii());
    }
    let meta = |name: &str| fs::symlink_metadata(dir.path().join("dir").join(name)).unwrap();
    assert!(meta("chr").file_type().is_char_device() && meta("blk").file_type().is_block_device());
    assert!(meta("fifo").file_type().is_fifo() && meta("sock").file_type().is_socket());
    assert_eq!((meta("chr").rdev(), meta("blk").rdev()), (libc::makedev(1, 3), libc::makedev(259, 300_000)));
    let block = lookup(c, &sub, b"blk").await.unwrap();
    let rdev = getattr(c, &block).await.unwrap().rdev;
    assert_eq!((rdev.specdata1, rdev.specdata2), (259, 300_000));
    assert_eq!(read(c, &block, 0, 1).await, Err(nfsstat3::NFS3ERR_INVAL), "devices are never opened here");

    let target = vec![b't'; 4095];
    let symlink = |target: &[u8]| nfs3::symlinkdata3 {
        symlink_attributes: Default::default(),
        symlink_data: nfs3::nfspath3(Opaque::owned(target.to_vec())),
    };
    let args = nfs3::SYMLINK3args { where_: at(&sub, b"long"), symlink: symlink(&target) };
    let link = some(c.symlink(&args).await.unwrap().unwrap().obj);
    let read_back = c.readlink(&nfs3::READLINK3args { symlink: link.clone() }).await.unwrap().unwrap();
    assert_eq!(read_back.data.0.as_ref(), target);
    let not_a_link = c.readlink(&nfs3::READLINK3args { symlink: sub.clone() }).await.unwrap();
    assert_eq!(status(&not_a_link), nfsstat3::NFS3ERR_INVAL);

    let hard = c.link(&nfs3::LINK3args { file: link, link: at(&root, b"hard") }).await.unwrap().unwrap();
    assert_eq!(some(hard.file_attributes).nlink, 2);
    let on_dir = c.link(&nfs3::LINK3args { file: sub.clone(), link: at(&root, b"no") }).await.unwrap();
    assert_eq!(status(&on_dir), nfsstat3::NFS3ERR_PERM);
    let full = c.rmdir(&nfs3::RMDIR3args { object: at(&root, b"dir") }).await.unwrap();
    assert_eq!(status(&full), nfsstat3::NFS3ERR_NOTEMPTY);
    let as_file = c.remove(&nfs3::REMOVE3args { object: at(&root, b"dir") }).await.unwrap();
    assert_eq!(status(&as_file), nfsstat3::NFS3ERR_ISDIR);
    let moved = c.rename(&nfs3::RENAME3args { from: at(&sub, b"long"), to: at(&root, b"moved") }).await.unwrap();
    assert_eq!(status(&moved), nfsstat3::NFS3_OK);
    assert_eq!(fs::read_link(dir.path().join("moved")).unwrap().as_os_str().as_bytes(), target);
    assert_eq!(fs::symlink_metadata(dir.path().join("hard")).unwrap().nlink(), 2);
}

#[tokio::test]
async fn exclusive_create_recognises_its_repeat() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let args = |verifier: &[u8; 8]| nfs3::CREATE3args {
        where_: at(&root, b"x"),
        how: nfs3::createhow3::EXCLUSIVE(nfs3::createverf3(*verifier)),
    };
    let first = some(c.create(&args(b"\xffverify\xff")).await.unwrap().unwrap().obj);
    let repeat = some(c.create(&args(b"\xffverify\xff")).await.unwrap().unwrap().obj);
    assert_eq!(first.data.0, repeat.data.0);
    assert_eq!(status(&c.create(&args(b"another!")).await.unwrap()), nfsstat3::NFS3ERR_EXIST);
    write(c, &first, 0, b"x", stable_how::UNSTABLE).await.unwrap();
    let late = c.create(&args(b"\xffverify\xff")).await.unwrap();
    assert_eq!(status(&late), nfsstat3::NFS3ERR_EXIST, "in use by now");
    let unchecked = nfs3::sattr3 { size: Nfs3Option::Some(0), mode: Nfs3Option::Some(0o777), ..Default::default() };
    let args = nfs3::CREATE3args { where_: at(&root, b"x"), how: nfs3::createhow3::UNCHECKED(unchecked) };
    assert_eq!(some(c.create(&args).await.unwrap().unwrap().obj).data.0, first.data.0);
    let meta = fs::metadata(dir.path().join("x")).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (0, 0), "of an existing file only the length is set");
}

#[tokio::test]
async fn names_are_bytes_and_never_paths() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::create_dir(dir.path().join("export")).unwrap();
    fs::write(dir.path().join("outside"), b"secret").unwrap();
    let f = start(&dir.path().join("export"));
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    for name in [&b"\xff\xfe\x80"[..], &[b'n'; 255], b"...", b" ", b"\n"] {
        let made = create(c, &root, name, 0o600).await.unwrap();
        assert_eq!(lookup(c, &root, name).await.unwrap().data.0, made.data.0);
    }
    assert_eq!(lookup(c, &root, &[b'n'; 256]).await, Err(nfsstat3::NFS3ERR_NAMETOOLONG));
    for name in [&b"a/b"[..], b"/", b"../outside", b"a\0b", b""] {
        assert_eq!(lookup(c, &root, name).await, Err(nfsstat3::NFS3ERR_ACCES), "{}", name.escape_ascii());
        assert_eq!(create(c, &root, name, 0o600).await, Err(nfsstat3::NFS3ERR_ACCES));
    }
    assert_eq!(lookup(c, &root, b"..").await.unwrap().data.0, root.data.0, "above the root is the root");
    assert_eq!(lookup(c, &root, b".").await.unwrap().data.0, root.data.0);
    let args = nfs3::MKDIR3args { where_: at(&root, b"d"), attributes: mode(0o755) };
    let sub = some(c.mkdir(&args).await.unwrap().unwrap().obj);
    assert_eq!(lookup(c, &sub, b"..").await.unwrap().data.0, root.data.0);
    fs::rename(dir.path().join("export/d"), dir.path().join("moved-out")).unwrap();
    assert_eq!(lookup(c, &sub, b"..").await, Err(nfsstat3::NFS3ERR_ACCES), "no way out through it");
    std::os::unix::fs::symlink("../outside", dir.path().join("export/link")).unwrap();
    let link = lookup(c, &root, b"link").await.unwrap();
    assert_eq!(getattr(c, &link).await.unwrap().type_, nfs3::ftype3::NF3LNK, "followed by nobody here");
    assert_eq!(read(c, &link, 0, 10).await, Err(nfsstat3::NFS3ERR_INVAL));
}

#[tokio::test]
async fn a_directory_of_five_thousand_is_listed_once_each() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    for n in 0..5000 {
        fs::write(dir.path().join(format!("file-{n:060}")), b"").unwrap();
    }
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    for plus in [false, true] {
        let (mut cookie, mut cookieverf, mut names) = (0, nfs3::cookieverf3([0; 8]), std::collections::HashSet::new());
        loop {
            let eof = if plus {
                let args =
                    nfs3::READDIRPLUS3args { dir: root.clone(), cookie, cookieverf, dircount: 4096, maxcount: 32768 };
                let ok = c.readdirplus(&args).await.unwrap().unwrap();
                cookieverf = ok.cookieverf;
                for entry in ok.reply.entries.into_inner() {
                    cookie = entry.cookie;
                    let name = entry.name.0.to_vec();
                    if name != b".." && name != b"." {
                        assert_eq!(some(entry.name_attributes).fileid, entry.fileid);
                        some(entry.name_handle);
                    }
                    assert!(names.insert(name), "twice");
                }
                ok.reply.eof
            } else {
                let args = nfs3::READDIR3args { dir: root.clone(), cookie, cookieverf, count: 4096 };
                let ok = c.readdir(&args).await.unwrap().unwrap();
                cookieverf = ok.cookieverf;
                for entry in ok.reply.entries.into_inner() {
                    cookie = entry.cookie;
                    assert!(names.insert(entry.name.0.to_vec()), "twice");
                }
                ok.reply.eof
            };
            if eof {
                break;
            }
        }
        assert_eq!(names.len(), 5002, "plus: {plus}");
    }
    let small = nfs3::READDIR3args { dir: root.clone(), cookie: 0, cookieverf: nfs3::cookieverf3([0; 8]), count: 64 };
    assert_eq!(status(&c.readdir(&small).await.unwrap()), nfsstat3::NFS3ERR_TOOSMALL);
    let bad = nfs3::READDIR3args { cookie: 5, cookieverf: nfs3::cookieverf3([9; 8]), count: 4096, ..small };
    assert_eq!(status(&c.readdir(&bad).await.unwrap()), nfsstat3::NFS3ERR_BAD_COOKIE);
}

#[tokio::test]
async fn the_volume_is_described() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let info = c.fsinfo(&nfs3::FSINFO3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.properties), (1 << 20, 1 << 20, 0x1b));
    let stat = c.fsstat(&nfs3::FSSTAT3args { fsroot: root.clone() }).await.unwrap().unwrap();
    assert!(stat.tbytes > stat.abytes && stat.abytes > 0 && stat.tfiles > 0);
    let conf = c.pathconf(&nfs3::PATHCONF3args { object: root.clone() }).await.unwrap().unwrap();
    assert_eq!((conf.name_max, conf.no_trunc, conf.chown_restricted), (255, true, true));
    let access = c.access(&nfs3::ACCESS3args { object: root.clone(), access: 0x3f }).await.unwrap().unwrap();
    assert_eq!(access.access, 0x1f, "all but EXECUTE, which directories have not");
    assert_eq!(getattr(c, &fh(&[1, 2, 3])).await.unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE);
}

#[tokio::test]
async fn the_kernel_decides_for_users() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let put = |name: &str, bits: u32, uid: u32, gid: u32| {
        fs::write(path(name), b"text").unwrap();
        std::os::unix::fs::chown(path(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(bits)).unwrap();
    };
    put("secret", 0o600, 0, 0);
    put("public", 0o644, 0, 0);
    put("group", 0o060, 0, 70_000);
    put("program", 0o111, 0, 0);
    put("mine", 0o000, 1000, 1000);
    put("setuid", 0o6777, 0, 0);
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.client(1000, 1000, &[70_000]).await;
    let mut handle = std::collections::HashMap::new();
    for name in ["secret", "public", "group", "program", "mine", "setuid"] {
        handle.insert(name, lookup(c, &root, name.as_bytes()).await.unwrap());
    }
    assert_eq!(read(c, &handle["secret"], 0, 9).await, Err(nfsstat3::NFS3ERR_ACCES));
    assert!(read(c, &handle["public"], 0, 9).await.is_ok());
    let refused = write(c, &handle["public"], 0, b"x", stable_how::UNSTABLE).await.unwrap_err();
    assert_eq!(refused, nfsstat3::NFS3ERR_ACCES);
    assert!(read(c, &handle["group"], 0, 9).await.is_ok(), "by a supplementary group");
    assert!(read(c, &handle["program"], 0, 9).await.is_ok(), "what may be run may be read");
    assert!(
        read(c, &handle["mine"], 0, 9).await.is_ok()
            && write(c, &handle["mine"], 0, b"x", stable_how::UNSTABLE).await.is_ok()
    );
    assert!(write(c, &handle["setuid"], 0, b"x", stable_how::UNSTABLE).await.is_ok());
    assert_eq!(fs::metadata(path("setuid")).unwrap().mode() & 0o6000, 0, "a write by others clears setuid and setgid");
    assert_eq!(create(c, &root, b"new", 0o644).await, Err(nfsstat3::NFS3ERR_ACCES));
    let access = nfs3::ACCESS3args { object: handle["public"].clone(), access: 0x3f };
    assert_eq!(c.access(&access).await.unwrap().unwrap().access, 1);

    // A permission that is taken back counts at once, although the file is still open in the server.
    fs::set_permissions(path("public"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read(c, &handle["public"], 0, 9).await, Err(nfsstat3::NFS3ERR_ACCES));
    let other = &mut f.client(1001, 1001, &[]).await;
    assert_eq!(read(other, &handle["group"], 0, 9).await, Err(nfsstat3::NFS3ERR_ACCES));
}
