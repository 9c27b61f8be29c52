//! Arguments of every call, made at random by an independent encoder, come out of our decoders as they went in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod nfs_support;

use nfs_support::calls::{MOUNT, NFS, encoded};
use nfs_support::fh;
use nfs_support::random::Random;
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{self, Nfs3Option};
use nfs3_types::portmap::mapping;
use nfs3_types::rpc::{auth_unix, call_body, msg_body, opaque_auth, rpc_msg};
use nfs3_types::xdr_codec::Opaque;
use piboot::nfs::args::{Args, CreateHow, Node, SetAttr, SetTime, Stability, Time, decode};
use piboot::nfs::proto::Procedure;
use piboot::nfs::rpc::{Auth, Refusal, Unusable, decode_call};
use piboot::nfs::xdr::Malformed;
use piboot::nfs::{mount, portmap};

const HANDLES: &[usize] = &[0, 1, 3, 4, 5, 26, 30, 63, 64];
const NAMES: &[usize] = &[0, 1, 2, 3, 4, 5, 8, 254, 255, 256, 4095, 4096];
const DATA: &[usize] = &[0, 1, 2, 3, 4, 5, 511, 4096, 65_535, 65_537];

/// Values that arguments are made of.
struct Sample {
    handle: Vec<u8>,
    handle2: Vec<u8>,
    name: Vec<u8>,
    name2: Vec<u8>,
    data: Vec<u8>,
    verifier: [u8; 8],
    long: u64,
    words: [u32; 4],
    time: Option<Time>,
    set: SetAttr,
    which: usize,
}

impl Sample {
    fn new(random: &mut Random) -> Self {
        let set_time = |random: &mut Random| match random.below(3) {
            0 => SetTime::Keep,
            1 => SetTime::Now,
            _ => SetTime::To(time(random)),
        };
        let some32 = |random: &mut Random| random.flag().then(|| random.edgy32());
        Self {
            handle: random.bytes(HANDLES),
            handle2: random.bytes(HANDLES),
            name: random.bytes(NAMES),
            name2: random.bytes(NAMES),
            data: random.bytes(DATA),
            verifier: random.u64().to_be_bytes(),
            long: random.edgy64(),
            words: [random.edgy32(), random.edgy32(), random.edgy32(), random.edgy32()],
            time: random.flag().then(|| time(random)),
            set: SetAttr {
                mode: some32(random),
                uid: some32(random),
                gid: some32(random),
                size: random.flag().then(|| random.edgy64()),
                atime: set_time(random),
                mtime: set_time(random),
            },
            which: random.below(60),
        }
    }

    fn object(&self) -> nfs3::nfs_fh3 {
        fh(&self.handle)
    }

