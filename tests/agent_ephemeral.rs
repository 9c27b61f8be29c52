//! Devices that share an image's files and keep what they change in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use emupi::{Model, Pi};
use support::disk::Disk;
use support::{Router, image, nfs};

const LION: &str = "dc:a6:32:00:00:01";

fn on_disk(disk: &Disk) -> Router {
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router
}

/// Number, mode, owner, group, time of change and content.
type Looks = (u64, u32, u32, u32, i64, Vec<u8>);

/// Everything below a directory, but how many names it has.
fn look(top: &Path) -> BTreeMap<PathBuf, Looks> {
    let mut found = BTreeMap::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                directories.push(path.clone());
            }
            let time = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            found.insert(path, (meta.ino(), meta.mode(), meta.uid(), meta.gid(), time, content));
        }
    }
    found
}

#[test]
fn twenty_five_devices_share_one_image() {
    const COUNT: usize = 25;
    for kind in ["ext4", "btrfs"] {
        let disk = Disk::of(kind, 900);
        let router = on_disk(&disk);
        router.import(&image::large(router.net.scratch()), "large");
        let image = router.data_dir().join("images/large");
        let before = look(&image);
        let at_first = disk.free();
        let mut sections = String::new();
        for n in 0..COUNT {
            let mac = format!("dc:a6:32:00:01:{n:02x}");
            let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me";
            writeln!(sections, "config device 'pi_{n}'\n\toption mac '{mac}'\n\toption image 'large'\n\toption root 'ephemeral'\n\tlist ssh_key '{key}'").unwrap();
        }
        router.edit_config(|text| text + &sections);
        router.reload();
        router.wait_for(&["status"], "all devices", |status| status["devices_ready"] == COUNT);
        let jobs = router.json(&["jobs"])["jobs"].as_array().unwrap().clone();
        let times: Vec<_> = jobs
            .iter()
            .filter(|job| job["message"].as_str().unwrap().contains("boots from an ephemeral root of large"))
            .map(|job| (job["queued_ms"].as_i64().unwrap(), job["finished_ms"].as_i64().unwrap()))
            .collect();
        assert_eq!(times.len(), COUNT, "{jobs:#?}");
        let took = times.iter().map(|t| t.1).max().unwrap() - times.iter().map(|t| t.0).min().unwrap();
        let used = at_first.saturating_sub(disk.free());
        println!("{kind}: {COUNT} devices in {took} ms, {} kB each", used / 1024 / COUNT as u64);
        // A root of 160 MB in 3000 files; on btrfs with what makes the image's root one that is duplicated as a whole.
        assert!(used < (COUNT as u64 + 10) << 20, "{used}");
        let own = |n: usize, path: &str| {
            fs::read_to_string(router.data_dir().join(format!("devices/pi_{n}/{path}"))).unwrap()
        };
        for n in 0..COUNT {
            assert_eq!(own(n, "root/etc/hostname"), format!("pi-{n}\n"));
            assert!(own(n, "boot/cmdline.txt").contains(&format!(":/pi_{n}/root,")));
        }
        let ids: Vec<_> = (0..COUNT).map(|n| own(n, "root/etc/machine-id")).collect();
        assert!(ids.iter().all(|id| id.len() == 33 && ids.iter().filter(|other| *other == id).count() == 1));
        // Changed, copied, removed: the image stays what it is.
        router.edit_config(|text| {
            text.replace("\toption hostname 'pi-3'\n", "").replace(
                "config piboot 'main'\n",
                "config piboot 'main'\n\toption timezone 'Europe/Berlin'\n\toption locale 'de_DE.UTF-8'\n",
            )
        });
        router.reload();
        router.piboot(&["device", "edit", "pi_3", "--hostname", "panther", "--user", "someone"]).unwrap();
        router.wait_until("the change", || own(3, "root/etc/hostname") == "panther\n");
        router.wait_until_settled();
        assert!(own(3, "root/etc/passwd").contains("someone:"));
        let args = ["clone", "pi_3", "--mac", LION, "--hostname", "lion", "--root", "copy"];
        router.piboot(&args).unwrap();
        fs::write(router.data_dir().join("devices/lion/root/usr/lib/7/large"), "changed").unwrap();
        router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
        for n in 5..COUNT {
            router.piboot(&["unenroll", &format!("pi_{n}"), "--delete"]).unwrap();
        }
        router.wait_until_settled();
        let after = look(&image);
        assert!(
            before.iter().all(|(path, was)| after.get(path) == Some(was) || path.ends_with("image.json")),
            "{kind}"
        );
        // Whoever shares its files keeps them when it goes; the disk has them back with the last of those.
        for n in 0..5 {
            let id = format!("pi_{n}");
            if n < 4 {
                router.piboot(&["unenroll", &id, "--delete"]).unwrap();
            } else {
                router.wait_until_settled();
                router.piboot(&["image", "remove", "large"]).unwrap();
                router.wait_until_settled();
                assert_eq!(
                    fs::metadata(router.data_dir().join("devices/pi_4/root/usr/lib/7/large")).unwrap().len(),
                    5 << 20
                );
                assert!(disk.free() < at_first);
                router.piboot(&["unenroll", &id, "--delete"]).unwrap();
                router.wait_until("the space", || disk.free() > at_first + (150 << 20));
            }
        }
    }
}

