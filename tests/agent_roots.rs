//! How a device's root comes to be: clones that share blocks, devices that begin as another, snapshots and the way back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::fs;
use std::path::PathBuf;

use emupi::{Model, Pi};
use serde_json::Value;
use support::disk::Disk;
use support::{Router, image, nfs};

const MB: u64 = 1 << 20;

fn on_disk(disk: &Disk) -> Router {
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router
}

fn enroll(router: &Router, mac: &str, hostname: &str, image: &str, more: &[&str]) -> Result<String, String> {
    router.piboot(&[&["enroll", "--mac", mac, "--hostname", hostname, "--image", image], more].concat())
}

fn root(router: &Router, id: &str, path: &str) -> PathBuf {
    router.data_dir().join("devices").join(id).join("root").join(path)
}

fn read(router: &Router, id: &str, path: &str) -> String {
    fs::read_to_string(root(router, id, path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

fn snapshots(router: &Router, id: &str) -> Vec<String> {
    let list = router.json(&["snapshots", id]);
    list["snapshots"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
}

const LION: &str = "dc:a6:32:00:00:01";
const TIGER: &str = "dc:a6:32:00:00:02";

#[test]
fn where_files_share_blocks_a_root_is_a_clone() {
    for (kind, shared) in [("xfs", "MB shared"), ("btrfs", "all of it shared")] {
        let disk = Disk::of(kind, 900);
        let mut router = on_disk(&disk);
        router.start_dnsmasq();
        router.import(&image::large(router.net.scratch()), "large");
        let at_first = disk.free();
        let said = enroll(&router, LION, "lion", "large", &["--root", "copy"]).unwrap();
        assert!(said.contains("lion boots from a copy of large"), "{said}");
        let after_copy = disk.free();
        let said = enroll(&router, TIGER, "tiger", "large", &[]).unwrap();
        assert!(said.contains("tiger boots from a clone of large") && said.contains(shared), "{said}");
        let after_clone = disk.free();
        let panther = Pi::new(Model::Pi4B, 0x5b15_4512);
        enroll(&router, &panther.mac.to_string(), "panther", "large", &["--root", "clone"]).unwrap();
        let after_another = disk.free();
        let (copy, clone) = (at_first - after_copy, after_copy.saturating_sub(after_clone));
        let another = after_clone.saturating_sub(after_another);
        println!("{kind}: a copy takes {copy} bytes, a clone {clone}, the next one {another}");
        assert!(copy > 150 * MB && clone < 10 * MB && another < 3 * MB, "{kind}: {copy}, {clone}, {another}");
        let made_by = |id| router.json(&["device", id])["made_by"].clone();
        assert_eq!((made_by("lion"), made_by("tiger")), ("copy".into(), "clone".into()));
        // Each is itself, and what one writes the other does not have.
        assert_eq!(read(&router, "lion", "etc/hostname"), "lion\n");
        assert_eq!(read(&router, "tiger", "etc/hostname"), "tiger\n");
        let large = "usr/lib/7/large";
        let original = fs::read(root(&router, "lion", large)).unwrap();
        fs::write(root(&router, "tiger", large), "changed").unwrap();
        assert_eq!(fs::read(root(&router, "lion", large)).unwrap(), original);
        assert_eq!(fs::read(router.data_dir().join("images/large/root").join(large)).unwrap(), original);
        assert_eq!(fs::read(root(&router, "panther", large)).unwrap(), original);
        // Its root is served, and its handles stay what they are.
        router.wait_for_dnsmasq();
        let booted = emupi::boot(&panther, &router.net.tap_link().unwrap(), &support::hurried(), None).unwrap();
        let host = router.net.add_host(panther.mac, booted.ip.unwrap()).unwrap();
        let handle = nfs::handle_of(&host, "/panther/root", "etc");
        router.kill_agent();
        router.start_agent();
        assert_eq!(nfs::handle_of(&host, "/panther/root", "etc"), handle, "{kind}");
        // It counts in each what it shares.
        router.wait_for(&["devices"], "the sizes", |devices| {
            let sizes = devices["devices"].as_array().unwrap().iter().map(|d| d["disk_bytes"].as_u64().unwrap_or(0));
            sizes.min() > Some(150 * MB)
        });
        for id in ["lion", "tiger", "panther"] {
            router.piboot(&["unenroll", id, "--delete"]).unwrap();
        }
        router.piboot(&["image", "remove", "large"]).unwrap();
        assert_eq!(["devices", "images", "scratch"].map(|place| router.names(place).len()), [0; 3]);
        // btrfs lets go of what was deleted in its own time.
        router.wait_until("the space", || disk.free() > at_first);
    }
}

#[test]
fn what_the_disk_cannot_do_is_refused_in_words() {
    let disk = Disk::new(384);
    let router = on_disk(&disk);
    router.import(&image::small(router.net.scratch()), "small");
    for (kind, words) in [
        ("clone", &["a root by 'clone' cannot be made", "btrfs", "'copy'"][..]),
        ("stone", &["none of auto, copy, clone"]),
    ] {
        let args = ["enroll", "--mac", LION, "--hostname", "lion", "--image", "small", "--root", kind];
        router.assert_refused(&args, words);
    }
    assert!(!fs::read_to_string(router.config()).unwrap().contains("config device"));
    // Written by hand it is blocked, with the same words.
    let section =
        format!("config device 'lion'\n\toption mac '{LION}'\n\toption image 'small'\n\toption root 'clone'\n");
    router.edit_config(|text| text + &section);
    router.reload();
    router.wait_for(&["device", "lion"], "the refusal", |device| {
        device["state"] == "blocked" && device["why"].as_str().unwrap().contains("btrfs")
    });
    let said = enroll(&router, TIGER, "tiger", "small", &[]).unwrap();
    assert!(said.contains("tiger boots from a copy of small"), "{said}");
}

#[test]
fn a_device_begins_as_another_and_has_an_identity_of_its_own() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let (lion, tiger) = (Pi::new(Model::Pi4B, 0x5b15_4510), Pi::new(Model::Pi4B, 0x5b15_4511));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me";
    enroll(&router, &lion.mac.to_string(), "lion", "small", &["--ssh-key", key]).unwrap();
    // A system that was used.
    for (path, text) in [
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/ssh/ssh_host_ed25519_key", "secret"),
        ("home/pi/work", "of weeks"),
    ] {
        fs::create_dir_all(root(&router, "lion", path).parent().unwrap()).unwrap();
        fs::write(root(&router, "lion", path), text).unwrap();
    }
    let mac = tiger.mac.to_string();
    let said = router.piboot(&["clone", "lion", "--mac", &mac, "--hostname", "tiger"]).unwrap();
    assert!(said.contains("tiger boots from a copy of lion"), "{said}");
    assert_eq!(read(&router, "tiger", "home/pi/work"), "of weeks");
    assert_eq!(read(&router, "tiger", "etc/hostname"), "tiger\n");
    assert_eq!(read(&router, "tiger", "etc/machine-id"), "uninitialized\n");
    assert!(!root(&router, "tiger", "etc/ssh/ssh_host_ed25519_key").exists());
    assert!(root(&router, "lion", "etc/ssh/ssh_host_ed25519_key").exists());
    assert!(read(&router, "tiger", "home/pi/.ssh/authorized_keys").contains(key), "the original's keys");
    let all = ["etc/fstab", "etc/hosts", "../boot/cmdline.txt"].map(|path| read(&router, "tiger", path)).concat();
    assert!(all.contains("/tiger/root") && all.contains("/tiger/boot") && !all.contains("lion"), "{all}");
    let tiger_is = router.json(&["device", "tiger"]);
    assert_eq!((&tiger_is["clone_of"], &tiger_is["image"]), (&"lion".into(), &"small".into()));
    assert!(fs::read_to_string(router.config()).unwrap().contains("option clone_of 'lion'"));
    let link = router.net.tap_link().unwrap();
    router.assert_boots(&tiger, &link);

    // While it runs only a snapshot of it will do.
    router.piboot(&["snapshot", "take", "lion", "--name", "fresh"]).unwrap();
    let booted = emupi::boot(&lion, &link, &support::hurried(), None).unwrap();
    let host = router.net.add_host(lion.mac, booted.ip.unwrap()).unwrap();
    nfs::start("10.77.0.1".parse().unwrap(), &host, "/lion/root");
    router.wait_for(&["device", "lion"], "the system", |device| device["state"] == "running");
    let panther = ["clone", "lion", "--mac", "dc:a6:32:00:00:07", "--hostname", "panther"];
    router.assert_refused(&panther, &["lion is running", "shut it down first"]);
    for args in [&["snapshot", "take", "lion"][..], &["rollback", "lion", "fresh"]] {
        router.assert_refused(args, &["lion is running", "shut it down first"]);
    }
    assert!(router.json(&["snapshots", "lion"])["in_use"].as_str().unwrap().contains("is running"));
    router.assert_refused(&[&panther[..], &["--snapshot", "old"]].concat(), &["lion has no snapshot 'old'"]);
    let said = router.piboot(&[&panther[..], &["--snapshot", "fresh"]].concat()).unwrap();
    assert!(said.contains("copy of snapshot fresh of lion"), "{said}");
    assert!(!root(&router, "panther", "first-write").exists() && root(&router, "lion", "first-write").exists());
    assert_eq!(router.json(&["device", "lion"])["state"], "running", "nobody took its root away");
    let snapshot_config = fs::read_to_string(router.config()).unwrap();
    assert!(snapshot_config.contains("option clone_of 'lion@fresh'"), "{snapshot_config}");
}

#[test]
fn an_original_that_is_missing_is_named() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let section = |of: &str| {
        format!("config device 'tiger'\n\toption mac '{TIGER}'\n\toption image 'small'\n\toption clone_of '{of}'\n")
    };
    let config = fs::read_to_string(router.config()).unwrap();
    for (of, words) in [
        ("lion", "it is to begin as lion, which has no files"),
        ("lion@old", "snapshot 'old' of lion, which is not there"),
    ] {
        router.edit_config(|_| config.clone() + &section(of));
        router.reload();
        router.assert_finding(&["error: tiger", words]);
    }
    enroll(&router, LION, "lion", "small", &[]).unwrap();
    router.edit_config(|text| text.replace("lion@old", "lion"));
    router.reload();
    router.wait_for(&["device", "tiger"], "the clone", |device| device["state"] == "ready");
}

#[test]
fn a_device_goes_back_to_what_it_was() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let disk = Disk::of(kind, 600);
        let router = on_disk(&disk);
        router.import(&image::small(router.net.scratch()), "small");
        enroll(&router, LION, "lion", "small", &[]).unwrap();
        let note = root(&router, "lion", "home/pi/note");
        let (handle, pair) = (router.data_dir().join("devices/lion/device.json"), "export_pair");
        let export = || serde_json::from_slice::<Value>(&fs::read(&handle).unwrap()).unwrap()[pair].clone();
        let number = export();
        fs::write(&note, "one").unwrap();
        let said = router.piboot(&["snapshot", "take", "lion", "--name", "one"]).unwrap();
        assert!(said.contains("snapshot one of lion taken"), "{said}");
        router.assert_refused(&["snapshot", "take", "lion", "--name", "one"], &["has a snapshot 'one' already"]);
        router.assert_refused(&["snapshot", "take", "lion", "--name", "../x"], &["'../x' is not a snapshot name"]);
        router.assert_refused(&["snapshot", "take", "lion", "--name", "before-rollback"], &["choose another name"]);
        router.assert_refused(&["rollback", "lion", "two"], &["lion has no snapshot 'two'"]);
        fs::write(&note, "two").unwrap();
        fs::remove_file(root(&router, "lion", "etc/passwd")).unwrap();

        let said = router.piboot(&["rollback", "lion", "one"]).unwrap();
        assert!(said.contains("rolled back to snapshot one") && said.contains("before-rollback"), "{said}");
        assert_eq!(fs::read_to_string(&note).unwrap(), "one");
        assert!(root(&router, "lion", "etc/passwd").exists());
        assert_eq!(snapshots(&router, "lion"), ["one", "before-rollback"]);
        assert_eq!(export(), number, "the handles of a Pi carry it");
        router.wait_for(&["device", "lion"], "it to be served", |device| device["state"] == "ready");
        // And there again, and back: what it was is always kept once.
        router.piboot(&["rollback", "lion", "before-rollback"]).unwrap();
        assert_eq!(fs::read_to_string(&note).unwrap(), "two");
        router.piboot(&["rollback", "lion", "before-rollback", "--discard"]).unwrap();
        assert_eq!(fs::read_to_string(&note).unwrap(), "one");
        assert_eq!(snapshots(&router, "lion"), ["one", "before-rollback"]);

        // Without a name they are called by the time; there is an end to it.
        for _ in 2..16 {
            router.piboot(&["snapshot", "take", "lion"]).unwrap();
        }
        router.assert_refused(&["snapshot", "take", "lion"], &["lion has 16 snapshots", "remove one first"]);
        router.piboot(&["snapshot", "remove", "lion", "one"]).unwrap();
        assert_eq!(snapshots(&router, "lion").len(), 15);
        assert!(router.piboot(&["snapshots", "lion"]).unwrap().contains("before-rollback"));

        // Its name and the router's address follow what is configured now.
        router.edit_config(|text| text.replace("option hostname 'lion'", "option hostname 'simba'"));
        router.reload();
        router.wait_until_settled();
        router.piboot(&["rollback", "lion", "before-rollback"]).unwrap();
        router.wait_until("the new name", || read(&router, "lion", "etc/hostname") == "simba\n");
        router.wait_until_settled();

        router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
        router.wait_until_settled();
        assert_eq!((router.names("snapshots"), router.names("devices")), (vec![], vec![]));
        assert_eq!(router.names("scratch"), Vec::<String>::new());
    }
}

