//! Disks laid out in other ways than Raspberry Pi OS: GPT, hybrid tables, other file systems and places.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use awkward::{Volume, files, run};
use piboot::image::{ImageInfo, ImportError, Source, import, inspect};
use piboot::progress::NoProgress;

const MIB: u64 = 1 << 20;
const BOOT_MB: u64 = 36;
const ROOT_MB: u64 = 16;
/// Where the partitions of every disk here begin.
const BOOT_AT: u64 = 4 * MIB;
const ROOT_AT: u64 = BOOT_AT + BOOT_MB * MIB;

/// What an image is made of: files of the boot file system and of the root.
struct Content {
    place: tempfile::TempDir,
}

impl Content {
    fn new() -> Self {
        let content = Self { place: tempfile::tempdir().unwrap() };
        content
            .boot("config.txt", "arm_64bit=1\n")
            .boot("cmdline.txt", "root=PARTUUID=x\n")
            .boot("kernel8.img", "Image");
        content
            .root("etc/os-release", "PRETTY_NAME=\"Odd\"\n")
            .root("etc/fstab", "")
            .root("home/pi/large", &"x".repeat(70_000));
        content
    }

    fn boot(&self, name: &str, text: &str) -> &Self {
        self.write("boot", name, text)
    }

    fn root(&self, name: &str, text: &str) -> &Self {
        self.write("root", name, text)
    }