#[test]
fn nobody_writes_to_it_and_what_is_made_of_it_is_its_own() {
    let disk = Disk::new(700);
    let mut router = on_disk(&disk);
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    let image = router.data_dir().join("images/small");
    let before = look(&image);
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let args =
        ["enroll", "--mac", &pi.mac.to_string(), "--hostname", "lion", "--image", "small", "--root", "ephemeral"];
    let said = router.piboot(&args).unwrap();
    assert!(said.contains("lion boots from an ephemeral root of small"), "{said}");
    assert_eq!(router.json(&["device", "lion"])["made_by"], "ephemeral");
    let device = router.data_dir().join("devices/lion");
    let number = |path: &Path| fs::metadata(path).unwrap().ino();
    let shared = ["root/sbin/init", "boot/kernel8.img", "root/home/pi/.profile"];
    let is_shared = |device: &Path| shared.map(|path| number(&device.join(path)) == number(&image.join(path)));
    assert_eq!(is_shared(&device), [true; 3]);
    router.assert_refused(&["snapshot", "take", "lion"], &["lion has an ephemeral root", "in its memory"]);

    router.wait_for_dnsmasq();
    let link = router.net.tap_link().unwrap();
    let booted = emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
    let host = router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap();
    let refused = ["OK", "ROFS", "ROFS", "ROFS", "ROFS", "ROFS", "ROFS", "ROFS"];
    assert_eq!(nfs::try_to_change(&host, "/lion/boot", "kernel8.img", None), refused);
    let of_image = nfs::handle_of(&host, "/lion/boot", "kernel8.img");
    assert_eq!(look(&image), before);

    // Whatever the configuration says: its files stay what they are.
    router.edit_config(|text| text.replace("option root 'ephemeral'", "option root 'copy'"));
    router.reload();
    router.wait_until_settled();
    assert_eq!(nfs::try_to_change(&host, "/lion/boot", "kernel8.img", None), refused);
    router.kill_agent();
    router.start_agent();
    router.wait_for(&["device", "lion"], "the device", |device| device["state"] != "blocked");
    assert_eq!(nfs::try_to_change(&host, "/lion/boot", "kernel8.img", None), refused);

    // What is below its overlay must not change while it is mounted: that waits until it starts anew.
    nfs::start_read_only(&host, "/lion/root", &["sbin", "init"]);
    router.wait_for(&["device", "lion"], "the system", |device| device["state"] == "running");
    assert!(router.piboot(&["devices"]).unwrap().contains("small, ephemeral"));
    let said = router.piboot(&["device", "edit", "lion", "--hostname", "simba"]).unwrap();
    assert!(said.contains("takes effect at its next boot"), "{said}");
    router.reload();
    router.wait_until_settled();
    let hostname = || fs::read_to_string(device.join("root/etc/hostname")).unwrap();
    assert_eq!(hostname(), "lion\n");
    // Boots that follow one another too soon are one.
    router.wait_until("its new name", || {
        emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
        hostname() == "simba\n"
    });
    router.wait_until_settled();

    // A root that it may write to, in the place of this one; and what it knows of the old one leads nowhere.
    let said = router.piboot(&["device", "reset", "lion", "--keep", "--force"]).unwrap();
    assert!(said.contains("lion boots from a copy of small"), "{said}");
    assert_eq!(is_shared(&device), [false; 3]);
    let cmdline = fs::read_to_string(device.join("boot/cmdline.txt")).unwrap();
    assert!(cmdline.ends_with(" rw ip=dhcp rootwait\n"), "{cmdline}");
    // Its old number, which is free again, may be its next one.
    let record = |value: Option<u64>| {
        let path = device.join("device.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Some(value) = value {
            record["export_pair"] = value.into();
            fs::write(&path, record.to_string()).unwrap();
        }
        record["export_pair"].as_u64().unwrap()
    };
    assert_ne!(record(None), 1);
    record(Some(1));
    router.kill_agent();
    router.start_agent();
    router.wait_for(&["device", "lion"], "the device", |device| device["state"] != "blocked");
    let statuses = nfs::try_to_change(&host, "/lion/boot", "fixup.dat", Some(&of_image));
    assert_eq!(statuses[..3], ["STALE", "STALE", "STALE"]);
    assert_eq!(look(&image), before);
}

