//! Power comes back to a whole room: many Pis are on within a second.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use emupi::record::Event;
use emupi::storm::{self, Report};
use emupi::{Boot, BootOptions, Link, Model, Pi, many};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Router, image};

const SPREAD: Duration = Duration::from_secs(1);

/// One dnsmasq, many exchanges: boards up to the 3B+ give up after five tries.
fn patient() -> BootOptions {
    BootOptions { keep: false, speed: 4.0, ..support::hurried() }
}

fn switch_on(pis: &[Pi], link: &Link, options: &BootOptions) -> (Vec<Boot>, Report) {
    let delays = storm::delays(pis.len(), SPREAD, options.seed);
    let boots = many::boot_spread(pis, &delays, link, options, &|_| ()).unwrap();
    assert_eq!(link.dropped(), 0, "this machine is too slow for so many boards");
    let report = Report::of(&boots, &delays);
    (boots, report)
}

/// Enrols them by an edit of the configuration, as someone does who has many, and waits for their files.
fn enrol(router: &Router, pis: &[Pi]) {
    let mut sections = String::new();
    for (n, pi) in pis.iter().enumerate() {
        writeln!(sections, "config device 'pi_{n}'\n\toption mac '{}'\n\toption image 'small'", pi.mac).unwrap();
    }
    router.import(&image::small(router.net.scratch()), "small");
    router.edit_config(|text| text + &sections);
    router.reload();
    router.wait_for(&["status"], "all devices", |status| status["devices_ready"] == pis.len());
    router.wait_until_settled();
    router.wait_for_dnsmasq();
}

/// The first address that each board was offered, and how many share theirs with another.
fn shared_offers(boots: &[Boot]) -> usize {
    let offers = boots.iter().filter_map(|boot| {
        boot.log.iter().find_map(|entry| match entry.event {
            Event::Dhcp { kind: "OFFER", ip, .. } => Some(ip),
            _ => None,
        })
    });
    let mut boards: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    offers.for_each(|ip| *boards.entry(ip).or_default() += 1);
    boards.values().filter(|count| **count > 1).sum()
}

#[test]
fn forty_eight_pi_3_that_were_seen_before_each_boot_with_an_address_of_their_own() {
    let router = Router::running();
    let link = router.net.tap_link().unwrap();
    let pis = storm::boards(&[Model::Pi3B], 0, 48);
    // Nobody enrolled them yet: they are offered addresses and nothing to boot from.
    let (boots, report) = switch_on(&pis, &link, &BootOptions { speed: 20.0, ..patient() });
    assert_eq!(report.ok, 0, "{report}");
    assert!(shared_offers(&boots) > 0, "dnsmasq does not offer any address twice any more: is all this still needed?");
    router.wait_for(&["devices"], "all of them", |seen| seen["pending"].as_array().is_some_and(|p| p.len() == 48));
    enrol(&router, &pis);

    let (boots, report) = switch_on(&pis, &link, &patient());
    assert_eq!((report.ok, &report.twice, report.moved), (48, &vec![], 0), "{report}\n{}", router.logs());
    // dnsmasq reads the addresses again when its admin sends SIGHUP, and must survive that.
    let dnsmasq = std::fs::read_to_string(router.scratch("dnsmasq.pid")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(dnsmasq), Signal::SIGHUP).unwrap();
    router.assert_boots(&pis[0], &link);
    assert_eq!(std::fs::read_to_string(router.scratch("dnsmasq.pid")).unwrap().trim(), dnsmasq.to_string());
    // They are noted where an admin sees and can change them.
    let config = std::fs::read_to_string(router.config()).unwrap();
    for boot in &boots {
        let line = format!("\toption ip '{}'\n", boot.ip.unwrap());
        assert_eq!(config.matches(&line).count(), 1, "{line} in\n{config}");
    }
}

#[test]
fn boards_on_bad_cables_boot_all_the_same() {
    let router = Router::running();
    let link = router.net.tap_link().unwrap();
    let pis = storm::boards(&[Model::Pi4B, Model::Pi5], 0, 25);
    enrol(&router, &pis);
    // DHCP and ARP included, each way.
    let (_, report) = switch_on(&pis, &link, &BootOptions { frame_loss: 0.01, ..patient() });
    assert_eq!((report.ok, &report.twice), (25, &vec![]), "{report}\n{}", router.logs());
    let repeated = router.json(&["boots", "--limit", "100"])["boots"].as_array().map_or(0, Vec::len);
    assert_eq!(repeated, 25, "a repeated DISCOVER is no boot of its own");
    assert!(report.resent + report.duplicates > 0, "nothing was lost: {report}");
}