    fn write(&self, tree: &str, name: &str, text: &str) -> &Self {
        let path = self.place.path().join(tree).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn tree(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A disk image with both file systems in place and no partition table yet.
    fn disk(&self, fat: &[&str], ext: &[&str]) -> PathBuf {
        let boot = self.place.path().join("boot.fs");
        File::create(&boot).unwrap().set_len(BOOT_MB * MIB).unwrap();
        run(Command::new("mkfs.vfat").args(fat).arg(&boot));
        let entries = fs::read_dir(self.tree("boot")).unwrap().map(|entry| entry.unwrap().path());
        run(Command::new("mcopy").arg("-s").arg("-i").arg(&boot).args(entries).arg("::"));
        let root = self.place.path().join("root.fs");
        let size = format!("{ROOT_MB}M");
        run(Command::new("mke2fs").args(["-q", "-F"]).args(ext).arg("-d").arg(self.tree("root")).arg(&root).arg(size));
        self.assemble(&boot, &root)
    }

    fn assemble(&self, boot: &Path, root: &Path) -> PathBuf {
        let disk = self.place.path().join("disk.img");
        let file = File::create(&disk).unwrap();
        file.set_len(ROOT_AT + ROOT_MB * MIB + MIB).unwrap();
        file.write_all_at(&fs::read(boot).unwrap(), BOOT_AT).unwrap();
        file.write_all_at(&fs::read(root).unwrap(), ROOT_AT).unwrap();
        disk
    }
}

/// Gives a disk a table by a script for sfdisk.
fn sfdisk(disk: &Path, label: &str, boot: &str, root: &str) {
    let (boot_at, boot_size) = (BOOT_AT / 512, BOOT_MB * 2048);
    let (root_at, root_size) = (ROOT_AT / 512, ROOT_MB * 2048);
    let script = format!(
        "label: {label}\nstart={boot_at}, size={boot_size}, type={boot}\nstart={root_at}, size={root_size}, type={root}\n"
    );
    let mut child = Command::new("sfdisk")
        .args(["-q", "--wipe-partitions", "never"])
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

const EFI: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const BASIC: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";
const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const ROOT_ARM64: &str = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE";

fn import_to(volume: &Volume, source: Source) -> Result<ImageInfo, ImportError> {
    import(source, "odd", &volume.path().join("images"), &volume.path().join("scratch"), 0, &NoProgress)
}

/// Imports and compares both trees with what was put in.
fn check(source: Source, content: &Content) -> ImageInfo {
    let volume = Volume::new(100, &[]);
    let info = import_to(&volume, source).unwrap();
    for tree in ["boot", "root"] {
        let contents = |root: &Path| {
            let found = files(root).into_iter().map(|(path, (data, _))| (path, data));
            found.filter(|(path, _)| path != Path::new("lost+found")).collect::<Vec<_>>()
        };
        let found = contents(&volume.path().join("images/odd").join(tree));
        assert!(found == contents(&content.tree(tree)), "{tree}: {:?}", found.iter().map(|f| &f.0).collect::<Vec<_>>());
    }
    info
}

fn refused(source: Source) -> String {
    let volume = Volume::new(100, &[]);
    let error = import_to(&volume, source).unwrap_err().to_string();
    assert_eq!(volume.leftovers(), Vec::<PathBuf>::new());
    error
}

fn xz(disk: &Path) -> Source {
    let mut child = Command::new("xz").args(["-0", "-T1", "-c"]).arg(disk).stdout(Stdio::piped()).spawn().unwrap();
    let mut packed = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut packed).unwrap();
    assert!(child.wait().unwrap().success());
    Source::from_reader(Box::new(std::io::Cursor::new(packed)), None, "disk.img.xz".into()).unwrap()
}

/// What sfdisk itself says of a partition.
fn partuuid(disk: &Path, number: u32) -> String {
    let output = Command::new("sfdisk").arg("--part-uuid").arg(disk).arg(number.to_string()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_lowercase()
}

#[test]
fn gpt_of_every_kind_of_partition() {
    let content = Content::new();
    let disk = content.disk(&["-F", "16"], &["-t", "ext4"]);
    for (boot, root) in [(EFI, LINUX), (BASIC, ROOT_ARM64), (BASIC, LINUX)] {
        sfdisk(&disk, "gpt", boot, root);
        let info = check(Source::open(&disk).unwrap(), &content);
        assert_eq!(info.partuuids, [partuuid(&disk, 1), partuuid(&disk, 2)]);
        let found = inspect(&disk).unwrap();
        assert_eq!(found.disk_id, info.disk_id);
        assert_eq!(
            (found.partitions[1].kind.as_str(), found.os.as_deref()),
            (root.to_lowercase().as_str(), Some("Odd"))
        );
    }
    check(xz(&disk), &content);
}

#[test]
fn a_damaged_gpt_has_a_copy_at_the_end() {
    let content = Content::new();
    let disk = content.disk(&["-F", "16"], &["-t", "ext4"]);
    sfdisk(&disk, "gpt", EFI, LINUX);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&[0xff; 40], 1024 + 32).unwrap();
    let verified = Command::new("sgdisk").arg("--verify").arg(&disk).output().unwrap();
    assert!(String::from_utf8_lossy(&verified.stdout).contains("CRC"), "the reference sees the damage too");
    check(Source::open(&disk).unwrap(), &content);
    check(xz(&disk), &content);
    file.write_all_at(&[0; 512], file.metadata().unwrap().len() - 512).unwrap();
    for source in [Source::open(&disk).unwrap(), xz(&disk)] {
        let error = refused(source);
        assert!(error.contains("GPT partition table is damaged (the entries' checksum is wrong)"), "{error}");
    }
}

#[test]
fn a_hybrid_table_is_an_mbr_to_a_pi() {
    let content = Content::new();
    let disk = content.disk(&["-F", "16"], &["-t", "ext4"]);
    sfdisk(&disk, "gpt", BASIC, LINUX);
    run(Command::new("sgdisk").args(["--hybrid", "1:2"]).arg(&disk));
    // What gdisk asks for and sgdisk does not.
    run(Command::new("sfdisk").args(["-q", "--label-nested", "dos", "--part-type"]).arg(&disk).args(["2", "c"]));
    let info = check(Source::open(&disk).unwrap(), &content);
    assert!(info.disk_id.len() == 8 && info.partuuids[1].ends_with("-03"), "{info:?}");
    // Only the boot partition is in the hybrid table of most: then the GPT has the root.
    sfdisk(&disk, "gpt", BASIC, LINUX);
    run(Command::new("sgdisk").args(["--hybrid", "1"]).arg(&disk));
    let info = check(Source::open(&disk).unwrap(), &content);
    assert_eq!(info.partuuids, [partuuid(&disk, 1), partuuid(&disk, 2)]);
}

#[test]
fn every_fat_and_every_ext() {
    let content = Content::new();
    content.boot("overlays/a-rather-long-name.dtbo", "overlay").boot("UPPER.TXT", "8.3");
    for (fat, ext) in [
        (["-F", "12", "-s", "64"], &["-t", "ext2"][..]),
        (["-F", "16", "-s", "4"], &["-t", "ext3", "-b", "1024"]),
        (["-F", "32", "-s", "1"], &["-t", "ext4", "-O", "^has_journal"]),
    ] {
        let disk = content.disk(&fat, ext);
        sfdisk(&disk, "dos", "e", "83");
        let info = check(Source::open(&disk).unwrap(), &content);
        assert_eq!((info.boot_entries, info.boot_files.kernels.len()), (6, 1));
    }
}

#[test]
fn boot_files_may_all_be_in_one_boot_img() {
    let content = Content::new();
    content.boot("overlays/one.dtbo", "overlay");
    let inner = content.place.path().join("boot.img");
    File::create(&inner).unwrap().set_len(20 * MIB).unwrap();
    run(Command::new("mkfs.vfat").args(["-F", "16"]).arg(&inner));
    let entries = fs::read_dir(content.tree("boot")).unwrap().map(|entry| entry.unwrap().path());
    run(Command::new("mcopy").arg("-s").arg("-i").arg(&inner).args(entries).arg("::"));
    let outer = Content::new();
    fs::remove_dir_all(outer.tree("boot")).unwrap();
    outer.boot("boot.sig", "signature").boot("config.txt", "boot_ramdisk=1\n").boot("x/filler", &"f".repeat(50_000));
    fs::copy(&inner, outer.tree("boot").join("boot.img")).unwrap();
    let disk = outer.disk(&["-F", "32", "-s", "1"], &["-t", "ext4"]);
    sfdisk(&disk, "dos", "c", "83");
    let info = check(Source::open(&disk).unwrap(), &content);
    assert!(info.notes[0].contains("inside its boot.img"), "{:?}", info.notes);
    // Beside a kernel it is a file like any other.
    outer.boot("kernel8.img", "Image");
    let disk = outer.disk(&["-F", "32", "-s", "1"], &["-t", "ext4"]);
    sfdisk(&disk, "dos", "c", "83");
    assert_eq!(check(Source::open(&disk).unwrap(), &outer).notes, Vec::<String>::new());
    // And what is no FAT volume is one too.
    fs::remove_file(outer.tree("boot/kernel8.img")).unwrap();
    outer.boot("boot.img", "ANDROID!");
    let disk = outer.disk(&["-F", "32", "-s", "1"], &["-t", "ext4"]);
    sfdisk(&disk, "dos", "c", "83");
    check(Source::open(&disk).unwrap(), &outer);
}
