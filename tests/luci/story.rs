//! A boot that does not go on: what happened, what to do, and what else there is to know of it.

use emupi::{Model, Pi};
use serde_json::{Value, json};

use crate::desk::*;
use crate::luci::rights::Login;
use crate::openwrt::LAN;
use crate::support::{self, nfs};

/// The head of a pcap file, and a byte that is no text.
const PCAP: &str = "1MOyoQIABAAAAAAAAAAAAAAABAABAAAA/w==";

#[test]
fn a_failing_boot_says_what_to_do_while_it_hangs() {
    let desk = Desk::new();
    let pi = Pi::new(Model::Pi5, SERIAL);
    desk.import();
    desk.enroll(&pi, "lion");

    // One boot that goes well, to compare with.
    let booted = emupi::boot(&pi, &desk.link, &support::hurried(), None).unwrap();
    assert!(booted.ready().is_some(), "{}", booted.outcome);
    let host = desk.router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap();
    nfs::start(LAN, &host, "/lion/root");
    drop(host);
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait(
        "document.querySelector('#piboot-devices tr[data-key=lion]').innerText.toLowerCase().includes('running')",
    );

    // The list of boots, from before the next one on.
    let page = desk.open(&format!("{BOOTS}#device=lion"), Login::Admin);
    // Two boots within three seconds would be one.
    page.wait("document.querySelector('#piboot-boots tr[data-key]').innerText.includes('the system is up')");
    page.eval("window.same = true");
    std::fs::remove_file(desk.router.path("/mnt/ssd/piboot/devices/lion/boot/config.txt")).unwrap();
    let booted = emupi::boot(&pi, &desk.link, &support::hurried(), None).unwrap();
    assert!(!booted.ok());
    page.wait("document.querySelectorAll('#piboot-boots tr[data-key]').length == 2");
    page.click_button("#piboot-boots tr[data-key]", "Timeline");
    page.wait("document.querySelector('#piboot-findings').innerText.includes('The Pi found no config.txt')");
    let finding = page.text("#piboot-findings");
    for words in ["What to do: Put a config.txt into the Pi's boot files", "certain: the packets show it", "no-config"]
    {
        assert!(finding.contains(words), "{finding}");
    }
    assert_eq!(page.eval("document.querySelectorAll('#piboot-findings a').length"), 0);
    let detail = page.text("#piboot-boot");
    let compared = "Compared with the last boot that came to a running system: boot 1. There came next, after ";
    for words in [compared, "DHCP offers", "192.168.1.1"] {
        assert!(detail.contains(words), "{detail}");
    }
    page.click_button("#piboot-boot", "All boots");
    page.wait("document.querySelector('#piboot-boots').offsetParent");
    page.wait("document.querySelector('#piboot-boots tr[data-key]').innerText.includes('The Pi found no config.txt')");
    assert_eq!(page.eval("window.same"), true, "the page was not loaded anew");
    page.assert_no_errors(&[]);

    // On the overview, and from there to what to do.
    let page = desk.open(OVERVIEW, Login::Reader);
    let row = "document.querySelector('#piboot-devices tr[data-key=lion]').innerText";
    page.wait(&format!("{row}.toLowerCase().includes('stuck') && {row}.includes('The Pi found no config.txt')"));
    page.click_button("#piboot-devices", "Green LED");
    page.wait("document.querySelectorAll('#piboot-led tr[data-key]').length == 19");
    page.screenshot("led");
    page.eval("document.querySelector('#piboot-short').value = '7'; document.querySelector('#piboot-short').dispatchEvent(new Event('change'))");
    let codes = rows(&page, "#piboot-led");
    assert!(codes.len() == 2 && codes[0].contains("0-7") == codes[1].contains("0-7"), "{codes:#?}");
    page.eval("document.querySelector('#piboot-long').value = '0'; document.querySelector('#piboot-long').dispatchEvent(new Event('change'))");
    let codes = rows(&page, "#piboot-led");
    assert!(codes.len() == 1 && codes[0].contains("7 short | no kernel was found | "), "{codes:#?}");
    page.eval("document.querySelector('#piboot-long').value = '3'; document.querySelector('#piboot-long').dispatchEvent(new Event('change'))");
    page.wait_text("Nothing is known of these flashes: count again.");
    page.click_button(".modal", "Close");
    page.click_button("#piboot-devices", "What to do");
    page.wait("document.querySelector('#piboot-findings')?.innerText.includes('Put a config.txt into')");
    page.assert_no_errors(&[]);
    let boots = desk.router.json(&["boots", "lion"]);
    desk.pictures("overview-stuck", OVERVIEW, "#piboot-devices tr[data-key=lion] button");
    desk.pictures("boots-stuck", BOOTS, "#piboot-boots tr[data-key]");
    desk.pictures("boot-stuck", &format!("{BOOTS}#boot={}", boots["boots"][0]["id"]), ".piboot-finding");

    // The cure, and the boot after it.
    std::fs::write(desk.router.path("/mnt/ssd/piboot/devices/lion/boot/config.txt"), "").unwrap();
    emupi::boot(&pi, &desk.link, &support::hurried(), None).unwrap();
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait(&format!(
        "{row}.toLowerCase().includes('booting') && !document.querySelector('#piboot-devices button + a')"
    ));
    assert!(!page.text("#piboot-devices").contains("config.txt:"), "{}", page.text("#piboot-devices"));
    page.assert_no_errors(&[]);
}

