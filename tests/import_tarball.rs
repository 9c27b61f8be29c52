//! Roots that come as tar archives: the same tree as GNU tar makes of them, and nothing outside of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use awkward::{LoopMount, Manifest, Volume, assert_same, describe, files, image, run};
use piboot::image::{ImageInfo, ImportError, Source, import, inspect};
use piboot::progress::{NoProgress, Progress};

fn import_to(volume: &Path, source: Source) -> Result<ImageInfo, ImportError> {
    import(source, "odd", &volume.join("images"), &volume.join("scratch"), 0, &NoProgress)
}

fn tar(directory: &Path, archive: &Path, arguments: &[&str]) {
    run(Command::new("tar").arg("-C").arg(directory).arg("-f").arg(archive).args(arguments));
}

/// What GNU tar makes of an archive.
fn reference(volume: &Path, archive: &Path) -> Manifest {
    let at = volume.join("reference");
    fs::create_dir(&at).unwrap();
    let options = [
        "--extract",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--same-permissions",
        "--delay-directory-restore",
    ];
    tar(&at, archive, &options);
    let found = describe(&at);
    fs::remove_dir_all(&at).unwrap();
    found
}

/// A small root, as in a file that somebody downloaded.
fn root(place: &Path) -> PathBuf {
    let root = place.join("root");
    let _ = fs::remove_dir_all(&root);
    for (name, text) in [
        ("etc/os-release", "PRETTY_NAME=\"Small\"\n"),
        ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n"),
        ("usr/bin/tool", "#!/bin/sh\n"),
        ("home/user/file", "text"),
    ] {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::set_permissions(root.join("home/user"), fs::Permissions::from_mode(0o2710)).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same")).unwrap();
    root
}

fn refused(archive: &Path) -> String {
    let volume = Volume::new(40, &[]);
    let error = import_to(&volume.path(), Source::open(archive).unwrap()).unwrap_err().to_string();
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
    error
}

#[test]
fn everything_awkward_is_as_gnu_tar_makes_it() {
    let mount = LoopMount::root(&image("shallow", "img"));
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("root.tar");
    let volume = Volume::new(300, &[]);
    // GNU's own format keeps neither attributes nor parts of a second.
    for options in [
        &["--format=posix", "--sparse", "--xattrs", "--xattrs-include=*"][..],
        &["--format=gnu", "--exclude=sparse-*", "--exclude=*-only", "--exclude=time-*"],
    ] {
        tar(mount.path.path(), &archive, &[options, &["--numeric-owner", "--create", "."]].concat());
        let info = import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap();
        let reference = reference(&volume.path(), &archive);
        assert!(reference.len() > 2600, "{} entries", reference.len());
        let image = volume.path().join("images/odd");
        assert_same(&describe(&image.join("root")), &reference, &options.join(" "));
        assert_eq!(
            (info.root_entries, info.os.as_deref()),
            (reference.len() as u64 - 1, Some("Raspberry Pi OS (awkward)"))
        );
        assert!(info.notes[0].contains("no boot files"), "{:?}", info.notes);
        assert_eq!(fs::metadata(image.join("boot")).unwrap().permissions().mode() & 0o7777, 0o755);
        fs::remove_dir_all(image).unwrap();
    }
}

#[test]
fn packed_in_every_way() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    let volume = Volume::new(40, &[]);
    let names = ["root.tar", "root.tar.gz", "root.tar.xz", "root.tar.zst"];
    for (name, top) in names.iter().flat_map(|name| [(name, "."), (name, "bin etc home usr")]) {
        let archive = place.path().join(name);
        tar(
            &root,
            &archive,
            &[&["--format=posix", "--auto-compress", "--create"][..], &top.split(' ').collect::<Vec<_>>()].concat(),
        );
        let info = import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap();
        let mut found = describe(&volume.path().join("images/odd/root"));
        let mut wanted = describe(&root);
        if top != "." {
            // Nothing says what the root itself is like.
            assert_eq!(found.remove(&b"/"[..]).unwrap().mode, 0o4_0755);
            wanted.remove(&b"/"[..]);
        }
        assert_same(&found, &wanted, name);
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
        assert_eq!(info.sha256.as_bytes(), &sum.stdout[..64]);
        assert_eq!(info.source_bytes, fs::metadata(&archive).unwrap().len());
        assert_eq!(inspect(&archive).unwrap().format, name.trim_start_matches("root."));
        fs::remove_dir_all(volume.path().join("images/odd")).unwrap();
    }
    assert_eq!(fs::read_dir(volume.path().join("scratch")).unwrap().count(), 0);
}

