//! Pis that are enrolled: looked at, changed, disabled, given a new root.

use emupi::{Model, Pi};
use serde_json::json;

use crate::desk::*;
use crate::luci::rights::Login;

#[test]
fn a_pi_is_changed_and_disabled_and_its_password_is_never_shown() {
    let desk = Desk::new();
    desk.import();
    desk.enroll(&lion(), "lion");
    desk.enroll(&Pi::new(Model::Pi4B, SERIAL + 1), "bear");
    let page = desk.open(OVERVIEW, Login::Admin);
    let lion_row = "#piboot-devices tr[data-key=lion]";
    let config = || desk.router.uci(&["export", "piboot"]);

    page.click_button(lion_row, "Edit");
    page.wait("document.querySelector('#piboot-hostname').value == 'lion'");
    page.fill("#piboot-hostname", "bear");
    page.wait_text("Another Pi has this name.");
    page.click_button(".modal", "Save");
    assert_eq!(desk.bridge.calls("device_edit"), 0, "what cannot be right is not sent");
    page.fill("#piboot-hostname", "tiger");
    page.fill("#piboot-ip", "192.168.1.88");
    page.fill("#piboot-user", "anna");
    page.fill("#piboot-password", "Kaffee & Kuchen");
    page.fill("#piboot-keys", KEY);
    page.fill("#piboot-quota", "much");
    page.wait_text("This is no size");
    page.fill("#piboot-quota", "8 GB");
    page.screenshot("edit");
    page.click_button(".modal", "Save");
    page.wait_text("tiger is changed");
    page.wait_text("done: lion adapted");
    page.screenshot("edited");
    page.click_button(".modal", "Close");
    page.wait(&format!("document.querySelector('{lion_row}').innerText.includes('tiger')"));
    for option in ["hostname 'tiger'", "ip '192.168.1.88'", "user 'anna'", "password '$6$", "quota '8G'"] {
        assert!(config().contains(option), "{}", config());
    }

    page.wait(&format!("document.querySelector('{lion_row}').innerText.includes(' of 8.0 GB')"));
    page.click_button(lion_row, "Details");
    page.wait("document.querySelector('#piboot-details')");
    let shown = page.eval("document.querySelector('#piboot-details').innerText");
    for words in
        ["192.168.1.88, always", "anna", "only its hash is kept", KEY, " of 8.0 GB", "etc/hostname", "host name tiger"]
    {
        assert!(shown.as_str().unwrap().contains(words), "{words}: {shown}");
    }
    page.screenshot("details");
    page.click_button(".modal", "Close");
    page.click_button(lion_row, "Edit");
    page.wait("document.querySelector('#piboot-user').value == 'anna'");
    page.wait_text("One is set. Type another one to change it.");
    let everything = page
        .eval("document.documentElement.outerHTML + [...document.querySelectorAll('input')].map(e => e.value).join()");
    let everything = everything.as_str().unwrap();
    assert!(!everything.contains("Kaffee") && !everything.contains("$6$"));

    // Nothing but what is another is sent: the keys that are there stay, though the dialog has an older list.
    page.click("#piboot-disabled");
    page.click_button(".modal", "Save");
    page.wait(&format!("document.querySelector('{lion_row}').textContent.includes('disabled')"));
    assert!(config().contains("disabled '1'") && config().contains(KEY) && config().contains("password '$6$"));
    page.screenshot("disabled");
    page.click_button(lion_row, "Edit");
    page.wait("document.querySelector('#piboot-disabled').checked");
    page.click("#piboot-disabled");
    page.click_button(".modal", "Save");
    page.wait(&format!("document.querySelector('{lion_row}').textContent.includes('ready')"));
    assert!(!config().contains("disabled"));
    page.assert_no_errors(&[]);
}

