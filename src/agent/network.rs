//! What in the network itself is in the way of Pis.

use crate::api::types::Finding;
use crate::config::Severity;
use crate::config::file;
use crate::config::uci::Section;
use crate::net::bridge;

/// A Pi 3's boot ROM asks five times, 5 s apart (raspberrypi/documentation, boot-net.adoc).
const ROM_ASKS_FOR_S: u32 = 25;

/// The device that OpenWrt's network configuration gives an interface, if this is OpenWrt.
pub(super) fn device(interface: &str) -> Option<String> {
    let sections = file::sections(&file::package("network")).ok()?;
    let section = sections.iter().find(|s| s.kind == "interface" && s.name.as_deref() == Some(interface))?;
    section.get("device")?.values().last().cloned()
}

/// More ask to boot than there can be Pis.
pub(super) fn flood(count: u32) -> Finding {
    warning(format!(
        "{count} requests to boot came from ever new hardware addresses, more than Pis can be switched on: somebody makes them up, and a Pi that nobody enrolled may be listed late. 'brctl showmacs BRIDGE' tells the number of the port behind which they are"
    ))
}

/// The spanning tree protocol on the bridge that Pis are behind.
pub(super) fn spanning_tree(bridge: &str) -> Option<Finding> {
    let stp = bridge::stp(bridge)?;
    let sections = file::sections(&file::package("network")).ok();
    Some(warning(stp_sentence(bridge, &stp, sections.as_deref())))
}

/// `sections` are those of OpenWrt's network configuration, if this is OpenWrt.
fn stp_sentence(bridge: &str, stp: &bridge::Stp, sections: Option<&[Section]>) -> String {
    let bridge::Stp { delay_s, blocked } = stp;
    let too_late = if *delay_s >= ROM_ASKS_FOR_S {
        format!("the boot ROM of a Pi 3 gives up after {ROM_ASKS_FOR_S} s")
    } else {
        "each boot waits for it".to_owned()
    };
    let cure = match sections.map(|sections| section_of(bridge, sections)) {
        Some(Some(name)) => format!(
            "option stp '0' in its device section switches it off: uci set network.{name}.stp='0'; uci commit network; reload_config"
        ),
        Some(None) => format!("option stp '0' in the section of {bridge} in /etc/config/network switches it off"),
        None => format!("'ip link set {bridge} type bridge stp_state 0' switches it off"),
    };
    let mut text = format!(
        "STP delays every port of {bridge}: it passes nothing for {delay_s} s after a Pi is switched on, and {too_late}. If no cables form a loop, {cure}"
    );
    if !blocked.is_empty() {
        text.push_str(&format!(". Blocked now, so that no Pi behind is heard: {}", blocked.join(", ")));
    }
    text
}

/// How `uci` names the section of a bridge: by its name, or as the so manyth of its type.
fn section_of(bridge: &str, sections: &[Section]) -> Option<String> {
    let is_it = |section: &Section| section.get("name").is_some_and(|name| name.values().iter().any(|n| n == bridge));
    let mut devices = sections.iter().filter(|section| section.kind == "device").enumerate();
    let (number, section) = devices.find(|(_, section)| is_it(section))?;
    Some(section.name.clone().unwrap_or_else(|| format!("@device[{number}]")))
}

fn warning(text: String) -> Finding {
    Finding::new(Severity::Warning, "network".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::uci;

    #[test]
    fn the_cure_for_stp_is_in_the_words_of_the_system() {
        let stp = bridge::Stp { delay_s: 30, blocked: vec!["lan3".to_owned()] };
        let network = "config device\n\toption name 'eth0'\nconfig device\n\toption name 'br-lan'\n\toption stp '1'\nconfig device 'guest'\n\toption name 'br-guest'\n";
        let sections = uci::parse(network).unwrap();
        for (bridge, sections, words) in [
            ("br-lan", Some(&sections[..]), "uci set network.@device[1].stp='0'; uci commit network"),
            ("br-guest", Some(&sections), "uci set network.guest.stp='0'"),
            ("br-other", Some(&sections), "in the section of br-other in /etc/config/network"),
            ("br0", None, "ip link set br0 type bridge stp_state 0"),
        ] {
            let text = stp_sentence(bridge, &stp, sections);
            assert!(text.contains(words) && text.contains("a Pi 3 gives up after 25 s"), "{text}");
            assert!(text.contains("30 s after") && text.ends_with("is heard: lan3"), "{text}");
        }
        let quick = bridge::Stp { delay_s: 4, blocked: Vec::new() };
        assert!(stp_sentence("br-lan", &quick, None).contains("each boot waits for it"));
    }
}