/// A boot as an agent tells it that has seen everything.
fn eventful(lines: u32) -> Value {
    let line = |n: u32| json!({ "at_ms": 9000 + n, "from": if n == 0 { "bootloader" } else { "kernel" }, "text": format!("line {n} <b>") });
    let stage = |(stage, at_ms): (&str, u32)| json!({ "stage": stage, "at_ms": at_ms });
    let stages: Vec<Value> =
        [("link", 0), ("discover", 2100), ("tftp", 2500), ("kernel", 8000), ("os_dhcp", 14_200)].map(stage).into();
    let good: Vec<Value> =
        [("discover", 0), ("tftp", 500), ("kernel", 8100), ("os_dhcp", 15_400), ("mount", 16_000)].map(stage).into();
    json!({
        "id": 9, "device": "lion", "mac": "b8:27:eb:01:02:03", "ip": "192.168.1.84", "started_ms": 1, "age_ms": 20_000,
        "state": "booting", "stages": stages, "good": { "id": 3, "stages": good }, "discovers": 3, "files_dropped": 0,
        "files": [{ "name": "kernel8.img", "at_ms": 8000, "took_ms": 900, "size": 9_500_000, "acknowledged": 9_500_000, "retransmissions": 2, "blksize": 1468, "outcome": "done" }],
        "findings": [
            { "id": "no-mount", "severity": "error", "confidence": "possible", "cause": "It was told where NFS is and does not mount.", "todo": "Look at a screen.", "source": "doc", "at_ms": 30_000 },
            { "id": "lossy-network", "severity": "warning", "confidence": "likely", "cause": "Every 50th block had to be sent again.", "todo": "Try another cable.", "source": "doc", "at_ms": 9000 },
        ],
        "offers": [{ "at_ms": 2200, "server": "192.168.1.1", "ip": "192.168.1.84", "boot_menu": true, "tftp": "192.168.1.1" }, { "at_ms": 2300, "server": null, "ip": null, "boot_menu": false, "tftp": null }],
        "quirks": [{ "at_ms": 2210, "quirk": "reply_delay", "note": "the offer was held back by 200 ms" }],
        "refusals": [{ "at_ms": 15_000, "export": "/bear/root", "why": "it is another Pi's" }],
        "console": (0..lines).map(line).collect::<Vec<_>>(), "console_dropped": 7,
    })
}

