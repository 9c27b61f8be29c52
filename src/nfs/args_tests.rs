//! Every argument type, encoded by an independent implementation.

use nfs3_types::nfs3::{self, Nfs3Option};
use nfs3_types::xdr_codec::{Opaque, Pack};

use super::*;

const HANDLE: &[u8] = &[7; 26];

fn fh(bytes: &[u8]) -> nfs3::nfs_fh3 {
    nfs3::nfs_fh3 { data: Opaque::owned(bytes.to_vec()) }
}

fn place(name: &[u8]) -> nfs3::diropargs3<'static> {
    nfs3::diropargs3 { dir: fh(HANDLE), name: nfs3::filename3::from(name.to_vec()) }
}

fn full_sattr() -> (nfs3::sattr3, SetAttr) {
    let theirs = nfs3::sattr3 {
        mode: Nfs3Option::Some(0o4755),
        uid: Nfs3Option::Some(4_294_967_290),
        gid: Nfs3Option::None,
        size: Nfs3Option::Some(5 << 30),
        atime: nfs3::set_atime::SET_TO_SERVER_TIME,
        mtime: nfs3::set_mtime::SET_TO_CLIENT_TIME(nfs3::nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 }),
    };
    let ours = SetAttr {
        mode: Some(0o4755),
        uid: Some(4_294_967_290),
        gid: None,
        size: Some(5 << 30),
        atime: SetTime::Now,
        mtime: SetTime::To(Time { seconds: u32::MAX, nanoseconds: 999_999_999 }),
    };
    (theirs, ours)
}

/// Encodes `theirs`, decodes it as `procedure`, and tries every shorter input.
fn check(procedure: Procedure, theirs: &impl Pack, wanted: Args<'_>) {
    let mut bytes = Vec::new();
    theirs.pack(&mut bytes).unwrap();
    assert_eq!(decode(procedure, &bytes), Ok(Some((HANDLE, wanted))), "{procedure:?}");
    for end in 0..bytes.len() {
        assert_eq!(decode(procedure, &bytes[..end]), Err(Malformed), "{procedure:?} cut at {end}");
    }
}

#[test]
fn calls_on_attributes_and_names() {
    let (sattr, set) = full_sattr();
    for procedure in
        [Procedure::GetAttr, Procedure::ReadLink, Procedure::FsStat, Procedure::FsInfo, Procedure::PathConf]
    {
        let wanted = match procedure {
            Procedure::ReadLink => Args::ReadLink,
            Procedure::FsStat => Args::FsStat,
            Procedure::FsInfo => Args::FsInfo,
            Procedure::PathConf => Args::PathConf,
            _ => Args::GetAttr,
        };
        check(procedure, &nfs3::GETATTR3args { object: fh(HANDLE) }, wanted);
    }
    let guard = nfs3::nfstime3 { seconds: 5, nseconds: 6 };
    check(
        Procedure::SetAttr,
        &nfs3::SETATTR3args { object: fh(HANDLE), new_attributes: sattr, guard: Nfs3Option::Some(guard) },
        Args::SetAttr { set, guard: Some(Time { seconds: 5, nanoseconds: 6 }) },
    );
    let odd = b"\xff\xfe not UTF-8";
    check(Procedure::Lookup, &nfs3::LOOKUP3args { what: place(odd) }, Args::Lookup { name: odd });
    check(Procedure::Access, &nfs3::ACCESS3args { object: fh(HANDLE), access: 63 }, Args::Access { wanted: 63 });
    check(Procedure::Remove, &nfs3::REMOVE3args { object: place(b"a") }, Args::Remove { name: b"a" });
    check(Procedure::RmDir, &nfs3::RMDIR3args { object: place(b"abcd") }, Args::RmDir { name: b"abcd" });
    let to = nfs3::diropargs3 { dir: fh(&[9; 64]), name: nfs3::filename3::from(b"to".to_vec()) };
    check(
        Procedure::Rename,
        &nfs3::RENAME3args { from: place(b"from"), to },
        Args::Rename { from: b"from", to_dir: &[9; 64], to: b"to" },
    );
    let link = nfs3::diropargs3 { dir: fh(&[1; 4]), name: nfs3::filename3::from(b"n".to_vec()) };
    check(Procedure::Link, &nfs3::LINK3args { file: fh(HANDLE), link }, Args::Link { dir: &[1; 4], name: b"n" });
}