    fn place(&self) -> nfs3::diropargs3<'_> {
        nfs3::diropargs3 { dir: self.object(), name: nfs3::filename3(Opaque::borrowed(&self.name)) }
    }

    fn place2(&self) -> nfs3::diropargs3<'_> {
        nfs3::diropargs3 { dir: fh(&self.handle2), name: nfs3::filename3(Opaque::borrowed(&self.name2)) }
    }

    fn sattr(&self) -> nfs3::sattr3 {
        nfs3::sattr3 {
            mode: option(self.set.mode),
            uid: option(self.set.uid),
            gid: option(self.set.gid),
            size: option(self.set.size),
            atime: match self.set.atime {
                SetTime::Keep => nfs3::set_atime::DONT_CHANGE,
                SetTime::Now => nfs3::set_atime::SET_TO_SERVER_TIME,
                SetTime::To(time) => nfs3::set_atime::SET_TO_CLIENT_TIME(their_time(time)),
            },
            mtime: match self.set.mtime {
                SetTime::Keep => nfs3::set_mtime::DONT_CHANGE,
                SetTime::Now => nfs3::set_mtime::SET_TO_SERVER_TIME,
                SetTime::To(time) => nfs3::set_mtime::SET_TO_CLIENT_TIME(their_time(time)),
            },
        }
    }

    fn stable(&self) -> (nfs3::stable_how, Stability) {
        [
            (nfs3::stable_how::UNSTABLE, Stability::Unstable),
            (nfs3::stable_how::DATA_SYNC, Stability::DataSync),
            (nfs3::stable_how::FILE_SYNC, Stability::FileSync),
        ][self.which % 3]
    }

    fn how(&self) -> (nfs3::createhow3, CreateHow) {
        match self.which % 3 {
            0 => (nfs3::createhow3::UNCHECKED(self.sattr()), CreateHow::Unchecked(self.set)),
            1 => (nfs3::createhow3::GUARDED(self.sattr()), CreateHow::Guarded(self.set)),
            _ => (nfs3::createhow3::EXCLUSIVE(nfs3::createverf3(self.verifier)), CreateHow::Exclusive(self.verifier)),
        }
    }

    fn node(&self) -> (nfs3::mknoddata3, Node) {
        let (set, major, minor) = (self.set, self.words[0], self.words[1]);
        let spec = nfs3::specdata3 { specdata1: major, specdata2: minor };
        let device = nfs3::devicedata3 { dev_attributes: self.sattr(), spec };
        match self.which % 4 {
            0 => (nfs3::mknoddata3::NF3BLK(device), Node::BlockDevice { set, major, minor }),
            1 => (nfs3::mknoddata3::NF3CHR(device), Node::CharDevice { set, major, minor }),
            2 => (nfs3::mknoddata3::NF3SOCK(self.sattr()), Node::Socket { set }),
            _ => (nfs3::mknoddata3::NF3FIFO(self.sattr()), Node::Fifo { set }),
        }
    }

    /// The call in their encoding, and what ours makes of it.
    fn call(&self, procedure: Procedure) -> (Vec<u8>, Args<'_>) {
        let (object, place, name) = (self.object(), self.place(), &self.name[..]);
        let [a, b, ..] = self.words;
        let cookieverf = nfs3::cookieverf3(self.verifier);
        match procedure {
            Procedure::Null => panic!("has no arguments"),
            Procedure::GetAttr => (encoded(&nfs3::GETATTR3args { object }), Args::GetAttr),
            Procedure::SetAttr => {
                let guard = option(self.time.map(their_time));
                let args = nfs3::SETATTR3args { object, new_attributes: self.sattr(), guard };
                (encoded(&args), Args::SetAttr { set: self.set, guard: self.time })
            }
            Procedure::Lookup => (encoded(&nfs3::LOOKUP3args { what: place }), Args::Lookup { name }),
            Procedure::Access => (encoded(&nfs3::ACCESS3args { object, access: a }), Args::Access { wanted: a }),
            Procedure::ReadLink => (encoded(&nfs3::READLINK3args { symlink: object }), Args::ReadLink),
            Procedure::Read => {
                let args = nfs3::READ3args { file: object, offset: self.long, count: a };
                (encoded(&args), Args::Read { offset: self.long, count: a })
            }
            Procedure::Write => {
                let (offset, (stable, wanted)) = (self.long, self.stable());
                let data = Opaque::borrowed(&self.data);
                let args = nfs3::WRITE3args { file: object, offset, count: a, stable, data };
                (encoded(&args), Args::Write { offset, count: a, stable: wanted, data: &self.data })
            }
            Procedure::Create => {
                let (how, wanted) = self.how();
                (encoded(&nfs3::CREATE3args { where_: place, how }), Args::Create { name, how: wanted })
            }
            Procedure::MkDir => {
                let args = nfs3::MKDIR3args { where_: place, attributes: self.sattr() };
                (encoded(&args), Args::MkDir { name, set: self.set })
            }
            Procedure::SymLink => {
                let symlink_data = nfs3::nfspath3(Opaque::borrowed(&self.name2));
                let symlink = nfs3::symlinkdata3 { symlink_attributes: self.sattr(), symlink_data };
                let wanted = Args::SymLink { name, set: self.set, target: &self.name2 };
                (encoded(&nfs3::SYMLINK3args { where_: place, symlink }), wanted)
            }
            Procedure::MkNod => {
                let (what, node) = self.node();
                (encoded(&nfs3::MKNOD3args { where_: place, what }), Args::MkNod { name, node })
            }
            Procedure::Remove => (encoded(&nfs3::REMOVE3args { object: place }), Args::Remove { name }),
            Procedure::RmDir => (encoded(&nfs3::RMDIR3args { object: place }), Args::RmDir { name }),
            Procedure::Rename => {
                let wanted = Args::Rename { from: name, to_dir: &self.handle2, to: &self.name2 };
                (encoded(&nfs3::RENAME3args { from: place, to: self.place2() }), wanted)
            }
            Procedure::Link => {
                let wanted = Args::Link { dir: &self.handle2, name: &self.name2 };
                (encoded(&nfs3::LINK3args { file: object, link: self.place2() }), wanted)
            }
            Procedure::ReadDir => {
                let args = nfs3::READDIR3args { dir: object, cookie: self.long, cookieverf, count: a };
                (encoded(&args), Args::ReadDir { cookie: self.long, verifier: self.verifier, count: a })
            }
            Procedure::ReadDirPlus => {
                let cookie = self.long;
                let args = nfs3::READDIRPLUS3args { dir: object, cookie, cookieverf, dircount: a, maxcount: b };
                let wanted = Args::ReadDirPlus { cookie, verifier: self.verifier, dircount: a, maxcount: b };
                (encoded(&args), wanted)
            }
            Procedure::FsStat => (encoded(&nfs3::FSSTAT3args { fsroot: object }), Args::FsStat),
            Procedure::FsInfo => (encoded(&nfs3::FSINFO3args { fsroot: object }), Args::FsInfo),
            Procedure::PathConf => (encoded(&nfs3::PATHCONF3args { object }), Args::PathConf),
            Procedure::Commit => {
                let args = nfs3::COMMIT3args { file: object, offset: self.long, count: a };
                (encoded(&args), Args::Commit { offset: self.long, count: a })
            }
        }
    }
}