#[test]
fn it_becomes_another_kind_and_this_one_again() {
    let disk = Disk::new(700);
    let router = on_disk(&disk);
    router.import(&image::small(router.net.scratch()), "small");
    let image = router.data_dir().join("images/small");
    let before = look(&image);
    let args = ["enroll", "--mac", LION, "--hostname", "lion", "--image", "small", "--root", "ephemeral"];
    router.piboot(&args).unwrap();
    let device = router.data_dir().join("devices/lion");
    let shared =
        |path: &str| fs::metadata(device.join(path)).unwrap().ino() == fs::metadata(image.join(path)).unwrap().ino();
    let is_ephemeral = || {
        let cmdline = fs::read_to_string(device.join("boot/cmdline.txt")).unwrap();
        let init = device.join("root/usr/lib/piboot/ephemeral-init").exists();
        let made_by = router.json(&["device", "lion"])["made_by"] == "ephemeral";
        assert!(init == made_by && cmdline.contains(" ro ") == made_by, "{cmdline}");
        made_by
    };
    let set_root = |kind: &str| {
        router.edit_config(|text| {
            let lines = text.lines().filter(|line| !line.contains("option root ")).map(|line| format!("{line}\n"));
            lines
                .collect::<String>()
                .replace("\toption hostname", &format!("\toption root '{kind}'\n\toption hostname"))
        });
        router.reload();
        router.wait_until_settled();
    };
    assert!(is_ephemeral() && shared("root/sbin/init"));
    let archive = router.scratch("lion.tar.zst");
    router.piboot(&["backup", "lion", "--output", archive.to_str().unwrap()]).unwrap();

    set_root("copy");
    assert!(is_ephemeral(), "until it gets another root");
    router.assert_finding(&[
        "warning: lion",
        "what it changes is gone at its next boot",
        "option root is 'copy' by now",
    ]);
    let said = router.piboot(&["device", "reset", "lion", "--keep"]).unwrap();
    assert!(said.contains("lion boots from a copy of small"), "{said}");
    assert!(!is_ephemeral() && !shared("root/sbin/init") && !shared("boot/kernel8.img"));
    fs::write(device.join("root/sbin/init"), "its own").unwrap();
    let kept = router.json(&["snapshots", "lion"])["snapshots"][0]["name"].as_str().unwrap().to_owned();

    // What was kept may still be the image's own files: what comes of it is a copy.
    router.piboot(&["rollback", "lion", &kept]).unwrap();
    router.wait_for(&["device", "lion"], "the configuration to follow", |device| device["root"] == "ephemeral");
    assert!(is_ephemeral() && !shared("root/sbin/init"));
    let clone = ["clone", "lion", "--snapshot", &kept, "--mac", "dc:a6:32:00:00:07", "--hostname", "tiger"];
    router.piboot(&[&clone[..], &["--root", "ephemeral"]].concat()).unwrap();
    let tiger = router.data_dir().join("devices/tiger");
    assert_eq!(fs::metadata(tiger.join("root/sbin/init")).unwrap().nlink(), 1, "a snapshot is not linked to");
    router.piboot(&["rollback", "lion", "before-rollback"]).unwrap();
    assert!(!is_ephemeral());
    assert_eq!(fs::read_to_string(device.join("root/sbin/init")).unwrap(), "its own");

    set_root("ephemeral");
    assert!(!is_ephemeral());
    router.piboot(&["device", "reset", "lion"]).unwrap();
    assert!(is_ephemeral() && shared("root/sbin/init"));
    for kind in ["auto", "ephemeral"] {
        router.piboot(&["device", "reset", "lion", "--root", kind]).unwrap();
        assert_eq!((is_ephemeral(), &router.json(&["device", "lion"])["root"]), (kind == "ephemeral", &kind.into()));
    }
    router
        .assert_refused(&["device", "reset", "lion", "--root", "overlay"], &["import it once more under another name"]);
    router.piboot(&["restore", archive.to_str().unwrap(), "--replace"]).unwrap();
    router.wait_until_settled();
    assert!(is_ephemeral() && !shared("root/sbin/init"));
    assert_eq!(look(&image), before);
}

