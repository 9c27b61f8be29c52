//! Who may do what: handles, exports, addresses, squashing, changes while clients are connected.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use nfs_support::{
    Fixture, KEY, Raw, at, config, create, export, fh, getattr, is_root, lookup, read, scratch, start, start_with,
    status, write,
};
use nfs3_client::tokio::TokioIo;
use nfs3_client::{MountClient, MountError, Nfs3Client};
use nfs3_types::mount::{dirpath, mountstat3};
use nfs3_types::nfs3::{self, Nfs3Option, nfsstat3, stable_how};
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::{Opaque, Pack};
use piboot::clock::Clock;
use piboot::events::{Nfs, Sink};
use piboot::net::AddressBook;
use piboot::nfs::{Export, Limits, RootIs, Server, ServerConfig, Who};
use piboot::pi::Mac;

const LION: Mac = Mac([0xdc, 0xa6, 0x32, 0, 0, 1]);
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn of_lion(id: u16, name: &str, dir: &std::path::Path) -> Export {
    Export { holder: Who::Mac(LION), ..export(id, name, dir) }
}

fn denied(result: Result<nfs3::nfs_fh3, MountError>) -> u32 {
    match result {
        Err(MountError::Denied(status)) => status as u32,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_bent_bit_of_a_handle_is_refused() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    let genuine = root.data.0.to_vec();
    for bit in 0..genuine.len() * 8 {
        let mut bent = genuine.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(getattr(c, &fh(&bent)).await.unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE, "bit {bit}");
    }
    for end in 0..genuine.len() {
        assert_eq!(getattr(c, &fh(&genuine[..end])).await.unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE);
    }
    // The root of the disk's file system, as a client that knows ext4 would forge it.
    let mut forged = genuine.clone();
    forged[10..14].copy_from_slice(&2_u32.to_ne_bytes());
    assert_eq!(getattr(c, &fh(&forged)).await.unwrap_err(), nfsstat3::NFS3ERR_BADHANDLE);
    assert!(getattr(c, &root).await.is_ok());
}

#[tokio::test]
async fn handles_outlive_the_server_but_not_its_key() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let mut c = f.root().await;
    let file = create(&mut c, &root, b"file", 0o600).await.unwrap();
    let verifier = write(&mut c, &file, 0, b"kept", stable_how::UNSTABLE).await.unwrap().verf;
    drop(c);
    f.server.stop();

    let f = start(dir.path());
    let c = &mut f.root().await;
    assert_eq!(read(c, &file, 0, 9).await.unwrap().0, b"kept");
    let commit = c.commit(&nfs3::COMMIT3args { file: file.clone(), offset: 0, count: 0 }).await.unwrap().unwrap();
    assert_ne!(commit.verf.0, verifier.0, "what was not committed has to be sent again");
    drop(f);

    let other = ServerConfig { handle_key: [7; 16], ..config() };
    let f = start_with(other, vec![export(1, "/pi/root", dir.path())]);
    let c = &mut f.root().await;
    assert_eq!(read(c, &file, 0, 9).await, Err(nfsstat3::NFS3ERR_BADHANDLE));
    assert_ne!(KEY, [7; 16]);
}

#[tokio::test]
async fn while_nobody_knows_who_holds_the_address_the_client_waits() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let mut f = start_with(config(), vec![of_lion(1, "/lion/root", dir.path())]);
    f.book.observe(LOOPBACK, LION);
    let root = f.mount("/lion/root").await.unwrap();
    let c = &mut f.root().await;
    let file = create(c, &root, b"f", 0o600).await.unwrap();
    f.seen();
    f.book.observe(IpAddr::from([192, 0, 2, 77]), LION);
    assert_eq!(f.book.mac_of(LOOPBACK), None);
    let large = vec![7; 100 << 10];
    let refused = write(c, &file, 0, &large, stable_how::UNSTABLE).await;
    assert_eq!(refused.unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX, "asked to come again, on the same connection");
    assert_eq!(f.seen(), [], "nothing was refused");
    assert_eq!(denied(f.mount("/lion/root").await), mountstat3::MNT3ERR_ACCES as u32, "nobody new is let in");
    f.book.observe(LOOPBACK, LION);
    write(c, &file, 0, &large, stable_how::UNSTABLE).await.unwrap();
    f.book.observe(LOOPBACK, Mac([2, 0, 0, 0, 0, 9]));
    assert_eq!(getattr(c, &file).await.unwrap_err(), nfsstat3::NFS3ERR_ACCES);
}

