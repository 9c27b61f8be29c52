//! A boot's story: told while it happens, and over a restart of the agent.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

use std::process::Command;

use emupi::{Model, Pi};
use support::{PATIENCE, PIBOOT, Router, image, nfs};

/// A router with one enrolled Pi.
fn router(pi: &Pi) -> Router {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    router.enroll(pi, "lion");
    router.wait_for_dnsmasq();
    router
}

#[test]
fn a_boot_goes_on_after_the_agent_was_killed_in_the_middle() {
    let pi = Pi::new(Model::Pi4B, 0x1000_0000_5b15_4510);
    let mut router = router(&pi);
    let link = router.net.tap_link().unwrap();
    let booted = emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
    assert!(booted.ready().is_some(), "{}", booted.outcome);
    let reached = |boot: &serde_json::Value, stage: &str| {
        boot["stages"].as_array().unwrap().iter().find(|s| s["stage"] == stage).map(|s| s["at_ms"].as_u64().unwrap())
    };
    let before = router.wait_for(&["boot", "lion"], "the kernel", |boot| reached(boot, "kernel").is_some());
    // Stages are stored as they are reached, files in batches: the last few may be lost.
    router.kill_agent();
    router.start_agent();
    router.wait_for(&["status"], "the device", |status| status["devices_ready"] == 1);
    let host = router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap();
    nfs::use_export(&host, "/lion/root", || ()).unwrap();
    let after = router.wait_for(&["boot", "lion"], "the mount", |boot| reached(boot, "mount").is_some());
    assert_eq!((&after["id"], &after["started_ms"]), (&before["id"], &before["started_ms"]));
    assert!(reached(&after, "mount") > reached(&after, "kernel"), "{after:#}");
    assert!(after["files"].as_array().is_some_and(|files| !files.is_empty()), "{after:#}");
}

#[test]
fn a_pi_that_went_away_while_the_agent_was_down_is_missed() {
    let pi = Pi::new(Model::Pi4B, 0x1000_0000_5b15_4510);
    let mut router = router(&pi);
    let link = router.net.tap_link().unwrap();
    let booted = emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
    let host = router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap();
    nfs::start([10, 77, 0, 1].into(), &host, "/lion/root");
    router.wait_for(&["device", "lion"], "that it runs", |device| device["state"] == "running");
    router.kill_agent();
    drop(host);
    router.start_agent();
    let boot = router.wait_for(&["boot", "lion"], "that it is gone", |boot| boot["state"] == "stopped");
    assert_eq!(boot["end"], "lost", "{boot:#}");
    assert_eq!(router.json(&["device", "lion"])["state"], "lost");
}

#[test]
fn a_boot_is_told_while_it_happens() {
    let pi = Pi::new(Model::Pi5, 0x1000_0000_5b15_4510);
    let router = router(&pi);
    let mut follow = Command::new(PIBOOT);
    follow.args(["--socket", router.scratch("piboot.sock").to_str().unwrap(), "boot", "lion", "--follow"]);
    let follow = router.net.spawn("follow", follow).unwrap();
    follow.wait_line("waiting for lion to boot", PATIENCE).unwrap();
    let link = router.net.tap_link().unwrap();
    // Its board has no config.txt: it stops there.
    std::fs::remove_file(router.data_dir().join("devices/lion/boot/config.txt")).unwrap();
    let booted = emupi::boot(&pi, &link, &support::hurried(), None).unwrap();
    assert!(!booted.ok());
    for words in
        ["boot 1 of lion", "asked for an address", "first TFTP request", "not there", "!! The Pi found no config.txt"]
    {
        follow.wait_line(words, PATIENCE).unwrap();
    }
    let shown = router.piboot(&["boot", "lion"]).unwrap();
    assert!(shown.contains("Put a config.txt into the Pi's boot files"), "{shown}");
    assert!(router.piboot(&["boots", "lion"]).unwrap().contains("The Pi found no config.txt"));
}
