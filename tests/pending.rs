//! Pis that nobody enrolled: they are listed and announced at once, with what is known of them, and a flood of made-up ones
//! neither hides them nor costs more than a little.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

use std::time::{Duration, Instant};

use emupi::dhcp::discover::Speaker;
use emupi::nic::{Nic, Style};
use emupi::{Link, Model, Pi};
use serde_json::{Value, json};
use support::bus::Broker;
use support::{Router, image};

/// What a person may wait at most for what a packet told.
const SOON: Duration = Duration::from_secs(1);
const STYLE: Style = Style { ttl: 64, checksum: true, answers_arp: false };

fn nic(link: &Link, pi: &Pi) -> Nic {
    Nic::new(link.attach(pi.mac).unwrap(), STYLE)
}

/// Sends one DISCOVER.
fn discover(nic: &mut Nic, pi: &Pi, speaker: Speaker) {
    let message = speaker.discover(pi, speaker.xid(pi.mac, 0x1234_5678));
    nic.broadcast(68, 67, &message.encode()).unwrap();
}

fn pending(devices: &Value, pi: &Pi) -> Option<Value> {
    devices["pending"].as_array().unwrap().iter().find(|p| p["mac"] == pi.mac.to_string()).cloned()
}

#[test]
fn a_pi_that_asks_is_listed_and_announced_within_a_second() {
    let router = Router::running();
    let broker = Broker::start(&router.ubus());
    let mut client = broker.client();
    client.wait_for("piboot");
    client.listen("piboot.pending");
    let link = router.net.tap_link().unwrap();
    let expected = [
        (Model::Pi3B, Speaker::RomB, "Raspberry Pi 3", json!("pi3"), json!(null), "rom_xid", false),
        (
            Model::Pi3BPlus,
            Speaker::Bootcode,
            "Raspberry Pi (3+ or earlier)",
            json!(null),
            json!(null),
            "rom_xid",
            false,
        ),
        (Model::Pi4B, Speaker::Eeprom, "Raspberry Pi 4B v1.", json!("pi4"), json!(4096), "guid", true),
        (Model::Pi5, Speaker::Eeprom, "Raspberry Pi 5 v1.", json!("pi5"), json!(4096), "guid", true),
    ];
    for (n, (model, speaker, board, family, memory, evidence, asks_again)) in expected.into_iter().enumerate() {
        let pi = Pi::new(model, 0x5b15_4510 + n as u64);
        let mut nic = nic(&link, &pi);
        let begun = Instant::now();
        discover(&mut nic, &pi, speaker);
        let listed = router.wait_for(&["devices"], "the Pi", |devices| pending(devices, &pi).is_some());
        let listed_after = begun.elapsed();
        let told = client.hear("the Pi", |_, told| told["mac"] == pi.mac.to_string());
        let told_after = begun.elapsed();
        assert!(listed_after < SOON && told_after < SOON, "{model}: {listed_after:?}, {told_after:?}");
        eprintln!("{model}: listed after {listed_after:?}, announced after {told_after:?}");

        let listed = pending(&listed, &pi).unwrap();
        assert_eq!(listed, told.last().unwrap().1, "an entry of the list is what is announced");
        assert!(listed["board"].as_str().unwrap().starts_with(board), "{listed}");
        assert_eq!((&listed["model"], &listed["memory_mb"]), (&family, &memory), "{listed}");
        assert_eq!((&listed["evidence"], &listed["asked"]), (&json!(evidence), &json!(1)), "{listed}");
        assert_eq!(listed["waits_for"], "asks to boot; nobody enrolled it");
        assert_eq!(listed["asks_again"], asks_again, "{listed}");
        // That it asks again is counted, and nothing new.
        discover(&mut nic, &pi, speaker);
        router.wait_for(&["devices"], "the count", |devices| pending(devices, &pi).unwrap()["asked"] == 2);
    }
    // A 3B tells its serial by what speaks next.
    let pi = Pi::new(Model::Pi3B, 0x5b15_4510);
    discover(&mut nic(&link, &pi), &pi, Speaker::Bootcode);
    let told = client.hear("the serial", |_, told| told["serial"] == "5b154510");
    assert_eq!(told.len(), 1, "nothing else was news: {told:#?}");
    let text = router.piboot(&["devices"]).unwrap();
    for words in ["waiting to be enrolled", "3 times", "certain: it names its board", "halts until its power is cycled"]
    {
        assert!(text.contains(words), "{words} in\n{text}");
    }

    // Enrolled, it does not wait any more.
    router.import(&image::small(router.net.scratch()), "small");
    router.enroll(&pi, "lion");
    client.hear("that it went", |_, told| *told == json!({ "mac": pi.mac.to_string(), "state": "removed" }));
}