#[test]
fn calls_on_data_and_directories() {
    check(
        Procedure::Read,
        &nfs3::READ3args { file: fh(HANDLE), offset: 1 << 40, count: 4096 },
        Args::Read { offset: 1 << 40, count: 4096 },
    );
    check(
        Procedure::Write,
        &nfs3::WRITE3args {
            file: fh(HANDLE),
            offset: 9,
            count: 5,
            stable: nfs3::stable_how::DATA_SYNC,
            data: Opaque::owned(b"hello".to_vec()),
        },
        Args::Write { offset: 9, count: 5, stable: Stability::DataSync, data: b"hello" },
    );
    check(
        Procedure::Commit,
        &nfs3::COMMIT3args { file: fh(HANDLE), offset: 3, count: 4 },
        Args::Commit { offset: 3, count: 4 },
    );
    let verifier = *b"verifier";
    check(
        Procedure::ReadDir,
        &nfs3::READDIR3args { dir: fh(HANDLE), cookie: 8, cookieverf: nfs3::cookieverf3(verifier), count: 512 },
        Args::ReadDir { cookie: 8, verifier, count: 512 },
    );
    check(
        Procedure::ReadDirPlus,
        &nfs3::READDIRPLUS3args {
            dir: fh(HANDLE),
            cookie: u64::MAX,
            cookieverf: nfs3::cookieverf3(verifier),
            dircount: 1,
            maxcount: 2,
        },
        Args::ReadDirPlus { cookie: u64::MAX, verifier, dircount: 1, maxcount: 2 },
    );
}

#[test]
fn calls_that_create() {
    let how = [
        (nfs3::createhow3::UNCHECKED(full_sattr().0), CreateHow::Unchecked(full_sattr().1)),
        (nfs3::createhow3::GUARDED(nfs3::sattr3::default()), CreateHow::Guarded(SetAttr::default())),
        (nfs3::createhow3::EXCLUSIVE(nfs3::createverf3(*b"12345678")), CreateHow::Exclusive(*b"12345678")),
    ];
    for (theirs, ours) in how {
        let args = nfs3::CREATE3args { where_: place(b"new"), how: theirs };
        check(Procedure::Create, &args, Args::Create { name: b"new", how: ours });
    }
    let (attributes, set) = full_sattr();
    check(Procedure::MkDir, &nfs3::MKDIR3args { where_: place(b"dir"), attributes }, Args::MkDir { name: b"dir", set });
    let target = vec![b't'; 4095];
    let symlink = nfs3::symlinkdata3 {
        symlink_attributes: nfs3::sattr3::default(),
        symlink_data: nfs3::nfspath3(Opaque::owned(target.clone())),
    };
    check(
        Procedure::SymLink,
        &nfs3::SYMLINK3args { where_: place(b"l"), symlink },
        Args::SymLink { name: b"l", set: SetAttr::default(), target: &target },
    );
    let spec = nfs3::specdata3 { specdata1: 8, specdata2: 1 };
    let device = nfs3::devicedata3 { dev_attributes: full_sattr().0, spec };
    check(
        Procedure::MkNod,
        &nfs3::MKNOD3args { where_: place(b"sda1"), what: nfs3::mknoddata3::NF3BLK(device) },
        Args::MkNod { name: b"sda1", node: Node::BlockDevice { set, major: 8, minor: 1 } },
    );
    check(
        Procedure::MkNod,
        &nfs3::MKNOD3args { where_: place(b"p"), what: nfs3::mknoddata3::NF3FIFO(full_sattr().0) },
        Args::MkNod { name: b"p", node: Node::Fifo { set } },
    );
}

#[test]
fn a_handle_of_three_gigabytes_is_malformed() {
    let mut bytes = vec![0xc0, 0, 0, 0];
    bytes.extend_from_slice(&[0; 60]);
    for procedure in Procedure::ALL.into_iter().skip(1) {
        assert_eq!(decode(procedure, &bytes), Err(Malformed), "{procedure:?}");
    }
}
