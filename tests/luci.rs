//! The pages in LuCI, in a browser, with the real agent behind them.
//!
//! The client is a double of LuCI's (`tests/luci/double`); `LUCI=/path/to/a/checkout/of/luci` takes LuCI's own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, clippy::print_stderr, reason = "test code")]

mod support;

#[path = "support/openwrt/mod.rs"]
mod openwrt;

#[path = "support/luci/mod.rs"]
mod luci;

use std::path::PathBuf;

use emupi::{Link, Model, Pi};
use luci::rights::Login;
use luci::{Bridge, Browser, Page};
use openwrt::OpenWrt;
use serde_json::{Value, json};
use support::image;

const OVERVIEW: &str = "admin/services/piboot/overview";
const IMAGES: &str = "admin/services/piboot/images";
const BOOTS: &str = "admin/services/piboot/boots";
const SETTINGS: &str = "admin/services/piboot/settings";
const SERIAL: u64 = 0x1000_0000_5b15_4510;
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5QmDtsYk2mJYtwFsNDVvxRCQQ5ZQDbCk7l8NvVgBHr me@home";
/// What must never become an element.
const HOSTILE: &str = "<img src=x onerror=\"window.owned=1\">&amp;<b>";

/// A router whose agent runs, with LuCI and a browser before it.
struct Desk {
    browser: Browser,
    bridge: Bridge,
    link: Link,
    router: OpenWrt,
}

impl Desk {
    fn new() -> Self {
        let browser = Browser::start();
        let mut router = OpenWrt::new();
        router.start_agent();
        let bridge = Bridge::start(&router);
        let link = router.net.tap_link().unwrap();
        Self { browser, bridge, link, router }
    }

    fn open(&self, path: &str, login: Login) -> Page<'_> {
        let page = self.browser.open(1200, 900);
        page.go(&self.bridge.page(path, login, "light"));
        page.wait("L.loaded && document.querySelector('#view h2')");
        page
    }

    /// An image file where the agent sees it, by its path there.
    fn image_file(&self) -> PathBuf {
        let made = image::small(&self.router.net.scratch().join("mnt/ssd"));
        PathBuf::from("/mnt/ssd").join(made.file_name().unwrap())
    }

    fn import(&self) {
        let file = self.image_file();
        let said = self.router.piboot(&["image", "import", file.to_str().unwrap(), "--name", "small"]);
        assert!(said.is_ok(), "{said:?}");
    }

    /// Enrols a Pi, and waits until dnsmasq knows it: it is away for a moment.
    fn enroll(&self, pi: &Pi, hostname: &str) {
        let known = || self.router.said("dnsmasq has the boot options");
        let before = known();
        let mac = pi.mac.to_string();
        let said = self.router.piboot(&["enroll", "--mac", &mac, "--hostname", hostname, "--image", "small"]);
        assert!(said.is_ok(), "{said:?}");
        self.router.wait_until("the boot options", || known() > before);
        self.router.procd.wait_until_settled();
    }
}

fn lion() -> Pi {
    Pi::new(Model::Pi4B, SERIAL)
}

/// The rows of a table as text.
fn rows(page: &Page, within: &str) -> Vec<String> {
    let rows = page.eval(&format!(
        "[...document.querySelectorAll('{within} tr[data-key]')].map(row => [...row.cells].map(cell => cell.innerText.trim()).join(' | '))"
    ));
    serde_json::from_value(rows).unwrap()
}

