//! A Pi in one file: backed up, wiped and restored it is the same, whatever happens meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "images/awkward.rs"]
mod awkward;
mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use awkward::{Manifest, assert_same, describe, run};
use emupi::{Model, Pi};
use support::disk::Disk;
use support::{PIBOOT, Router, image};

const MB: u64 = 1 << 20;

fn trees(router: &Router, id: &str) -> (Manifest, Manifest) {
    let device = router.data_dir().join("devices").join(id);
    (describe(&device.join("boot")), describe(&device.join("root")))
}

#[track_caller]
fn assert_same_trees(ours: &(Manifest, Manifest), reference: &(Manifest, Manifest), what: &str) {
    assert_same(&ours.0, &reference.0, &format!("{what}: boot"));
    assert_same(&ours.1, &reference.1, &format!("{what}: root"));
}

/// What a Pi may have put into its root.
fn decorate(root: &Path) {
    let odd = root.join("home/pi/odd");
    fs::create_dir_all(odd.join("d".repeat(200)).join("e".repeat(200))).unwrap();
    fs::write(odd.join("setuid"), "x").unwrap();
    chown(odd.join("setuid"), Some(3_000_000_000), Some(70_000)).unwrap();
    fs::set_permissions(odd.join("setuid"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::write(odd.join(std::ffi::OsStr::from_bytes(b"raw\xff\xfe\nname")), "named").unwrap();
    fs::hard_link(odd.join("setuid"), root.join("usr-link")).unwrap();
    symlink("/etc/shadow", odd.join("link")).unwrap();
    let hole = fs::File::create(odd.join("hole")).unwrap();
    hole.set_len(3 << 30).unwrap();
    std::os::unix::fs::FileExt::write_at(&hole, b"island", 2 << 30).unwrap();
    for (name, args) in [("null", &["c", "1", "3"][..]), ("pipe", &["p"])] {
        run(Command::new("mknod").arg(odd.join(name)).args(args));
    }
    run(Command::new("setfattr").args(["-n", "user.odd", "-v", "value"]).arg(odd.join("setuid")));
    run(Command::new("setfacl").args(["-m", "u:70000:rx,d:u:1000:rwx"]).arg(odd.join("d".repeat(200))));
    run(Command::new("touch").args(["-h", "-d", "1999-12-31T23:59:59.123456789"]).arg(odd.join("link")));
}

fn enrolled(router: &Router) -> Pi {
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll_with_serial(&pi, "5b154510", "lion");
    decorate(&router.data_dir().join("devices/lion/root"));
    pi
}

#[track_caller]
fn backup(router: &Router, file: &Path) -> String {
    router
        .piboot(&["backup", "lion", "-o", file.to_str().unwrap()])
        .unwrap_or_else(|e| panic!("{e}\n{}", router.logs()))
}

#[test]
fn backed_up_wiped_and_restored_it_is_the_same() {
    let mut router = Router::running();
    let pi = enrolled(&router);
    let file = router.scratch("lion.tar.zst");
    let path = file.to_str().unwrap().to_owned();
    let (before, config) = (trees(&router, "lion"), fs::read_to_string(router.config()).unwrap());
    let record = fs::read_to_string(router.data_dir().join("devices/lion/device.json")).unwrap();
    let said = backup(&router, &file);
    assert!(said.contains("lion backed up to"), "{said}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "it has the Pi's secrets");
    router.assert_refused(&["backup", "lion", "-o", &path], &["exists already"]);

    // GNU tar makes the same of it.
    let into = router.scratch("by-tar");
    fs::create_dir(&into).unwrap();
    let listed = Command::new("tar").args(["--zstd", "-tf"]).arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.starts_with("backup.json\ndevice.uci\ndevice.json\nboot/\n"), "{listed}");
    run(Command::new("tar")
        .args(["--zstd", "--xattrs", "--xattrs-include=*", "-p", "--numeric-owner", "-xf"])
        .arg(&file)
        .arg("-C")
        .arg(&into));
    assert_same_trees(&(describe(&into.join("boot")), describe(&into.join("root"))), &before, "by tar");
    assert!(fs::read_to_string(into.join("device.uci")).unwrap().contains("option serial '5b154510'"));

    // Wiped: not enrolled, and no files.
    router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
    router.wait_until_settled();
    router.assert_refused(&["backup", "lion"], &["no device 'lion'"]);
    assert_eq!(router.names("devices"), Vec::<String>::new());
    let said = router.piboot(&["restore", &path]).unwrap();
    assert!(said.contains("lion restored from"), "{said}");
    assert_same_trees(&trees(&router, "lion"), &before, "restored");
    router.wait_for(&["device", "lion"], "the device", |device| device["state"] == "ready");
    assert_eq!(fs::read_to_string(router.config()).unwrap(), config);
    assert_eq!(fs::read_to_string(router.data_dir().join("devices/lion/device.json")).unwrap(), record);
    assert_eq!(router.names("scratch"), Vec::<String>::new());

    // Over what is there, only when asked to.
    let root = router.data_dir().join("devices/lion/root");
    fs::write(root.join("new"), "since then").unwrap();
    router.assert_refused(&["restore", &path], &["files of lion already", "--replace"]);
    router.piboot(&["restore", &path, "--replace"]).unwrap();
    assert!(!root.join("new").exists());
    assert_same_trees(&trees(&router, "lion"), &before, "replaced");
    assert_eq!(router.names("scratch"), Vec::<String>::new());

    // Through pipes, as from another machine.
    let socket = router.scratch("piboot.sock");
    let piped = router.scratch("piped.tar.zst");
    let shell = |script: &str| {
        run(Command::new("bash").args(["-o", "pipefail", "-ec", script, "sh", PIBOOT]).arg(&socket).arg(&piped));
    };
    shell("\"$1\" --socket \"$2\" backup lion -o - | cat > \"$3\"");
    fs::write(root.join("new"), "since then").unwrap();
    shell("cat \"$3\" | \"$1\" --socket \"$2\" restore /dev/stdin --id lion --replace");
    assert_same_trees(&trees(&router, "lion"), &before, "through pipes");

    // It boots, from the files that are there now; while it does, neither is done.
    router.assert_boots(&pi, &router.net.tap_link().unwrap());
    router.assert_refused(&["restore", &path, "--replace"], &["lion is booting"]);
    let live = router.scratch("live.tar.zst");
    router.assert_refused(&["backup", "lion", "-o", live.to_str().unwrap()], &["lion is booting", "--live"]);
    router.piboot(&["backup", "lion", "--live", "-o", live.to_str().unwrap()]).unwrap();
    router.assert_nothing_stands_in_the_way();
    router.stop_agent();
}

#[test]
fn a_restored_pi_that_becomes_another_has_an_identity_of_its_own() {
    let router = Router::running();
    enrolled(&router);
    let root = |id: &str| router.data_dir().join("devices").join(id).join("root");
    fs::write(root("lion").join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let file = router.scratch("lion.tar.zst");
    let path = file.to_str().unwrap();
    backup(&router, &file);
    let bear = Pi::new(Model::Pi4B, 0x1234_5678);
    router.assert_refused(&["restore", path, "--id", "bear"], &["no device 'bear'"]);
    router.enroll(&bear, "bear");
    router.assert_refused(&["restore", path, "--id", "bear"], &["files of bear already"]);
    router.piboot(&["restore", path, "--id", "bear", "--replace"]).unwrap();
    assert_eq!(fs::read_to_string(root("bear").join("etc/hostname")).unwrap(), "bear\n");
    assert_eq!(fs::read_to_string(root("bear").join("etc/machine-id")).unwrap(), "uninitialized\n");
    assert!(root("bear").join("usr-link").exists(), "it is lion's");
    let cmdline = fs::read_to_string(router.data_dir().join("devices/bear/boot/cmdline.txt")).unwrap();
    assert!(cmdline.contains("/bear/root") && !cmdline.contains("lion"), "{cmdline}");
    router.assert_boots(&bear, &router.net.tap_link().unwrap());

    // Back as itself, where something else has taken its place.
    router.piboot(&["unenroll", "lion", "--delete"]).unwrap();
    router.wait_until_settled();
    router.piboot(&["enroll", "--serial", "5b154510", "--hostname", "puma", "--image", "small"]).unwrap();
    router.assert_refused(&["restore", path], &["5b154510 is enrolled already, as puma"]);
}

#[test]
fn damaged_and_foreign_files_are_refused_and_leave_nothing() {
    let router = Router::running();
    enrolled(&router);
    let file = router.scratch("lion.tar.zst");
    backup(&router, &file);
    let before = trees(&router, "lion");
    let whole = fs::read(&file).unwrap();
    let damaged = router.scratch("damaged.tar.zst");
    let refused = |bytes: &[u8], words: &[&str]| {
        fs::write(&damaged, bytes).unwrap();
        router.assert_refused(&["restore", damaged.to_str().unwrap(), "--replace"], words);
        router.wait_until_settled();
        assert_eq!(router.names("scratch"), Vec::<String>::new());
    };
    for length in [whole.len() - 1, whole.len() - 5, whole.len() / 2, 3000] {
        refused(&whole[..length], &["damaged.tar.zst", "cut off"]);
    }
    for at in [whole.len() / 3, whole.len() - 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        refused(&bytes, &["damaged.tar.zst", "the archive"]);
    }
    refused(b"", &["damaged.tar.zst"]);
    refused(b"PK\x03\x04 something else", &["damaged.tar.zst"]);
    let pack = |name: &str, script: &str| -> Vec<u8> {
        let place = router.scratch(name);
        fs::create_dir(&place).unwrap();
        run(Command::new("sh").args(["-ec", script, "sh"]).arg(&file).current_dir(&place));
        fs::read(place.join("out")).unwrap()
    };
    refused(&pack("other", "echo x > x; tar --zstd -cf out x"), &["'backup.json' is not where it should be"]);
    // Compressed so that it would take 128 MB to read.
    refused(
        &pack("long", "zstd -dcq \"$1\" | zstd -q --long=27 -19 -o out"),
        &["MB of memory to read", "without --long"],
    );
    // A device whose name would lead out of its directory.
    let escape = "zstd -dcq \"$1\" | sed 's/\"id\": \"lion\"/\"id\": \"..\\/x\"/' | zstd -q -o out";
    refused(&pack("escape", escape), &["damaged.tar.zst"]);
    assert_same_trees(&trees(&router, "lion"), &before, "after all that");
    router.assert_refused(&["restore", "/nonexistent"], &["/nonexistent"]);
    router.assert_refused(&["restore", "/dev/zero", "--id", "lion"], &["/dev/zero: it is neither a file nor a pipe"]);
    for path in ["devices/lion/root/x", "scratch/x", "images/x"] {
        let path = router.data_dir().join(path);
        router.assert_refused(&["backup", "lion", "-o", path.to_str().unwrap()], &["piboot's own directories"]);
    }
    router.assert_refused(&["backup", "lion", "-o", "/nonexistent/x"], &["its directory does not exist"]);
}

fn with_large(data_dir: PathBuf) -> Router {
    let mut router = Router::with_data_dir(data_dir);
    router.start_agent();
    router.import(&image::large(router.net.scratch()), "large");
    router.piboot(&["enroll", "--mac", "dc:a6:32:00:00:09", "--hostname", "lion", "--image", "large"]).unwrap();
    router
}

#[test]
fn interrupted_in_the_middle_it_leaves_what_was_there() {
    let disk = Disk::new(900);
    let mut router = with_large(disk.path().join("piboot"));
    let before = trees(&router, "lion");
    let file = router.scratch("lion.tar.zst");
    let path = file.to_str().unwrap().to_owned();

    // A backup that is cancelled, and one that is killed: not even half a file.
    let in_directory = || fs::read_dir(file.parent().unwrap()).unwrap().count();
    let names = in_directory();
    let job = router.begin(&["backup", "lion", "-o", &path]);
    router.wait_for_middle(job, 20 * MB, 10);
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    let job = router.begin(&["backup", "lion", "-o", &path]);
    router.wait_for_middle(job, 20 * MB, 10);
    router.kill_agent();
    assert_eq!((file.exists(), in_directory()), (false, names), "not even half a file");
    router.start_agent();
    backup(&router, &file);

    for kill in [false, true] {
        let job = router.begin(&["restore", &path, "--replace"]);
        router.wait_for_middle(job, 20 * MB, 10);
        if kill {
            router.kill_agent();
            assert_eq!(router.names("scratch"), ["device-lion.partial"], "it was in the middle");
            router.start_agent();
        } else {
            router.assert_refused(
                &["backup", "lion", "-o", "/tmp/x"],
                &[&format!("job {job} is working on the files of lion")],
            );
            router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
            router.wait_until("its end", || router.job(job)["state"] == "cancelled");
        }
        router.wait_until("the tidying up", || router.names("scratch").is_empty());
        assert_same_trees(&trees(&router, "lion"), &before, "as before");
    }
    // Too full for both.
    disk.fill(150);
    router.assert_refused(&["restore", &path, "--replace"], &["lion.tar.zst needs", "MB and", "MB are free"]);
    disk.make_room();
    router.piboot(&["restore", &path, "--replace"]).unwrap();
    assert_same_trees(&trees(&router, "lion"), &before, "restored");

    // All of it, as from another router: what it began to take goes when it is killed.
    let all = router.scratch("all.tar.zst");
    router.piboot(&["export", "-o", all.to_str().unwrap()]).unwrap();
    let job = router.begin(&["import-all", all.to_str().unwrap()]);
    router.wait_for_middle(job, 20 * MB, 10);
    router.kill_agent();
    assert_eq!(router.names("scratch"), ["device--all.partial"], "it was in the middle");
    router.start_agent();
    router.wait_until("the tidying up", || router.names("scratch").is_empty());
    router.piboot(&["restore", &path, "--replace"]).unwrap();
    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());

    // The router's own memory takes no risk.
    let small = tempfile::tempdir().unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=100m", "tmpfs"]).arg(small.path()));
    let into = small.path().join("x");
    router.assert_refused(&["backup", "lion", "-o", into.to_str().unwrap()], &["the router's own flash or memory"]);
    run(Command::new("umount").arg(small.path()));
}

#[test]
fn everything_moves_to_another_router() {
    // From one whose roots are subvolumes, to one that has none.
    let disk = Disk::of("btrfs", 900);
    let mut first = Router::with_data_dir(disk.path().join("piboot"));
    first.start_agent();
    let pi = enrolled(&first);
    first.enroll(&Pi::new(Model::Pi5, 0x1234_5678), "bear");
    let file = first.scratch("all.tar.zst");
    let path = file.to_str().unwrap();
    let said = first.piboot(&["export", "-o", path]).unwrap();
    assert!(said.contains("everything backed up to"), "{said}");
    first.wait_for(&["device", "lion"], "the device", |device| device["state"] == "ready");
    first.assert_refused(&["restore", path], &["'backup.json' is not where it should be"]);
    let single = first.scratch("lion.tar.zst");
    backup(&first, &single);
    let listed = Command::new("tar").args(["--zstd", "-tf"]).arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["export.json\n", "piboot.uci\n", "images/small/image.json\n", "devices/bear/root/etc/hostname\n"] {
        assert!(listed.contains(name), "{name}");
    }

    // What is not whole leaves nothing.
    let mut second = Router::running();
    second.assert_refused(&["import-all", single.to_str().unwrap()], &["'export.json' is not where it should be"]);
    let whole = fs::read(&file).unwrap();
    let cut = second.scratch("cut.tar.zst");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    second.assert_refused(&["import-all", cut.to_str().unwrap()], &["cut off"]);
    assert_eq!((second.names("images").len(), second.names("devices").len(), second.names("scratch").len()), (0, 0, 0));
    let said = second.piboot(&["import-all", path]).unwrap();
    assert!(said.contains("1 images and the files of 2 Pis taken") && said.contains("2 Pis enrolled"), "{said}");
    second.wait_for(&["status"], "both Pis", |status| status["devices_ready"] == 2);
    for id in ["lion", "bear"] {
        assert_same_trees(&trees(&second, id), &trees(&first, id), id);
    }
    let sections = |router: &Router| {
        let config = fs::read_to_string(router.config()).unwrap();
        config[config.find("config device").unwrap()..].to_owned()
    };
    assert_eq!(sections(&second), sections(&first));
    for part in ["boot", "root"] {
        let image = |router: &Router| describe(&router.data_dir().join("images/small").join(part));
        assert_same(&image(&second), &image(&first), "image");
    }
    let info = |router: &Router| fs::read(router.data_dir().join("images/small/image.json")).unwrap();
    assert_eq!(info(&second), info(&first));

    // Once more: what is here stays.
    fs::write(second.data_dir().join("devices/lion/root/new"), "since then").unwrap();
    let said = second.piboot(&["import-all", path]).unwrap();
    assert!(said.contains("0 images and the files of 0 Pis") && said.contains("lion (there already)"), "{said}");
    assert!(second.data_dir().join("devices/lion/root/new").exists());
    assert_eq!(second.names("scratch"), Vec::<String>::new());
    second.assert_boots(&pi, &second.net.tap_link().unwrap());
    second.assert_refused(&["export", "-o", second.scratch("x").to_str().unwrap()], &["lion is booting", "--live"]);
    second.stop_agent();
}
