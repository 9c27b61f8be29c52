//! A Pi that may take so much of the disk and no more: from the configuration to what its writes are answered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;

use emupi::{Model, Pi};
use serde_json::Value;
use support::{Router, image, nfs};

const MB: u64 = 1_000_000;
const FILE: &str = "devices/lion/root/fills-the-disk";
const DEEP: &str = "devices/lion/root/deep";

/// What `devices` says of the one device: its quota and what is used of it.
fn figures(devices: &Value) -> (Option<u64>, Option<u64>) {
    let device = &devices["devices"][0];
    (device["quota"].as_u64(), device["used"].as_u64())
}

#[test]
fn a_pi_gets_no_further_than_its_quota() {
    let mut router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let mac = pi.mac.to_string();
    router.assert_refused(
        &["enroll", "--mac", &mac, "--hostname", "lion", "--image", "small", "--quota", "much"],
        &["quota: 'much' is no size such as 8G"],
    );
    router.piboot(&["enroll", "--mac", &mac, "--hostname", "lion", "--image", "small", "--quota", "64M"]).unwrap();
    assert!(fs::read_to_string(router.config()).unwrap().contains("option quota '64M'"));
    let counted = |what: &str| router.wait_for(&["devices"], what, |devices| figures(devices).1.is_some());
    let (quota, used) = figures(&counted("the first census"));
    assert_eq!(quota, Some(64 * MB));
    assert!(used.unwrap() < 10 * MB, "{used:?}");
    router.wait_until("all to be well", || router.findings() == ["nothing stands in the way of a boot"]);

    let host = router.net.add_host(pi.mac, [10, 77, 0, 20].into()).unwrap();
    let (written, [filled, over]) = nfs::fill(&host, "/lion/root");
    assert_eq!((&*filled, &*over), ("NFS3ERR_DQUOT", "written"));
    let (_, used) = figures(&router.json(&["devices"]));
    assert!((63 * MB..=64 * MB).contains(&used.unwrap()) && written < 64 * MB, "{used:?}, {written} written");
    let cure = "Pi lion has used 63.";
    router.assert_finding(&["warning: lion", cure, "of its 64.0 MB and cannot write more", "raise option quota"]);
    router.wait_until("the log", || router.said(cure) == 1);
    let shown = router.piboot(&["devices"]).unwrap();
    assert!(shown.contains(" MB of 64.0 MB"), "{shown}");

    // More, at once, and under the export that the Pi has mounted.
    router.piboot(&["device", "edit", "lion", "--quota", "96M"]).unwrap();
    let (more, [filled, _]) = nfs::fill(&host, "/lion/root");
    assert_eq!(filled, "NFS3ERR_DQUOT");
    assert!(more > written + 30 * MB, "{written}, then {more}");
    // By hand, too.
    router.edit_config(|text| text.replace("option quota '96M'", "option quota '80M'"));
    router.reload();
    assert_eq!(figures(&router.json(&["devices"])).0, Some(80 * MB));
    router.assert_finding(&["has used 9", "of its 80.0 MB and cannot write more"]);

    // It is known again soon after a start, and what was removed meanwhile is noticed.
    fs::remove_file(router.data_dir().join(FILE)).unwrap();
    router.kill_agent();
    // But nobody can count what is nested so deep.
    let deep = router.data_dir().join(DEEP);
    fs::create_dir_all(deep.join(vec!["d"; 1000].join("/"))).unwrap();
    fs::rename(&deep, deep.with_extension("more")).unwrap();
    fs::create_dir_all(deep.join(vec!["d"; 1500].join("/"))).unwrap();
    fs::rename(deep.with_extension("more"), deep.join(vec!["d"; 1500].join("/")).join("more")).unwrap();
    router.start_agent();
    let why = "the quota of lion is not in force: ";
    router.wait_until("the reason", || router.findings().iter().any(|finding| finding.contains(why)));
    router.assert_finding(&["warning: lion", why, "devices/lion/root: directories are nested more than 2000 deep"]);
    assert_eq!(router.said(why), 1);
    router.kill_agent();
    fs::remove_dir_all(deep).unwrap();
    router.start_agent();
    let (_, used) = figures(&router.wait_for(&["devices"], "the census", |devices| figures(devices).1.is_some()));
    assert!(used.unwrap() < 10 * MB, "{used:?}");
    let (_, [filled, _]) = nfs::fill(&host, "/lion/root");
    assert_eq!(filled, "NFS3ERR_DQUOT");

    // A fresh root counts from the start.
    router.piboot(&["device", "reset", "lion", "--force"]).unwrap();
    let is_fresh = |devices: &Value| figures(devices).1.is_some_and(|used| used < 10 * MB);
    router.wait_for(&["devices"], "the census of the new root", is_fresh);
    router.wait_until("all to be well", || router.findings() == ["nothing stands in the way of a boot"]);

    router.piboot(&["device", "edit", "lion", "--quota", ""]).unwrap();
    assert_eq!(figures(&router.json(&["devices"])), (None, None));
    assert!(!fs::read_to_string(router.config()).unwrap().contains("quota"));
}
