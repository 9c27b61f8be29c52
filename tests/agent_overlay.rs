//! Roots by overlay: layers over an image that many devices share, on a file system whose files cannot share blocks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_types, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use emupi::{Model, Pi};
use support::disk::Disk;
use support::image;
use support::layers::{mounted, on_disk, over, read, root};
use support::{PIBOOT, Router};

const MB: u64 = 1 << 20;

#[test]
fn one_more_takes_next_to_nothing() {
    let disk = Disk::new(900);
    let router = on_disk(&disk);
    router.import(&image::large(router.net.scratch()), "large");
    // Of the last five, the one that other tests disturbed least.
    let mut last = (f64::MAX, 0);
    for n in 1..=25 {
        let (before, begun) = (disk.free(), Instant::now());
        over(&router, &Pi::new(Model::Pi4B, 0x5b15_4500 + n), &format!("pi{n}"), "large");
        let (seconds, bytes) = (begun.elapsed().as_secs_f64(), before.saturating_sub(disk.free()));
        if n == 1 || n == 25 {
            println!("device {n} takes {seconds:.2} s and {bytes} bytes");
        }
        if n > 20 {
            last = (last.0.min(seconds), last.1.max(bytes));
        }
    }
    assert!(last.0 < 2.0 && last.1 < 5 * MB, "{last:?}");
    for n in [1, 17, 25] {
        let id = format!("pi{n}");
        assert_eq!(read(&router, &id, "etc/hostname"), format!("{id}\n"));
        assert!(read(&router, &id, "../boot/cmdline.txt").contains(&format!("/{id}/root")));
        assert_eq!(root(&router, &id, "usr/lib/7/large").metadata().unwrap().len(), 5 << 20);
    }
    assert_eq!(mounted().len(), 50);
    assert_eq!(router.json(&["device", "pi25"])["made_by"], "overlay");
    // What is shared counts for none of them.
    router.wait_for(&["devices"], "the sizes", |devices| {
        let sizes = devices["devices"].as_array().unwrap().iter().map(|d| d["disk_bytes"].as_u64().unwrap_or(MB * 9));
        sizes.max() < Some(5 * MB)
    });
    // What one writes is its own.
    fs::write(root(&router, "pi3", "usr/lib/7/large"), "changed").unwrap();
    assert_eq!(root(&router, "pi4", "usr/lib/7/large").metadata().unwrap().len(), 5 << 20);
    let lower = router.data_dir().join("images/large/root/usr/lib/7/large");
    assert_eq!(lower.metadata().unwrap().len(), 5 << 20);
}

