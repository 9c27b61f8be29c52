//! Boots that are made to fail, and what the agent says of them while they hang.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use emupi::tftp::client::Loss;
use emupi::{BootOptions, Link, Model, Pi, Until, many};
use support::{Router, hurried, image, nfs};

/// First address given; the last byte of the others follows on.
const FIRST: u8 = 50;

/// A Pi that will not boot, and why.
struct Failure {
    /// The finding that is expected, and the only one.
    id: &'static str,
    model: Model,
    /// What is done to its trees: `boot/` and `root/` are in there.
    sabotage: fn(&Path),
    options: fn() -> BootOptions,
    /// The serial that the configuration has, if it is not the Pi's own.
    serial: Option<&'static str>,
    /// What its Linux mounts, if it comes that far.
    mounts: Option<&'static str>,
}

const FAILURE: Failure =
    Failure { id: "", model: Model::Pi4B, sabotage: |_| (), options: hurried, serial: None, mounts: None };

fn without(tree: &Path, names: &[&str]) {
    for name in names {
        fs::remove_file(tree.join(name)).unwrap();
    }
}

fn only_dhcp() -> BootOptions {
    BootOptions { until: Until::Dhcp, ..hurried() }
}

const FAILURES: &[Failure] = &[
    Failure { id: "no-firmware", sabotage: |tree| without(tree, &["boot/start4.elf", "boot/start.elf"]), ..FAILURE },
    Failure { id: "no-fixup", sabotage: |tree| without(tree, &["boot/fixup4.dat"]), mounts: Some("own"), ..FAILURE },
    Failure {
        id: "no-kernel",
        model: Model::Pi3BPlus,
        sabotage: |tree| without(tree, &["boot/kernel8.img"]),
        ..FAILURE
    },
    Failure { id: "no-config", model: Model::Pi5, sabotage: |tree| without(tree, &["boot/config.txt"]), ..FAILURE },
    Failure { id: "wrong-serial", serial: Some("0badcafe"), ..FAILURE },
    Failure { id: "silent-after-offer", model: Model::Pi5, options: only_dhcp, ..FAILURE },
    Failure { id: "rom-gave-up", model: Model::Pi3B, options: only_dhcp, ..FAILURE },
    Failure { id: "kernel-silent", model: Model::Pi5, ..FAILURE },
    Failure {
        id: "bad-cmdline",
        sabotage: |tree| {
            let path = tree.join("boot/cmdline.txt");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace(",tcp", ",proto=tcp")).unwrap();
        },
        ..FAILURE
    },
    Failure {
        id: "lossy-network",
        options: || BootOptions { loss: Loss { rate: 0.03 }, ..hurried() },
        mounts: Some("own"),
        ..FAILURE
    },
    Failure { id: "nfs-refused", mounts: Some("/pi_0/root"), ..FAILURE },
    Failure { id: "init-missing", sabotage: |tree| without(tree, &["root/sbin/init"]), mounts: Some("own"), ..FAILURE },
    Failure { id: "no-init", model: Model::Pi5, mounts: Some("own"), ..FAILURE },
];

/// The ids of what was found in each Pi's last boot.
fn findings(router: &Router, pis: &[Pi]) -> BTreeMap<String, Vec<String>> {
    let ids = |n: usize| {
        let device = format!("pi_{n}");
        let found = router.piboot(&["--json", "boot", &device]);
        let boot: serde_json::Value = found.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let findings = boot["findings"].as_array().cloned().unwrap_or_default();
        (device, findings.iter().map(|f| f["id"].as_str().unwrap().to_owned()).collect())
    };
    (0..pis.len()).map(ids).collect()
}

/// Boots one of them, and plays its Linux as far as it gets.
fn fail(router: &Router, link: &Link, n: usize, pi: &Pi, failure: &Failure) {
    let booted = emupi::boot(pi, link, &(failure.options)(), None).unwrap();
    let Some(export) = failure.mounts else { return };
    assert!(booted.ready().is_some(), "{}: {}", failure.id, booted.outcome);
    let host = router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap();
    let export = if export == "own" { format!("/pi_{n}/root") } else { export.to_owned() };
    let mounted = nfs::use_export(&host, &export, || ());
    assert_eq!(mounted.is_ok(), failure.mounts == Some("own"), "{}: {mounted:?}", failure.id);
}