#[test]
fn a_pi_gets_a_new_root_and_what_the_agent_refuses_is_said() {
    let desk = Desk::new();
    desk.import();
    let file = desk.image_file();
    desk.router.piboot(&["image", "import", file.to_str().unwrap(), "--name", "other"]).unwrap();
    desk.enroll(&lion(), "lion");
    let lion_row = "#piboot-devices tr[data-key=lion]";
    let devices = desk.router.path("/mnt/ssd/piboot/devices");
    let work = devices.join("lion/root/home/pi/work");
    std::fs::write(&work, "of years").unwrap();

    let page = desk.open(OVERVIEW, Login::Admin);
    page.click_button(lion_row, "New root");
    page.wait("document.querySelector('#piboot-image').value == 'small'");
    page.eval("(() => { const s = document.querySelector('#piboot-image'); s.value = 'other'; s.dispatchEvent(new Event('change', { bubbles: true })) })()");
    page.eval("document.querySelector('#piboot-root').value = 'ephemeral'");
    page.screenshot("new-root");
    page.click_button(".modal", "Make it anew");
    page.wait_text("It can boot now: switch the Pi off and on again.");
    page.click_button(".modal", "Close");
    page.wait(&format!("document.querySelector('{lion_row}').innerText.includes('other')"));
    assert!(!work.exists());
    let config = || std::fs::read_to_string(desk.router.path("/etc/config/piboot")).unwrap();
    assert!(config().contains("option root 'ephemeral'"), "{}", config());
    page.click_button(lion_row, "Snapshots");
    page.wait_text("replaced-");
    page.click_button(".modal", "Close");

    // Deleted only when its name was typed.
    std::fs::write(&work, "again").unwrap();
    page.click_button(lion_row, "New root");
    page.wait("document.querySelector('#piboot-image').value == 'other'");
    page.wait("document.querySelector('#piboot-root').value == 'ephemeral'");
    page.eval("document.querySelector('#piboot-root').value = 'auto'");
    page.click("#piboot-delete");
    page.fill("#piboot-typed", "lio");
    page.wait("[...document.querySelectorAll('.modal button')].find(e => e.innerText == 'Make it anew').disabled");
    page.fill("#piboot-typed", "lion");
    page.click_button(".modal", "Make it anew");
    page.wait_text("the old root is deleted");
    assert!(!work.exists() && !config().contains("option root"));
    page.click_button(".modal", "Close");

    // It is up.
    desk.router.procd.wait_until_settled();
    emupi::boot(&lion(), &desk.link, &crate::support::hurried(), None).unwrap();
    page.wait(&format!("document.querySelector('{lion_row}').textContent.match(/booting|stuck/)"));
    page.click_button(lion_row, "New root");
    page.wait("document.querySelector('#piboot-force')");
    page.click_button(".modal", "Make it anew");
    page.wait("document.querySelector('.modal .alert-message')?.innerText.includes('lion is booting')");
    page.screenshot("new-root-refused");
    page.click_button(".modal", "Cancel");
    page.assert_no_errors(&[]);
}

#[test]
fn an_image_that_does_not_fit_is_said_so_and_comes_last() {
    let desk = Desk::new();
    let image = |name: &str, ok: bool| {
        json!({ "name": name, "os": null, "architecture": null, "source": "", "imported_at": 0, "root_bytes": 1, "boot_bytes": 1,
                "used_by": [], "fits": [{ "model": "pi4", "ok": ok, "why": if ok { "" } else { "It has no kernel8.img." } }] })
    };
    desk.bridge.instead("images", Some(json!({ "images": [image("bad", false), image("good", true)] })));
    desk.router.offer(&desk.link, &lion());
    let page = desk.open(OVERVIEW, Login::Admin);
    page.click_button("#piboot-pending", "Enrol");
    page.wait("document.querySelector('#piboot-image').value == 'good'");
    let options = page.eval("[...document.querySelectorAll('#piboot-image option')].map(e => e.innerText)");
    assert_eq!(options, json!(["good", "bad: does not fit"]));
    page.eval("(() => { const s = document.querySelector('#piboot-image'); s.value = 'bad'; s.dispatchEvent(new Event('change', { bubbles: true })) })()");
    page.wait_text("This image does not fit the board. It has no kernel8.img.");
    page.assert_no_errors(&[]);
}

#[test]
fn everything_is_looked_at_when_asked() {
    let desk = Desk::new();
    let page = desk.open(OVERVIEW, Login::Reader);
    page.click_button("#view", "Check everything");
    page.wait("document.querySelector('#piboot-check')");
    let said = page.eval("document.querySelector('#piboot-check').innerText");
    let findings = desk.router.json(&["check"]);
    let first =
        findings["findings"].get(0).map_or("Nothing stands in the way", |finding| finding["text"].as_str().unwrap());
    assert!(said.as_str().unwrap().contains(first), "{said}");
    page.assert_no_errors(&[]);
}