#[test]
fn entries_may_come_in_any_order_and_directories_late_or_never() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    let archive = place.path().join("root.tar");
    let volume = Volume::new(40, &[]);
    for d in ["home", "home/user"] {
        run(Command::new("touch").args(["-d", "2001-02-03"]).arg(root.join(d)));
    }
    run(Command::new("setfacl").args(["-m", "d:u:1000:rwx"]).arg(root.join("home/user")));
    tar(
        &root,
        &archive,
        &[
            "--create",
            "--xattrs",
            "--xattrs-include=*",
            "--no-recursion",
            "home",
            "home/user",
            "etc",
            "usr",
            "etc/os-release",
            "home/user/file",
            "bin",
            "usr/bin/tool",
            "etc/fstab",
            "usr/bin/same",
            "usr/bin",
        ],
    );
    import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap();
    let mut found = describe(&volume.path().join("images/odd/root"));
    let mut wanted = reference(&volume.path(), &archive);
    for manifest in [&mut found, &mut wanted] {
        manifest.remove(&b"/"[..]);
    }
    assert_same(&found, &wanted, "any order");
    fs::remove_dir_all(volume.path().join("images/odd")).unwrap();
    tar(&root, &archive, &["--create", "etc/fstab", "usr/bin/tool"]);
    import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap();
    let found = files(&volume.path().join("images/odd/root")).into_keys().collect::<Vec<_>>();
    assert_eq!(found, ["etc", "etc/fstab", "usr", "usr/bin", "usr/bin/tool"].map(PathBuf::from));
}