#[test]
fn killed_or_cancelled_in_the_middle_it_is_the_old_or_the_new() {
    let disk = Disk::new(1500);
    let mut router = on_disk(&disk);
    router.import(&image::large(router.net.scratch()), "large");
    enroll(&router, LION, "lion", "large", &[]).unwrap();
    let note = root(&router, "lion", "home/pi/note");
    fs::write(&note, "one").unwrap();

    let take = ["snapshot", "take", "lion", "--name", "one"];
    let job = router.begin(&take);
    router.wait_for_middle(job, 20 * MB, 100);
    router.assert_refused(&["rollback", "lion", "one"], &["is working on the files of lion"]);
    assert_eq!(router.json(&["device", "lion"])["state"], "preparing", "it must not start meanwhile");
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    assert_eq!((snapshots(&router, "lion").len(), router.names("scratch").len()), (0, 0));
    let job = router.begin(&take);
    router.wait_for_middle(job, 20 * MB, 100);
    router.kill_agent();
    router.start_agent();
    router.wait_until("the tidying up", || router.names("scratch").is_empty());
    assert_eq!(snapshots(&router, "lion"), Vec::<String>::new());
    router.piboot(&take).unwrap();

    fs::write(&note, "two").unwrap();
    let job = router.begin(&["rollback", "lion", "one"]);
    router.wait_for_middle(job, 20 * MB, 100);
    router.kill_agent();
    assert_eq!(fs::read_to_string(&note).unwrap(), "two");
    // A kill between two of its last steps, which nothing can be timed for: before the exchange ...
    let (scratch, place) = (router.data_dir().join("scratch"), router.data_dir().join("snapshots/lion"));
    let incoming = scratch.join("rollback-lion.partial");
    fs::copy(router.data_dir().join("devices/lion/device.json"), incoming.join("device.json")).unwrap();
    fs::write(incoming.join(".incoming"), "").unwrap();
    fs::rename(&incoming, place.join(".swap")).unwrap();
    router.start_agent();
    router.wait_until("the tidying up", || router.names("scratch").is_empty());
    assert_eq!(snapshots(&router, "lion"), ["one"]);
    assert_eq!(
        (router.names("snapshots/lion"), read(&router, "lion", "home/pi/note")),
        (vec!["one".into()], "two".into())
    );

    // ... and after it: the new is there, and what it was before is kept.
    router.kill_agent();
    let device = router.data_dir().join("devices/lion");
    fs::rename(&device, place.join(".swap")).unwrap();
    fs::rename(place.join("one"), &device).unwrap();
    fs::write(device.join(".incoming"), "").unwrap();
    router.start_agent();
    assert_eq!(snapshots(&router, "lion"), ["before-rollback"]);
    assert!(!device.join(".incoming").exists());
    assert_eq!(read(&router, "lion", "home/pi/note"), "one");
    router.piboot(&["rollback", "lion", "before-rollback"]).unwrap();
    assert_eq!(read(&router, "lion", "home/pi/note"), "two");

    // A disk that has no room for another is told, and keeps its reserve.
    disk.fill(100);
    router.assert_refused(&["snapshot", "take", "lion", "--name", "three"], &["MB are left on the disk"]);
    assert_eq!(router.names("scratch"), Vec::<String>::new());
}

