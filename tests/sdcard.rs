//! The SD card for Pis whose ROM has no network.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::process::Command;

use emupi::{Model, Pi};
use support::disk::Disk;
use support::{Router, image};

/// The output of a program that has to succeed.
fn output(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn said(program: &str, args: &[&str]) -> String {
    String::from_utf8(output(program, args)).unwrap().trim().to_owned()
}

#[test]
fn a_pi_without_a_network_in_its_rom_boots_by_a_card_that_was_written_here() {
    // Mounts and loop devices of its own.
    let disk = Disk::new(256);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.start_dnsmasq();
    let file = router.scratch("card.img");
    let path = file.to_str().unwrap();
    router.assert_refused(&["sdcard", "-o", path], &["no image with a bootcode.bin", "--bootcode"]);
    router.import(&image::small(router.net.scratch()), "small");
    router.assert_refused(&["sdcard", "-o", path, "--image", "nosuch"], &["no image 'nosuch'"]);
    router.assert_refused(&["sdcard", "-o", path, "--bootcode", "/nonexistent"], &["/nonexistent"]);
    router.assert_refused(&["sdcard", "-o", path, "--bootcode", "/dev/zero"], &["/dev/zero", "is none"]);
    router.piboot(&["sdcard", "-o", path]).unwrap();
    router.assert_refused(&["sdcard", "-o", path], &["card.img exists already"]);
    let bootcode = fs::read(router.data_dir().join("images/small/boot/bootcode.bin")).unwrap();
    assert!(output("mcopy", &["-i", &format!("{path}@@1M"), "::bootcode.bin", "-"]) == bootcode);

    // A card itself, which a loop device has to stand in for.
    let card = router.scratch("card");
    fs::File::create(&card).unwrap().set_len(64 << 20).unwrap();
    let device = said("losetup", &["-f", "--show", "-P", card.to_str().unwrap()]);
    // The kernel here may know no partition table: it is told of the parts.
    output("addpart", &[&device, "1", "2048", "32768"]);
    output("addpart", &[&device, "2", "34816", "90000"]);
    let whole = ["sdcard", "-o", &device];
    router.assert_refused(&whole, &[&device, "67 MB", "2 partitions", "--erase"]);
    router.assert_refused(&[&whole[..], &["--erase", "/dev/sda"]].concat(), &["--erase"]);
    let part = format!("{device}p2");
    router.assert_refused(&["sdcard", "-o", &part, "--erase", &part], &["name the whole disk"]);
    output("mke2fs", &["-q", &part]);
    let point = router.scratch("point");
    fs::create_dir(&point).unwrap();
    output("mount", &["-o", "ro", &part, point.to_str().unwrap()]);
    let before = fs::read(&card).unwrap();
    let erase = [&whole[..], &["--erase", &device]].concat();
    router.assert_refused(&erase, &["in use", "mounted at"]);
    output("umount", &[point.to_str().unwrap()]);
    assert!(fs::read(&card).unwrap() == before, "nothing of it was changed");
    let written = router.piboot(&erase).unwrap();
    assert!(written.contains("written and read back"), "{written}");
    output("sync", &[]);
    assert!(output("mcopy", &["-i", &format!("{}@@1M", card.display()), "::bootcode.bin", "-"]) == bootcode);
    output("delpart", &[&device, "1"]);
    output("delpart", &[&device, "2"]);
    output("losetup", &["-d", &device]);
    // The disk that the data is on.
    let data = said("findmnt", &["-no", "SOURCE", disk.path().to_str().unwrap()]);
    router.assert_refused(&["sdcard", "-o", &data, "--erase", &data], &["in use", "mounted at"]);

    // The board that such a card starts.
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Bootcode, 0x5564_247d);
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
}