fn time(random: &mut Random) -> Time {
    Time { seconds: random.edgy32(), nanoseconds: random.edgy32() }
}

fn their_time(time: Time) -> nfs3::nfstime3 {
    nfs3::nfstime3 { seconds: time.seconds, nseconds: time.nanoseconds }
}

fn option<T: nfs3_types::xdr_codec::Pack + nfs3_types::xdr_codec::Unpack>(value: Option<T>) -> Nfs3Option<T> {
    value.map_or(Nfs3Option::None, Nfs3Option::Some)
}

#[test]
fn arguments_of_all_procedures() {
    let mut random = Random(0x6e66_7333);
    for round in 0..300 {
        for procedure in Procedure::ALL.into_iter().skip(1) {
            let sample = Sample::new(&mut random);
            let (bytes, wanted) = sample.call(procedure);
            let decoded = decode(procedure, &bytes);
            assert!(decoded == Ok(Some((&sample.handle, wanted))), "round {round}, {procedure:?}: {decoded:?}");
            for _ in 0..8 {
                let end = random.below(bytes.len());
                assert_eq!(decode(procedure, &bytes[..end]), Err(Malformed), "{procedure:?} cut at {end}");
            }
        }
    }
}

#[test]
fn handles_names_and_targets_over_their_limit() {
    let mut random = Random(1);
    let with = |change: fn(&mut Sample), random: &mut Random| {
        let mut sample = Sample::new(random);
        change(&mut sample);
        sample
    };
    for procedure in Procedure::ALL.into_iter().skip(1) {
        let sample = with(|sample| sample.handle = vec![7; 65], &mut random);
        assert_eq!(decode(procedure, &sample.call(procedure).0), Err(Malformed), "{procedure:?}");
    }
    for procedure in [Procedure::Rename, Procedure::Link, Procedure::SymLink] {
        let sample = with(|sample| (sample.handle2, sample.name2) = (vec![7; 65], vec![b'n'; 4097]), &mut random);
        assert_eq!(decode(procedure, &sample.call(procedure).0), Err(Malformed), "{procedure:?}");
    }
    use Procedure::{Create, Lookup, MkDir, MkNod, Remove, Rename, RmDir, SymLink};
    for procedure in [Lookup, Create, MkDir, SymLink, MkNod, Remove, RmDir, Rename] {
        let sample = with(|sample| sample.name = vec![b'n'; 4097], &mut random);
        assert_eq!(decode(procedure, &sample.call(procedure).0), Err(Malformed), "{procedure:?}");
    }
}

