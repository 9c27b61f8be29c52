//! What comes from the network is text, and who may do what.

use emupi::{Model, Pi};
use serde_json::{Value, json};

use crate::desk::*;
use crate::luci::Page;
use crate::luci::rights::Login;

/// What must never become an element.
const HOSTILE: &str = "<img src=x onerror=\"window.owned=1\">&amp;<b>";

/// Answers in which everything that comes from the network, or may, is hostile.
fn hostile() -> [(&'static str, Value); 8] {
    let boot = json!({ "id": 7, "device": HOSTILE, "mac": "dc:a6:32:01:02:03", "started_ms": 1, "state": "booting", "stage": HOSTILE, "took_ms": 5, "tftp_bytes": 1, "finding": HOSTILE });
    let job = |id, state| json!({ "id": id, "kind": "import", "subject": HOSTILE, "state": state, "bytes": 1, "total_bytes": 2, "files": 0, "total_files": 0, "message": HOSTILE, "queued_ms": 0, "finished_ms": 4e12 });
    let detail = json!({
        "id": HOSTILE, "hostname": HOSTILE, "mac": "dc:a6:32:01:02:03", "serial": HOSTILE, "board": HOSTILE, "image": HOSTILE, "state": HOSTILE, "why": HOSTILE,
        "fixed_ip": HOSTILE, "user": HOSTILE, "has_password": true, "ssh_keys": [HOSTILE], "made_by": HOSTILE, "clone_of": HOSTILE,
        "changes": [{ "rule": HOSTILE, "path": HOSTILE, "what": HOSTILE }], "notes": [{ "rule": HOSTILE, "path": HOSTILE, "what": HOSTILE }],
    });
    [
        ("device", detail),
        ("check", json!({ "findings": [{ "severity": "error", "place": HOSTILE, "text": HOSTILE, "id": HOSTILE }] })),
        (
            "devices",
            json!({
                "devices": [{ "id": "x", "hostname": HOSTILE, "mac": "dc:a6:32:01:02:03", "serial": null, "board": HOSTILE, "model": "pi4", "image": HOSTILE, "state": HOSTILE, "job": null, "why": HOSTILE, "ip": HOSTILE, "boot": boot.clone() }],
                "pending": [{ "mac": "dc:a6:32:01:02:04", "serial": HOSTILE, "board": HOSTILE, "sure": HOSTILE, "waits_for": HOSTILE, "next": HOSTILE, "asked": HOSTILE, "asks_again": HOSTILE, "first_seen_ms": 0, "last_seen_ms": 0 }],
            }),
        ),
        (
            "images",
            json!({ "images": [{ "name": HOSTILE, "os": HOSTILE, "architecture": HOSTILE, "source": HOSTILE, "imported_at": 0, "root_bytes": 1, "boot_bytes": 1, "used_by": [HOSTILE], "fits": [{ "model": "pi4", "ok": false, "why": HOSTILE }] }] }),
        ),
        ("jobs", json!({ "jobs": [job(1, "failed"), job(2, "running")] })),
        ("boots", json!({ "boots": [boot] })),
        ("led", json!({ "codes": [{ "long": 0, "short": 3, "meaning": HOSTILE, "todo": HOSTILE }] })),
        (
            "boot",
            json!({
                "id": 7, "device": HOSTILE, "mac": "dc:a6:32:01:02:03", "started_ms": 1, "state": HOSTILE, "ip": HOSTILE, "files_dropped": 3,
                "stages": [{ "stage": HOSTILE, "at_ms": 0, "detail": HOSTILE }],
                "files": [{ "name": HOSTILE, "at_ms": 1, "took_ms": 1, "size": 1, "acknowledged": 1, "retransmissions": 1, "outcome": { "aborted": HOSTILE } }],
                "findings": [{ "id": HOSTILE, "severity": "error", "confidence": HOSTILE, "cause": HOSTILE, "todo": HOSTILE, "source": HOSTILE, "at_ms": 1 }],
                "console": [{ "at_ms": 1, "from": HOSTILE, "text": HOSTILE }],
                "quirks": [{ "at_ms": 1, "quirk": HOSTILE, "note": HOSTILE }],
                "offers": [{ "at_ms": 1, "server": HOSTILE, "ip": HOSTILE, "boot_menu": true, "tftp": HOSTILE }],
                "refusals": [{ "at_ms": 1, "export": HOSTILE, "why": HOSTILE }],
                "good": { "id": 6, "stages": [{ "stage": HOSTILE, "at_ms": 9000, "detail": HOSTILE }] },
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
    harmless(&page, 11);
    page.click_button("#piboot-pending", "Enrol");
    page.wait("document.querySelector('#piboot-hostname')");
    harmless(&page, 13);
    page.fill("#piboot-hostname", HOSTILE);
    page.fill("#piboot-keys", HOSTILE);
    page.click_button(".modal", "Enrol");
    harmless(&page, 13);
    page.click_button(".modal", "Cancel");
    page.click_button("#piboot-devices", "Details");
    page.wait("document.querySelector('#piboot-details')");
    harmless(&page, 11 + 17);
    page.click_button(".modal", "Close");
    page.click_button("#view", "Check everything");
    page.wait("document.querySelector('#piboot-check')");
    harmless(&page, 11 + 1);
    page.click_button(".modal", "Close");
    page.click_button("#piboot-devices", "Edit");
    page.wait("document.querySelector('#piboot-user')");
    harmless(&page, 11 + 1);
    page.fill("#piboot-user", HOSTILE);
    page.click_button(".modal", "Save");
    page.wait_text("A user name has 1 to 32");
    page.click_button(".modal", "Cancel");
    page.click_button("#piboot-devices", "New root");
    page.wait("document.querySelector('#piboot-image')");
    harmless(&page, 11 + 3);
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
    harmless(&page, 23);
    page.screenshot("hostile-boot");
    page.click_button("#piboot-boot", "What does the green LED do?");
    page.wait("document.querySelectorAll('#piboot-led tr[data-key]').length == 1");
    harmless(&page, 25);
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
        // What only shows.
        let buttons = page.eval("[...document.querySelectorAll('#view button')].map(e => e.innerText).filter(word => ![ 'Details', 'Snapshots', 'Check everything' ].includes(word))");
        assert_eq!(buttons, json!([]), "{path}");
        page.assert_no_errors(&[]);
    }
    let page = desk.open(SETTINGS, Login::Auditor);
    page.wait("document.querySelector('#view input')");
    assert_eq!(page.eval("[...document.querySelectorAll('#view [data-name] :is(input[type=text], select)')].filter(e => !e.disabled && !e.closest('.cbi-dropdown')).map(e => e.id)"), json!([]));
    assert_eq!(page.eval("[...document.querySelectorAll('.cbi-page-actions button')].every(e => e.disabled)"), true);

    // Nor are the settings theirs to see: hashes of passwords are in there.
    let page = desk.open(OVERVIEW, Login::Reader);
    page.wait("document.querySelector('#topmenu a[href$=\"piboot/images\"], #tabmenu a[href$=\"piboot/images\"]')");
    assert_eq!(page.eval("document.querySelectorAll('a[href$=\"piboot/settings\"]').length"), json!(0));
    let read = page.eval("L.require('rpc').then(rpc => rpc.declare({ object: 'uci', method: 'get', params: [ 'config' ], reject: true })('piboot')).then(values => JSON.stringify(values), e => String(e))");
    assert!(!read.as_str().unwrap().contains("device") && read.as_str().unwrap().contains('6'), "{read}");

    // What the page does not offer is not let through either.
    let writing = [
        ("enroll", json!({ "mac": "dc:a6:32:00:00:01" })),
        ("unenroll", json!({ "id": "lion" })),
        ("device_edit", json!({ "id": "lion", "hostname": "x" })),
        ("device_switch", json!({ "id": "lion", "image": "small" })),
        ("device_reset", json!({ "id": "lion" })),
        ("image_import", json!({ "source": "/x", "name": "x" })),
        ("image_remove", json!({ "name": "small" })),
        ("os_list", json!({ "url": "http://x" })),
        ("disks", json!({})),
        ("job_cancel", json!({ "job": 1 })),
        ("volume_accept", json!({})),
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
fn the_pages_judge_names_as_the_agent_does() {
    use piboot::config::{
        check_address, check_device_id, check_hostname, check_image_name, check_keyboard, check_locale, check_timezone,
        check_user, device_id_from_hostname, is_ssh_key,
    };
    use piboot::incoming::digest::Sum;
    use piboot::incoming::url::Url;
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
        "root",
        "rooted",
        "a2_-",
        "Europe/Berlin",
        "Etc/GMT+1",
        "Europe/",
        "/Europe",
        "A//B",
        "de_DE.UTF-8",
        "ca@x",
        "us,de",
        &"x".repeat(32),
        &"x".repeat(33),
        &"x".repeat(40),
        &"x".repeat(41),
        &"x".repeat(63),
        &"x".repeat(64),
    ];
    for name in names {
        assert_eq!(judge("hostname", name), check_hostname(name).is_ok(), "host name {name:?}");
        assert_eq!(judge("user", name), check_user(name).is_ok(), "user {name:?}");
        assert_eq!(judge("timezone", name), check_timezone(name).is_ok(), "time zone {name:?}");
        assert_eq!(judge("locale", name), check_locale(name).is_ok(), "locale {name:?}");
        assert_eq!(judge("keyboard", name), check_keyboard(name).is_ok(), "keyboard {name:?}");
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
    let urls = [
        "",
        "http://h",
        "HTTPS://h:80/a%20b?c#d",
        "http://u:p@h/x",
        "http://[::1]/x",
        "ftp://h/x",
        "/mnt/x",
        "http:/h",
        "http://",
        "http:///x",
        "http://u@/x",
        "http://:1/",
        "http://-h/",
        "http://h/a b",
        "http://h/ä",
        "http://h/\"",
        "http://h/<b>",
        "http://h/\\",
        "http://h/^`{|}",
        "http://h/!#$&'()*+,-.;=?@[]_~",
        "http://h/\n",
        " http://h/",
        &format!("http://h/{}", "x".repeat(2039)),
        &format!("http://h/{}", "x".repeat(2040)),
    ];
    for url in urls {
        assert_eq!(judge("url", url), Url::parse(url).is_ok(), "address {url:?}");
    }
    let sum = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCD";
    for sum in ["", sum, &sum[1..], &format!(" {sum}\n"), &sum.replace('a', "g"), &format!("{sum}0")] {
        assert_eq!(judge("sha256", sum), Sum::parse(sum).is_ok(), "digest {sum:?}");
    }
}
