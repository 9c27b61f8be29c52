//! Two devices with a root each, side by side on one disk: whatever one tries, what is the other's it can neither read,
//! name nor disturb.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nfs_support::calls::{About, MOUNT, NFS, NFS_PROCEDURES, encoded, nfs_args};
use nfs_support::device::{Device, word};
use nfs_support::{Fixture, Raw, auth, config, export, fh, is_root, scratch, some, start_with};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{self, Nfs3Result};
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::{Opaque, Unpack};
use piboot::nfs::{Export, Who};
use piboot::pi::Mac;

const NFS3ERR_ACCES: u32 = 13;
const NFS3ERR_XDEV: u32 = 18;
const NFS3ERR_NOTDIR: u32 = 20;
const NFS3ERR_INVAL: u32 = 22;
const NFS3ERR_BADHANDLE: u32 = 10001;

/// The lion and the zebra, and their roots on the server.
struct Savanna {
    dir: tempfile::TempDir,
    fixture: Fixture,
    lion: Device,
    zebra: Device,
}

impl Savanna {
    fn new() -> Self {
        Self::of_holders(|mac, _| Who::Mac(mac))
    }

    fn of_holders(who: fn(Mac, IpAddr) -> Who) -> Self {
        let dir = scratch();
        for name in ["lion", "zebra"] {
            let root = dir.path().join(name).join("root");
            fs::create_dir_all(root.join("etc/deep/deeper")).unwrap();
            fs::write(root.join("etc/secret"), format!("of the {name}")).unwrap();
            fs::write(root.join("secret"), format!("of the {name}")).unwrap();
            fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o666)).unwrap();
            symlink("etc/secret", root.join("link")).unwrap();
        }
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        let address = |n| IpAddr::from(Ipv4Addr::new(127, 0, 0, 10 + n));
        let of = |id: u8, name: &str| Export {
            holder: who(mac(id), address(id)),
            quota: None,
            ..export(id.into(), &format!("/{name}/root"), &dir.path().join(name).join("root"))
        };
        let fixture = start_with(config(), vec![of(1, "lion"), of(2, "zebra")]);
        let device = |host, name: &str| {
            fixture.book.observe(address(host), mac(host));
            let wire = Raw::connect_from(address(host), fixture.address());
            let mut device = Device::new(wire);
            device.root = device.mnt(format!("/{name}/root").as_bytes()).unwrap();
            device
        };
        let (lion, zebra) = (device(1, "lion"), device(2, "zebra"));
        Self { dir, fixture, lion, zebra }
    }

    /// Everything of the zebra's that could be disturbed.
    fn zebras(&self) -> BTreeMap<PathBuf, (Vec<i64>, Vec<u8>)> {
        let mut found = BTreeMap::new();
        collect(&self.dir.path().join("zebra"), &mut found);
        assert_eq!(found.len(), 8);
        found
    }
}