#[test]
fn a_pi_is_enrolled_by_clicking_and_its_boot_is_shown() {
    let desk = Desk::new();
    let (router, pi) = (&desk.router, lion());

    let page = desk.open(IMAGES, Login::Admin);
    page.wait_text("There is no image yet.");
    page.fill("#piboot-source", "small.img");
    page.wait_text("Give the whole path of the file on the router");
    page.fill("#piboot-source", desk.image_file().to_str().unwrap());
    page.wait("document.querySelector('#piboot-name').value == 'small'");
    page.click_button("#piboot-import", "Import");
    page.wait("document.querySelector('#piboot-images tr[data-key=small]')");
    let row = rows(&page, "#piboot-images").remove(0);
    assert!(row.starts_with("small | Debian GNU/Linux 12 (bookworm) | "), "{row}");
    page.screenshot("images");
    page.assert_no_errors(&[]);

    // It shows up by asking for an address, on a page that is open already.
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait_text("No Pi waits.");
    router.offer(&desk.link, &pi);
    page.wait(&format!("document.querySelector('#piboot-pending tr[data-key=\"{}\"]')", pi.mac));
    let row = rows(&page, "#piboot-pending").remove(0);
    assert!(row.contains("Raspberry Pi 4") && row.contains("5b154510"), "{row}");

    page.click_button("#piboot-pending", "Enrol");
    page.wait("document.querySelector('#piboot-hostname').value == 'pi4-5b154510'");
    page.fill("#piboot-hostname", "-x");
    page.wait_text("A host name has 1 to 63 letters");
    page.click_button(".modal", "Enrol");
    assert_eq!(desk.bridge.calls("enroll"), 0, "what cannot be right is not sent");
    page.fill("#piboot-hostname", "running-lion");
    page.fill("#piboot-ip", "192.168.1.77");
    page.fill("#piboot-keys", KEY);
    page.screenshot("enrol");
    page.click_button(".modal", "Enrol");
    page.wait_text("It can boot now");
    page.screenshot("enrolled");
    page.click_button(".modal", "Close");
    page.wait("document.querySelector('#piboot-devices tr[data-key=running_lion]')");
    page.wait("!document.querySelector('#piboot-pending tr[data-key]')");
    let config = router.uci(&["export", "piboot"]);
    for option in ["hostname 'running-lion'", "image 'small'", "ip '192.168.1.77'", &format!("ssh_key '{KEY}'")] {
        assert!(config.contains(option), "{config}");
    }

    router.wait_until("the boot options", || router.said("dnsmasq has the boot options") > 0);
    router.procd.wait_until_settled();
    let booted = emupi::boot(&pi, &desk.link, &support::hurried(), None).unwrap();
    assert!(booted.ready().is_some(), "{}\n{}", booted.outcome, router.logs());
    page.wait("document.querySelector('#piboot-devices tr[data-key=running_lion]').innerText.includes('192.168.1.77')");
    page.screenshot("overview");
    page.assert_no_errors(&[]);

    page.click_button("#piboot-devices", "Boots");
    page.wait_text("Boots of running_lion.");
    page.click_button("#piboot-boots", "Timeline");
    page.wait("document.querySelector('#piboot-boot tr[data-key=kernel]')");
    let stages = rows(&page, "#piboot-boot");
    assert!(stages[0].contains("asked for an address (DHCP DISCOVER)"), "{stages:#?}");
    assert!(stages.iter().any(|row| row.contains("kernel8.img") && row.contains("loaded")), "{stages:#?}");
    assert!(stages.iter().any(|row| row.contains("not there")), "{stages:#?}");
    page.screenshot("boot");
    page.click_button("#piboot-boot", "All boots");
    page.wait("document.querySelector('#piboot-boots').offsetParent && !document.body.innerText.includes('Boots of')");
    page.screenshot("boots");
    page.assert_no_errors(&[]);
}

#[test]
fn files_are_deleted_only_when_the_name_was_typed() {
    let desk = Desk::new();
    desk.import();
    let (lion, bear) = (lion(), Pi::new(Model::Pi4B, SERIAL + 1));
    desk.enroll(&lion, "lion");
    desk.enroll(&bear, "bear");
    let page = desk.open(OVERVIEW, Login::Admin);
    let kept = |name: &str| desk.router.path("/mnt/ssd/piboot/devices").join(name).exists();

    page.click_button("#piboot-devices tr[data-key=bear]", "Unenrol");
    page.wait_text("it loses its root file system at once");
    page.click_button(".modal", "Unenrol");
    page.wait_text("Its files are kept in /mnt/ssd/piboot/devices/bear.");
    page.click_button(".modal", "Close");
    page.wait("!document.querySelector('#piboot-devices tr[data-key=bear]')");
    assert!(kept("bear"));

    page.click_button("#piboot-devices tr[data-key=lion]", "Unenrol");
    page.click("#piboot-delete");
    page.fill("#piboot-typed", "lio");
    page.wait("[...document.querySelectorAll('.modal button')].find(e => e.innerText == 'Unenrol').disabled");
    page.screenshot("unenrol");
    page.fill("#piboot-typed", "lion");
    page.click_button(".modal", "Unenrol");
    page.wait_text("done: files of lion deleted");
    assert!(!kept("lion"));
    page.assert_no_errors(&[]);

    // An image goes, or the agent says why not, in the dialog where it was asked.
    let page = desk.open(IMAGES, Login::Admin);
    page.click_button("#piboot-images", "Remove");
    desk.router.piboot(&["image", "remove", "small"]).unwrap();
    page.click_button(".modal", "Remove");
    page.wait("document.querySelector('.modal .alert-message')?.innerText.includes(\"there is no image 'small'\")");
    page.click_button(".modal", "Cancel");
    page.wait_text("There is no image yet.");
    page.assert_no_errors(&[]);
}

