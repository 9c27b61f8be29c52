//! A tree that was packed and unpacked is the same in every attribute, GNU tar reads what was packed, and what anybody
//! else wrote into an archive leads nowhere.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;
#[path = "../fuzz/checks/archive.rs"]
mod checks;

use std::fs::File;
use std::io::{Cursor, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use awkward::{LoopMount, Manifest, assert_same, describe, image, run};
use piboot::archive::{ArchiveError, Packed, Reader, Unpacked, Writer, pack_tree, unpack_tree};
use piboot::progress::NoProgress;
use piboot::storage::Links;
use piboot::storage::tree_writer::TreeWriter;
use rustix::fs::{Mode, OFlags};

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn pack(tree: &Path, archive: &Path) -> Packed {
    let mut writer = Writer::new(std::io::BufWriter::new(File::create(archive).unwrap()));
    let packed = pack_tree(open(tree), "root", &mut writer, false, Links::Names, &NoProgress).unwrap();
    writer.finish().unwrap().into_inner().unwrap();
    packed
}

fn unpack(archive: impl Read, into: &Path) -> Result<Unpacked, ArchiveError> {
    let writer = TreeWriter::new(open(into)).unwrap();
    unpack_tree(&mut Reader::new(archive), writer, &["root"], &NoProgress, || Ok(()))
}

#[test]
fn what_was_packed_and_unpacked_is_the_same_in_every_attribute() {
    for variant in ["inline", "indirect"] {
        let mount = LoopMount::root(&image(variant, "img"));
        let place = tempfile::tempdir().unwrap();
        let archive = place.path().join("a.tar");
        let packed = pack(mount.path.path(), &archive);
        // 6 GiB of holes were not written.
        assert!(archive.metadata().unwrap().len() < 80 << 20, "{packed:?}");
        let into = tempfile::tempdir().unwrap();
        let unpacked = unpack(File::open(&archive).unwrap(), into.path()).unwrap();
        let reference = describe(mount.path.path());
        assert_same(&describe(&into.path().join("root")), &reference, variant);
        assert_eq!((unpacked.entries, unpacked.bytes), (packed.entries, packed.bytes));
        assert_eq!(packed.entries, reference.len() as u64);
        assert!(packed.bytes < 60 << 20, "{packed:?}");
    }
}

/// What GNU tar cannot do by itself is taken out of the comparison.
fn without_sockets(mut manifest: Manifest) -> Manifest {
    manifest.retain(|path, _| !path.ends_with(b"socket"));
    manifest
}

#[test]
fn gnu_tar_lists_and_extracts_it_the_same() {
    let mount = LoopMount::root(&image("shallow", "img"));
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("a.tar");
    let packed = pack(mount.path.path(), &archive);
    let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(listed.stdout.split(|b| *b == b'\n').count() as u64 - 1, packed.entries);
    let into = place.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let options =
        ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-p", "--atime-preserve", "-xf"];
    let output = Command::new("tar").arg("-C").arg(&into).args(options).arg(&archive).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{output:?}");
    let reference = without_sockets(describe(mount.path.path()));
    assert_same(&without_sockets(describe(&into.join("root"))), &reference, "GNU tar's");
}

#[test]
fn what_gnu_tar_packs_is_read() {
    let mount = LoopMount::root(&image("shallow", "img"));
    let place = tempfile::tempdir().unwrap();
    let reference = describe(mount.path.path());
    for (format, sparse) in [("posix", &["--sparse", "--sparse-version=1.0"][..]), ("gnu", &[])] {
        let archive = place.path().join(format!("{format}.tar"));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(mount.path.path()).args(["--format", format, "--transform", "s,^\\.,root,S"]).args(sparse);
        if format == "posix" {
            tar.args(["--xattrs", "--xattrs-include=*"]);
        }
        // What are gigabytes without holes; and GNU tar leaves sockets out.
        tar.args(["--exclude=./odd/sparse-*", "--exclude=./odd/socket", "--numeric-owner", "-cf"])
            .arg(&archive)
            .arg(".");
        run(&mut tar);
        let into = tempfile::tempdir().unwrap();
        unpack(File::open(&archive).unwrap(), into.path()).unwrap();
        let ours = describe(&into.path().join("root"));
        if format == "posix" {
            let mut reference = reference.clone();
            // GNU tar writes devices and pipes anew under each of their names.
            let is_split = |path: &[u8]| [&b"char"[..], b"fifo"].iter().any(|name| path.ends_with(name));
            reference.retain(|path, _| ours.contains_key(path) && !is_split(path));
            let mut ours = ours.clone();
            ours.retain(|path, _| !is_split(path));
            assert_same(&ours, &reference, format);
        }
        assert!(ours.len() + 5 > reference.len(), "{} of {}", ours.len(), reference.len());
    }
}

/// One entry by hand: a ustar header, and what follows it.
fn raw(name: &[u8], flag: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000755");
    for at in [108, 116] {
        block[at..at + 7].copy_from_slice(b"0000000");
    }
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[148..156].fill(b' ');
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn hostile_archives_lead_nowhere() {
    let top = || raw(b"root/", b'5', b"", b"");
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().as_os_str().as_encoded_bytes();
    let pax = |records: &[u8]| raw(b"x", b'x', b"", records);
    let end = vec![0; 1024];
    let block = |text: &[u8]| [text, &vec![0; 512 - text.len()]].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("up", vec![top(), raw(b"root/../../escaped", b'0', b"", b"x")], "does not stay in the tree"),
        ("absolute", vec![top(), raw(b"/root/escaped", b'0', b"", b"x")], "does not stay in the tree"),
        (
            "through a link",
            vec![top(), raw(b"root/l", b'2', target, b""), raw(b"root/l/x", b'0', b"", b"x")],
            "stands before",
        ),
        (
            "a directory over a link",
            vec![
                top(),
                raw(b"root/l", b'2', target, b""),
                raw(b"root/l/", b'5', b"", b""),
                raw(b"root/l/x", b'0', b"", b"x"),
            ],
            "the name exists twice",
        ),
        (
            "a file over a link",
            vec![top(), raw(b"root/l", b'2', target, b""), raw(b"root/l", b'0', b"", b"x")],
            "the name exists twice",
        ),
        (
            "a hard link up",
            vec![top(), raw(b"root/h", b'1', b"root/../../../etc/passwd", b"")],
            "does not stay in the tree",
        ),
        ("a hard link out", vec![top(), raw(b"root/h", b'1', b"/etc/passwd", b"")], "does not stay in the tree"),
        ("a hard link to another tree", vec![top(), raw(b"root/h", b'1', b"device.json", b"")], "link to another tree"),
        (
            "a hard link through a link",
            vec![top(), raw(b"root/l", b'2', b"/etc", b""), raw(b"root/h", b'1', b"root/l/passwd", b"")],
            "cannot link /root/h",
        ),
        ("a hard link to nothing", vec![top(), raw(b"root/h", b'1', b"root/gone", b"")], "cannot link /root/h"),
        ("another top", vec![top(), raw(b"etc/", b'5', b"", b"")], "does not belong into a backup"),
        ("a top that is a link", vec![raw(b"root", b'2', b"/etc", b"")], "is no directory"),
        ("no top", vec![], "no directory 'root'"),
        ("dots", vec![top(), raw(b"root/./x", b'0', b"", b"")], "is none"),
        (
            "twice",
            vec![top(), raw(b"root/a", b'0', b"", b"x"), raw(b"root/a", b'0', b"", b"y")],
            "the name exists twice",
        ),
        ("a kind", vec![top(), raw(b"root/a", b'M', b"", b"")], "not known here"),
        ("GNU's old holes", vec![top(), raw(b"root/a", b'S', b"", b"")], "not known here"),
        ("a huge name", vec![raw(b"x", b'L', b"", &vec![b'n'; 3 << 20])], "longer than"),
        ("nothing but comments", vec![raw(b"x", b'g', b"", b""); 9], "more than 8 extensions"),
        ("names without end", vec![raw(b"x", b'L', b"", b"n"); 9], "more than 8 extensions"),
        ("a name of NULs", vec![top(), pax(b"12 path=a\0b\n"), raw(b"root/a", b'0', b"", b"")], "is none"),
        ("a huge size", vec![top(), pax(b"29 size=18446744073709551615\n"), raw(b"root/a", b'0', b"", b"")], "cut off"),
        ("no record", vec![top(), pax(b"what is this")], "a record of an extension"),
        (
            "a map of nothing",
            vec![
                top(),
                pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=1000\n"),
                raw(b"root/a", b'0', b"", &block(b"9999999\n")),
            ],
            "has 9999999 parts",
        ),
        (
            "a map that overlaps",
            vec![
                top(),
                pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=1000\n"),
                raw(b"root/a", b'0', b"", &block(b"2\n0\n100\n50\n10\n")),
            ],
            "the map of a sparse file is none",
        ),
        ("two ends", vec![top(), end.clone(), raw(b"root/a", b'0', b"", b"")], "something follows its end"),
    ];
    for (what, parts, words) in cases {
        let place = tempfile::tempdir().unwrap();
        let into = place.path().join("into");
        std::fs::create_dir(&into).unwrap();
        let mut bytes = parts.concat();
        bytes.extend_from_slice(&end);
        let error = unpack(Cursor::new(&bytes), &into).unwrap_err().to_string();
        assert!(error.contains(words), "{what}: {error}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "{what}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{what}");
    }
}

/// Cut off anywhere, or with any byte another one, an archive is refused or is another archive; nothing breaks.
#[test]
fn damaged_archives_are_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::write(tree.join("a/b/file"), "content").unwrap();
    let holes = File::create(tree.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"island", 500_000).unwrap();
    std::os::unix::fs::symlink("x".repeat(300), tree.join("link")).unwrap();
    std::fs::hard_link(tree.join("a/b/file"), tree.join("z")).unwrap();
    let archive = place.path().join("a.tar");
    pack(&tree, &archive);
    let whole = std::fs::read(&archive).unwrap();
    let try_it = |bytes: &[u8]| {
        let into = tempfile::tempdir().unwrap();
        unpack(Cursor::new(bytes), into.path())
    };
    for length in (0..whole.len() - 1024).step_by(97).chain([whole.len() - 1024]) {
        let error = try_it(&whole[..length]).unwrap_err();
        assert!(matches!(error, ArchiveError::CutOff), "{length}: {error}");
    }
    let mut refused = 0;
    for at in (0..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        refused += u32::from(try_it(&bytes).is_err());
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn stored_and_damaged_archives_hold_what_fuzzing_checks() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/archive");
    for (name, entries) in [("posix", 7), ("gnu", 7)] {
        let stored = std::fs::read(corpus.join(name)).unwrap();
        assert_eq!(checks::archive(&stored), entries, "{name}");
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x41;
            checks::archive(&damaged);
        }
    }
}

/// A file that grows under the hands of whoever packs it is refused, unless that was asked for.
#[test]
fn what_changes_is_noticed() {
    struct Touch(std::path::PathBuf);
    impl piboot::progress::Progress for Touch {
        fn add(&self, bytes: u64, _: u64) {
            if bytes > 0 {
                use std::io::Write;
                File::options().append(true).open(&self.0).unwrap().write_all(b"more").unwrap();
            }
        }
        fn set_total(&self, _: u64, _: u64) {}
        fn cancelled(&self) -> bool {
            false
        }
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("log"), vec![7; 600_000]).unwrap();
    let touch = Touch(place.path().join("log"));
    let mut writer = Writer::new(Vec::new());
    let error = pack_tree(open(place.path()), "root", &mut writer, false, Links::Names, &touch).unwrap_err();
    assert_eq!(error.to_string(), "root/log changed while it was being read");
    let mut writer = Writer::new(Vec::new());
    let packed = pack_tree(open(place.path()), "root", &mut writer, true, Links::Names, &touch).unwrap();
    assert_eq!(packed.changed, 1);
    let into = tempfile::tempdir().unwrap();
    unpack(Cursor::new(writer.finish().unwrap()), into.path()).unwrap();
}
