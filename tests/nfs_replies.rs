//! Replies of all procedures to calls at random are what an independent decoder expects, to the last byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use nfs_support::calls::{About, MOUNT, NFS, encoded, nfs_args};
use nfs_support::device::Device;
use nfs_support::random::Random;
use nfs_support::{Raw, auth, fh, is_root, scratch, start};
use nfs3_types::mount::{dirpath, exports, mountlist, mountres3};
use nfs3_types::nfs3::{self, Nfs3Result};
use nfs3_types::portmap::mapping;
use nfs3_types::rpc::{msg_body, rpc_msg};
use nfs3_types::xdr_codec::{List, Opaque, Unpack, Void};

/// Decodes a value that fills `bytes`.
fn whole<T: Unpack>(bytes: &[u8]) -> T {
    let (value, used) = T::unpack(&mut &bytes[..]).unwrap();
    assert_eq!(used, bytes.len(), "{bytes:02x?}");
    value
}

fn is_ok<T: Unpack, E: Unpack>(bytes: &[u8]) -> bool {
    matches!(whole::<Nfs3Result<T, E>>(bytes), Nfs3Result::Ok(_))
}

/// Whether a result is a success; decodes it whole.
fn succeeded(procedure: u32, result: &[u8]) -> bool {
    match procedure {
        1 => is_ok::<nfs3::GETATTR3resok, Void>(result),
        2 => is_ok::<nfs3::SETATTR3resok, nfs3::SETATTR3resfail>(result),
        3 => is_ok::<nfs3::LOOKUP3resok, nfs3::LOOKUP3resfail>(result),
        4 => is_ok::<nfs3::ACCESS3resok, nfs3::ACCESS3resfail>(result),
        5 => is_ok::<nfs3::READLINK3resok, nfs3::READLINK3resfail>(result),
        6 => is_ok::<nfs3::READ3resok, nfs3::READ3resfail>(result),
        7 => is_ok::<nfs3::WRITE3resok, nfs3::WRITE3resfail>(result),
        8 => is_ok::<nfs3::CREATE3resok, nfs3::CREATE3resfail>(result),
        9 => is_ok::<nfs3::MKDIR3resok, nfs3::MKDIR3resfail>(result),
        10 => is_ok::<nfs3::SYMLINK3resok, nfs3::SYMLINK3resfail>(result),
        11 => is_ok::<nfs3::MKNOD3resok, nfs3::MKNOD3resfail>(result),
        12 => is_ok::<nfs3::REMOVE3resok, nfs3::REMOVE3resfail>(result),
        13 => is_ok::<nfs3::RMDIR3resok, nfs3::RMDIR3resfail>(result),
        14 => is_ok::<nfs3::RENAME3resok, nfs3::RENAME3resfail>(result),
        15 => is_ok::<nfs3::LINK3resok, nfs3::LINK3resfail>(result),
        16 => is_ok::<nfs3::READDIR3resok, nfs3::READDIR3resfail>(result),
        17 => is_ok::<nfs3::READDIRPLUS3resok, nfs3::READDIRPLUS3resfail>(result),
        18 => is_ok::<nfs3::FSSTAT3resok, nfs3::FSSTAT3resfail>(result),
        19 => is_ok::<nfs3::FSINFO3resok, nfs3::FSINFO3resfail>(result),
        20 => is_ok::<nfs3::PATHCONF3resok, nfs3::PATHCONF3resfail>(result),
        21 => is_ok::<nfs3::COMMIT3resok, nfs3::COMMIT3resfail>(result),
        _ => panic!("no such procedure"),
    }
}

#[test]
fn results_of_all_procedures() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    for name in ["a", "bc", "def"] {
        fs::create_dir_all(dir.path().join(name).join("empty")).unwrap();
        fs::write(dir.path().join(name).join("file"), name.repeat(1000)).unwrap();
        symlink(name.repeat(5), dir.path().join(name).join("link")).unwrap();
    }
    let f = start(dir.path());
    let mut device = Device::new(Raw::connect(f.address()));
    let root = device.mnt(b"/pi/root").unwrap();
    let mut objects = vec![root.clone(), fh(&[]), fh(&[1; 26]), fh(&[0xff; 64])];
    for name in [&b"a"[..], b"bc", b"def"] {
        let dir = device.lookup(&root, name).unwrap();
        for name in [&b"empty"[..], b"file", b"link"] {
            objects.push(device.lookup(&dir, name).unwrap());
        }
        objects.push(dir);
    }
    let names: [&[u8]; 14] = [
        b"a",
        b"bc",
        b"def",
        b"empty",
        b"file",
        b"link",
        b"new",
        b"newer",
        b"absent",
        b".",
        b"..",
        b"",
        b"a/b",
        &[b'n'; 256],
    ];
    let mut random = Random(0x7265_706c);
    let mut seen: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
    let users = [auth(0, 0, &[]), auth(1000, 1000, &[4, 24])];
    for _ in 0..20_000 {
        let procedure = 1 + random.below(21) as u32;
        let about = About {
            object: random.of(&objects),
            other: random.of(&objects),
            name: random.of::<&[u8]>(&names),
            new: random.of::<&[u8]>(&names),
        };
        device.caller = users[usize::from(random.below(4) == 0)].clone();
        let result = device.call(NFS, procedure, &nfs_args(procedure, &about));
        let ok = succeeded(procedure, &result);
        seen.entry(procedure).or_default()[usize::from(ok)] += 1;
    }
    for procedure in 1..=21 {
        assert!(seen[&procedure].iter().all(|count| *count > 4), "failures and successes of {procedure}: {seen:?}");
    }
    assert!(device.call(NFS, 0, &[]).is_empty());
}

#[test]
fn results_of_mount_and_the_portmapper() {
    if !is_root() {
        return;
    }
    let dir = scratch();
    let f = start(dir.path());
    let mut device = Device::new(Raw::connect(f.address()));
    for (path, ok) in [(&b"/pi/root"[..], true), (b"/other", false)] {
        let result = device.call(MOUNT, 1, &encoded(&dirpath(Opaque::borrowed(path))));
        assert_eq!(matches!(whole::<mountres3>(&result), mountres3::Ok(_)), ok);
    }
    let mounts: mountlist = whole(&device.call(MOUNT, 2, &[]));
    assert_eq!(mounts.into_inner().len(), 1);
    let exported: exports = whole(&device.call(MOUNT, 5, &[]));
    assert_eq!(exported.into_inner().len(), 1);
    for (procedure, args) in [(0, vec![]), (3, encoded(&dirpath(Opaque::borrowed(b"/pi/root")))), (4, vec![])] {
        assert!(device.call(MOUNT, procedure, &args).is_empty(), "{procedure}");
    }
    let mut portmapper = Raw::connect(f.portmap_address());
    let mut ask = |procedure, args: &[u8]| {
        let reply = portmapper.ask(&Raw::message(9, 100_000, 2, procedure, args)).unwrap();
        let (header, used) = rpc_msg::unpack(&mut &reply[..]).unwrap();
        assert!(header.xid == 9 && matches!(header.body, msg_body::REPLY(_)));
        reply[used..].to_vec()
    };
    assert!(ask(0, &[]).is_empty());
    let port: u32 = whole(&ask(3, &encoded(&mapping { prog: NFS, vers: 3, prot: 6, port: 0 })));
    assert_eq!(port, u32::from(f.server.ports().nfs));
    assert_eq!(whole::<List<mapping>>(&ask(4, &[])).into_inner().len(), 5);
}
