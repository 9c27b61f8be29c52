//! What in an OpenWrt router's own configuration keeps Pis from booting, each with its cure. Pure: sections in, sentences out.

use super::sections::{is_ours, is_set};
use crate::config::uci::{Section, Value};
use crate::config::{Problem, Severity};

/// The packages that are looked at.
#[derive(Debug, Clone, Default)]
pub struct Packages {
    /// `/etc/config/dhcp`
    pub dhcp: Vec<Section>,
    /// `/etc/config/network`
    pub network: Vec<Section>,
    /// `/etc/config/firewall`
    pub firewall: Vec<Section>,
}

/// Whether this router's dnsmasq is the DHCP server on an interface, by its name in `/etc/config/network` or its device.
#[must_use]
pub fn dnsmasq_serves(packages: &Packages, interface: &str) -> bool {
    let interface = logical(&packages.network, interface);
    let runs = packages.dhcp.iter().any(|section| section.kind == "dnsmasq" && text(section, "disabled") != Some("1"));
    let replaced = packages.dhcp.iter().any(|section| section.kind == "odhcpd" && is_on(section, "maindhcp"));
    let section = packages.dhcp.iter().find(|section| is_about(section, interface));
    runs && !replaced && section.is_some_and(|section| turned_off(section).is_none())
}

/// What stands in the way where the built-in proxy says what to boot, and somebody else gives the addresses.
#[must_use]
pub fn find_for_proxy(packages: &Packages, interfaces: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    tftp(&packages.dhcp, &mut problems);
    for interface in interfaces {
        let interface = logical(&packages.network, interface);
        address(&packages.network, interface, &mut problems);
        // DHCP is read before the firewall sees it.
        firewall(&packages.firewall, interface, &["69", "111", "2049"], &mut problems);
    }
    problems
}

/// What stands in the way on these interfaces: names of `/etc/config/network`, or of devices.
#[must_use]
pub fn find(packages: &Packages, interfaces: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    services(&packages.dhcp, &mut problems);
    options(&packages.dhcp, &mut problems);
    for interface in interfaces {
        let interface = logical(&packages.network, interface);
        leases(&packages.dhcp, interface, &mut problems);
        address(&packages.network, interface, &mut problems);
        firewall(&packages.firewall, interface, &["67", "69", "111", "2049"], &mut problems);
    }
    problems
}

/// The interface that a device belongs to; OpenWrt's packages know nothing else.
fn logical<'a>(network: &'a [Section], name: &'a str) -> &'a str {
    let is_its = |section: &&Section| section.kind == "interface" && text(section, "device") == Some(name);
    network.iter().find(is_its).and_then(|section| section.name.as_deref()).unwrap_or(name)
}

fn problem(severity: Severity, place: String, why: String) -> Problem {
    Problem { severity, place, why }
}

/// How `uci` is told of a section: by name, or by its place among its kind.
fn place(package: &str, sections: &[Section], section: &Section) -> String {
    match &section.name {
        Some(name) => format!("{package}.{name}"),
        None => {
            let of_kind = sections.iter().filter(|other| other.kind == section.kind);
            let number = of_kind.take_while(|other| !std::ptr::eq(*other, section)).count();
            format!("{package}.@{}[{number}]", section.kind)
        }
    }
}

fn text<'a>(section: &'a Section, option: &str) -> Option<&'a str> {
    section.get(option).and_then(|value| value.values().last()).map(String::as_str)
}

/// OpenWrt's booleans (config_get_bool).
fn is_on(section: &Section, option: &str) -> bool {
    matches!(text(section, option), Some("1" | "on" | "true" | "yes" | "enabled"))
}

/// Who serves DHCP and TFTP on this router.
fn services(dhcp: &[Section], problems: &mut Vec<Problem>) {
    for section in dhcp {
        let at = || place("dhcp", dhcp, section);
        if section.kind == "odhcpd" && is_on(section, "maindhcp") {
            let why = format!(
                "odhcpd serves DHCPv4 here and cannot send boot options: 'uci set piboot.main.dhcp=auto; uci commit piboot; reload_config' has piboot send them, 'uci set {0}.maindhcp=0; uci commit dhcp; reload_config' dnsmasq",
                at()
            );
            problems.push(problem(Severity::Error, format!("{}.maindhcp", at()), why));
        }
    }
    tftp(dhcp, problems);
    let instances = dhcp.iter().filter(|section| section.kind == "dnsmasq" && text(section, "disabled") != Some("1"));
    if instances.count() > 1 {
        let why =
            "there are several dnsmasq instances: all of them get piboot's sections, those for other networks too"
                .to_owned();
        problems.push(problem(Severity::Warning, "dhcp".to_owned(), why));
    }
}

