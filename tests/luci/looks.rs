//! How pages change and what they look like.

use emupi::{Model, Pi};
use serde_json::json;

use crate::desk::*;
use crate::luci::rights::Login;
use crate::support;

#[test]
fn a_classroom_is_updated_in_place() {
    let desk = Desk::new();
    let device = |n: u32| json!({ "id": format!("pi_{n}"), "hostname": format!("pi-{n}"), "mac": format!("dc:a6:32:00:00:{n:02x}"), "serial": format!("{n:08x}"), "board": "Raspberry Pi 4B v1.5, 4 GB", "image": "small", "state": if n.is_multiple_of(3) { "booting" } else { "running" }, "job": null, "why": null, "ip": format!("192.168.1.{n}"), "boot": { "id": n, "device": null, "mac": "dc:a6:32:00:00:01", "started_ms": 1, "state": "booting", "stage": "loading the kernel", "took_ms": 1, "tftp_bytes": 1 } });
    let pending = |n: u32| json!({ "mac": format!("e4:5f:01:00:00:{n:02x}"), "serial": null, "board": "Raspberry Pi 4", "first_seen_ms": 1, "last_seen_ms": 1 });
    let seen = |devices: Vec<u32>| json!({ "devices": devices.into_iter().map(device).collect::<Vec<_>>(), "pending": (0..200).map(pending).collect::<Vec<_>>() });
    desk.bridge.instead("devices", Some(seen((0..100).collect())));
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait("document.querySelectorAll('#piboot-devices tr[data-key]').length == 100");

    // Where one has scrolled, what has the focus and what is selected stays, while others go, come and change places.
    page.eval("window.row = document.querySelector('tr[data-key=pi_50]'); row.querySelector('a').focus(); row.scrollIntoView({ block: 'center', behavior: 'instant' }); getSelection().selectAllChildren(row.cells[0]); window.top_ = row.getBoundingClientRect().top");
    let mut others: Vec<u32> = (1..=100).collect();
    others.swap(0, 98);
    others.rotate_left(1);
    desk.bridge.instead("devices", Some(seen(others.clone())));
    page.wait("!document.querySelector('tr[data-key=pi_0]') && document.querySelector('tr[data-key=pi_100]')");
    assert_eq!(
        page.eval("row.isConnected && row.contains(document.activeElement) && getSelection().toString().trim()"),
        "pi-50"
    );
    let order = rows(&page, "#piboot-devices");
    assert!(order.iter().zip(&others).all(|(row, n)| row.starts_with(&format!("pi-{n} |"))), "{order:#?}");

    let times = page.eval(
        "(async () => { const view = await L.require('view.piboot.overview'), api = await L.require('piboot.api'); \
         const [ status, seen, { jobs } ] = await Promise.all([ api.status(), api.devices(), api.jobs() ]); \
         const times = []; \
         for (let n = 0; n < 20; n++) { \
             const turned = { status, jobs, pending: seen.pending, devices: seen.devices.map((d, i) => Object.assign({}, d, { state: (i + n) % 2 ? 'booting' : 'running', ip: '192.168.2.' + n })) }; \
             const begun = performance.now(); view.show(turned); times.push(performance.now() - begun); \
             await new Promise(requestAnimationFrame); } \
         return times.sort((a, b) => a - b) })()",
    );
    let times: Vec<f64> = serde_json::from_value(times).unwrap();
    eprintln!(
        "luci: 100 Pis that all change and 200 that wait: {:.1} ms of script an update, {:.1} ms at worst",
        times[10], times[19]
    );
    page.assert_no_errors(&[]);
}

#[test]
fn nobody_is_asked_for_a_page_that_nobody_sees() {
    let desk = Desk::new();
    let page = desk.open(OVERVIEW, Login::Admin);
    let before = desk.bridge.calls("status");
    page.wait_text("Waiting to be enrolled");
    desk.router.wait_until("another look", || desk.bridge.calls("status") > before);
    page.hide(true);
    let before = desk.bridge.calls("status");
    // Longer than between two looks: there is no event for what does not happen.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(desk.bridge.calls("status"), before);
    page.hide(false);
    desk.router.wait_until("a look at once", || desk.bridge.calls("status") > before);
    page.assert_no_errors(&[]);
}

/// Pictures of every page, for people: light, dark, and on a phone.
#[test]
fn every_page_in_light_dark_and_on_a_phone() {
    let desk = Desk::new();
    desk.import();
    let pi = lion();
    desk.enroll(&pi, "running-lion");
    emupi::boot(&pi, &desk.link, &support::hurried(), None).unwrap();
    for n in 1..4 {
        desk.router.offer(&desk.link, &Pi::new(Model::Pi5, SERIAL + n));
    }
    let mut status = desk.router.json(&["status"]);
    status["findings"] = json!([
        { "severity": "error", "place": "storage", "text": "only 300 MB are free in /mnt/ssd/piboot: remove an image or a Pi" },
        { "severity": "warning", "place": "dhcp.lan", "text": "another DHCP server answers in this network: Pis may take its address and not find us" }
    ]);
    desk.bridge.instead("status", Some(status));
    let boots = desk.router.json(&["boots", "running_lion"]);
    let boot = format!("{BOOTS}#boot={}", boots["boots"][0]["id"]);
    let pages = [
        ("overview", OVERVIEW, "#piboot-devices tr[data-key]"),
        ("images", IMAGES, "#piboot-images tr[data-key]"),
        ("boots", BOOTS, "#piboot-boots tr[data-key]"),
        ("boot", &boot, "#piboot-boot tr[data-key=kernel]"),
        ("settings", SETTINGS, "[data-name=data_dir]"),
    ];
    for (name, path, element) in pages {
        desk.pictures(name, path, element);
    }
}
