//! Whatever is written into its configuration, sent to its socket or asked of its command line: the agent stays up,
//! says what is wrong with what, and goes on with what it had.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;

use emupi::{BootOptions, Model, Pi, Until};
use support::disk::Disk;
use support::{Router, image};

fn enrolled(router: &Router) -> (Pi, emupi::Link) {
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    (pi, router.net.tap_link().unwrap())
}

#[test]
fn a_wrong_configuration_leaves_the_old_one_in_force_and_check_shows_it() {
    let router = Router::running();
    let (pi, link) = enrolled(&router);
    let good = fs::read_to_string(router.config()).unwrap();

    // Values that cannot be, of the agent and of a device.
    let data_dir = router.data_dir().display().to_string();
    let bad = good.replace(&data_dir, "srv/piboot").replace(&pi.mac.to_string(), "dc:a6:32");
    router.edit_config(|_| bad.replace("option dhcp 'dnsmasq'", "option dhcp 'dhcpd'\n\toption colour 'red'"));
    router.reload();
    router.assert_finding(&["error: piboot.main.data_dir: 'srv/piboot'", "stays in force"]);
    router.assert_finding(&["error: piboot.main.dhcp: 'dhcpd' is none of auto, dnsmasq", "stays in force"]);
    router.assert_finding(&["error: piboot.lion.mac: 'dc:a6:32' is not a MAC address", "stays as it was"]);
    router.assert_finding(&["warning: piboot.main.colour", "ignored"]);
    assert_eq!(router.json(&["status"])["storage"]["data_dir"], data_dir);
    router.assert_boots(&pi, &link);

    // No UCI at all, and no file at all.
    router.edit_config(|_| "<html>\n<body onload=alert(1)>".to_owned());
    router.reload();
    router.assert_finding(&["error: piboot: ", "piboot.conf: line 1", "stays in force"]);
    router.assert_boots(&pi, &link);
    router
        .assert_refused(&["enroll", "--mac", "dc:a6:32:00:00:01", "--hostname", "x", "--image", "small"], &["line 1"]);
    fs::remove_file(router.config()).unwrap();
    router.reload();
    router.assert_finding(&["error: piboot: ", "piboot.conf", "No such file", "stays in force"]);
    router.assert_boots(&pi, &link);

    // Unknown options alone are no error, and mending ends it all.
    fs::write(router.config(), good.replace("\toption enabled", "\toption colour 'red'\n\toption enabled")).unwrap();
    router.reload();
    assert!(router.piboot(&["check"]).is_ok_and(|said| said.starts_with("warning: piboot.main.colour")));
    fs::write(router.config(), good).unwrap();
    router.reload();
    assert_eq!(router.findings(), ["nothing stands in the way of a boot"]);
}

#[test]
fn an_agent_that_starts_with_wrong_values_names_them_and_serves_the_rest() {
    let mut router = Router::new();
    router.edit_config(|text| {
        text + "config device 'lion'\n\toption mac 'dc:a6:32:79:26:df'\n\toption image '../../etc'\n\
                config device 'bear'\n\toption mac 'dc:a6:32:79:26:e0'\n\toption image 'small'\n"
    });
    router.start_agent();
    router.assert_finding(&["error: piboot.lion.image: '../../etc' is not an image name"]);
    router.assert_finding(&["error: bear: there is no image 'small'", "piboot image import"]);
    let devices = router.json(&["devices"]);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "{devices:#}");
}