#[tokio::test]
async fn a_server_that_starts_again_has_its_exports_at_the_first_request() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let exports = vec![export(1, "/pi/root", dir.path())];
    let f = start_with(config(), exports.clone());
    let root = f.mount("/pi/root").await.unwrap();
    f.server.stop();
    let (sink, _events) = Sink::new(Clock::manual(0));
    let config = ServerConfig { exports, ..config() };
    let server = Server::start(config, AddressBook::observed_only(), sink).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.ports().nfs));
    let io = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let c = &mut Nfs3Client::new_with_auth(io, nfs_support::auth(0, 0, &[]), opaque_auth::default());
    assert!(getattr(c, &root).await.is_ok());
}

#[tokio::test]
async fn one_export_does_not_open_another() {
    if !is_root() {
        return;
    }
    let (mine, other) = (scratch(), scratch());
    fs::write(other.path().join("secret"), b"secret").unwrap();
    let everybody = export(2, "/other/root", other.path());
    let mut f = start_with(config(), vec![export(1, "/pi/root", mine.path()), everybody.clone()]);
    let (root, foreign) = (f.mount("/pi/root").await.unwrap(), f.mount("/other/root").await.unwrap());
    let c = &mut f.root().await;
    let secret = lookup(c, &foreign, b"secret").await.unwrap();
    let cross = c.link(&nfs3::LINK3args { file: secret.clone(), link: at(&root, b"stolen") }).await.unwrap();
    assert_eq!(status(&cross), nfsstat3::NFS3ERR_XDEV);
    let cross = c.rename(&nfs3::RENAME3args { from: at(&foreign, b"secret"), to: at(&root, b"stolen") }).await.unwrap();
    assert_eq!(status(&cross), nfsstat3::NFS3ERR_XDEV);

    f.book.observe(LOOPBACK, Mac([2, 0, 0, 0, 0, 9]));
    // From now on it is the lion's: a handle that was got before is worth nothing.
    f.server.set_exports(vec![export(1, "/pi/root", mine.path()), of_lion(2, "/other/root", other.path())]);
    assert_eq!(read(c, &secret, 0, 9).await, Err(nfsstat3::NFS3ERR_ACCES));
    assert_eq!(denied(f.mount("/other/root").await), mountstat3::MNT3ERR_ACCES as u32);
    assert_eq!(denied(f.mount("/nobody/root").await), mountstat3::MNT3ERR_NOENT as u32);
    let exports = f.mounter().await.export().await.unwrap().into_inner();
    assert_eq!(exports.len(), 1, "nobody else's business");
    let refused = f.seen().into_iter().filter(|event| matches!(event, Nfs::Refused { .. })).count();
    assert_eq!(refused, 2, "one for each export within a minute");
}

async fn is_served(f: &Fixture, c: &mut nfs_support::Client, root: &nfs3::nfs_fh3) -> bool {
    let mounted = f.mount("/lion/root").await.is_ok();
    let served = match getattr(c, root).await {
        Ok(_) => true,
        Err(nfsstat3::NFS3ERR_ACCES) => false,
        Err(nfsstat3::NFS3ERR_JUKEBOX) if f.book.mac_of(LOOPBACK).is_none() => false,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(mounted, served, "MNT and NFS agree");
    served
}

#[tokio::test]
async fn the_address_that_the_mac_holds_now_is_served() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start_with(config(), vec![of_lion(1, "/lion/root", dir.path())]);
    f.book.observe(LOOPBACK, LION);
    let root = f.mount("/lion/root").await.unwrap();
    let c = &mut f.root().await;
    assert!(is_served(&f, c, &root).await);
    f.book.observe(IpAddr::from([192, 0, 2, 77]), LION);
    assert!(!is_served(&f, c, &root).await, "on the same connection, from the next request on");
    f.book.observe(LOOPBACK, LION);
    assert!(is_served(&f, c, &root).await);
    f.book.observe(LOOPBACK, Mac([2, 0, 0, 0, 0, 9]));
    assert!(!is_served(&f, c, &root).await);
}