#[test]
fn everything_that_is_known_of_a_boot_is_shown() {
    let desk = Desk::new();
    desk.bridge.instead("boot", Some(eventful(2)));
    desk.bridge.instead("boot_packets", Some(json!({ "boot": 9, "packets": 3, "pcap": PCAP })));
    let path = format!("{BOOTS}#boot=9");
    let page = desk.open(&path, Login::Reader);
    page.wait("document.querySelectorAll('.piboot-finding').length == 2");
    let worst = page.eval("[...document.querySelectorAll('.piboot-finding')].map(e => [e.classList.contains('error'), e.innerText.includes('possible: one of several causes'), e.innerText.includes('found after 30.0 s')])");
    assert_eq!(worst, json!([[true, true, true], [false, false, false]]));
    let stages = rows(&page, "#piboot-boot");
    for (n, words) in [
        "0.000 s | the network cable has link",
        "2.100 s\n2.100 s later | asked for an address",
        "2.500 s\n2.000 s later",
        "8.000 s | loading the kernel",
        "14.2 s\n1.200 s earlier | Linux asked",
    ]
    .iter()
    .enumerate()
    {
        assert!(stages[n].starts_with(words), "{}: {words}", stages[n]);
    }
    for words in [
        "boot 3. There came next, after 16.0 s: mounted its root.",
        "It asked 3 times.",
        "2.200 s\t192.168.1.1\t192.168.1.84\tyes\t192.168.1.1",
        "2.300 s\tunknown\t–\tno\t–",
        "2.210 s  the offer was held back by 200 ms (reply_delay)",
        "15.0 s  /bear/root: it is another Pi's",
        "7 lines in the middle were not kept.",
        "9.000 s  bootloader: line 0 <b>\n9.001 s  kernel: line 1 <b>",
    ] {
        let text = page.text("#piboot-boot");
        assert!(text.contains(words), "{words}\n{text}");
    }

    // The console grows under what is selected in it.
    page.eval("getSelection().setBaseAndExtent(document.querySelector('#piboot-console').firstChild, 0, document.querySelector('#piboot-console').firstChild, 9)");
    desk.bridge.instead("boot", Some(eventful(3)));
    page.wait("document.querySelector('#piboot-console').innerText.includes('kernel: line 2 <b>')");
    assert_eq!(page.eval("getSelection().toString()"), "9.000 s  ");
    assert_eq!(page.eval("document.querySelector('#piboot-console').textContent.split('line 1').length"), 2);

    // A long one is shown from its end, and follows it unless one has scrolled up.
    let at_end = "(e => e.scrollHeight > e.clientHeight + 100 && e.scrollTop + e.clientHeight >= e.scrollHeight - 1)(document.querySelector('#piboot-console'))";
    desk.bridge.instead("boot", Some(eventful(300)));
    page.wait(&format!("document.querySelector('#piboot-console').innerText.includes('line 299') && {at_end}"));
    page.eval("document.querySelector('#piboot-console').scrollTop = 50");
    desk.bridge.instead("boot", Some(eventful(301)));
    page.wait("document.querySelector('#piboot-console').innerText.includes('line 300')");
    assert_eq!(page.eval("document.querySelector('#piboot-console').scrollTop"), 50);
    desk.bridge.instead("boot", Some(eventful(3)));
    page.wait("!document.querySelector('#piboot-console').innerText.includes('line 299')");

    // Its packets, byte for byte.
    page.eval("URL.createObjectURL = blob => { window.blob = blob; return 'data:,' }");
    page.eval("document.addEventListener('click', event => { if (event.target.download) window.file = event.target.download }, true)");
    page.click_button("#piboot-boot", "Download packets");
    page.wait("window.blob && window.file == 'piboot-lion-9.pcap'");
    let bytes = page.eval("blob.arrayBuffer().then(buffer => [...new Uint8Array(buffer)])");
    assert_eq!(bytes.as_array().unwrap().len(), 25);
    assert_eq!((&bytes[0], &bytes[3], &bytes[24]), (&json!(0xd4), &json!(0xa1), &json!(0xff)));
    desk.bridge.instead("boot_packets", Some(json!({ "boot": 9, "packets": 0, "pcap": "" })));
    page.click_button("#piboot-boot", "Download packets");
    page.wait_text("No packets of this boot were kept.");
    desk.bridge.instead(
        "boot_packets",
        Some(json!({ "error": { "code": "unknown_method", "message": "there is no method 'boot_packets'" } })),
    );
    page.click_button("#piboot-boot", "Download packets");
    page.wait_text("This version of the agent keeps no packets.");
    assert!(!page.text("#piboot-boot").contains("Download packets"));
    page.assert_no_errors(&[]);
    desk.pictures("boot-eventful", &path, ".piboot-finding");

    // Who may not have them is not offered them.
    desk.bridge.deny("boot_packets");
    let page = desk.open(&path, Login::Admin);
    page.wait("document.querySelectorAll('.piboot-finding').length == 2");
    assert_eq!(page.eval("L.require('piboot.api').then(api => api.may('boot_packets'))"), false);
    assert!(!page.text("#piboot-boot").contains("Download packets"));
    page.assert_no_errors(&[]);
}