#[test]
fn names_and_requests_that_cannot_be_are_refused_in_words() {
    let router = Router::running();
    let (pi, link) = enrolled(&router);
    let (mac, other) = (pi.mac.to_string(), "dc:a6:32:00:00:09");
    let config = fs::read_to_string(router.config()).unwrap();
    let enroll = |args: &[&str], words: &[&str]| router.assert_refused(&[&["enroll"], args].concat(), words);

    enroll(&["--mac", &mac, "--hostname", "bear", "--image", "small"], &[&mac, "enrolled already, as lion"]);
    for name in ["lion", "LION"] {
        enroll(&["--mac", other, "--hostname", name, "--image", "small"], &["the name", "enrolled already, as lion"]);
    }
    router.piboot(&["enroll", "--serial", "00000007", "--hostname", "seven", "--image", "small"]).unwrap();
    enroll(&["--serial", "7", "--hostname", "x", "--image", "small"], &["7"]);
    enroll(&["--serial", "00000007", "--hostname", "x", "--image", "small"], &["00000007", "already, as seven"]);
    router.piboot(&["unenroll", "seven", "--delete"]).unwrap();
    enroll(&["--mac", other, "--hostname", "bear", "--image", "nosuch"], &["no image 'nosuch'", "piboot images"]);
    enroll(&["--mac", other, "--hostname", "bear"], &["no image was named"]);
    enroll(&["--hostname", "bear", "--image", "small"], &["neither a MAC address nor a serial"]);
    enroll(&["--mac", "ff:ff:ff:ff:ff:ff", "--hostname", "bear", "--image", "small"], &["ff:ff:ff:ff:ff:ff"]);
    for name in ["<img onerror=alert(1)>", "../../etc", "a\nb", "a'b", "", "-a", "$(reboot)", &"x".repeat(64)] {
        enroll(&["--mac", other, "--hostname", name, "--image", "small"], &["is not a host name"]);
        router.assert_refused(&["image", "import", "/etc/passwd", "--name", name], &["is not an image name"]);
        router.assert_refused(&["unenroll", "--", name], &["no device"]);
        router.assert_refused(&["image", "remove", "--", name], &["is not an image name"]);
    }
    let key = "ssh-ed25519 AAAA me\nssh-rsa AAAA you";
    enroll(&["--mac", other, "--hostname", "bear", "--image", "small", "--ssh-key", key], &["is not a public key"]);
    router.assert_refused(&["unenroll", "bear"], &["no device 'bear'", "piboot devices"]);
    router.assert_refused(&["image", "remove", "nosuch"], &["no image 'nosuch'"]);
    router.assert_refused(&["image", "import", "/etc/passwd", "--name", "x"], &["/etc/passwd"]);
    router.assert_refused(&["image", "import", "/nonexistent.img", "--name", "x"], &["/nonexistent.img"]);
    router.assert_refused(&["job", "cancel", "4711"], &["no job 4711"]);
    router.assert_refused(&["boot", "4711"], &["no boot 4711"]);
    assert_eq!(fs::read_to_string(router.config()).unwrap(), config, "nothing of it reached the configuration");

    // The socket itself.
    for (request, code) in [
        (&b"hello\n"[..], "invalid_argument"),
        (b"\xff\xfe\0\n", "invalid_argument"),
        (b"{\"method\":\"status\"", "invalid_argument"),
        (b"{\"method\":7}\n", "invalid_argument"),
        (b"{\"method\":\"reboot\"}\n", "unknown_method"),
        (b"{\"method\":\"enroll\",\"params\":[1,2]}\n", "invalid_argument"),
        (b"{\"method\":\"enroll\",\"params\":{\"mac\":\"x\"}}\n", "invalid_argument"),
        (b"{\"method\":\"image_import\",\"params\":{\"source\":\"x.img\",\"name\":\"x\"}}\n", "invalid_argument"),
        (b"{\"method\":\"boots\",\"params\":{\"limit\":-1}}\n", "invalid_argument"),
    ] {
        let answer = router.talk(request);
        assert!(answer.contains(code), "{}: {answer}", String::from_utf8_lossy(request));
    }
    assert!(router.talk(&vec![b'['; 200_000]).contains("invalid_argument"), "deep nesting");
    assert!(router.talk(&vec![b' '; 50 << 20]).contains("longer than"), "50 MB");
    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());
    router.assert_boots(&pi, &link);
}

#[test]
fn a_missing_data_dir_is_named_and_used_as_soon_as_it_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let mut router = Router::with_data_dir(scratch.path().join("ssd"));
    router.start_agent();
    router.start_dnsmasq();
    let directory = router.data_dir().display().to_string();
    let cure = [&*directory, "does not exist", "mount the SSD"];
    router.assert_finding(&cure);
    assert!(cure.iter().all(|words| router.piboot(&["status"]).unwrap().contains(words)));
    let file = image::small(router.net.scratch());
    router.assert_refused(&["image", "import", file.to_str().unwrap(), "--name", "small"], &cure);
    assert!(!router.data_dir().exists(), "never made on the router's own flash");
    // What is seen meanwhile is remembered.
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let only_asks = BootOptions { until: Until::Dhcp, ..support::hurried() };
    emupi::boot(&pi, &link, &only_asks, None).unwrap();
    let began =
        |router: &Router| router.json(&["boots"])["boots"].as_array().unwrap().last().unwrap()["started_ms"].clone();
    let attempt = began(&router);
    router.assert_refused(&["enroll", "--mac", &pi.mac.to_string(), "--image", "small"], &cure);

    fs::create_dir(router.data_dir()).unwrap();
    router.wait_until("the data directory", || router.findings() == ["nothing stands in the way of a boot"]);
    router.import(&file, "small");
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    assert_eq!(began(&router), attempt, "the attempt before the disk came is kept");

    // Gone and back: the history goes on with the numbers it had.
    let away = scratch.path().join("away");
    fs::rename(router.data_dir(), &away).unwrap();
    router.wait_until("the loss to be noticed", || router.findings().iter().any(|l| l.contains("does not exist")));
    fs::rename(&away, router.data_dir()).unwrap();
    router.wait_until("the data directory", || router.findings() == ["nothing stands in the way of a boot"]);
    assert_eq!(began(&router), attempt);
    assert_eq!(router.json(&["jobs"])["jobs"].as_array().unwrap().len(), 2);
    router.assert_boots(&pi, &link);
}