#[test]
fn a_pi_that_starts_from_its_card_is_not_listed_and_one_that_turned_to_it_is_told_apart() {
    let router = Router::running();
    let link = router.net.tap_link().unwrap();
    // What Linux on a Pi sends: no class, no identifier, an address of a Pi.
    let card = Pi { mac: "b8:27:eb:00:00:01".parse().unwrap(), ..Pi::new(Model::Laptop, 1) };
    discover(&mut nic(&link, &card), &card, Speaker::Laptop);
    let four = Pi::new(Model::Pi4B, 0x5b15_4510);
    let mut nic = nic(&link, &four);
    discover(&mut nic, &four, Speaker::Eeprom);
    router.wait_for(&["devices"], "the other", |devices| pending(devices, &four).is_some());
    assert!(pending(&router.json(&["devices"]), &card).is_none());

    discover(&mut nic, &four, Speaker::Laptop);
    let started = |devices: &Value| {
        pending(devices, &four).unwrap()["waits_for"].as_str().unwrap().contains("started from somewhere else")
    };
    let devices = router.wait_for(&["devices"], "that it started", started);
    assert_eq!(pending(&devices, &four).unwrap()["asks_again"], false);
}

#[test]
fn a_board_that_dhcp_does_not_tell_is_known_by_what_it_asks_for() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi3BPlus, 0x5b15_4510);
    router.enroll(&pi, "lion");
    router.assert_boots(&pi, &link);
    router.wait_for(&["device", "lion"], "its board", |device| device["board"] == "Raspberry Pi 3+");
}

#[test]
fn a_pi_is_enrolled_by_itself_where_the_policy_says_so() {
    let router = Router::running();
    router.edit_config(|text| {
        text.replacen("'main'", "'main'\n\toption unknown 'enroll'\n\toption default_image 'small'", 1)
    });
    router.reload();
    router.assert_finding(&["error: piboot.main.default_image", "no image 'small'", "not enrolled by themselves"]);
    router.import(&image::small(router.net.scratch()), "small");
    assert_eq!(router.json(&["check"])["findings"], json!([]));
    let link = router.net.tap_link().unwrap();

    // An address of a Pi is not enough, nor is asking once.
    let weak = Pi { mac: "dc:a6:32:00:00:01".parse().unwrap(), ..Pi::new(Model::X86Pxe, 1) };
    let once = Pi::new(Model::Pi5, 0x1111_1111);
    let mut weak_nic = nic(&link, &weak);
    for _ in 0..5 {
        discover(&mut weak_nic, &weak, Speaker::Pc);
    }
    discover(&mut nic(&link, &once), &once, Speaker::Eeprom);

    // Two that go on asking: one tells its serial, the other does not.
    let pis = [Pi::new(Model::Pi4B, 0x5b15_4510), Pi::new(Model::Pi3B, 0x38c1_28c0)];
    for (pi, id) in pis.iter().zip(["pi_4b_5b154510", "pi_3_b827ebc128c0"]) {
        let mut nic = nic(&link, pi);
        router.wait_until(id, || {
            discover(&mut nic, pi, Speaker::first(pi.model));
            router.json(&["devices"])["devices"].as_array().unwrap().iter().any(|device| device["id"] == id)
        });
        drop(nic);
        router.wait_for(&["device", id], "its copy", |device| device["state"] != "preparing");
        router.assert_boots(pi, &link);
    }
    discover(&mut weak_nic, &weak, Speaker::Pc);
    let devices = router.wait_for(&["devices"], "the count", |d| pending(d, &weak).unwrap()["asked"] == 6);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2, "{devices:#}");
    assert_eq!(pending(&devices, &weak).unwrap()["waits_for"], "asks to boot; nobody enrolled it");
    assert!(pending(&devices, &once).unwrap()["waits_for"].as_str().unwrap().contains("enrolled by itself when"));
    assert!(std::fs::read_to_string(router.config()).unwrap().contains("config device 'pi_4b_5b154510'"));

    // Whom somebody unenrolled does not come back by itself.
    router.piboot(&["unenroll", "pi_4b_5b154510"]).unwrap();
    router.wait_for_dnsmasq();
    let mut four = nic(&link, &pis[0]);
    let before = pending(&router.json(&["devices"]), &pis[0]).unwrap()["asked"].as_u64().unwrap();
    let asked = |devices: &Value| pending(devices, &pis[0]).unwrap()["asked"].as_u64().unwrap();
    router.wait_until("that it is heard", || {
        discover(&mut four, &pis[0], Speaker::Eeprom);
        asked(&router.json(&["devices"])) > before + 3
    });
    let devices = router.json(&["devices"]);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "{devices:#}");
}

