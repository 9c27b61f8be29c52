//! What takes how much of the disk, and what is left of it for whom.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::process::Command;

use emupi::{Model, Pi};
use serde_json::Value;
use support::disk::Disk;
use support::{Router, image, nfs};

const MB: u64 = 1 << 20;

#[test]
fn a_pi_that_fills_the_disk_leaves_the_last_of_it() {
    let disk = Disk::new(400);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    assert_eq!(router.findings(), ["nothing stands in the way of a boot"]);

    let free = || {
        let stat = rustix::fs::statvfs(router.data_dir()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let before = free();
    let host = router.net.add_host(pi.mac, [10, 77, 0, 20].into()).unwrap();
    let (written, [filled, over]) = nfs::fill(&host, "/lion/root");
    assert_eq!((&*filled, &*over), ("NFS3ERR_NOSPC", "written"));
    let (left, reserve) = (free(), piboot::storage::CLIENT_RESERVE);
    assert!(left > reserve - 10 * MB && left < reserve + 10 * MB, "{left} bytes left of {before}, {written} written");

    // The agent goes on: it says what is wrong, stores boots, refuses what would not fit.
    router.wait_until("the full disk to be noticed", || router.findings()[0].contains("is full"));
    router.assert_refused(&["enroll", "--mac", "dc:a6:32:00:00:09", "--image", "small"], &["is full", "MB free"]);
    router.assert_boots(&pi, &router.net.tap_link().unwrap());
    let boots = router.json(&["boots"])["boots"].as_array().unwrap().len();
    assert!(boots > 0);
    router.kill_agent();
    router.start_agent();
    assert_eq!(router.said("history is kept in memory"), 0, "{}", router.logs());
    assert_eq!(router.json(&["boots"])["boots"].as_array().unwrap().len(), boots, "they are on the disk");

    // Room again, and the Pi writes again.
    fs::remove_file(router.data_dir().join("devices/lion/root/fills-the-disk")).unwrap();
    let (_, [filled, ..]) = nfs::fill(&host, "/lion/root");
    assert_eq!(filled, "NFS3ERR_NOSPC");
}

#[test]
fn what_each_takes_is_measured_and_a_disk_that_fills_up_is_said_before() {
    let disk = Disk::new(1200);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.import(&image::large(router.net.scratch()), "large");
    router.piboot(&["enroll", "--mac", "dc:a6:32:00:00:09", "--hostname", "lion", "--image", "large"]).unwrap();
    let du = |path: &str| {
        let output = Command::new("du").args(["-s", "-B1"]).arg(router.data_dir().join(path)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse::<u64>().unwrap()
    };
    let known = |devices: &Value| devices["devices"][0]["disk_bytes"].is_u64();
    let devices = router.wait_for(&["devices"], "the measurement", known);
    let taken = devices["devices"][0]["disk_bytes"].as_u64().unwrap();
    // The trees, but for their tops' own blocks.
    let trees = |place: &str| du(&format!("{place}/boot")) + du(&format!("{place}/root")) - 2 * 4096;
    assert_eq!(taken, trees("devices/lion"));
    let images = router.wait_for(&["images"], "the measurement", |images| images["images"][0]["used_bytes"].is_u64());
    assert_eq!(images["images"][0]["used_bytes"].as_u64().unwrap(), trees("images/large"));
    let shown = router.piboot(&["devices"]).unwrap();
    assert!(shown.contains("SPACE") && shown.contains(&format!("{}.", taken / 1_000_000)), "{shown}");

    disk.fill(90);
    router.wait_until("the warning", || router.findings()[0].contains("is nearly full"));
    router.assert_finding(&["warning: storage", "MB free", "'piboot devices' and 'piboot images' say what takes"]);
    router.piboot(&["check"]).unwrap();
    let enroll = ["enroll", "--mac", "dc:a6:32:00:00:0a", "--hostname", "bear", "--image", "large"];
    router.assert_refused(&enroll, &["a copy of image 'large' needs", "MB are free"]);
}