/// Answers in which everything that comes from the network, or may, is hostile.
fn hostile() -> [(&'static str, Value); 5] {
    let boot = json!({ "id": 7, "device": HOSTILE, "mac": "dc:a6:32:01:02:03", "started_ms": 1, "state": "booting", "stage": HOSTILE, "took_ms": 5, "tftp_bytes": 1 });
    let job = |id, state| json!({ "id": id, "kind": "import", "subject": HOSTILE, "state": state, "bytes": 1, "total_bytes": 2, "files": 0, "total_files": 0, "message": HOSTILE, "queued_ms": 0, "finished_ms": 4e12 });
    [
        (
            "devices",
            json!({
                "devices": [{ "id": "x", "hostname": HOSTILE, "mac": "dc:a6:32:01:02:03", "serial": null, "board": HOSTILE, "image": HOSTILE, "state": HOSTILE, "job": null, "why": HOSTILE, "ip": HOSTILE, "boot": boot.clone() }],
                "pending": [{ "mac": "dc:a6:32:01:02:04", "serial": HOSTILE, "board": HOSTILE, "first_seen_ms": 0, "last_seen_ms": 0 }],
            }),
        ),
        (
            "images",
            json!({ "images": [{ "name": HOSTILE, "os": HOSTILE, "architecture": HOSTILE, "source": HOSTILE, "imported_at": 0, "root_bytes": 1, "boot_bytes": 1, "used_by": [HOSTILE] }] }),
        ),
        ("jobs", json!({ "jobs": [job(1, "failed"), job(2, "running")] })),
        ("boots", json!({ "boots": [boot] })),
        (
            "boot",
            json!({
                "id": 7, "device": HOSTILE, "mac": "dc:a6:32:01:02:03", "started_ms": 1, "state": HOSTILE, "ip": HOSTILE, "files_dropped": 3,
                "stages": [{ "stage": HOSTILE, "at_ms": 0, "detail": HOSTILE }],
                "files": [{ "name": HOSTILE, "at_ms": 1, "took_ms": 1, "size": 1, "acknowledged": 1, "retransmissions": 1, "outcome": { "aborted": HOSTILE } }],
                "findings": [{ "id": HOSTILE, "severity": "error", "confidence": HOSTILE, "cause": HOSTILE, "todo": HOSTILE, "source": HOSTILE }],
                "console": [{ "at_ms": 1, "from": "kernel", "text": HOSTILE }],
                "quirks": [{ "at_ms": 1, "quirk": "x", "text": HOSTILE }],
                "compared": { "x": HOSTILE },
            }),
        ),
    ]
}

#[test]
fn what_comes_from_the_network_is_shown_as_it_is() {
    let desk = Desk::new();
    for (method, answer) in hostile() {
        desk.bridge.instead(method, Some(answer));
    }
    let harmless = |page: &Page, least: u64| {
        page.wait(&format!("document.body.textContent.split({}).length > {least}", json!(HOSTILE)));
        assert_eq!(page.eval("document.querySelectorAll('#maincontent img, .modal img, #view b').length"), 0);
        assert_eq!(page.eval("typeof window.owned"), "undefined");
        page.assert_no_errors(&[]);
    };
    let page = desk.open(OVERVIEW, Login::Admin);
    harmless(&page, 8);
    page.click_button("#piboot-pending", "Enrol");
    page.wait("document.querySelector('#piboot-hostname')");
    harmless(&page, 13);
    page.fill("#piboot-hostname", HOSTILE);
    page.fill("#piboot-keys", HOSTILE);
    page.click_button(".modal", "Enrol");
    harmless(&page, 13);
    page.click_button(".modal", "Cancel");
    page.click_button("#piboot-devices", "Unenrol");
    harmless(&page, 10);
    page.screenshot("hostile");
    page.click("#piboot-delete");
    page.fill("#piboot-typed", HOSTILE);
    page.click_button(".modal", "Unenrol");
    page.wait_text("no device 'x' is enrolled");
    let page = desk.open(IMAGES, Login::Admin);
    harmless(&page, 8);
    page.click_button("#piboot-images", "Remove");
    harmless(&page, 10);
    page.click_button(".modal", "Remove");
    page.wait_text("is not an image name");
    harmless(&page, 11);
    let page = desk.open(BOOTS, Login::Admin);
    harmless(&page, 2);
    page.click_button("#piboot-boots", "Timeline");
    harmless(&page, 14);
    page.screenshot("hostile-boot");
}

#[test]
fn who_may_only_read_sees_everything_and_changes_nothing() {
    let desk = Desk::new();
    desk.import();
    desk.enroll(&lion(), "lion");
    desk.router.offer(&desk.link, &Pi::new(Model::Pi4B, SERIAL + 1));
    for (path, within) in [(OVERVIEW, "#piboot-devices"), (OVERVIEW, "#piboot-pending"), (IMAGES, "#piboot-images")] {
        let page = desk.open(path, Login::Reader);
        page.wait(&format!("document.querySelector('{within} tr[data-key]')"));
        let buttons = page.eval("[...document.querySelectorAll('#view button')].map(e => e.innerText)");
        assert_eq!(buttons, json!([]), "{path}");
        page.assert_no_errors(&[]);
    }
    let page = desk.open(SETTINGS, Login::Reader);
    page.wait("document.querySelector('#view input')");
    assert_eq!(page.eval("[...document.querySelectorAll('#view [data-name] :is(input[type=text], select)')].filter(e => !e.disabled && !e.closest('.cbi-dropdown')).map(e => e.id)"), json!([]));
    assert_eq!(page.eval("[...document.querySelectorAll('.cbi-page-actions button')].every(e => e.disabled)"), true);

    // What the page does not offer is not let through either.
    let writing = [
        ("enroll", json!({ "mac": "dc:a6:32:00:00:01" })),
        ("unenroll", json!({ "id": "lion" })),
        ("image_import", json!({ "source": "/x", "name": "x" })),
        ("image_remove", json!({ "name": "small" })),
        ("job_cancel", json!({ "job": 1 })),
    ];
    for (method, params) in writing {
        let said = page.eval(&format!(
            "L.require('rpc').then(rpc => rpc.declare({{ object: 'piboot', method: '{method}', params: {} }})(...{})).then(() => 'done', e => String(e))",
            json!(params.as_object().unwrap().keys().collect::<Vec<_>>()),
            json!(params.as_object().unwrap().values().collect::<Vec<_>>()),
        ));
        assert!(said.as_str().unwrap().contains("-32002"), "{method}: {said}");
        assert_eq!(desk.bridge.calls(method), 0);
    }
    assert!(desk.router.uci(&["export", "piboot"]).contains("config device 'lion'"));
}

#[test]
fn whatever_fails_is_said_with_what_to_do() {
    let mut desk = Desk::new();
    let pi = lion();
    desk.import();
    desk.enroll(&pi, "lion");
    let bear = Pi::new(Model::Pi4B, SERIAL + 1);
    desk.router.offer(&desk.link, &bear);

    // The agent's own words, in the dialog; and the job's.
    let ghost = json!({ "images": [{ "name": "ghost", "os": null, "architecture": null, "source": "x", "imported_at": 0, "root_bytes": 1, "boot_bytes": 1, "used_by": [] }] });
    desk.bridge.instead("images", Some(ghost));
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.click_button("#piboot-pending", "Enrol");
        page.wait("document.querySelector('#piboot-image').value == 'ghost'");
        page.click_button(".modal", "Enrol");
        page.wait_text("there is no image 'ghost'");
        page.assert_no_errors(&[]);
    }
    desk.bridge.instead("images", None);
    {
        let page = desk.open(IMAGES, Login::Admin);
        page.fill("#piboot-source", "/mnt/ssd/nothing.img");
        page.click_button("#piboot-import", "Import");
        page.wait(
            "document.querySelector('#piboot-jobs .alert-message.error')?.innerText.includes('/mnt/ssd/nothing.img')",
        );
        page.screenshot("failed-import");
        page.assert_no_errors(&[]);
    }

    // The agent goes, and comes back: what was there stays, dimmed.
    desk.router.kill_agent();
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait_text("The agent is not running.");
        page.screenshot("stopped");
        desk.router.uci(&["set", "piboot.main.enabled=0"]);
        desk.router.uci(&["commit", "piboot"]);
    }
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait_text("Network boot is switched off. Switch it on in the settings.");
    }
    desk.router.uci(&["set", "piboot.main.enabled=1"]);
    desk.router.uci(&["commit", "piboot"]);
    desk.router.start_agent();
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait("document.querySelector('#piboot-devices tr[data-key=lion]')");
        page.assert_no_errors(&[]);
        desk.bridge.expire(true);
        page.wait_text("Session expired");
        page.screenshot("expired");
    }
}

