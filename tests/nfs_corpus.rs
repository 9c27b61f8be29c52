//! The inputs that fuzzing of the NFS server starts from, and those that it found: all go through the decoders in every
//! run of the tests, with the checks of the fuzz targets.
//!
//! `cargo test --test nfs_corpus -- --ignored write_corpus` writes the first kind anew; the others stay as they are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

#[path = "../fuzz/checks/nfs.rs"]
mod checks;
mod nfs_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nfs_support::attacks::one_packet_attacks;
use nfs_support::calls::{About, MOUNT, NFS, encoded, nfs_args};
use nfs_support::{Raw, at, auth, fh, mode};
use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{self, Nfs3Option};
use nfs3_types::portmap::mapping;
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::Opaque;
use piboot::nfs::handle::{HandleKey, KernelHandle};
use piboot::nfs::proto::Procedure;
use piboot::nfs::rpc::{Refusal, put_refusal, put_success};

const PORTMAP: u32 = 100_000;

type Check = fn(&[u8]) -> bool;

const TARGETS: [(&str, Check); 6] = [
    ("nfs_rpc", checks::rpc),
    ("nfs_args", checks::nfs_args),
    ("nfs_handle", checks::handle),
    ("nfs_mount", checks::mount_args),
    ("nfs_portmap", checks::portmap_args),
    ("nfs_rpcbind", checks::rpcbind_answer),
];