/// What lies over an image counts the links of its files: nobody else links to them.
#[test]
fn an_image_has_roots_that_are_linked_to_it_or_roots_over_it() {
    let disk = Disk::new(700);
    let router = on_disk(&disk);
    for name in ["one", "two"] {
        router.import(&image::small(router.net.scratch()), name);
    }
    let enroll = |n: u32, image: &str, kind: &str| {
        let (mac, name) = (format!("dc:a6:32:00:00:{n:02x}"), format!("pi-{n}"));
        let args = ["enroll", "--mac", &mac, "--hostname", &name, "--image", image, "--root", kind];
        router.piboot(&args)
    };
    for (n, image, kind, other) in [(1, "one", "overlay", "ephemeral"), (3, "two", "ephemeral", "overlay")] {
        let made = enroll(n, image, kind);
        if made.as_ref().is_err_and(|why| why.contains("a root by 'overlay' cannot be made")) {
            eprintln!("skipped: no overlays here: {made:?}");
            return;
        }
        made.unwrap();
        let refused = enroll(n + 1, image, other).unwrap_err();
        assert!(refused.contains("import it once more under another name"), "{refused}");
        enroll(n + 10, image, kind).unwrap();
    }
}

#[test]
fn where_it_cannot_be_it_is_refused_in_words() {
    let disk = Disk::new(384);
    let router = on_disk(&disk);
    router.import(&image::lite(router.net.scratch()), "lite");
    let args = ["enroll", "--mac", LION, "--hostname", "lion", "--image", "lite", "--root", "ephemeral"];
    let words = ["cannot be made of image 'lite'", "6.12.47+rpt-rpi-v8", "has no overlay file system", "'auto'"];
    router.assert_refused(&args, &words);
    let section =
        format!("config device 'lion'\n\toption mac '{LION}'\n\toption image 'lite'\n\toption root 'ephemeral'\n");
    router.edit_config(|text| text + &section);
    router.reload();
    router.wait_for(&["device", "lion"], "the refusal", |device| {
        device["state"] == "blocked" && device["why"].as_str().unwrap().contains("has no overlay file system")
    });
    let config = router.data_dir().join("images/lite/root/boot/config-6.12.47+rpt-rpi-v8");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "CONFIG_OVERLAY_FS=m\n").unwrap();
    router.edit_config(|text| text.replace("'lion'", "'tiger'"));
    router.reload();
    router.wait_for(&["device", "tiger"], "the device", |device| device["state"] == "ready");
    // The initramfs is left out as for any other: ours needs none.
    let boot = router.data_dir().join("devices/tiger/boot/config.txt");
    assert!(fs::read_to_string(boot).unwrap().contains("auto_initramfs=0"));
}
