//! What is changed at a Pi that is enrolled already: its name, keys, user and password, whether it is served at all, and
//! the root it boots from.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use emupi::{Link, Model, Pi};
use support::disk::Disk;
use support::{Router, image};

const MB: u64 = 1 << 20;
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5QmDtsYk2mJYtwFsNDVvxRCQQ5ZQDbCk7l8NvVgBHr me@home";

fn lion() -> Pi {
    Pi::new(Model::Pi4B, 0x5b15_4510)
}

fn router() -> (Router, Pi, Link) {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    (router, lion(), link)
}

fn root(router: &Router) -> PathBuf {
    router.data_dir().join("devices/lion/root")
}

fn config(router: &Router) -> String {
    fs::read_to_string(router.config()).unwrap()
}

/// Nothing is served to it: it gets no boot options, and whoever asks for its files gets none.
fn assert_gets_nothing(router: &Router, pi: &Pi, link: &Link) {
    router.wait_for_dnsmasq();
    let booted = emupi::boot(pi, link, &support::hurried(), None).unwrap();
    assert!(!booted.ok(), "{}", booted.outcome);
    assert_eq!(booted.bytes(), 0);
}

/// Nothing stands in the way, once dnsmasq has been restarted.
fn assert_well(router: &Router) {
    router.wait_until("all to be well", || router.findings() == ["nothing stands in the way of a boot"]);
}

/// Whether the hash in /etc/shadow is that of the password, by another program's word.
fn assert_password(router: &Router, user: &str, password: &str) {
    let shadow = fs::read_to_string(root(router).join("etc/shadow")).unwrap();
    let hash = shadow.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap().split(':').nth(1).unwrap();
    let salt = hash.split('$').rev().nth(1).unwrap();
    let made = Command::new("openssl").args(["passwd", "-6", "-salt", salt, password]).output().unwrap();
    assert_eq!(hash.replace("rounds=5000$", ""), String::from_utf8(made.stdout).unwrap().trim());
}