/// Inputs by target and name. What is called `attack-` or `refused-` is not understood, the rest is.
#[derive(Default)]
struct Inputs(BTreeMap<(&'static str, String), Vec<u8>>);

impl Inputs {
    fn put(&mut self, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let name = name.into();
        assert!(self.0.insert((target, name.clone()), bytes.into()).is_none(), "{target}/{name} twice");
    }

    /// A call as a record, and its arguments for the target that takes those alone.
    fn call(&mut self, name: &str, program: u32, version: u32, procedure: u32, args: &[u8]) {
        let number = |n: u32| u8::try_from(n).unwrap();
        let (target, head) = match program {
            NFS => ("nfs_args", vec![number(procedure)]),
            MOUNT => ("nfs_mount", vec![number(version), number(procedure)]),
            _ => ("nfs_portmap", vec![number(procedure)]),
        };
        self.put("nfs_rpc", name, Raw::message(1, program, version, procedure, args));
        self.put(target, name, [&head, args].concat());
    }
}

fn inputs() -> Inputs {
    let mut all = Inputs::default();
    nfs_calls(&mut all);
    other_calls(&mut all);
    attacks(&mut all);
    answers(&mut all);
    handles(&mut all);
    all
}

fn nfs_calls(all: &mut Inputs) {
    let (object, other) = (fh(&[1; 26]), fh(&[2; 30]));
    let about = About { object: &object, other: &other, name: b"name", new: b"new" };
    for (number, procedure) in (0..).zip(Procedure::ALL) {
        let name = format!("nfs-{procedure:?}").to_lowercase();
        all.call(&name, NFS, 3, number, &nfs_args(number, &about));
    }
    let set = nfs3::sattr3 {
        mode: Nfs3Option::Some(0o6755),
        uid: Nfs3Option::Some(4_294_967_290),
        gid: Nfs3Option::Some(u32::MAX),
        size: Nfs3Option::Some(u64::MAX),
        atime: nfs3::set_atime::SET_TO_SERVER_TIME,
        mtime: nfs3::set_mtime::SET_TO_CLIENT_TIME(nfs3::nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 }),
    };
    let guard = Nfs3Option::Some(nfs3::nfstime3 { seconds: 1, nseconds: 2 });
    let all_set = nfs3::SETATTR3args { object: object.clone(), new_attributes: set.clone(), guard };
    all.call("nfs-setattr-all-and-guard", NFS, 3, 2, &encoded(&all_set));
    let place = || at(&object, b"new");
    for (name, how) in [
        ("guarded", nfs3::createhow3::GUARDED(set.clone())),
        ("exclusive", nfs3::createhow3::EXCLUSIVE(nfs3::createverf3(*b"verifier"))),
    ] {
        let args = nfs3::CREATE3args { where_: place(), how };
        all.call(&format!("nfs-create-{name}"), NFS, 3, 8, &encoded(&args));
    }
    let device = || nfs3::devicedata3 {
        dev_attributes: mode(0o600),
        spec: nfs3::specdata3 { specdata1: 259, specdata2: 300_000 },
    };
    for (name, what) in [
        ("character-device", nfs3::mknoddata3::NF3CHR(device())),
        ("block-device", nfs3::mknoddata3::NF3BLK(device())),
        ("socket", nfs3::mknoddata3::NF3SOCK(mode(0o600))),
    ] {
        all.call(&format!("nfs-mknod-{name}"), NFS, 3, 11, &encoded(&nfs3::MKNOD3args { where_: place(), what }));
    }
    for (name, bytes) in [("not-utf8", &[0xff; 255][..]), ("too-long", &[b'n'; 256]), ("empty", b""), ("up", b"..")] {
        all.call(&format!("nfs-lookup-{name}"), NFS, 3, 3, &encoded(&nfs3::LOOKUP3args { what: at(&object, bytes) }));
    }
}

fn other_calls(all: &mut Inputs) {
    let path = encoded(&dirpath(Opaque::borrowed(b"/lion/root")));
    for (number, name, args) in [
        (0, "null", &[][..]),
        (1, "mnt", &path),
        (2, "dump", &[]),
        (3, "umnt", &path),
        (4, "umntall", &[]),
        (5, "export", &[]),
    ] {
        all.call(&format!("mount-{name}"), MOUNT, 3, number, args);
    }
    all.call("mount-1-umnt", MOUNT, 1, 3, &path);
    all.call("refused-mount-1-mnt", MOUNT, 1, 1, &path);
    let nfs = encoded(&mapping { prog: NFS, vers: 3, prot: 6, port: 0 });
    all.call("portmap-null", PORTMAP, 2, 0, &[]);
    all.call("portmap-getport", PORTMAP, 2, 3, &nfs);
    all.call("portmap-dump", PORTMAP, 2, 4, &[]);
    all.call("refused-portmap-set", PORTMAP, 2, 1, &nfs);
    all.call("refused-portmap-callit", PORTMAP, 2, 5, &nfs);

    let null = |caller: &opaque_auth<'_>| Raw::message_of(caller, [2, NFS, 3, 0], &[]);
    all.put("nfs_rpc", "auth-none", null(&opaque_auth::default()));
    all.put("nfs_rpc", "auth-16-groups", null(&auth(u32::MAX, u32::MAX, &[u32::MAX; 16])));
    all.put("nfs_rpc", "refused-17-groups", null(&auth(0, 0, &[0; 17])));
    all.put("nfs_rpc", "acl-null", Raw::message(3, 100_227, 3, 0, &[]));
    all.put("nfs_rpc", "acl-get", Raw::message(3, 100_227, 3, 1, &[0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 15]));
    all.put("nfs_rpc", "refused-acl-set", Raw::message(3, 100_227, 3, 2, &[]));
    all.put("nfs_rpc", "refused-http", *b"GET / HTTP/1.1\r\n\r\n");
    let mut third = null(&opaque_auth::default());
    third[11] = 3;
    all.put("nfs_rpc", "refused-rpc-version-3", third);
}

fn attacks(all: &mut Inputs) {
    for (program, version, procedure, target) in
        [(NFS, 3, 1, "nfs"), (MOUNT, 3, 1, "mount"), (PORTMAP, 2, 3, "portmap")]
    {
        for attack in one_packet_attacks(program, version, procedure) {
            let message = attack.message();
            if !message.is_empty() {
                all.put("nfs_rpc", format!("attack-{target}-{}", attack.what.replace(' ', "-")), message);
            }
        }
    }
    let huge = [0xc0, 0, 0, 0, 0, 0, 0, 0];
    for procedure in [1, 3, 7, 14, 15] {
        all.put("nfs_args", format!("attack-handle-of-3-gib-{procedure}"), [&[procedure], &huge[..]].concat());
    }
    let handle = encoded(&fh(&[1; 26]));
    for (procedure, what) in [(3, "name"), (8, "name-of-new"), (10, "name-of-link"), (14, "old-name")] {
        all.put("nfs_args", format!("attack-{what}-of-3-gib"), [&[procedure], &handle[..], &huge].concat());
    }
    let write = [&[7], &handle[..], &[0; 8], &[0, 0x10, 0, 0], &[0, 0, 0, 2], &huge].concat();
    all.put("nfs_args", "attack-data-of-3-gib", write);
    all.put("nfs_mount", "attack-path-of-3-gib", [&[3, 1], &huge[..]].concat());
    all.put("nfs_portmap", "refused-getport-cut", [3, 0, 1, 0x86]);
}

fn answers(all: &mut Inputs) {
    for (name, refusal, verdict) in [
        ("registered", None, &[0, 0, 0, 1][..]),
        ("not-registered", None, &[0; 4]),
        ("refused-no-boolean", None, &[0, 0, 0, 2]),
        ("refused-cut", None, &[0, 0]),
        ("refused-no-procedure", Some(Refusal::NoProcedure), &[]),
        ("refused-credential", Some(Refusal::BadCredential), &[]),
        ("refused-version", Some(Refusal::NoVersion(2, 4)), &[]),
    ] {
        let mut answer = 9_u32.to_be_bytes().to_vec();
        match refusal {
            None => put_success(&mut answer, 9),
            Some(refusal) => put_refusal(&mut answer, 9, refusal),
        }
        answer.extend_from_slice(verdict);
        all.put("nfs_rpcbind", name, answer);
    }
    let mut other = 8_u32.to_be_bytes().to_vec();
    put_success(&mut other, 9);
    all.put("nfs_rpcbind", "refused-other-question", [&other[..], &[0, 0, 0, 1]].concat());
    let verifier = [9_u32, 9, 1, 0, 0, 0xc000_0000].map(u32::to_be_bytes);
    all.put("nfs_rpcbind", "attack-verifier-of-3-gib", verifier.as_flattened());
}

fn handles(all: &mut Inputs) {
    // Type and length as the kernel makes them.
    for (name, kind, length) in
        [("ext4", 1, 8), ("xfs", 0x81, 12), ("btrfs", 0x4d, 20), ("longest", 0xfe, 46), ("overlay", 0xf8, 36)]
    {
        all.put("nfs_handle", name, [vec![kind], (1..=length).collect()].concat());
    }
    let kernel = KernelHandle::new(1, &[7; 8]).unwrap();
    let sealed = HandleKey::new(*b"a key for tests.").seal(1, 2, &kernel);
    all.put("nfs_handle", "sealed-with-another-key", sealed.bytes());
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
#[ignore = "writes into the source tree"]
fn write_corpus() {
    for ((target, name), bytes) in inputs().0 {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), bytes).unwrap();
    }
}

#[test]
fn every_stored_input_holds_what_fuzzing_checks() {
    for (target, check) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus(target)).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 5, "{target}");
        for file in files {
            // A panic names the test; which input it was is said before.
            println!("{}", file.path().display());
            check(&fs::read(file.path()).unwrap());
        }
    }
    let stored = fs::read_dir(corpus("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strangers: Vec<String> =
        stored.filter(|name| name.starts_with("nfs") && TARGETS.iter().all(|(target, _)| target != name)).collect();
    assert!(strangers.is_empty(), "no target: {strangers:?}");
}

#[test]
fn the_inputs_are_stored_and_mean_what_their_names_say() {
    for ((target, name), bytes) in inputs().0 {
        let stored = fs::read(corpus(target).join(&name));
        assert!(stored.is_ok_and(|stored| stored == bytes), "{target}/{name}: write_corpus has to run");
        let (_, check) = TARGETS.iter().find(|(known, _)| *known == target).unwrap();
        let refused = name.starts_with("attack-") || name.starts_with("refused-");
        assert_eq!(check(&bytes), !refused, "{target}/{name}");
    }
}
