//! Enrolling, unenrolling, reloading and restarting around Pis that boot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use emupi::{Model, Pi};
use serde_json::Value;
use support::{Router, image, tftp};

fn router_with_image() -> Router {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    router
}

fn drop_in(router: &Router) -> String {
    fs::read_to_string(router.confdir().join("piboot.conf")).unwrap()
}

/// Inode and time of last change of every file, the database's aside: its pages are stored when they are.
fn fingerprint(of: &[PathBuf]) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut seen = BTreeMap::new();
    let mut to_visit = of.to_vec();
    while let Some(path) = to_visit.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if path.file_name().unwrap().to_string_lossy().starts_with("piboot.db") {
            continue;
        }
        if meta.is_dir() {
            to_visit.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        // The directory of the database changes with its journal.
        if !path.join("piboot.db").exists() {
            seen.insert(path, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    seen
}

#[test]
fn files_are_kept_or_deleted_as_asked_and_kept_ones_are_used_again() {
    let router = router_with_image();
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    let root = router.data_dir().join("devices/lion/root");
    fs::write(root.join("home/pi/work"), "of years").unwrap();
    let inode = root.metadata().unwrap().ino();

    let said = router.piboot(&["unenroll", "lion"]).unwrap();
    assert!(said.contains("its files are kept in") && said.contains("devices/lion"), "{said}");
    router.wait_for_dnsmasq();
    assert!(!emupi::boot(&pi, &link, &support::hurried(), None).unwrap().ok(), "nobody enrolled it");
    assert_eq!(fs::read_to_string(root.join("home/pi/work")).unwrap(), "of years");

    // Another board takes its place, and its name; what knows the board by its address follows.
    let other = Pi::new(Model::Pi5, 0x0000_0007);
    router.enroll(&other, "lion");
    assert_eq!(root.metadata().unwrap().ino(), inode, "not copied anew");
    assert_eq!(fs::read_to_string(root.join("home/pi/work")).unwrap(), "of years");
    router.assert_boots(&other, &link);

    let said = router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
    assert!(said.contains("deleted"), "{said}");
    assert_eq!((router.names("devices").len(), router.names("scratch").len()), (0, 0));
    router.enroll(&pi, "lion");
    assert!(!root.join("home/pi/work").exists(), "a fresh copy");
    router.assert_boots(&pi, &link);
}

#[test]
fn the_configuration_file_by_hand_does_what_the_command_line_does() {
    let router = router_with_image();
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let (without, unserved) = (fs::read_to_string(router.config()).unwrap(), drop_in(&router));
    router.enroll_with_serial(&pi, "5b154510", "lion");
    let (with, served) = (fs::read_to_string(router.config()).unwrap(), drop_in(&router));
    let made = router.json(&["device", "lion"]);
    router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
    assert_eq!((fs::read_to_string(router.config()).unwrap(), drop_in(&router)), (without.clone(), unserved.clone()));

    router.edit_config(|_| with.clone());
    router.reload();
    router.wait_for(&["device", "lion"], "the device", |d| d["state"] == "ready");
    assert_eq!((fs::read_to_string(router.config()).unwrap(), drop_in(&router)), (with, served));
    let by_hand = router.json(&["device", "lion"]);
    for member in ["id", "hostname", "mac", "serial", "image", "changes", "notes"] {
        assert_eq!(by_hand[member], made[member], "{member}");
    }
    router.assert_boots(&pi, &link);

    router.edit_config(|_| without);
    router.reload();
    assert_eq!(router.json(&["devices"])["devices"].as_array().unwrap().len(), 0);
    assert_eq!(drop_in(&router), unserved);
    assert_eq!(router.names("devices"), ["lion"], "nobody said that its files shall go");
    assert!(!emupi::boot(&pi, &link, &support::hurried(), None).unwrap().ok());
}

#[test]
fn a_reload_in_the_middle_of_a_transfer_does_it_no_harm_and_the_second_changes_nothing() {
    let router = router_with_image();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll_with_serial(&pi, "5b154510", "lion");
    let host = router.net.add_host(pi.mac, "10.77.0.20".parse().unwrap()).unwrap();
    let kernel = router.data_dir().join("devices/lion/boot/kernel8.img");
    let fetched = tftp::fetch(&host, "5b154510/kernel8.img", |block| match block {
        // A change to everything that is served.
        10 => router.edit_config(|text| {
            text + "config device 'bear'\n\toption mac 'dc:a6:32:00:00:09'\n\toption image 'small'\n"
        }),
        20 | 30 => router.reload(),
        40 => drop(router.wait_for(&["device", "bear"], "the device", |d| d["state"] == "ready")),
        // And the file itself taken away from under it.
        50 => drop(router.piboot(&["unenroll", "lion"]).unwrap()),
        60 => fs::rename(&kernel, router.scratch("kernel")).unwrap(),
        _ => {}
    });
    assert!(fetched.unwrap() == fs::read(router.scratch("kernel")).unwrap());
    fs::rename(router.scratch("kernel"), &kernel).unwrap();

    router.enroll(&pi, "lion");
    let everything = [router.data_dir(), router.confdir(), router.config()];
    router.wait_until_settled();
    let (before, restarts, jobs) = (fingerprint(&everything), router.said("dnsmasq restarted"), router.json(&["jobs"]));
    for _ in 0..2 {
        router.reload();
        router.wait_until_settled();
    }
    assert_eq!(fingerprint(&everything), before);
    assert_eq!((router.said("dnsmasq restarted"), router.json(&["jobs"])), (restarts, jobs));
}

#[test]
fn a_restart_keeps_everything_and_touches_nothing() {
    let mut router = router_with_image();
    let link = router.net.tap_link().unwrap();
    // A 3B shows its serial only while it boots.
    let (pi, waiting) = (Pi::new(Model::Pi3B, 0x38c1_28c0), Pi::new(Model::Pi4B, 0x5b15_4510));
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    assert!(!emupi::boot(&waiting, &link, &support::hurried(), None).unwrap().ok());
    router.wait_for(&["devices"], "the serial", |d| d["devices"][0]["serial"] == "38c128c0");
    router.wait_until_settled();
    let everything = [router.data_dir(), router.confdir(), router.config()];
    let files = fingerprint(&everything);
    let members = |list: &Value, names: &[&str]| -> Vec<Vec<Value>> {
        let row = |item: &Value| names.iter().map(|name| item[name].clone()).collect();
        list.as_array().unwrap().iter().map(row).collect()
    };
    let state = |router: &Router| {
        let devices = router.json(&["devices"]);
        [
            members(&devices["devices"], &["id", "mac", "serial", "board", "image"]),
            members(&devices["pending"], &["mac", "serial", "board", "first_seen_ms"]),
            members(&router.json(&["boots"])["boots"], &["id", "mac", "device", "started_ms", "tftp_bytes"]),
            members(&router.json(&["jobs"])["jobs"], &["id", "kind", "subject", "state", "bytes", "message"]),
            members(&router.json(&["images"])["images"], &["name", "sha256"]),
        ]
    };
    let before = state(&router);
    assert_eq!(before.each_ref().map(Vec::len), [1, 1, 2, 2, 1], "{before:#?}");

    let socket = router.scratch("piboot.sock");
    let log = router.stop_agent();
    assert_eq!(log.last().map(String::as_str), Some("info: stopping"));
    assert!(!socket.exists());
    assert!(router.piboot(&["status"]).unwrap_err().contains("piboot.sock"), "says where it looked for the agent");
    router.start_agent();
    assert_eq!(state(&router), before);
    assert_eq!(fingerprint(&everything), files);
    router.assert_boots(&pi, &link);
    assert_eq!(router.said("dnsmasq restarted"), 0);

    // A second agent stays out of the way.
    let mut second = router.net.command(support::PIBOOT);
    second.arg("--socket").arg(&socket).args(["serve", "--config"]).arg(router.config());
    let output = second.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("another piboot is running"), "{output:?}");
    assert!(Path::new(&socket).exists());
    router.assert_boots(&pi, &link);
}