#[test]
fn a_second_agent_leaves_the_layers_of_the_first_alone() {
    let disk = Disk::new(500);
    let router = on_disk(&disk);
    router.import(&image::small(router.net.scratch()), "small");
    over(&router, &Pi::new(Model::Pi4B, 0x5b15_4510), "lion", "small");
    let socket = router.net.scratch().join("second.sock");
    let piboot = || {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", router.net.router_ns())).arg(PIBOOT).arg("--socket").arg(&socket);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut second = piboot().arg("serve").arg("--config").arg(router.config()).spawn().unwrap();
    router.wait_until("the second one to answer", || piboot().arg("status").status().unwrap().success());
    let pid = rustix::process::Pid::from_child(&second);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    second.wait().unwrap();
    assert_eq!(mounted().len(), 2);
    assert_eq!(read(&router, "lion", "etc/hostname"), "lion\n");
}

/// Nothing is in there.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn whatever_is_done_to_a_device_its_files_are_all_there() {
    let disk = Disk::new(900);
    let mut router = on_disk(&disk);
    router.import(&image::small(router.net.scratch()), "small");
    router.import(&image::small(router.net.scratch()), "other");
    let [lion, tiger] = [0x10, 0x11].map(|n| Pi::new(Model::Pi4B, 0x5b15_4500 + n));
    over(&router, &lion, "lion", "small");
    let settled = |router: &Router, id: &str| {
        router.wait_for(&["device", id], "it to be served", |device| device["state"] == "ready");
    };
    let note = |text: &str| fs::write(root(&router, "lion", "home/pi/note"), text).unwrap();
    let made_by = |id: &str| router.json(&["device", id])["made_by"].clone();
    note("one");

    // What lies below others stays.
    router.assert_refused(&["image", "remove", "small"], &["image 'small' is the lower layer of lion", "switch"]);

    // Also of those of which nobody knows what they lie over.
    let record = router.data_dir().join("devices/lion/device.json");
    let kept = fs::read(&record).unwrap();
    fs::write(&record, "torn").unwrap();
    router.assert_refused(&["image", "remove", "other"], &["image 'other' is the lower layer of lion"]);
    fs::write(&record, kept).unwrap();

    // A copy of it is a whole one.
    router.piboot(&["snapshot", "take", "lion", "--name", "one"]).unwrap();
    let snapshot = router.data_dir().join("snapshots/lion/one");
    assert_eq!(fs::read_to_string(snapshot.join("root/home/pi/note")).unwrap(), "one");
    assert!(snapshot.join("boot/config.txt").exists() && !snapshot.join("overlay").exists());
    settled(&router, "lion");
    let mac = tiger.mac.to_string();
    let clone = ["clone", "lion", "--mac", &mac, "--hostname", "tiger"];
    let said = router.piboot(&clone).unwrap();
    assert!(said.contains("tiger boots from a copy of lion"), "{said}");
    assert_eq!((read(&router, "tiger", "home/pi/note"), made_by("tiger")), ("one".to_owned(), "copy".into()));
    let file = router.net.scratch().join("lion.tar.zst");
    settled(&router, "lion");
    router.piboot(&["backup", "lion", "-o", file.to_str().unwrap()]).unwrap();

    // Back to it, and forth again: what it was stays in layers, as a snapshot.
    settled(&router, "lion");
    note("two");
    router.piboot(&["rollback", "lion", "one"]).unwrap();
    settled(&router, "lion");
    assert_eq!((read(&router, "lion", "home/pi/note"), made_by("lion")), ("one".to_owned(), "copy".into()));
    let before = router.data_dir().join("snapshots/lion/before-rollback");
    assert!(is_empty(&before.join("root")) && before.join("overlay").is_dir());
    router.assert_refused(&["image", "remove", "small"], &["snapshot before-rollback of lion"]);
    router.piboot(&["rollback", "lion", "before-rollback", "--discard"]).unwrap();
    settled(&router, "lion");
    assert_eq!(
        (read(&router, "lion", "home/pi/note"), read(&router, "lion", "etc/hostname")),
        ("two".into(), "lion\n".into())
    );
    assert_eq!(made_by("lion"), "copy");

    // A new root over another image, the old one kept; and one that replaces layers.
    for image in ["other", "small"] {
        router.piboot(&["device", "switch", "lion", image, "--keep"]).unwrap();
        settled(&router, "lion");
        assert_eq!((made_by("lion"), read(&router, "lion", "etc/hostname")), ("overlay".into(), "lion\n".into()));
        assert!(!root(&router, "lion", "home/pi/note").exists());
        note(image);
    }
    router.assert_refused(&["image", "remove", "other"], &["is the lower layer of snapshot replaced-"]);
    let kept = router.names("snapshots/lion");
    let of_other = kept.iter().rfind(|name| name.starts_with("replaced-")).unwrap();
    router.piboot(&["rollback", "lion", of_other, "--discard"]).unwrap();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "other");

    // Out of its backup it is whole.
    router.piboot(&["restore", file.to_str().unwrap(), "--replace"]).unwrap();
    settled(&router, "lion");
    assert_eq!((read(&router, "lion", "home/pi/note"), made_by("lion")), ("one".to_owned(), "copy".into()));

    // Disabled it is unmounted; its files are there when it is not.
    router.piboot(&["device", "switch", "lion", "small"]).unwrap();
    settled(&router, "lion");
    note("three");
    router.piboot(&["device", "edit", "lion", "--disable"]).unwrap();
    router.wait_until("it to be unmounted", || mounted().is_empty());
    let file = router.net.scratch().join("disabled.tar.zst");
    router.piboot(&["backup", "lion", "-o", file.to_str().unwrap()]).unwrap();
    let members = std::process::Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&members.stdout).contains("root/home/pi/note"));
    router.piboot(&["device", "edit", "lion", "--enable"]).unwrap();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "three");

    // To another router it goes whole, and so does the image.
    let all = router.net.scratch().join("all.tar.zst");
    router.piboot(&["export", "-o", all.to_str().unwrap()]).unwrap();
    settled(&router, "lion");

    // What cannot be mounted is not served as something empty.
    router.stop_agent();
    let upper = router.data_dir().join("devices/lion/overlay/root/upper");
    fs::rename(&upper, upper.with_extension("away")).unwrap();
    router.start_agent_here();
    router.wait_for(&["device", "lion"], "the refusal", |device| {
        device["state"] == "blocked" && device["why"].as_str().unwrap().contains("its own files")
    });
    fs::rename(upper.with_extension("away"), &upper).unwrap();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "three");
    // Nor is another image in the place of the one that it lies over, however alike.
    router.stop_agent();
    let image = router.data_dir().join("images/small");
    fs::rename(&image, image.with_extension("away")).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").args([&image.with_extension("away"), &image]).status();
    assert!(copied.unwrap().success());
    router.start_agent_here();
    router.wait_for(&["device", "lion"], "the refusal", |device| {
        device["state"] == "blocked" && device["why"].as_str().unwrap().contains("is another than the one")
    });
    assert!(is_empty(&root(&router, "lion", "")));
    fs::remove_dir_all(&image).unwrap();
    fs::rename(image.with_extension("away"), &image).unwrap();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "three");

    // Mounts that go with the agent, a moment after it, are in nobody's way for long.
    router.stop_agent();
    for _ in 0..2 {
        router.start_agent();
        settled(&router, "lion");
        assert_eq!(mounted(), Vec::<String>::new());
        router.kill_agent();
    }
    router.start_agent_here();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "three");

    // And nothing is left of it when it goes; the image is whole.
    for id in ["lion", "tiger"] {
        router.piboot(&["unenroll", id, "--delete"]).unwrap();
    }
    router.wait_until_settled();
    assert_eq!((router.names("devices"), router.names("snapshots"), router.names("scratch")), (vec![], vec![], vec![]));
    assert_eq!(mounted(), Vec::<String>::new());
    let hosts = fs::read_to_string(router.data_dir().join("images/small/root/etc/hostname")).unwrap();
    assert_eq!(hosts, "raspberrypi\n");
    for image in ["small", "other"] {
        router.piboot(&["image", "remove", image]).unwrap();
    }
    router.wait_until_settled();
    router.piboot(&["import-all", all.to_str().unwrap()]).unwrap();
    settled(&router, "lion");
    assert_eq!(read(&router, "lion", "home/pi/note"), "three");
    assert_eq!(router.json(&["device", "lion"])["made_by"], "copy");
    assert!(mounted().is_empty() && !router.names("devices/lion").contains(&"overlay".to_owned()));
    assert_eq!(router.data_dir().join("images/small/root/etc/hostname").metadata().unwrap().nlink(), 1);
}