#[test]
fn a_page_that_is_open_gets_over_a_restart_of_the_agent() {
    let mut desk = Desk::new();
    desk.import();
    desk.enroll(&lion(), "lion");
    let browser = std::mem::replace(&mut desk.browser, Browser::start());
    let page = browser.open(1200, 900);
    page.go(&desk.bridge.page(OVERVIEW, Login::Admin, "light"));
    page.wait("document.querySelector('#piboot-devices tr[data-key=lion]')");
    page.eval("window.row = document.querySelector('#piboot-devices tr[data-key=lion]')");
    desk.router.kill_agent();
    page.wait_text("The agent is not running.");
    assert_eq!(rows(&page, "#piboot-devices").len(), 1);
    desk.router.start_agent();
    page.wait("!document.body.innerText.includes('The agent is not running.')");
    assert_eq!(page.eval("window.row === document.querySelector('#piboot-devices tr[data-key=lion]')"), true);
    page.assert_no_errors(&[]);
}

#[test]
fn a_classroom_is_updated_in_place() {
    let desk = Desk::new();
    let device = |n: u32| json!({ "id": format!("pi_{n}"), "hostname": format!("pi-{n}"), "mac": format!("dc:a6:32:00:00:{n:02x}"), "serial": format!("{n:08x}"), "board": "Raspberry Pi 4B v1.5, 4 GB", "image": "small", "state": if n % 3 == 0 { "booting" } else { "running" }, "job": null, "why": null, "ip": format!("192.168.1.{n}"), "boot": { "id": n, "device": null, "mac": "dc:a6:32:00:00:01", "started_ms": 1, "state": "booting", "stage": "loading the kernel", "took_ms": 1, "tftp_bytes": 1 } });
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

#[test]
fn settings_are_saved_and_applied() {
    let desk = Desk::new();
    desk.import();
    let page = desk.open(SETTINGS, Login::Admin);
    page.wait("document.querySelector('[data-name=data_dir] input')");
    page.screenshot("settings");
    page.fill("[data-name=data_dir] input[type=text]", "not/absolute");
    page.click_on("[...document.querySelectorAll('.cbi-page-actions button')].find(e => e.innerText == 'Save')");
    page.wait("document.querySelector('.modal').innerText.includes('Give a whole path')");
    page.click_button(".modal", "Dismiss");
    page.fill("[data-name=data_dir] input[type=text]", "/mnt/ssd/piboot");
    page.click_on("document.querySelector('.cbi-tabmenu li[data-tab=advanced] a')");
    page.wait("document.querySelector('[data-name=sync] input[type=checkbox]').offsetParent");
    page.screenshot("settings-advanced");
    page.click("[data-name=sync] input[type=checkbox]");
    page.click_on("[...document.querySelectorAll('.cbi-page-actions button, .cbi-page-actions .cbi-dropdown li')].find(e => e.innerText.trim() == 'Save & Apply')");
    desk.router.wait_until("the change", || desk.router.uci(&["export", "piboot"]).contains("option sync '1'"));
    let config = desk.router.uci(&["export", "piboot"]);
    assert!(
        config.contains("option data_dir '/mnt/ssd/piboot'") && config.contains("list interface 'lan'"),
        "{config}"
    );
    desk.router.wait_until("the agent to read it", || desk.router.said("read again") > 0);
}

#[test]
fn the_status_page_counts_pis() {
    let desk = Desk::new();
    let page = desk.open(OVERVIEW, Login::Admin);
    let shown = |page: &Page| {
        page.eval(
            "L.require('view.status.include.60_piboot').then(include => include.load().then(data => { \
             const node = include.render(data); return node ? [ include.title, ...[...node.rows].map(row => [...row.cells].map(cell => cell.textContent).join(': ')) ] : null }))",
        )
    };
    desk.router.offer(&desk.link, &lion());
    desk.router.wait_until("the Pi", || desk.router.json(&["status"])["pending"] == 1);
    assert_eq!(shown(&page), json!(["Pi Boot", "Pis running: 0", "Pis booting: 0", "Pis waiting to be enrolled: 1"]));
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
        for (scheme, width, phone) in [("light", 1200, false), ("dark", 1200, false), ("phone", 390, true)] {
            let page = desk.browser.open(width, 900);
            page.resize(width, 900, phone);
            let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
            let url = desk.bridge.page(path, Login::Admin, scheme);
            page.go(&format!("{url}#{fragment}"));
            page.wait(&format!("document.querySelector('{element}')?.offsetParent"));
            let too_wide = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            page.screenshot(&format!("{name}-{scheme}"));
            assert!(
                !luci::bridge::is_real() || too_wide.as_i64().unwrap() <= 0,
                "{name} is {too_wide} pixels too wide ({scheme})"
            );
            page.assert_no_errors(&[]);
        }
    }
}