/// A client on a port of the kind that kernels use.
async fn from_reserved_port(f: &Fixture) -> TokioIo<tokio::net::TcpStream> {
    for port in (700..1000).rev() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        if socket.bind((Ipv4Addr::LOCALHOST, port).into()).is_ok()
            && let Ok(stream) = socket.connect(f.address()).await
        {
            return TokioIo::new(stream);
        }
    }
    panic!("no reserved port is free")
}

#[tokio::test]
async fn a_process_of_a_client_is_not_its_root() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let public = Export { root: RootIs::Nobody, ..export(3, "/public", dir.path()) };
    let lions = of_lion(1, "/lion/root", dir.path());
    let exports = vec![lions.clone(), export(2, "/any/root", dir.path()), public];
    let mut f = start_with(ServerConfig { insecure_ports: false, ..config() }, exports);
    f.book.observe(LOOPBACK, LION);
    let mut kernel = MountClient::new(from_reserved_port(&f).await);
    let mut handles = Vec::new();
    for name in ["/lion/root", "/any/root", "/public"] {
        let path = dirpath(Opaque::borrowed(name.as_bytes()));
        handles.push(fh(&kernel.mnt(path).await.unwrap().fhandle.0));
    }
    f.seen();
    for name in ["/lion/root", "/any/root"] {
        assert_eq!(denied(f.mount(name).await), mountstat3::MNT3ERR_ACCES as u32, "{name}");
    }
    assert!(f.mount("/public").await.is_ok(), "nobody is root there");
    let events = f.seen();
    let Some(Nfs::Refused { why, .. }) = events.first() else { panic!("{events:?}") };
    assert!(why.contains("port"), "{why}");
    let process = &mut f.root().await;
    for handle in &handles[..2] {
        assert_eq!(getattr(process, handle).await.unwrap_err(), nfsstat3::NFS3ERR_ACCES, "a handle is not enough");
    }
    assert!(getattr(process, &handles[2]).await.is_ok());
    let credential = nfs_support::auth(0, 0, &[]);
    let io = from_reserved_port(&f).await;
    let kernel = &mut Nfs3Client::new_with_auth(io, credential, opaque_auth::default());
    assert!(getattr(kernel, &handles[0]).await.is_ok());
    // Squashed or not: what a device wrote is not for each of its processes.
    f.server.set_exports(vec![Export { root: RootIs::Nobody, ..lions }]);
    assert_eq!(getattr(process, &handles[0]).await.unwrap_err(), nfsstat3::NFS3ERR_ACCES);
    assert!(getattr(kernel, &handles[0]).await.is_ok());
}