#[test]
fn boots_that_fail_roll_it_back_once() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    router.assert_refused(&["device", "edit", "lion", "--rollback-after", "21"], &["'21' is no number from 0 to 20"]);
    router.piboot(&["device", "edit", "lion", "--rollback-after", "2"]).unwrap();
    assert!(fs::read_to_string(router.config()).unwrap().contains("option rollback_after '2'"));
    router.assert_finding(&["warning: lion", "has no snapshot"]);
    router.piboot(&["snapshot", "take", "lion", "--name", "good"]).unwrap();
    router.assert_nothing_stands_in_the_way();
    router.wait_for_dnsmasq();
    let note = root(&router, "lion", "etc/broken");
    fs::write(&note, "by an upgrade").unwrap();

    let link = router.net.tap_link().unwrap();
    // It loads its kernel, which does not come up, and the watchdog starts it over. Boots that follow one another too soon
    // are one.
    let boot_until = |until: &dyn Fn() -> bool| {
        router.wait_until("boots", || {
            emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
            until()
        });
    };
    boot_until(&|| router.said("2 boots in a row failed: it is rolled back to snapshot good") == 1);
    router.wait_until("the roll-back", || router.said("lion is rolled back to snapshot good") == 1);
    router.wait_for(&["device", "lion"], "the device", |device| {
        device["state"] == "ready" || device["state"] == "booting"
    });
    assert!(!note.exists());
    assert_eq!(snapshots(&router, "lion"), ["good", "before-rollback"]);
    router.assert_finding(&["warning: lion", "2 boots in a row failed", "rolled back to snapshot good"]);
    // That does not help: it is not tried again.
    let boots = || router.json(&["boots", "lion"])["boots"].as_array().unwrap().len();
    let enough = boots() + 4;
    boot_until(&|| boots() >= enough);
    assert_eq!(router.said("it is rolled back to snapshot good"), 1, "{}", router.logs());
    // The boot under way when it was done tells of it.
    let told =
        (1..=boots()).any(|n| router.piboot(&["boot", &n.to_string()]).unwrap().contains("rolled back to snapshot"));
    assert!(told);
    router.wait_until_settled();
    assert_eq!(router.names("scratch"), Vec::<String>::new());
}