#[test]
fn the_pages_judge_names_as_the_agent_does() {
    use piboot::config::{
        check_address, check_device_id, check_hostname, check_image_name, device_id_from_hostname, is_ssh_key,
    };
    let desk = Desk::new();
    let page = desk.open(OVERVIEW, Login::Admin);
    let judge = |check: &str, value: &str| {
        page.eval(&format!("L.require('piboot.names').then(names => names.{check}({}) === null)", json!(value)))
    };
    let names = [
        "",
        "a",
        "A",
        "running-lion",
        "-a",
        "a-",
        "a--b",
        "a_b",
        "a.b",
        "a b",
        ".a",
        "_a",
        "0",
        "12",
        "12h",
        "12H",
        "12hh",
        "h",
        "12x",
        "infinite",
        "Infinite",
        "ignore",
        "ignored",
        "4-pi",
        "ü",
        "<img>",
        "a/b",
        "..",
        "a\n",
        &"x".repeat(63),
        &"x".repeat(64),
    ];
    for name in names {
        assert_eq!(judge("hostname", name), check_hostname(name).is_ok(), "host name {name:?}");
        assert_eq!(judge("imageName", name), check_image_name(name).is_ok(), "image {name:?}");
        let id = page.eval(&format!("L.require('piboot.names').then(names => names.deviceId({}))", json!(name)));
        assert!(check_hostname(name).is_err() || id == device_id_from_hostname(name), "{name:?}: {id}");
        assert!(check_hostname(name).is_err() || check_device_id(id.as_str().unwrap()).is_ok());
    }
    let addresses = [
        "192.168.1.50",
        "0.0.0.0",
        "0.0.0.1",
        "127.0.0.1",
        "127.255.1.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "255.255.255.254",
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4 ",
        "::1",
        "",
        "a.b.c.d",
    ];
    for address in addresses {
        let good = address.parse().is_ok_and(|address| check_address(address).is_ok());
        assert_eq!(judge("address", address), good, "address {address:?}");
    }
    let body = KEY.split(' ').nth(1).unwrap();
    let keys = [
        KEY,
        body,
        &format!("ssh-ed25519 {body}"),
        &format!("sk-ssh-ed25519@openssh.com {body} x"),
        &format!("ecdsa-sha2-nistp256 {body}"),
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 BAAA",
        "ssh-ed25519 AAAA<b>",
        "x AAAA",
        "ssh-dss AAAA=",
    ];
    for key in keys {
        assert_eq!(judge("keyList", key), is_ssh_key(key), "key {key:?}");
    }
}