#[test]
fn a_user_and_a_password_reach_the_root_and_nobody_reads_the_password() {
    let (router, pi, link) = router();
    let mac = pi.mac.to_string();
    let args =
        ["enroll", "--mac", &mac, "--hostname", "lion", "--image", "small", "--user", "anna", "--password-stdin"];
    router.piboot_given(&[&args[..], &["--ssh-key", KEY]].concat(), "Kaffee & 'Kuchen'\nmore\n");
    let passwd = fs::read_to_string(root(&router).join("etc/passwd")).unwrap();
    assert!(passwd.contains("anna:x:1000:1000::/home/anna:"), "{passwd}");
    assert_password(&router, "anna", "Kaffee & 'Kuchen'");
    let keys = root(&router).join("home/anna/.ssh/authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap(), format!("{KEY}\n"));
    router.assert_boots(&pi, &link);

    // Over the socket, as from LuCI: hashed by the agent.
    let said = router.talk(b"{\"method\":\"device_edit\",\"params\":{\"id\":\"lion\",\"password\":\"neues Wort\"}}\n");
    assert!(said.contains("\"job\":"), "{said}");
    router.wait_until_settled();
    assert_password(&router, "anna", "neues Wort");
    // What the user does on the Pi is not undone by what is changed for other reasons.
    let shadow = root(&router).join("etc/shadow");
    let own = fs::read_to_string(&shadow).unwrap().replace("anna:$6$", "anna:$y$j9T$");
    fs::write(&shadow, &own).unwrap();
    router.piboot(&["device", "edit", "lion", "--hostname", "tiger"]).unwrap();
    assert_eq!(fs::read_to_string(&shadow).unwrap(), own);

    assert!(config(&router).contains("option password '$6$") && !config(&router).contains("neues"));
    let told = [
        router.piboot(&["device", "lion"]).unwrap(),
        router.json(&["device", "lion"]).to_string(),
        router.json(&["devices"]).to_string(),
        router.json(&["jobs"]).to_string(),
        router.logs(),
    ]
    .concat();
    for secret in ["$6$", "neues Wort", "Kaffee"] {
        assert!(!told.contains(secret), "{secret}");
    }
    assert_eq!(router.json(&["device", "lion"])["has_password"], true);

    let before = config(&router);
    for (request, words) in [
        (r#""password":"a","password_hash":"$6$salt$aaaaaaaaaaaaaaaaaaaaaaaa""#, "one of them is enough"),
        (r#""password":"a\nb""#, "no line break"),
        (r#""password_hash":"hunter2""#, "is no hash of a password"),
        (r#""user":"root""#, "is not a user name"),
    ] {
        let said = router
            .talk(format!("{{\"method\":\"device_edit\",\"params\":{{\"id\":\"lion\",{request}}}}}\n").as_bytes());
        assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
    }
    assert_eq!(config(&router), before);
    // Nothing configured any more: what is on the Pi stays.
    router.talk(b"{\"method\":\"device_edit\",\"params\":{\"id\":\"lion\",\"password\":\"\"}}\n");
    router.wait_until_settled();
    assert!(!config(&router).contains("option password"));
    assert_eq!(fs::read_to_string(&shadow).unwrap(), own);
}

#[test]
fn a_pi_is_renamed_gets_other_keys_and_an_address_of_its_own() {
    let (router, pi, link) = router();
    router.edit_config(|text| text.replace("config piboot", "# mine\nconfig piboot"));
    router.enroll(&pi, "lion");
    router.enroll(&Pi::new(Model::Pi4B, 7), "bear");
    router.edit_config(|text| text.replace("option hostname 'lion'", "option hostname 'lion' # the first"));
    let before = config(&router);
    let edit = |args: &[&str]| router.piboot(&[&["device", "edit", "lion"], args].concat());

    edit(&["--hostname", "tiger", "--ip", "10.77.0.99", "--ssh-key", KEY]).unwrap();
    let hostname = fs::read_to_string(root(&router).join("etc/hostname")).unwrap();
    assert_eq!(hostname, "tiger\n");
    let keys = root(&router).join("home/pi/.ssh/authorized_keys");
    fs::write(&keys, fs::read_to_string(&keys).unwrap() + "ssh-rsa OWN own\n").unwrap();
    let expected = before.replace("option hostname 'lion'", "option hostname 'tiger'");
    let added: Vec<String> =
        config(&router).lines().filter(|l| !expected.lines().any(|e| e == *l)).map(str::to_owned).collect();
    assert_eq!(added, ["\toption ip '10.77.0.99'".to_owned(), format!("\tlist ssh_key '{KEY}'")]);
    assert!(expected.lines().all(|line| config(&router).lines().any(|l| l == line)), "{}", config(&router));
    router.assert_boots(&pi, &link);
    assert_eq!(router.json(&["device", "tiger"])["boot"]["mac"], pi.mac.to_string(), "found by its new name");
    router.wait_for(&["device", "lion"], "its address", |device| device["ip"] == "10.77.0.99");

    // It is up now: what takes a restart is said, and what it would not survive is refused.
    let said = edit(&["--hostname", "puma", "--ip", "", "--no-ssh-keys"]).unwrap();
    assert!(said.contains("it is called puma when it has been restarted"), "{said}");
    assert_eq!(fs::read_to_string(&keys).unwrap(), "ssh-rsa OWN own\n");
    assert!(!config(&router).contains("10.77.0.99") && !config(&router).contains(KEY));
    let now = config(&router);
    let refused =
        |args: &[&str], words: &[&str]| router.assert_refused(&[&["device", "edit", "lion"], args].concat(), words);
    refused(&["--user", "anna"], &["lion is booting", "or force it"]);
    refused(&["--disable"], &["lion is booting", "or force it"]);
    refused(&["--hostname", "bear"], &["the name bear", "enrolled already, as bear"]);
    refused(&["--hostname", "<img onerror=alert(1)>"], &["is not a host name"]);
    refused(&["--ip", "10.77.0.1"], &["this router's own address"]);
    refused(&["--ip", "224.0.0.1"], &["no address of one device"]);
    refused(&["--ip", "x"], &["is not an IPv4 address"]);
    refused(&["--ssh-key", "a\nb"], &["is not a public key"]);
    refused(&["--image", "other"], &["made from image 'small'", "piboot device switch lion other"]);
    refused(&["--enable", "--disable"], &["contradict"]);
    router.assert_refused(&["device", "edit", "nobody", "--hostname", "x"], &["no device 'nobody'"]);
    router.assert_refused(&["device", "edit"], &["id"]);
    assert!(router.piboot(&["device", "edit", "--help"]).unwrap().contains("--no-ssh-keys"));
    assert_eq!(config(&router), now);
}

#[test]
fn a_disabled_pi_gets_nothing_until_it_is_enabled_again() {
    let (router, pi, link) = router();
    router.enroll_with_serial(&pi, "5b154510", "lion");
    let enabled = config(&router);
    router.piboot(&["device", "edit", "lion", "--disable"]).unwrap();
    assert_eq!(router.json(&["device", "lion"])["state"], "disabled");
    assert_gets_nothing(&router, &pi, &link);
    assert_well(&router);
    assert!(router.json(&["devices"])["pending"].as_array().unwrap().is_empty(), "it is enrolled all the same");
    router.piboot(&["device", "edit", "lion", "--enable"]).unwrap();
    assert_eq!(config(&router), enabled);
    router.assert_boots(&pi, &link);
    // By hand, it is the same; it is up by now, and who writes it into the file means it.
    router.edit_config(|text| text.replace("\toption image 'small'", "\toption image 'small'\n\toption disabled '1'"));
    router.reload();
    assert_eq!(router.json(&["device", "lion"])["state"], "disabled");
    assert_gets_nothing(&router, &pi, &link);
}

#[test]
fn a_pi_boots_from_another_image_and_its_old_root_is_kept_or_deleted() {
    let (mut router, pi, link) = router();
    router.import(&router.scratch("small.img"), "other");
    fs::write(router.data_dir().join("images/other/root/etc/other"), "").unwrap();
    router.enroll(&pi, "lion");
    fs::write(root(&router).join("home/pi/work"), "of years").unwrap();
    let said = router.piboot(&["device", "switch", "lion", "other", "--keep"]).unwrap();
    assert!(said.contains(" of other (") && said.contains("the old root is snapshot replaced-"), "{said}");
    assert!(root(&router).join("etc/other").exists() && !root(&router).join("home/pi/work").exists());
    assert!(config(&router).contains("option image 'other'"), "{}", config(&router));
    let device = router.wait_for(&["device", "lion"], "the device", |device| device["state"] == "ready");
    assert_eq!((&device["image"], &device["snapshots"]), (&"other".into(), &1.into()));
    router.assert_boots(&pi, &link);

    // It is up.
    let refused = ["lion is booting", "wait until it is up and shut it down", "or force it"];
    router.assert_refused(&["device", "reset", "lion"], &refused);
    router.assert_refused(&["device", "switch", "lion", "small"], &refused);
    fs::write(root(&router).join("home/pi/work"), "again").unwrap();
    let said = router.piboot(&["device", "reset", "lion", "--force"]).unwrap();
    assert!(said.contains(" of other (") && said.contains("the old root is deleted"), "{said}");
    assert!(root(&router).join("etc/other").exists() && !root(&router).join("home/pi/work").exists());
    assert_eq!((router.names("devices"), router.names("scratch").len()), (vec!["lion".into()], 0));
    router.assert_boots(&pi, &link);

    router.assert_refused(&["device", "switch", "lion", "nosuch", "--force"], &["no image 'nosuch'"]);
    router.assert_refused(&["device", "switch", "lion", "../x", "--force"], &["is not an image name"]);
    router.assert_refused(&["device", "switch", "bear", "small"], &["no device 'bear'"]);

    // By hand it is only half of it, and what the other half is is said.
    router.edit_config(|text| text.replace("option image 'other'", "option image 'small'"));
    router.reload();
    router.assert_finding(&["error: lion", "made from image 'other'", "piboot device switch lion small"]);
    router.piboot(&["device", "edit", "lion", "--image", "other"]).unwrap();
    assert_well(&router);

    // What was kept is a snapshot like any other.
    router.stop_agent();
    router.start_agent();
    router.piboot(&["unenroll", "lion"]).unwrap();
    router
        .piboot(&[
            "enroll",
            "--mac",
            &Pi::new(Model::Pi4B, 7).mac.to_string(),
            "--hostname",
            "lion",
            "--image",
            "other",
        ])
        .unwrap();
    let snapshots = router.json(&["snapshots", "lion"]);
    let name = snapshots["snapshots"][0]["name"].as_str().unwrap();
    router.piboot(&["rollback", "lion", name]).unwrap();
    assert_eq!(fs::read_to_string(root(&router).join("home/pi/work")).unwrap(), "of years");
    assert!(config(&router).contains("option image 'small'"), "{}", config(&router));
}

#[test]
fn killed_or_cancelled_in_the_middle_the_old_root_is_still_there() {
    let mut router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    router.import(&image::large(router.net.scratch()), "large");
    let (pi, link) = (lion(), router.net.tap_link().unwrap());
    router.enroll_with_serial(&pi, "5b154510", "lion");
    fs::write(root(&router).join("home/pi/work"), "of years").unwrap();
    let before = config(&router);
    let work = |router: &Router| fs::read_to_string(root(router).join("home/pi/work")).unwrap();

    let switch = ["device", "switch", "lion", "large"];
    let job = router.begin(&switch);
    router.wait_for_middle(job, 20 * MB, 100);
    assert_eq!(router.json(&["device", "lion"])["state"], "preparing");
    assert_gets_nothing(&router, &pi, &link);
    router.assert_refused(&switch, &["already working on 'lion'"]);
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    // Asking for files that were not served, the Pi got stuck.
    router.wait_for(&["device", "lion"], "the device", |device| device["state"] != "preparing");
    assert_eq!((work(&router).as_str(), router.names("scratch").len()), ("of years", 0));
    router.assert_boots(&pi, &link);

    for keep in [&["--force"][..], &["--force", "--keep"]] {
        let job = router.begin(&[&switch[..], keep].concat());
        router.wait_for_middle(job, 20 * MB, 100);
        router.kill_agent();
        router.start_agent();
        router.wait_until("the tidying up", || router.names("scratch").is_empty());
        assert_eq!((work(&router).as_str(), router.names("devices")), ("of years", vec!["lion".to_owned()]));
        assert_eq!(router.json(&["device", "lion"])["snapshots"], 0);
        assert_eq!(config(&router), before);
        router.assert_boots(&pi, &link);
    }

    // Killed when the new root was in place and the configuration did not say so yet.
    router.piboot(&[&switch[..], &["--force", "--keep"]].concat()).unwrap();
    router.kill_agent();
    let record = router.data_dir().join("devices/lion/device.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replacen('{', "{\"switched_from\": \"small\",", 1)).unwrap();
    fs::write(router.config(), &before).unwrap();
    router.start_agent();
    assert_eq!(config(&router), before.replace("option image 'small'", "option image 'large'"));
    assert!(!fs::read_to_string(&record).unwrap().contains("switched_from"));
    assert_well(&router);
}

#[test]
fn a_root_that_has_no_room_beside_the_old_one_is_refused_with_numbers() {
    let disk = Disk::new(384);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    router.enroll(&lion(), "lion");
    router.import(&image::large(router.net.scratch()), "large");
    let words = ["a copy of image 'large' beside the root that is there needs", "MB are free"];
    router.assert_refused(&["device", "switch", "lion", "large"], &words);
    assert!(config(&router).contains("option image 'small'"));
    assert_eq!(router.json(&["device", "lion"])["state"], "ready");
}
