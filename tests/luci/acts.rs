//! What people come for: importing, enrolling, unenrolling, settings.

use emupi::{Model, Pi};
use serde_json::json;

use crate::desk::*;
use crate::luci::Page;
use crate::luci::rights::Login;
use crate::support;

#[test]
fn a_pi_is_enrolled_by_clicking_and_its_boot_is_shown() {
    let desk = Desk::new();
    let (router, pi) = (&desk.router, lion());

    let page = desk.open(IMAGES, Login::Admin);
    page.wait_text("There is no image yet.");
    page.choose("#piboot-from", "file");
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
    page.fill("#piboot-user", "root");
    page.wait_text("A user name has 1 to 32");
    page.fill("#piboot-user", "anna");
    page.fill("#piboot-password", "Kaffee & Kuchen");
    page.screenshot("enrol");
    page.click_button(".modal", "Enrol");
    page.wait_text("It can boot now");
    page.wait("document.querySelector('.modal a').href.endsWith('boots#device=running_lion')");
    page.screenshot("enrolled");
    page.click_button(".modal", "Close");
    page.wait("document.querySelector('#piboot-devices tr[data-key=running_lion]')");
    page.wait("!document.querySelector('#piboot-pending tr[data-key]')");
    let config = router.uci(&["export", "piboot"]);
    for option in [
        "hostname 'running-lion'",
        "image 'small'",
        "ip '192.168.1.77'",
        "user 'anna'",
        "password '$6$",
        &format!("ssh_key '{KEY}'"),
    ] {
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
    page.eval("URL.createObjectURL = blob => { window.blob = blob; return 'data:,' }");
    page.click_button("#piboot-boot", "Download as JSON");
    let downloaded = page.eval("blob.text().then(JSON.parse)");
    assert_eq!(downloaded["stages"], router.json(&["boot", &downloaded["id"].to_string()])["stages"]);
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

#[test]
fn settings_are_saved_and_applied() {
    let desk = Desk::new();
    desk.import();
    for quirk in ["wake_up", "reply_delay"] {
        desk.router.uci(&["add_list", &format!("piboot.main.quirk_off={quirk}")]);
    }
    desk.router.uci(&["commit", "piboot"]);
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
    for kept in [
        "option data_dir '/mnt/ssd/piboot'",
        "list interface 'lan'",
        "list quirk_off 'wake_up'",
        "list quirk_off 'reply_delay'",
    ] {
        assert!(config.contains(kept), "{config}");
    }
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
    assert_eq!(
        shown(&page),
        json!(["Pi Boot", "Pis running: 0", "Pis booting: 0", "Pis stuck: 0", "Pis waiting to be enrolled: 1"])
    );
}