#[test]
fn every_state_has_its_word_and_its_sentence() {
    let desk = Desk::new();
    let device = |(state, end, why): (&str, Option<&str>, Option<&str>)| json!({ "id": state, "hostname": state, "mac": "dc:a6:32:00:00:01", "serial": null, "board": "Raspberry Pi 4B", "image": "small", "state": state, "job": null, "why": why, "ip": null, "boot": { "id": 1, "device": state, "mac": "dc:a6:32:00:00:01", "started_ms": 1, "state": if end.is_some() { "stopped" } else { "booting" }, "stage": "loading the kernel", "took_ms": 1, "tftp_bytes": 1, "end": end } });
    let states = [
        ("off", Some("shut_down"), None),
        ("lost", Some("lost"), None),
        ("stuck", None, Some("It hangs.")),
        ("booting", None, Some("It is slow.")),
    ];
    let pending = json!([
        { "mac": "dc:a6:32:00:00:02", "serial": null, "board": "Raspberry Pi 3", "model": "pi3", "memory_mb": 1024, "evidence": "rom_xid", "sure": "its packets are those of a boot ROM", "waits_for": "asks to boot; nobody enrolled it", "asked": 3, "asks_again": false, "next": "its boot ROM halts: cycle its power", "first_seen_ms": 1, "last_seen_ms": 2 },
        { "mac": "dc:a6:32:00:00:03", "serial": null, "board": "Raspberry Pi 4", "first_seen_ms": 3, "last_seen_ms": 4 },
    ]);
    desk.bridge.instead("devices", Some(json!({ "devices": states.map(device), "pending": pending })));
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait("document.querySelectorAll('#piboot-devices tr[data-key]').length == 4");
    let shown: Vec<String> = rows(&page, "#piboot-devices");
    let words = [
        "shut down |",
        "lost It fell silent while it ran: power cut, cable or crash. |",
        "stuck It hangs.",
        "booting loading the kernel. It is slow. |",
    ];
    for (row, words) in shown.iter().zip(words) {
        assert!(row.to_lowercase().contains(&words.to_lowercase()), "{row}: {words}");
    }
    let waiting = rows(&page, "#piboot-pending");
    for words in [
        "Raspberry Pi 3\nits packets are those of a boot ROM",
        "asks to boot; nobody enrolled it; its boot ROM halts: cycle its power",
        ", asked 3 times",
    ] {
        assert!(waiting[0].contains(words), "{waiting:#?}");
    }
    assert!(!waiting[1].contains("undefined") && !waiting[1].contains("asked"), "{waiting:#?}");
    assert_eq!(
        page.eval("document.querySelector('#piboot-pending [title]').title"),
        "its packets are those of a boot ROM"
    );
    page.assert_no_errors(&[]);
    desk.pictures("overview-states", OVERVIEW, "#piboot-devices tr[data-key]");
}

#[test]
fn another_disk_is_accepted_by_those_who_may() {
    let mut desk = Desk::new();
    desk.import();
    desk.enroll(&lion(), "lion");
    desk.router.kill_agent();
    let data = desk.router.path("/mnt/ssd/piboot");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    desk.router.start_agent();

    let held_back = "is not on the disk that was used before";
    {
        let page = desk.open(OVERVIEW, Login::Reader);
        page.wait_text(held_back);
        let accepts =
            "[...document.querySelectorAll('#view button')].filter(e => e.innerText == 'Accept this disk').length";
        assert_eq!(page.eval(accepts), 0);
    }
    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait_text(held_back);
    page.click_button("#view", "Accept this disk");
    page.wait_text("Every enrolled Pi gets a new root file system");
    page.screenshot("accept-disk");
    page.click_button(".modal", "Cancel");
    assert_eq!(desk.bridge.calls("volume_accept"), 0, "nobody said yes");
    page.click_button("#view", "Accept this disk");
    page.click_button(".modal", "Accept this disk");
    page.wait("!document.querySelector('.modal-overlay-active')");
    page.wait(&format!("!document.querySelector('#view').innerText.includes('{held_back}')"));
    assert!(!page.text("#view").contains("Accept this disk"));
    desk.router.wait_until("the disk to be taken", || {
        desk.router.said("the disk in use is now") > 0 || data.join("volume.id").exists()
    });
    page.assert_no_errors(&[]);
}