#[tokio::test]
async fn exports_come_and_go_without_disturbing_others() {
    if !is_root() {
        return;
    }
    let (one, two) = (scratch(), scratch());
    let first = export(1, "/one/root", one.path());
    let mut f = start_with(config(), vec![first.clone()]);
    let root = f.mount("/one/root").await.unwrap();
    let c = &mut f.root().await;
    let file = create(c, &root, b"f", 0o600).await.unwrap();
    let promised = write(c, &file, 0, b"x", stable_how::UNSTABLE).await.unwrap().verf.0;
    f.server.set_exports(vec![first.clone(), export(2, "/two/root", two.path())]);
    let second = f.mount("/two/root").await.unwrap();
    assert!(getattr(c, &second).await.is_ok() && read(c, &file, 0, 1).await.is_ok());
    assert_eq!(f.server.stats().open_files, 2, "not closed by the change");
    let commit = nfs3::COMMIT3args { file: file.clone(), offset: 0, count: 0 };
    assert_eq!(c.commit(&commit).await.unwrap().unwrap().verf.0, promised, "nothing to send again");
    let fsid = |attr: nfs3::fattr3| attr.fsid;
    assert_ne!(fsid(getattr(c, &root).await.unwrap()), fsid(getattr(c, &second).await.unwrap()));

    f.server.set_exports(vec![export(2, "/two/root", two.path())]);
    assert_eq!(getattr(c, &root).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    assert_eq!(read(c, &file, 0, 1).await, Err(nfsstat3::NFS3ERR_STALE));
    assert_eq!(f.server.stats().open_files, 0, "the volume can be unmounted");
    assert!(getattr(c, &second).await.is_ok());

    // The same id and name, but the volume is away: wait, not stale, which would be the end of a running system.
    let away = two.path().join("absent");
    let unavailable = f.server.set_exports(vec![export(1, "/one/root", &away)]);
    assert_eq!(unavailable.len(), 1);
    assert_eq!(getattr(c, &root).await.unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX);
    assert_eq!(denied(f.mount("/one/root").await), mountstat3::MNT3ERR_SERVERFAULT as u32);
    assert!(f.server.set_exports(vec![first]).is_empty());
    let verifier = c.commit(&commit).await.unwrap().unwrap().verf.0;
    assert_ne!(verifier, promised, "what was not committed may have been lost with the volume");
    let late = write(c, &file, 0, b"x", stable_how::UNSTABLE).await.unwrap();
    assert_eq!(late.verf.0, verifier);
    assert_eq!(read(c, &file, 0, 1).await.unwrap().0, b"x");
    f.seen();
}

#[tokio::test]
async fn root_is_squashed_and_changes_are_refused_where_the_export_says_so() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::write(dir.path().join("f"), b"text").unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let squashed = Export { root: RootIs::Nobody, ..export(1, "/squashed", dir.path()) };
    let read_only = Export { read_only: true, ..export(2, "/read-only", dir.path()) };
    let f = start_with(config(), vec![squashed, read_only]);
    let c = &mut f.root().await;
    let root = f.mount("/squashed").await.unwrap();
    create(c, &root, b"new", 0o600).await.unwrap();
    let meta = fs::metadata(dir.path().join("new")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (65534, 65534));
    let file = lookup(c, &root, b"f").await.unwrap();
    assert_eq!(write(c, &file, 0, b"x", stable_how::UNSTABLE).await.unwrap_err(), nfsstat3::NFS3ERR_ACCES);

    let root = f.mount("/read-only").await.unwrap();
    let file = lookup(c, &root, b"f").await.unwrap();
    assert_eq!(read(c, &file, 0, 9).await.unwrap().0, b"text");
    assert_eq!(write(c, &file, 0, b"x", stable_how::UNSTABLE).await.unwrap_err(), nfsstat3::NFS3ERR_ROFS);
    assert_eq!(create(c, &root, b"n", 0o600).await, Err(nfsstat3::NFS3ERR_ROFS));
    let new_attributes = nfs3::sattr3 { mode: Nfs3Option::Some(0), ..Default::default() };
    let chmod = nfs3::SETATTR3args { object: file.clone(), new_attributes, guard: Nfs3Option::None };
    assert_eq!(status(&c.setattr(&chmod).await.unwrap()), nfsstat3::NFS3ERR_ROFS);
    let access = c.access(&nfs3::ACCESS3args { object: file, access: 0x3f }).await.unwrap().unwrap();
    assert_eq!(access.access & 0x1c, 0, "no MODIFY, EXTEND, DELETE");
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"text");
}

#[tokio::test]
async fn another_file_system_below_the_export_is_not_entered() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let below = dir.path().join("mounted");
    fs::create_dir(&below).unwrap();
    if let Err(errno) = rustix::mount::mount("none", &below, "tmpfs", rustix::mount::MountFlags::empty(), None) {
        eprintln!("skipped: cannot mount here ({errno})");
        return;
    }
    struct Unmount<'a>(&'a std::path::Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
    let _unmount = Unmount(&below);
    fs::write(below.join("foreign"), b"x").unwrap();
    let f = start(dir.path());
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    assert_eq!(lookup(c, &root, b"mounted").await, Err(nfsstat3::NFS3ERR_ACCES));
    let args = nfs3::READDIRPLUS3args {
        dir: root,
        cookie: 0,
        cookieverf: nfs3::cookieverf3([0; 8]),
        dircount: 4096,
        maxcount: 32768,
    };
    let entries = c.readdirplus(&args).await.unwrap().unwrap().reply.entries.into_inner();
    let entry = entries.iter().find(|entry| entry.name.0.as_ref() == b"mounted").unwrap();
    assert!(matches!(entry.name_handle, Nfs3Option::None) && matches!(entry.name_attributes, Nfs3Option::None));
}