#[test]
fn each_failing_boot_is_explained_while_it_hangs() {
    let mut router = Router::new();
    let pis: Vec<Pi> = FAILURES.iter().zip(0..).map(|(failure, n)| many::nth(failure.model, n)).collect();
    let mut sections = String::new();
    for ((n, pi), failure) in pis.iter().enumerate().zip(FAILURES) {
        router.fix_address(pi, FIRST + u8::try_from(n).unwrap());
        writeln!(sections, "config device 'pi_{n}'\n\toption mac '{}'\n\toption image 'small'", pi.mac).unwrap();
        if let Some(serial) = failure.serial {
            writeln!(sections, "\toption serial '{serial}'").unwrap();
        }
    }
    router.start_agent();
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    router.edit_config(|text| text + &sections);
    router.reload();
    router.wait_for(&["status"], "all devices", |status| status["devices_ready"] == pis.len());
    router.wait_for_dnsmasq();
    for (n, failure) in FAILURES.iter().enumerate() {
        (failure.sabotage)(&router.data_dir().join(format!("devices/pi_{n}")));
    }

    let link = router.net.tap_link().unwrap();
    let expected: BTreeMap<String, Vec<String>> =
        FAILURES.iter().enumerate().map(|(n, failure)| (format!("pi_{n}"), vec![failure.id.to_owned()])).collect();
    let reached = RefCell::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for ((n, pi), failure) in pis.iter().enumerate().zip(FAILURES) {
            let (router, link) = (&router, &link);
            scope.spawn(move || fail(router, link, n, pi, failure));
        }
        // More may be found later: of a Pi that got only as far as its kernel, that it says nothing.
        router.wait_until("the findings", || {
            for (device, found) in findings(&router, &pis) {
                if expected[&device] == found {
                    reached.borrow_mut().insert(device, found);
                }
            }
            reached.borrow().len() == expected.len()
        });
    });
    assert_eq!(reached.into_inner(), expected, "{:#?}", findings(&router, &pis));

    // The same words everywhere.
    let slow = FAILURES.iter().position(|failure| failure.id == "kernel-silent").unwrap();
    let device = format!("pi_{slow}");
    let why = router.json(&["device", &device])["why"].as_str().unwrap().to_owned();
    assert!(router.piboot(&["boot", &device]).unwrap().contains(&why), "{why}");
    assert_eq!(router.json(&["device", &device])["state"], "stuck");
    // What can be seen before a boot is seen before it.
    for (n, words) in [(0, "start4.elf"), (8, "proto=tcp"), (11, "/sbin/init")] {
        router.assert_finding(&[&format!("pi_{n}"), words]);
    }
}

/// A DHCP server that is not the router's.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can be done about it here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn when_dhcp_does_not_do_its_part_the_boot_says_which() {
    let mut router = Router::new();
    // Nobody starts the router's own DHCP server.
    router.edit_config(|text| text.replace("restart-dnsmasq'", "no-such-program'"));
    router.start_agent();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    router.enroll(&pi, "lion");
    let link = router.net.tap_link().unwrap();
    let boot_until = |expected: &str| {
        let booted = emupi::boot(&pi, &link, &only_dhcp(), None).unwrap();
        router.wait_for(&["boot", "lion"], &format!("{expected} after {}", booted.outcome), |boot| {
            boot["findings"].as_array().is_some_and(|found| found.len() == 1 && found[0]["id"] == expected)
        });
    };
    boot_until("no-offer");

    let foreign = router.net.add_host("3c:97:0e:00:00:01".parse().unwrap(), [10, 77, 0, 254].into()).unwrap();
    let server = foreign.enter(|| {
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
        ]);
        dnsmasq.args(["--dhcp-range=10.77.0.50,10.77.0.90", "--dhcp-authoritative", "--user=root", "--pid-file="]);
        dnsmasq.arg("--dhcp-option=66,10.77.0.254");
        dnsmasq.arg(format!("--dhcp-leasefile={}", router.scratch("foreign.leases").display()));
        dnsmasq.arg("--no-ping").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let server = Foreign(server.unwrap());
    boot_until("foreign-dhcp");
    drop(server);

    // The router's own, which never heard of piboot.
    let _own = router.net.dnsmasq("dhcp-range=10.77.0.100,10.77.0.120,10m\n").unwrap();
    boot_until("no-menu");
}

#[test]
fn a_pi_that_is_shut_down_is_told_from_one_that_falls_silent() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let pis = [Pi::new(Model::Pi4B, 0x5b15_4510), Pi::new(Model::Pi4B, 0x38c1_28c0)];
    for (pi, name) in pis.iter().zip(["lion", "bear"]) {
        router.enroll(pi, name);
    }
    let state = |device: &str| router.json(&["device", device])["state"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        for (pi, (name, last, names)) in pis.iter().zip([("lion", 20, &[][..]), ("bear", 21, &["poweroff"][..])]) {
            let (router, state) = (&router, &state);
            scope.spawn(move || {
                let host = router.net.add_host(pi.mac, [10, 77, 0, last].into()).unwrap();
                fs::write(router.data_dir().join(format!("devices/{name}/root/poweroff")), "").unwrap();
                let gone = || router.wait_until("its end", || matches!(state(name).as_str(), "off" | "lost"));
                nfs::start_and_vanish(&host, &format!("/{name}/root"), names, gone);
            });
        }
    });
    assert_eq!((state("lion").as_str(), state("bear").as_str()), ("lost", "off"));
    router.wait_for(&["boot", "lion"], "a finding", |boot| boot["findings"][0]["id"] == "lost-soon");
    let bear = router.json(&["boot", "bear"]);
    assert_eq!((&bear["end"], &bear["findings"]), (&"shut_down".into(), &serde_json::Value::Null), "{bear:#}");
}