fn tftp(dhcp: &[Section], problems: &mut Vec<Problem>) {
    let serves =
        |section: &&Section| section.kind == "dnsmasq" && is_on(section, "enable_tftp") && is_set(section, "tftp_root");
    for section in dhcp.iter().filter(serves) {
        let at = place("dhcp", dhcp, section);
        let why = format!(
            "dnsmasq serves TFTP itself and holds port 69: 'uci delete {at}.enable_tftp; uci commit dhcp; reload_config'"
        );
        problems.push(problem(Severity::Error, format!("{at}.enable_tftp"), why));
    }
}

/// Options of others that a Pi would get beside, or instead of, ours.
fn options(dhcp: &[Section], problems: &mut Vec<Problem>) {
    /// By client: as strong as ours, and the last one wins.
    const BY_CLIENT: [&str; 7] = ["mac", "match", "vendorclass", "userclass", "circuitid", "remoteid", "host"];
    for section in dhcp.iter().filter(|section| !is_ours(section)) {
        let at = || place("dhcp", dhcp, section);
        if section.kind == "dnsmasq" && is_set(section, "pxe_service") {
            let why = "Pis get this boot menu beside piboot's, and a Pi that takes the wrong one does not boot: give the menu to PCs only, with a tag (pxe_service 'tag:pcs,x86PC,…')".to_owned();
            problems.push(problem(Severity::Warning, format!("{}.pxe_service", at()), why));
        }
        if !BY_CLIENT.contains(&section.kind.as_str()) && section.kind != "tag" {
            continue;
        }
        for name in ["dhcp_option", "dhcp_option_force"] {
            let values = section.get(name).map(Value::values).unwrap_or_default();
            let numbers = ["43", "66", "option:tftp-server", "option:vendor-encap"];
            let is_boot = |value: &&String| {
                numbers.iter().any(|number| value.split_once(',').is_some_and(|(option, _)| option == *number))
            };
            if let Some(value) = values.iter().find(is_boot) {
                let why = format!(
                    "'{value}' takes the place of piboot's for the Pis that this section is about: see that there are none"
                );
                problems.push(problem(Severity::Warning, format!("{}.{name}", at()), why));
            }
        }
    }
}

/// Whether a section says how DHCP is served on this interface.
fn is_about(section: &Section, interface: &str) -> bool {
    section.kind == "dhcp" && text(section, "interface").or(section.name.as_deref()) == Some(interface)
}

/// The option by which such a section says that it is not.
fn turned_off(section: &Section) -> Option<&'static str> {
    if is_on(section, "ignore") {
        Some("ignore")
    } else if text(section, "dhcpv4") == Some("disabled") {
        Some("dhcpv4")
    } else {
        None
    }
}

/// Whether the interface has DHCP at all.
fn leases(dhcp: &[Section], interface: &str, problems: &mut Vec<Problem>) {
    let auto = "option dhcp 'auto' or 'proxy' if another server gives the addresses";
    let Some(section) = dhcp.iter().find(|section| is_about(section, interface)) else {
        let why = format!(
            "dnsmasq serves no DHCP on '{interface}': give it a 'config dhcp' section (LuCI: Network, Interfaces, DHCP Server), or set {auto}"
        );
        problems.push(problem(Severity::Error, "dhcp".to_owned(), why));
        return;
    };
    if let Some(option) = turned_off(section) {
        let at = place("dhcp", dhcp, section);
        let why = format!(
            "DHCP is turned off on '{interface}': 'uci delete {at}.{option}; uci commit dhcp; reload_config', or {auto}"
        );
        problems.push(problem(Severity::Error, format!("{at}.{option}"), why));
    }
}

fn address(network: &[Section], interface: &str, problems: &mut Vec<Problem>) {
    let named = |section: &&Section| section.kind == "interface" && section.name.as_deref() == Some(interface);
    let Some(proto) = network.iter().find(named).and_then(|section| text(section, "proto")) else { return };
    if proto != "static" {
        let why = format!(
            "'{interface}' has protocol '{proto}', so its address may change, and Pis that run lose their root when it does: use a static address"
        );
        problems.push(problem(Severity::Warning, format!("network.{interface}.proto"), why));
    }
}