fn collect(path: &Path, found: &mut BTreeMap<PathBuf, (Vec<i64>, Vec<u8>)>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let numbers = [meta.mode(), meta.uid(), meta.gid()].map(i64::from);
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    let counts = [meta.nlink(), meta.size()].map(|n| i64::try_from(n).unwrap());
    let content = if meta.is_file() { fs::read(path).unwrap() } else { Vec::new() };
    found.insert(path.to_owned(), ([&numbers[..], &times, &counts].concat(), content));
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn handles_of_the_other_are_worth_nothing_in_any_procedure_and_to_any_user() {
    if !is_root() {
        return;
    }
    foreign_handles(Savanna::new());
    foreign_handles(Savanna::of_holders(|_, address| Who::Addresses(vec![format!("{address}/32").parse().unwrap()])));
}

fn foreign_handles(mut s: Savanna) {
    let root = s.zebra.root.clone();
    let mut foreign = vec![root.clone()];
    for name in [&b"secret"[..], b"link", b"etc"] {
        foreign.push(s.zebra.lookup(&root, name).unwrap());
    }
    let before = s.zebras();
    let callers = [
        auth(0, 0, &[]),
        auth(0, 0, &[0; 16]),
        auth(1000, 0, &[]),
        auth(1000, 1000, &[0, 1, 2, 3]),
        auth(u32::MAX, u32::MAX, &[u32::MAX]),
        opaque_auth::default(),
    ];
    let own = s.lion.root.clone();
    for caller in callers {
        s.lion.caller = caller;
        for object in &foreign {
            for procedure in NFS_PROCEDURES {
                let about = About { object, other: object, name: b"secret", new: b"new" };
                assert_eq!(s.lion.status(procedure, &nfs_args(procedure, &about)), NFS3ERR_ACCES, "{procedure}");
            }
            // RENAME and LINK, from the own root to the other's and back.
            for (from, to, refusal) in [(&own, object, NFS3ERR_XDEV), (object, &own, NFS3ERR_ACCES)] {
                let about = About { object: from, other: to, name: b"secret", new: b"stolen" };
                assert_eq!(s.lion.status(14, &nfs_args(14, &about)), refusal);
                assert_eq!(s.lion.status(15, &nfs_args(15, &about)), refusal);
            }
        }
    }
    assert!(s.zebras() == before);
    assert!(!s.dir.path().join("lion/root/stolen").exists());
    // None of the calls was refused for its form: the device that has these handles gets its results.
    let about = |n: usize, name| About { object: &foreign[n], other: &root, name, new: b"new" };
    for (procedure, n, name) in [
        (1, 0, &b""[..]),
        (2, 1, b""),
        (3, 0, b"secret"),
        (4, 0, b""),
        (5, 2, b""),
        (6, 1, b""),
        (7, 1, b""),
        (8, 3, b""),
        (12, 3, b"new"),
        (9, 3, b""),
        (13, 3, b"new"),
        (10, 3, b""),
        (12, 3, b"new"),
        (11, 3, b""),
        (14, 3, b"new"),
        (12, 0, b"new"),
        (15, 1, b""),
        (16, 0, b""),
        (17, 0, b""),
        (18, 0, b""),
        (19, 0, b""),
        (20, 0, b""),
        (21, 1, b""),
    ] {
        assert_eq!(s.zebra.status(procedure, &nfs_args(procedure, &about(n, name))), 0, "{procedure}");
    }
}

#[test]
fn own_handles_cannot_be_bent_into_the_others() {
    if !is_root() {
        return;
    }
    let mut s = Savanna::new();
    let (own, foreign) = (s.lion.root.data.0.to_vec(), s.zebra.root.data.0.to_vec());
    assert_eq!((own.len(), &own[..2]), (foreign.len(), &foreign[..2]));
    let mut bent = Vec::new();
    // The number of the export, and each way to put the front of one and the end of the other together.
    for id in [0_u16, 2, 0x200, u16::MAX] {
        for bytes in [id.to_be_bytes(), id.to_le_bytes()] {
            bent.push([&own[..2], &bytes, &own[4..]].concat());
        }
    }
    for at in 1..own.len() {
        bent.push([&own[..at], &foreign[at..]].concat());
        bent.push([&foreign[..at], &own[at..]].concat());
    }
    bent.retain(|handle| *handle != own && *handle != foreign);
    assert!(bent.len() > 30);
    for handle in bent {
        let about = About { object: &fh(&handle), other: &fh(&handle), name: b"secret", new: b"new" };
        for procedure in [1, 3, 17] {
            assert_eq!(s.lion.status(procedure, &nfs_args(procedure, &about)), NFS3ERR_BADHANDLE, "{handle:02x?}");
        }
    }
}

#[test]
fn no_path_mounts_what_is_the_others() {
    if !is_root() {
        return;
    }
    let mut s = Savanna::new();
    let on_disk = s.dir.path().to_owned();
    let mut paths: Vec<Vec<u8>> = [
        &b"/zebra/root"[..],
        b"/zebra/root/",
        b"/zebra/root//",
        b"//zebra/root",
        b"/zebra//root",
        b"/zebra/./root",
        b"/zebra/root/.",
        b"/zebra/root/etc",
        b"/zebra/root/secret",
        b"/zebra",
        b"zebra/root",
        b"/",
        b"//",
        b"",
        b".",
        b"..",
        b"/..",
        b"/lion/root/..",
        b"/lion/root/../../zebra/root",
        b"/lion/root//../../zebra/root",
        b"/lion/root/etc",
        b"/lion/root/link",
        b"/lion/root\0/../zebra/root",
        b"/zebra/root\0",
        b"/ZEBRA/ROOT",
        b"\xff",
        &[b'/'; 4096],
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    for name in ["", "zebra", "zebra/root", "lion/root/../../zebra/root"] {
        paths.push(on_disk.join(name).as_os_str().as_bytes().to_vec());
    }
    for path in paths {
        let refused = s.lion.mnt(&path).unwrap_err();
        assert!([2, NFS3ERR_ACCES].contains(&refused), "{}: {refused}", path.escape_ascii());
    }
    assert!(s.lion.mnt(b"/lion/root").is_ok() && s.zebra.mnt(b"/zebra/root").is_ok());

    let contains = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|part| part == needle);
    for (procedure, what) in [(2, "DUMP"), (5, "EXPORT")] {
        let list = s.lion.call(MOUNT, procedure, &[]);
        assert!(contains(&list, b"/lion/root") && !contains(&list, b"zebra"), "{what}");
    }
    // Neither by name nor all at once does it unmount what the other has mounted.
    s.lion.call(MOUNT, 3, &encoded(&dirpath(Opaque::borrowed(b"/zebra/root"))));
    s.lion.call(MOUNT, 4, &[]);
    assert!(contains(&s.zebra.call(MOUNT, 2, &[]), b"/zebra/root"));
    assert!(!contains(&s.lion.call(MOUNT, 2, &[]), b"/lion/root"));
}

#[test]
fn the_way_up_ends_at_the_own_root() {
    if !is_root() {
        return;
    }
    let mut s = Savanna::new();
    let root = s.lion.root.clone();
    let mut at = root.clone();
    for name in [&b"etc"[..], b"deep", b"deeper"] {
        at = s.lion.lookup(&at, name).unwrap();
    }
    for _ in 0..10 {
        at = s.lion.lookup(&at, b"..").unwrap();
    }
    assert_eq!(at.data.0, root.data.0);
    assert!(s.lion.lookup(&at, b"zebra").is_err());
    for dir in [root.clone(), s.lion.lookup(&root, b"etc").unwrap()] {
        for name in [&b"../../zebra/root/secret"[..], b"../..", b"..\0", b"/zebra", b"../", b"./..", b""] {
            assert_eq!(s.lion.lookup(&dir, name).unwrap_err(), NFS3ERR_ACCES, "{}", name.escape_ascii());
        }
    }
    // What listings say of "..": the root itself, and its own number.
    let about = About { object: &root, other: &root, name: b"", new: b"" };
    let result = s.lion.call(NFS, 17, &nfs_args(17, &about));
    let Nfs3Result::Ok(listing) = nfs3::READDIRPLUS3res::unpack(&mut &result[..]).unwrap().0 else { panic!() };
    let own = fs::metadata(s.dir.path().join("lion/root")).unwrap().ino();
    let entries = listing.reply.entries.into_inner();
    let up: Vec<_> = entries.iter().filter(|entry| matches!(entry.name.0.as_ref(), b"." | b"..")).collect();
    assert_eq!(up.len(), 2);
    for entry in up {
        assert_eq!(entry.fileid, own);
        if let nfs3::Nfs3Option::Some(handle) = &entry.name_handle {
            assert_eq!(handle.data.0, root.data.0);
        }
    }
}

#[test]
fn symlinks_to_the_others_files_are_text() {
    if !is_root() {
        return;
    }
    let mut s = Savanna::new();
    let own = s.dir.path().join("lion/root");
    let on_disk = s.dir.path().join("zebra/root");
    let targets = [
        on_disk.join("secret"),
        on_disk,
        PathBuf::from("../../zebra/root/secret"),
        PathBuf::from("../../zebra/root"),
        PathBuf::from("../../zebra/root/absent"),
    ];
    let before = s.zebras();
    let root = s.lion.root.clone();
    for (n, target) in targets.iter().enumerate() {
        let name = format!("to{n}").into_bytes();
        symlink(target, own.join(format!("to{n}"))).unwrap();
        let link = s.lion.lookup(&root, &name).unwrap();
        let about = About { object: &link, other: &link, name: b"secret", new: b"new" };
        let text = s.lion.call(NFS, 5, &nfs_args(5, &about));
        let Nfs3Result::Ok(text) = nfs3::READLINK3res::unpack(&mut &text[..]).unwrap().0 else { panic!() };
        assert_eq!(text.data.0.as_ref(), target.as_os_str().as_bytes());
        for (procedure, refusal) in [
            (3, NFS3ERR_NOTDIR),
            (6, NFS3ERR_INVAL),
            (7, NFS3ERR_INVAL),
            (8, NFS3ERR_NOTDIR),
            (9, NFS3ERR_NOTDIR),
            (10, NFS3ERR_NOTDIR),
            (11, NFS3ERR_NOTDIR),
            (12, NFS3ERR_NOTDIR),
            (13, NFS3ERR_NOTDIR),
            (14, NFS3ERR_NOTDIR),
            (16, NFS3ERR_NOTDIR),
            (17, NFS3ERR_NOTDIR),
        ] {
            assert_eq!(
                s.lion.status(procedure, &nfs_args(procedure, &about)),
                refusal,
                "{procedure} through {target:?}"
            );
        }
        // Into the directory behind it, over its name, and its length.
        let into = About { object: &root, other: &link, name: b"secret", new: b"new" };
        assert_eq!(s.lion.status(14, &nfs_args(14, &into)), NFS3ERR_NOTDIR);
        assert_ne!(s.lion.status(2, &nfs_args(2, &about)), 0, "a length is for files");
        let over = About { object: &root, other: &root, name: b"secret", new: &name };
        assert_ne!(s.lion.status(9, &nfs_args(9, &over)), 0);
        let result = s.lion.call(NFS, 8, &nfs_args(8, &over));
        if let Nfs3Result::Ok(ok) = nfs3::CREATE3res::unpack(&mut &result[..]).unwrap().0 {
            assert_eq!(some(ok.obj).data.0, link.data.0, "CREATE does not go through it");
        }
    }
    assert!(s.zebras() == before);
}

#[test]
fn the_answer_to_one_is_not_repeated_to_the_other() {
    if !is_root() {
        return;
    }
    let mut s = Savanna::new();
    let root = s.zebra.root.clone();
    let about = About { object: &root, other: &root, name: b"", new: b"new" };
    let message = Raw::message(4711, NFS, 3, 8, &nfs_args(8, &about));
    let first = s.zebra.wire.ask(&message).unwrap();
    assert_eq!(word(&first[24..]), 0);
    let overheard = s.lion.wire.ask(&message).unwrap();
    assert_eq!((word(&overheard[24..]), overheard.len()), (NFS3ERR_ACCES, 28 + 8), "no handle, no attributes");
    assert_eq!(s.fixture.server.stats().replays, 0);
    assert_eq!(s.zebra.wire.ask(&message).unwrap(), first);
    assert_eq!(s.fixture.server.stats().replays, 1);
}
