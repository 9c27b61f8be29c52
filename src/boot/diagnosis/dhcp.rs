//! From power-on to the first TFTP request.

use std::time::Duration;

use super::Confidence::{Certain, Likely, Possible};
use super::{Case, Readiness, Rule};
use crate::boot::session::{BootState, OfferSeen};
use crate::boot::stage::Stage;
use crate::config::Severity::{Error, Warning};

/// Nobody answers so late: dnsmasq needs 3 s for an address that it has to try out first.
const OFFER: Duration = Duration::from_secs(8);
/// A Pi that can go on asks for its first file within a second or two of the offer.
const FIRST_FILE: u64 = 10;
/// A Pi 3's ROM asks five times, five seconds apart, and stops (raspberrypi/documentation, bootflow-legacy).
const ROM_TRIES: u32 = 5;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "blocked",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "this router",
        symptom: |case| match &case.context.readiness {
            Readiness::Blocked(why) if before_tftp(case) && case.boot.state == BootState::Booting => {
                Some(format!("The Pi asks to boot, and there is nothing to boot: {why}."))
            }
            _ => None,
        },
        todo: |case| format!("See to that, {}.", case.start_over()),
    },
    Rule {
        id: "preparing",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "this router",
        symptom: |case| {
            (case.context.readiness == Readiness::Preparing && case.boot.state == BootState::Booting)
                .then(|| "The Pi asks to boot while its copy of the image is still being made.".to_owned())
        },
        todo: |case| {
            let again = if case.has_eeprom() {
                "the Pi asks again by itself"
            } else {
                "then take the Pi's power away and give it back"
            };
            format!("Wait until the job is done ('piboot jobs'); {again}.")
        },
    },
    Rule {
        id: "no-offer",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "doc, boot-net: five DISCOVERs of a Pi 3, 45 s of a Pi 4 or 5",
        symptom: |case| {
            let unanswered = case.is_ours() && case.boot.offers.is_empty() && before_tftp(case) && case.age() >= OFFER;
            unanswered.then(|| {
                format!(
                    "The Pi asked for an address {} times, and this router saw no DHCP server answer.",
                    case.boot.discovers
                )
            })
        },
        todo: |case| {
            format!(
                "If this router is the DHCP server: 'service dnsmasq status' and 'logread -e dnsmasq-dhcp'. If another one is, its answers do not pass here, and it has to leave the booting to this router: {}; {}.",
                case.set("main", "dhcp", "proxy"),
                case.start_over()
            )
        },
    },
    Rule {
        id: "foreign-dhcp",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "fw#1265, fw#1699",
        symptom: |case| {
            let foreign = silent_after_offer(case).then(|| foreign_offer(case)).flatten()?;
            (!case.boot.offers.iter().any(|offer| offer.boot_menu)).then(|| {
                format!(
                    "Another DHCP server ({}) gave the Pi its address, and not {}: it sends the Pi elsewhere for its files, or knows nothing of booting.",
                    name(foreign),
                    case.server()
                )
            })
        },
        todo: |case| {
            let set = case.set("main", "dhcp", "proxy");
            format!(
                "Switch that server off, or leave it the addresses and have this router add the boot options: {set}."
            )
        },
    },
    Rule {
        id: "no-menu",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "doc, boot-net: option 43",
        symptom: |case| {
            let bare = silent_after_offer(case) && foreign_offer(case).is_none();
            (bare && !case.boot.offers.iter().any(|offer| offer.boot_menu)).then(|| {
                "The Pi was offered an address without the boot menu (DHCP option 43): to it that is a network without a boot server.".to_owned()
            })
        },
        todo: |case| {
            format!(
                "'piboot check' says why dnsmasq does not send it; restart dnsmasq if it was not after the Pi was enrolled, {}.",
                case.start_over()
            )
        },
    },
    Rule {
        id: "wrong-tftp-server",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "fw#801, fw#1265, ee#376",
        symptom: |case| {
            let ours = case.context.server?;
            let elsewhere = case
                .boot
                .offers
                .iter()
                .find(|offer| offer.boot_menu && offer.tftp.is_some_and(|ip| !case.context.is_own(ip)))?;
            silent_after_offer(case).then(|| {
                format!(
                    "The boot menu that the Pi was offered by {} sends it to {} for its files, and not to {}.",
                    name(elsewhere),
                    elsewhere.tftp.unwrap_or(ours),
                    case.server()
                )
            })
        },
        todo: |_| {
            "Take the boot options (43, 66, next-server) out of that server's configuration, or the option 66 or dhcp_boot of your own out of /etc/config/dhcp.".to_owned()
        },
    },
    Rule {
        id: "two-dhcp-servers",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "fw#1265: a Pi 3+ asks the wrong server; fw#1120, fw#986",
        symptom: |case| {
            let foreign = silent_after_offer(case).then(|| foreign_offer(case)).flatten()?;
            let menu = case.boot.offers.iter().any(|offer| offer.boot_menu);
            (menu && foreign.tftp.is_some()).then(|| {
                format!(
                    "Two DHCP servers answered the Pi. It took the word of {}, which has no files for it.",
                    name(foreign)
                )
            })
        },
        todo: |_| {
            "Have one DHCP server on this network, or take next-server and option 66 away from the other one."
                .to_owned()
        },
    },
    Rule {
        id: "rom-gave-up",
        severity: Error,
        confidence: Likely,
        last_resort: true,
        after_start: false,
        source: "doc, bootflow-legacy; fw#764, fw#859, fw#862, fw#934",
        symptom: |case| {
            let stuck = case.boot.rom && silent_after_offer(case);
            stuck.then(|| {
                let tries = case.boot.discovers;
                let over = if tries >= ROM_TRIES { "and has given up" } else { "and stopped" };
                format!("The boot ROM of this Pi 3B got its offer, asked {tries} times in all {over}. It does so when answers come at a bad moment: its ROM has errors that cannot be mended.")
            })
        },
        todo: |_| {
            "Take the Pi's power away and give it back. If that happens often: a bootcode.bin alone on an SD card replaces the ROM's part.".to_owned()
        },
    },
    Rule {
        id: "silent-after-offer",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "doc, eeprom-bootloader: TFTP_IP, BOOT_ORDER; ee#687",
        symptom: |case| {
            let stuck = !case.boot.rom && silent_after_offer(case);
            stuck.then(|| {
                format!(
                    "The Pi was offered an address and the boot menu {} ago, and has not asked {} for a file.",
                    seconds(case),
                    case.server()
                )
            })
        },
        todo: |case| {
            let eeprom = "TFTP_IP in its bootloader's configuration may send it elsewhere ('rpi-eeprom-config' on the Pi shows it)";
            let firewall = "a firewall may drop UDP port 69 ('piboot check' looks at this router's)";
            if case.has_eeprom() {
                format!("{eeprom}; {firewall}.")
            } else {
                format!("{firewall}; {}.", case.start_over())
            }
        },
    },
    Rule {
        id: "again-and-again",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "this router",
        symptom: |case| {
            let count = case.boot.failed_before;
            (case.is_ours() && count >= 3 && case.before(&[Stage::FirstWrite]))
                .then(|| format!("The {count} boots before this one did not get as far as a running system either."))
        },
        todo: |_| "'piboot boots' lists them; the findings of the last one that got farthest say most.".to_owned(),
    },
];

fn before_tftp(case: &Case<'_>) -> bool {
    case.before(&[Stage::Tftp, Stage::Kernel, Stage::Portmap, Stage::Mount])
}

fn silent_after_offer(case: &Case<'_>) -> bool {
    // A proxy's offer has no address, and that of another server may have passed elsewhere.
    case.is_ours() && !case.boot.offers.is_empty() && before_tftp(case) && case.waits(FIRST_FILE)
}

/// An offer of somebody who is not this router.
fn foreign_offer<'a>(case: &Case<'a>) -> Option<&'a OfferSeen> {
    case.boot.offers.iter().find(|offer| offer.server.is_some_and(|server| !case.context.is_own(server)))
}

fn name(offer: &OfferSeen) -> String {
    offer.server.map_or_else(|| "a server without a name".to_owned(), |ip| ip.to_string())
}

fn seconds(case: &Case<'_>) -> String {
    format!("{} s", case.silence().as_secs())
}