/// Whether what Pis send reaches the router.
fn firewall(firewall: &[Section], interface: &str, ports: &[&str], problems: &mut Vec<Problem>) {
    let words = |section: &Section, option: &str| -> Vec<String> {
        let values = section.get(option).map(Value::values).unwrap_or_default();
        values.iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
    };
    let covers = |section: &&Section| {
        section.kind == "zone" && words(section, "network").iter().any(|network| network == interface)
    };
    let Some(zone) = firewall.iter().find(covers) else { return };
    let defaults =
        firewall.iter().find(|section| section.kind == "defaults").and_then(|section| text(section, "input"));
    let input = text(zone, "input").or(defaults).unwrap_or("REJECT");
    if input.eq_ignore_ascii_case("ACCEPT") {
        return;
    }
    let name = text(zone, "name").unwrap_or(interface);
    let opened = |port: &str| {
        firewall.iter().any(|section| {
            section.kind == "rule"
                && text(section, "src").is_some_and(|src| src == name || src == "*")
                && text(section, "target").is_some_and(|target| target.eq_ignore_ascii_case("ACCEPT"))
                && text(section, "enabled") != Some("0")
                && words(section, "dest_port").iter().any(|ports| contains(ports, port))
        })
    };
    let closed: Vec<&str> = ports.iter().copied().filter(|port| !opened(port)).collect();
    if !closed.is_empty() {
        let udp: String = ports.iter().filter(|port| **port == "67").map(|_| "UDP 67, ").collect();
        let why = format!(
            "the firewall keeps what devices in zone '{name}' send from this router: Pis need {udp}UDP 69, TCP 111 and TCP 2049 (closed: {}); add rules that accept them, or set the zone's input to ACCEPT",
            closed.join(", ")
        );
        problems.push(problem(Severity::Error, format!("{}.input", place("firewall", firewall, zone)), why));
    }
}