#[test]
fn file_systems_that_cannot_hold_a_root_are_refused_by_name() {
    // /dev/shm is a tmpfs everywhere: its files are gone, and their handles void, after a reboot.
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut router = Router::with_data_dir(shm.path().join("ssd"));
    router.start_agent();
    router.assert_finding(&["error: storage", "tmpfs"]);
    let file = image::small(router.net.scratch());
    router.assert_refused(&["image", "import", file.to_str().unwrap(), "--name", "small"], &["tmpfs"]);
}

#[test]
fn a_disk_that_turned_read_only_is_named_and_serving_goes_on() {
    let disk = Disk::new(512);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.start_dnsmasq();
    let (pi, link) = enrolled(&router);
    let file = router.scratch("small.img");
    disk.break_down();
    router.wait_until("the read-only disk to be noticed", || router.findings()[0].contains("is read-only"));
    router.assert_finding(&["error: storage", disk.path().to_str().unwrap(), "read-only", "remount it rw"]);
    router.assert_refused(&["image", "import", file.to_str().unwrap(), "--name", "two"], &["read-only"]);
    router.assert_refused(&["enroll", "--mac", "dc:a6:32:00:00:09", "--image", "small"], &["read-only"]);
    router.assert_boots(&pi, &link);

    // So does an agent that starts then; and it complains once, not every time it looks.
    router.kill_agent();
    router.start_agent();
    router.assert_boots(&pi, &link);
    router.wait_for(&["status"], "some time", |status| status["uptime_s"].as_u64() > Some(11));
    assert_eq!(router.said("read-only"), 1, "{}", router.logs());
    assert!(router.said("database") <= 1, "{}", router.logs());

    router.stop_agent();
    disk.repair();
    router.start_agent();
    assert_eq!(router.findings(), ["nothing stands in the way of a boot"]);
    router.import(&file, "two");
    router.assert_boots(&pi, &link);
}

#[test]
fn a_full_disk_refuses_with_numbers_and_loses_nothing() {
    let disk = Disk::new(192);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.start_dnsmasq();
    let (pi, link) = enrolled(&router);
    let file = router.scratch("small.img");
    let file = file.to_str().unwrap();

    disk.fill(1);
    router.wait_until("the full disk to be noticed", || router.findings()[0].contains("is full"));
    router.assert_finding(&["error: storage", "is full", "MB free", "remove an image or a device"]);
    router.assert_refused(&["image", "import", file, "--name", "two"], &["is full", "MB free"]);
    router.assert_refused(&["enroll", "--mac", "dc:a6:32:00:00:09", "--image", "small"], &["is full"]);
    disk.fill(0);
    router.assert_boots(&pi, &link);
    router.piboot(&["status"]).unwrap();
    assert_eq!(router.names("scratch"), Vec::<String>::new());

    disk.make_room();
    router.wait_until("the room to be noticed", || router.findings() == ["nothing stands in the way of a boot"]);
    // Not full, but too small for this one.
    let large = image::large(router.net.scratch());
    router.assert_refused(
        &["image", "import", large.to_str().unwrap(), "--name", "large"],
        &["not enough space", "MB needed", "MB free"],
    );
    assert_eq!((router.names("scratch").len(), router.names("images")), (0, vec!["small".to_owned()]));
    router.import(std::path::Path::new(file), "two");
    // What could not be stored while the disk was full is stored now.
    let boots = router.json(&["boots"])["boots"].as_array().unwrap().len();
    router.stop_agent();
    router.start_agent();
    assert_eq!(router.json(&["boots"])["boots"].as_array().unwrap().len(), boots);
    router.assert_boots(&pi, &link);
}