/// CPU time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime in ticks of 10 ms (proc(5)).
    Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// Bytes that a process has caused to be written.
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

#[test]
fn a_flood_of_made_up_pis_hides_none_and_costs_little() {
    const SECONDS: u64 = 20;
    const A_SECOND: u64 = 5000;
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    let attacker = router.net.tap_link().unwrap();
    let enrolled = Pi::new(Model::Pi4B, 0x38c1_28c0);
    router.enroll(&enrolled, "lion");
    // One that asked before, one that asks in the middle of it.
    let (early, late) = (Pi::new(Model::Pi3B, 0x5b15_4510), Pi::new(Model::Pi3BPlus, 0x5b15_4511));
    let mut early_nic = nic(&link, &early);
    discover(&mut early_nic, &early, Speaker::RomB);
    router.wait_for(&["devices"], "the first", |devices| pending(devices, &early).is_some());

    let mut nic_of_attacker = nic(&attacker, &Pi::new(Model::Pi5, 0xffff_ffff));
    let (pid, begun) = (router.agent().pid(), Instant::now());
    let before = (cpu(pid), written(pid));
    let mut late_nic = nic(&link, &late);
    let (mut sent, mut asked) = (0_u64, 0);
    while begun.elapsed() < Duration::from_secs(SECONDS) {
        let due = begun.elapsed().as_millis() as u64 * A_SECOND / 1000;
        while sent < due {
            sent += 1;
            let made_up = Pi::new(Model::Pi4B, 0x10_0000 + sent);
            let made_up = Pi {
                mac: format!("dc:a6:32:{:02x}:{:02x}:{:02x}", sent >> 16 & 255, sent >> 8 & 255, sent & 255)
                    .parse()
                    .unwrap(),
                ..made_up
            };
            discover(&mut nic_of_attacker, &made_up, Speaker::Eeprom);
        }
        if begun.elapsed() > Duration::from_secs(5 + 4 * asked) {
            asked += 1;
            discover(&mut late_nic, &late, Speaker::Bootcode);
            discover(&mut early_nic, &early, Speaker::RomB);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let used = cpu(pid).saturating_sub(before.0);
    let answered = Instant::now();
    let devices = router.wait_for(&["devices"], "both", |d| [&early, &late].iter().all(|pi| pending(d, pi).is_some()));
    let answered = answered.elapsed();
    let listed = devices["pending"].as_array().unwrap().len();
    let stored = written(pid) - before.1;
    eprintln!(
        "{sent} made-up Pis in {SECONDS} s: {used:?} of CPU, {stored} bytes written, {listed} listed, {} kB, answered in {answered:?}",
        router.peak_rss_kb()
    );
    assert!(sent > SECONDS * A_SECOND / 2, "{sent}: the machine is too slow for this test");
    assert!(listed < 64 + 20 * 8 && router.peak_rss_kb() < 32 << 10, "{listed}, {} kB", router.peak_rss_kb());
    assert!(used < Duration::from_secs(SECONDS / 2) && stored < 8 << 20, "{used:?}, {stored} bytes");
    assert_eq!(router.json(&["status"])["events_dropped"], 0);
    router.assert_finding(&["warning: network", "somebody makes them up"]);
    router.assert_boots(&enrolled, &link);
}
