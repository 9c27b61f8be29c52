//! Imports of small images that hold everything awkward, compared entry by entry with the kernel's own view.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;

use std::path::Path;
use std::process::Command;

use awkward::{LoopMount, Volume, assert_same, describe, files, image, run};
use piboot::image::{ImageInfo, Source, import, inspect, load_info};
use piboot::progress::NoProgress;

/// Imports into a scratch volume layout.
fn import_here(volume: &Path, source: &Path, name: &str) -> ImageInfo {
    for directory in ["images", "scratch"] {
        std::fs::create_dir_all(volume.join(directory)).unwrap();
    }
    let source = Source::open(source).unwrap();
    import(source, name, &volume.join("images"), &volume.join("scratch"), 1_700_000_000_000, &NoProgress).unwrap()
}

fn compare(variant: &str, extension: &str) {
    let volume = Volume::new(300, &[]);
    compare_in(&volume.path(), variant, extension);
}

fn compare_in(volume: &Path, variant: &str, extension: &str) {
    let source = image(variant, extension);
    let info = import_here(volume, &source, "odd");
    let imported = volume.join("images/odd");

    let mount = LoopMount::root(&image(variant, "img"));
    let reference = describe(mount.path.path());
    assert!(reference.len() > 2700, "the image is not what it should be: {} entries", reference.len());
    assert_same(&describe(&imported.join("root")), &reference, variant);
    assert_eq!(info.root_entries, reference.len() as u64 - 1);

    let boot = tempfile::tempdir().unwrap();
    let offset = format!("{}@@{}", image(variant, "img").display(), awkward::BOOT_START);
    run(Command::new("mcopy").args(["-s", "-m", "-n", "-i", &offset, "::"]).arg(boot.path()).env("TZ", "UTC"));
    let expected = files(boot.path());
    assert!(expected.len() > 70, "{} boot files", expected.len());
    for (path, found) in files(&imported.join("boot")) {
        let wanted = expected.get(&path).unwrap_or_else(|| panic!("{} is not in the image", path.display()));
        assert_eq!(found.0, wanted.0, "content of {}", path.display());
        // mcopy gives directories the time of the copy.
        if found.0.is_some() {
            assert_eq!(found.1, wanted.1, "time of {}", path.display());
        }
    }
    assert_eq!(info.boot_entries, expected.len() as u64);
    for (path, owner) in describe(&imported.join("boot")) {
        let mode = if owner.pages.is_some() { 0o10_0644 } else { 0o4_0755 };
        assert_eq!((owner.mode, owner.uid, owner.gid), (mode, 0, 0), "{}", String::from_utf8_lossy(&path));
    }

    assert_eq!(load_info(&imported).unwrap(), info);
    assert_eq!(info.os.as_deref(), Some("Raspberry Pi OS (awkward)"));
    assert_eq!((info.disk_id.as_str(), info.architecture.as_deref()), ("4e639091", Some("aarch64")));
    assert_eq!(info.boot_files.kernels, ["kernel8.img"]);
    assert_eq!(info.boot_files.firmware, ["bootcode.bin", "fixup4.dat", "start4.elf"]);
    let sum = Command::new("sha256sum").arg(&source).output().unwrap();
    assert_eq!(info.sha256.as_bytes(), &sum.stdout[..64]);
    assert_eq!(std::fs::read_dir(volume.join("scratch")).unwrap().count(), 0);
}

#[test]
fn inline_data_and_64_bit_descriptors() {
    compare("inline", "img.xz");
}

#[test]
fn the_features_of_raspberry_pi_os() {
    compare("pigen", "img.xz");
}

#[test]
fn block_maps_of_ext3_with_1_kib_blocks_and_128_byte_inodes() {
    compare("indirect", "img");
}

#[test]
fn blocks_of_2_kib_with_512_byte_inodes() {
    compare("large", "img");
}

#[test]
fn the_features_of_trixie_with_attributes_in_inodes() {
    // Only a volume with the same feature can hold attributes larger than a block.
    let volume = Volume::new(300, &["-O", "ea_inode"]);
    compare_in(&volume.path(), "trixie", "img.xz");
}

#[test]
fn descriptors_in_meta_groups() {
    compare("metabg", "img");
}

#[test]
fn plain_ext2_without_file_types() {
    compare("ext2", "img");
}

/// `PIBOOT_TEST_IMAGE=raspios.img cargo test --test import_awkward -- --ignored`
#[test]
#[ignore = "needs an unpacked image of your own in PIBOOT_TEST_IMAGE"]
fn an_image_of_your_own() {
    let source = std::path::PathBuf::from(std::env::var_os("PIBOOT_TEST_IMAGE").unwrap());
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    import_here(volume.path(), &source, "own");
    let mount = LoopMount::root(&source);
    let reference = describe(mount.path.path());
    assert_same(&describe(&volume.path().join("images/own/root")), &reference, "own");
    println!("{} entries are the same", reference.len());
}

#[test]
fn inspecting_decodes_only_what_it_needs() {
    let plain = inspect(&image("inline", "img")).unwrap();
    assert_eq!((plain.format.as_str(), plain.disk_id.as_str(), plain.problem), ("img", "4e639091", None));
    assert_eq!((plain.disk_bytes, plain.partitions.len()), (146_800_640, 2));
    assert_eq!(plain.partitions[0].start, awkward::BOOT_START);
    assert_eq!(plain.root_label.as_deref(), Some("rootfs"));
    assert_eq!(plain.os.as_deref(), Some("Raspberry Pi OS (awkward)"));
    assert_eq!(plain.architecture.as_deref(), Some("aarch64"));
    let packed = inspect(&image("inline", "img.xz")).unwrap();
    assert_eq!(
        (packed.format.as_str(), packed.disk_bytes, packed.partitions),
        ("xz", plain.disk_bytes, plain.partitions)
    );
    assert_eq!(packed.os, None);
}

/// What a child process of [`an_import_needs_little_memory`] does.
#[test]
fn child_that_is_measured() {
    let Some(volume) = std::env::var_os("PIBOOT_TEST_IMPORT_VOLUME") else { return };
    import_here(Path::new(&volume), &image("pigen", "img.xz"), "odd");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("\n{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

#[test]
fn an_import_needs_little_memory() {
    let volume = Volume::new(300, &[]);
    image("pigen", "img.xz");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_measured", "--nocapture"])
        .env("PIBOOT_TEST_IMPORT_VOLUME", volume.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: u32 = line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 32 * 1024, "{line}");
}