#[test]
fn boot_files_in_a_root_become_the_boot_tree() {
    for place_in_root in ["boot/firmware", "boot"] {
        let place = tempfile::tempdir().unwrap();
        let root = root(place.path());
        for name in ["config.txt", "kernel8.img", "bcm2712-rpi-5-b.dtb", "overlays/a.dtbo"] {
            let path = root.join(place_in_root).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let archive = place.path().join("root.tar");
        tar(&root, &archive, &["--create", "."]);
        let volume = Volume::new(40, &[]);
        let info = import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap();
        let image = volume.path().join("images/odd");
        assert_eq!(fs::read_to_string(image.join("boot/overlays/a.dtbo")).unwrap(), "overlays/a.dtbo");
        assert_eq!(fs::read_dir(image.join("root").join(place_in_root)).unwrap().count(), 0);
        assert_eq!(info.notes, [format!("the boot files are those that it had in /{place_in_root}")]);
        assert_eq!((info.boot_entries, info.boot_files.kernels.len()), (5, 1));
        assert_eq!(info.root_entries + 5, describe(&root).len() as u64 - 1);
    }
}

/// An archive of several steps, each of which adds what is in another directory.
fn steps(place: &Path, steps: &[&dyn Fn(&Path)]) -> PathBuf {
    let archive = place.join("steps.tar");
    let _ = fs::remove_file(&archive);
    tar(&root(place), &archive, &["--create", "."]);
    for (n, step) in steps.iter().enumerate() {
        let directory = place.join(format!("step-{n}"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        step(&directory);
        let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names.collect();
        let names = names.iter().map(String::as_str);
        tar(&directory, &archive, &["--append"].into_iter().chain(names).collect::<Vec<_>>());
    }
    archive
}

#[test]
fn nothing_leads_out_of_the_tree() {
    let place = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let link = |at: &Path| symlink(outside.path(), at.join("link")).unwrap();
    let through = |at: &Path| {
        fs::create_dir(at.join("link")).unwrap();
        fs::write(at.join("link/x"), "out").unwrap();
    };
    let error = refused(&steps(place.path(), &[&link, &through]));
    assert!(error.contains("/link is no directory, and something else is to be put into it"), "{error}");
    // A hard link by way of a symbolic one.
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let archive = steps(place.path(), &[&link]);
    fs::create_dir_all(place.path().join("h/link")).unwrap();
    fs::write(place.path().join("h/link/secret"), "").unwrap();
    fs::hard_link(place.path().join("h/link/secret"), place.path().join("h/stolen")).unwrap();
    tar(&place.path().join("h"), &archive, &["--append", "link/secret", "stolen"]);
    run(Command::new("tar").arg("-f").arg(&archive).args(["--delete", "link/secret"]));
    assert!(refused(&archive).contains("link"), "a link through a link");
    for (transform, words) in [("s,^,../,", "does not stay in the tree"), ("s,^,/,", "begins at the root")] {
        let archive = place.path().join("bad.tar");
        let root = root(place.path());
        tar(&root, &archive, &["-P", "--create", "--transform", transform, "etc/fstab"]);
        let error = refused(&archive);
        assert!(error.contains(words), "{error}");
    }
    let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
}

#[test]
fn what_is_no_whole_root_is_said() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    let archive = place.path().join("x.tar");
    tar(place.path(), &archive, &["--create", "root"]);
    assert!(refused(&archive).contains("holds no root file system"));
    tar(&root, &archive, &["--create", "."]);
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..3000]).unwrap();
    assert!(refused(&archive).contains("cut off"));
    let packed = place.path().join("x.tar.gz");
    let status = Command::new("sh")
        .current_dir(place.path())
        .args(["-c", "tar -C root -cz . | head -c 300 > x.tar.gz"])
        .status();
    assert!(status.unwrap().success());
    assert!(refused(&packed).contains("ends too early"));
    let mut damaged = whole;
    // A name, in the second header.
    damaged[512 + 3] ^= 1;
    fs::write(&archive, &damaged).unwrap();
    assert!(refused(&archive).contains("the checksum of a header is wrong"));
    // And one that does not fit.
    let large = File::create(root.join("usr/large")).unwrap();
    run(Command::new("sh").arg("-c").arg("head -c 60M /dev/urandom > \"$0\"").arg(root.join("usr/large")));
    drop(large);
    tar(&root, &archive, &["--create", "."]);
    assert!(refused(&archive).contains("not enough space"));
    tar(&root, &packed, &["--create", "--gzip", "."]);
    assert!(refused(&packed).contains("not enough space"));
}

/// Wants to end after some while.
struct Impatient(std::sync::atomic::AtomicU32);

impl Progress for Impatient {
    fn add(&self, _: u64, _: u64) {}

    fn set_total(&self, _: u64, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 100
    }
}

#[test]
fn what_is_skipped_can_be_cancelled() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    let file = File::create(root.join("large")).unwrap();
    file.set_len(16 << 20).unwrap();
    let archive = place.path().join("root.tar");
    tar(&root, &archive, &["-c", "large", "etc", "usr"]);
    // A directory with data: those are of no use, and are gone past.
    let mut bytes = fs::read(&archive).unwrap();
    bytes[156] = b'5';
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    fs::write(&archive, bytes).unwrap();
    let volume = Volume::new(40, &[]);
    let (images, scratch) = (volume.path().join("images"), volume.path().join("scratch"));
    let import = |progress: &dyn Progress| {
        import(Source::open(&archive).unwrap(), "odd", &images, &scratch, 0, progress).map(|info| info.root_entries)
    };
    let stopped = import(&Impatient(0.into()));
    assert!(matches!(stopped, Err(ImportError::Cancelled)), "{stopped:?}");
}

#[test]
fn one_large_file_leaves_room_for_others() {
    let place = tempfile::tempdir().unwrap();
    let root = root(place.path());
    fs::write(root.join("large"), vec![7; 64 << 20]).unwrap();
    let archive = place.path().join("root.tar.gz");
    tar(&root, &archive, &["-cz", "."]);
    let volume = Volume::new(40, &[]);
    let error = import_to(&volume.path(), Source::open(&archive).unwrap()).unwrap_err();
    assert!(matches!(error, ImportError::Space { .. }), "{error}");
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
}