#[tokio::test]
async fn a_mount_tells_its_milestones_once() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::write(dir.path().join("init"), b"text").unwrap();
    let mut f = start(dir.path());
    let name: Arc<str> = Arc::from("/pi/root");
    for round in 0..2 {
        let root = f.mount("/pi/root").await.unwrap();
        let c = &mut f.root().await;
        for _ in 0..2 {
            let init = lookup(c, &root, b"init").await.unwrap();
            read(c, &init, 0, 4).await.unwrap();
            write(c, &init, 0, b"x", stable_how::UNSTABLE).await.unwrap();
        }
        let export = || Arc::clone(&name);
        let wanted = [
            Nfs::Mounted { export: export() },
            Nfs::Init { export: export() },
            Nfs::FirstRead { export: export() },
            Nfs::FirstWrite { export: export() },
        ];
        assert_eq!(f.seen(), wanted, "round {round}");
    }
    let path = nfs3_types::mount::dirpath(nfs3_types::xdr_codec::Opaque::borrowed(b"/pi/root"));
    f.mounter().await.umnt(path).await.unwrap();
    assert_eq!(f.seen(), [Nfs::Unmounted { export: name }]);
}

#[test]
fn a_repeated_request_gets_the_first_answer() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    fs::write(dir.path().join("f"), b"").unwrap();
    let f = start(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let root = runtime.block_on(f.mount("/pi/root")).unwrap();
    let mut args = Vec::new();
    nfs3::REMOVE3args { object: at(&root, b"f") }.pack(&mut args).unwrap();
    let message = Raw::message(77, 100_003, 3, 12, &args);
    let first = Raw::connect(f.address()).ask(&message).unwrap();
    assert!(!dir.path().join("f").exists());
    // The connection broke, and the client sends it again from another port.
    let second = Raw::connect(f.address()).ask(&message).unwrap();
    assert_eq!(first, second);
    assert_eq!(first[24..28], [0; 4], "NFS3_OK");
    assert_eq!(f.server.stats().replays, 1);
    let fresh = Raw::connect(f.address()).ask(&Raw::message(78, 100_003, 3, 12, &args)).unwrap();
    assert_eq!(fresh[24..28], 2_u32.to_be_bytes(), "another request: NFS3ERR_NOENT");
}

#[tokio::test]
async fn with_sync_name_space_changes_are_done_as_well() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let limits = Limits { workers: 1, ..nfs_support::limits() };
    let f = start_with(ServerConfig { sync: true, limits, ..config() }, vec![export(1, "/pi/root", dir.path())]);
    let root = f.mount("/pi/root").await.unwrap();
    let c = &mut f.root().await;
    create(c, &root, b"a", 0o600).await.unwrap();
    let moved = c.rename(&nfs3::RENAME3args { from: at(&root, b"a"), to: at(&root, b"b") }).await.unwrap();
    assert_eq!(status(&moved), nfsstat3::NFS3_OK);
    let removed = c.remove(&nfs3::REMOVE3args { object: at(&root, b"b") }).await.unwrap();
    assert_eq!(status(&removed), nfsstat3::NFS3_OK);
    f.clock.advance(Duration::from_secs(1));
    // Neither what a user may change and not read, nor a new file that has no mode yet, keeps the change from the disk.
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o1733)).unwrap();
    let user = &mut f.client(1000, 1000, &[]).await;
    let how = nfs3::createhow3::EXCLUSIVE(nfs3::createverf3(*b"verifier"));
    let made = user.create(&nfs3::CREATE3args { where_: at(&root, b"exclusive"), how }).await.unwrap();
    assert_eq!(status(&made), nfsstat3::NFS3_OK);
    assert!(create(user, &root, b"unreadable", 0o000).await.is_ok());
    let remove = nfs3::REMOVE3args { object: at(&root, b"unreadable") };
    assert_eq!(status(&user.remove(&remove).await.unwrap()), nfsstat3::NFS3_OK);
}