#[test]
fn call_headers_and_credentials() {
    let mut random = Random(2);
    for _ in 0..2000 {
        let [xid, prog, vers, proc, uid, gid, stamp] = std::array::from_fn(|_| random.edgy32());
        let count = *random.of(&[0, 1, 2, 15, 16, 17, 90]);
        let gids: Vec<u32> = (0..count).map(|_| random.edgy32()).collect();
        let machinename = Opaque::owned(random.bytes(&[0, 1, 3, 4, 64, 254, 255, 256, 300]));
        let sound = machinename.len() <= 255 && gids.len() <= 16;
        let unix = auth_unix { stamp, machinename, uid, gid, gids: gids.clone() };
        let length = encoded(&unix).len();
        let cred = opaque_auth::auth_unix(&unix);
        let body = call_body { rpcvers: 2, prog, vers, proc, cred, verf: opaque_auth::default() };
        let mut bytes = encoded(&rpc_msg { xid, body: msg_body::CALL(body) });
        bytes.extend_from_slice(b"arguments");
        match decode_call(&bytes) {
            Ok(call) => {
                assert!(sound && length <= 400);
                let Auth::Sys(sys) = call.auth else { panic!("{call:?}") };
                assert_eq!((call.xid, call.program, call.version, call.procedure), (xid, prog, vers, proc));
                assert_eq!((sys.uid, sys.gid, sys.groups(), call.args), (uid, gid, &gids[..], &b"arguments"[..]));
            }
            Err(Unusable::Answer(answered, Refusal::BadCredential)) => assert!(answered == xid && !sound),
            Err(Unusable::Answer(answered, Refusal::GarbageArgs)) => assert!(answered == xid && length > 400),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn paths_of_mount_and_questions_to_the_portmapper() {
    let mut random = Random(3);
    assert_eq!((NFS, MOUNT), (piboot::nfs::proto::NFS_PROGRAM, piboot::nfs::proto::MOUNT_PROGRAM));
    for _ in 0..500 {
        let path = random.bytes(&[0, 1, 2, 3, 4, 1023, 1024, 4095, 4096, 4097]);
        let bytes = encoded(&dirpath(Opaque::borrowed(&path)));
        let sound = path.len() <= 4096;
        let wanted = |request| if sound { Ok(request) } else { Err(Refusal::GarbageArgs) };
        assert_eq!(mount::decode(3, 1, &bytes), wanted(mount::Request::Mnt(&path)));
        assert_eq!(mount::decode(3, 3, &bytes), wanted(mount::Request::Umnt(&path)));
        assert_eq!(mount::decode(3, 1, &bytes[..random.below(bytes.len())]), Err(Refusal::GarbageArgs));

        let [prog, vers, prot, port] = std::array::from_fn(|_| random.edgy32());
        let bytes = encoded(&mapping { prog, vers, prot, port });
        let request = portmap::Request::GetPort { program: prog, version: vers, protocol: prot };
        assert_eq!(portmap::decode(3, &bytes), Ok(request));
        assert_eq!(portmap::decode(3, &bytes[..random.below(16)]), Err(Refusal::GarbageArgs));
    }
}