/// Whether a port, or a range such as `60-70`, is or contains this one.
fn contains(ports: &str, port: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    match (ports.split_once('-'), number(port)) {
        (Some((low, high)), Some(port)) => {
            number(low).zip(number(high)).is_some_and(|(low, high)| (low..=high).contains(&port))
        }
        _ => ports == port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::uci::parse;

    const DHCP: &str = "config dnsmasq\n\toption domain 'lan'\n\nconfig dhcp 'lan'\n\toption interface 'lan'\n\nconfig odhcpd 'odhcpd'\n\toption maindhcp '0'\n";
    const NETWORK: &str = "config interface 'lan'\n\toption proto 'static'\n";
    const FIREWALL: &str = "config defaults\n\toption input 'REJECT'\n\nconfig zone\n\toption name 'lan'\n\tlist network 'lan'\n\toption input 'ACCEPT'\n";

    fn found(dhcp: &str, network: &str, firewall: &str) -> Vec<String> {
        let parse = |text| parse(text).unwrap();
        let packages = Packages { dhcp: parse(dhcp), network: parse(network), firewall: parse(firewall) };
        find(&packages, &["lan".to_owned()]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_fresh_router_has_nothing_in_the_way() {
        assert_eq!(found(DHCP, NETWORK, FIREWALL), [""; 0]);
        let bridge = parse("config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n").unwrap();
        let packages = Packages { dhcp: parse(DHCP).unwrap(), network: bridge, ..Packages::default() };
        assert_eq!(find(&packages, &["br-lan".to_owned()]), []);
    }

    #[test]
    fn each_obstacle_is_found_where_it_stands() {
        let dhcp = |more: &str| format!("{DHCP}\n{more}");
        let cases: [(String, &str, &str, &str); 12] = [
            (DHCP.replace("maindhcp '0'", "maindhcp '1'"), NETWORK, FIREWALL, "dhcp.odhcpd.maindhcp: odhcpd serves"),
            (
                DHCP.replace("domain 'lan'", "enable_tftp '1'\n\toption tftp_root '/srv'"),
                NETWORK,
                FIREWALL,
                "dhcp.@dnsmasq[0].enable_tftp: dnsmasq serves TFTP",
            ),
            (dhcp("config dnsmasq 'guest'\n"), NETWORK, FIREWALL, "dhcp: there are several dnsmasq"),
            (
                DHCP.replace("option domain 'lan'", "list pxe_service 'x86PC,boot'"),
                NETWORK,
                FIREWALL,
                "dhcp.@dnsmasq[0].pxe_service: Pis get this",
            ),
            (
                dhcp("config vendorclass\n\toption networkid 'x'\n\tlist dhcp_option '66,192.168.1.9'\n"),
                NETWORK,
                FIREWALL,
                "dhcp.@vendorclass[0].dhcp_option: '66,192.168.1.9' takes",
            ),
            (
                dhcp("config tag 'x'\n\tlist dhcp_option '43,Raspberry'\n"),
                NETWORK,
                FIREWALL,
                "dhcp.x.dhcp_option: '43,Raspberry' takes",
            ),
            (
                DHCP.replace("option interface 'lan'", "option ignore '1'"),
                NETWORK,
                FIREWALL,
                "dhcp.lan.ignore: DHCP is turned off",
            ),
            (
                DHCP.replace("option interface 'lan'", "option dhcpv4 'disabled'"),
                NETWORK,
                FIREWALL,
                "dhcp.lan.dhcpv4: DHCP is turned off",
            ),
            (DHCP.replace("'lan'", "'guest'"), NETWORK, FIREWALL, "dhcp: dnsmasq serves no DHCP on 'lan'"),
            (
                DHCP.to_owned(),
                "config interface 'lan'\n\toption proto 'dhcp'\n",
                FIREWALL,
                "network.lan.proto: 'lan' has",
            ),
            (
                DHCP.to_owned(),
                NETWORK,
                "config zone\n\toption name 'lan'\n\toption network 'lan'\n\toption input 'DROP'\n",
                "firewall.@zone[0].input: the firewall keeps",
            ),
            (
                DHCP.to_owned(),
                NETWORK,
                "config zone\n\toption name 'iot'\n\tlist network 'lan'\n\nconfig rule\n\toption src 'iot'\n\toption dest_port '60-70 111'\n\toption target 'ACCEPT'\n",
                "(closed: 2049)",
            ),
        ];
        for (dhcp, network, firewall, expected) in &cases {
            let found = found(dhcp, network, firewall);
            assert!(matches!(&found[..], [only] if only.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn where_dnsmasq_is_not_the_server_the_proxy_is_needed_and_little_stands_in_its_way() {
        let packages = |dhcp: &str| Packages {
            dhcp: parse(dhcp).unwrap(),
            network: parse("config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n").unwrap(),
            firewall: parse("config zone\n\toption name 'lan'\n\toption network 'lan'\n").unwrap(),
        };
        for interface in ["lan", "br-lan"] {
            assert!(dnsmasq_serves(&packages(DHCP), interface));
            for (from, to) in [
                ("maindhcp '0'", "maindhcp '1'"),
                ("option interface 'lan'", "option ignore '1'"),
                ("option interface 'lan'", "option dhcpv4 'disabled'"),
                ("config dhcp 'lan'\n\toption interface 'lan'", "config dhcp 'guest'"),
                ("option domain 'lan'", "option disabled '1'"),
                ("config dnsmasq", "config other"),
            ] {
                let dhcp = DHCP.replace(from, to);
                assert_ne!(dhcp, DHCP);
                assert!(!dnsmasq_serves(&packages(&dhcp), interface), "{to}");
            }
        }
        let serves_tftp = DHCP.replace("domain 'lan'", "enable_tftp '1'\n\toption tftp_root '/srv'");
        let dhcp = serves_tftp.replace("option interface 'lan'", "option ignore '1'");
        let found: Vec<String> =
            find_for_proxy(&packages(&dhcp), &["br-lan".to_owned()]).iter().map(ToString::to_string).collect();
        assert!(
            matches!(&found[..], [tftp, wall] if tftp.starts_with("dhcp.@dnsmasq[0].enable_tftp: ") && wall.contains("(closed: 69, 111, 2049)")),
            "{found:#?}"
        );
    }

    #[test]
    fn what_does_not_reach_pis_is_left_alone() {
        let more = "config dhcp 'guest'\n\toption interface 'guest'\n\toption ignore '1'\n\nconfig host\n\toption name 'tv'\n\toption mac '00:11:22:33:44:55'\n\nconfig tag 'piboot_rpi'\n\tlist dhcp_option '43,x'\n\nconfig mac\n\tlist dhcp_option '143,x'\n";
        assert_eq!(found(&format!("{DHCP}\n{more}"), NETWORK, FIREWALL), [""; 0]);
        let open = "config zone\n\toption name 'iot'\n\toption network 'lan'\n\nconfig rule\n\toption src '*'\n\tlist dest_port '67'\n\tlist dest_port '69'\n\tlist dest_port '111'\n\tlist dest_port '2049'\n\toption target 'accept'\n";
        assert_eq!(found(DHCP, NETWORK, open), [""; 0]);
    }
}
