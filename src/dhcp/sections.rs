//! The sections of OpenWrt's `/etc/config/dhcp` that make dnsmasq give enrolled Pis, and nobody else, what they need.
//!
//! Pure. Ours are the sections whose names start with [`PREFIX`]; every other is somebody else's and stays as it is.
//!
//! A `tag` section carries the options, a `mac` section for each Pi gives it the tag, and a `host` section its name and a
//! lease for ever: a Pi whose root is on the network never renews one. Options go in as hexadecimal bytes, because a `tag`
//! section splits its values at blanks.

use std::net::Ipv4Addr;

use super::options::{boot_menu, hex};
use crate::config::uci::{Opt, Section, Value};
use crate::pi::Mac;

/// What the names of our sections start with.
pub const PREFIX: &str = "piboot_";
const TAG: &str = "piboot_rpi";
const BOOT: &str = "piboot_boot";

/// A Pi that is to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its hardware address.
    pub mac: Mac,
    /// Its name.
    pub hostname: String,
    /// The address that it is always to get; absent: any.
    pub ip: Option<Ipv4Addr>,
}

/// Whether a section is ours.
#[must_use]
pub fn is_ours(section: &Section) -> bool {
    section.name.as_deref().is_some_and(|name| name.starts_with(PREFIX))
}

/// Our sections as they should be beside those of others, for these Pis, booting from `server`. Without Pis there are none.
#[must_use]
pub fn wanted(package: &[Section], server: Ipv4Addr, clients: &[Client]) -> Vec<Section> {
    if clients.is_empty() {
        return Vec::new();
    }
    let others = without_ours(package);
    let leaks = boots_everybody(&others);
    let mut options = vec![format!("43,{}", hex(&boot_menu())), "60,PXEClient".to_owned()];
    // A `boot` section sends it as well, and twice is once too often.
    if !leaks {
        options.push(format!("66,{server}"));
    }
    let mut ours = vec![section("tag", TAG, &[("force", "1")], Some(("dhcp_option", options)))];
    if leaks {
        let server = server.to_string();
        let options =
            [("networkid", TAG), ("filename", "bootcode.bin"), ("servername", &server), ("serveraddress", &server)];
        ours.push(section("boot", BOOT, &options, None));
    }
    for client in clients {
        let (mac, compact) = (client.mac.to_string(), client.mac.to_string().replace(':', ""));
        ours.push(section("mac", &format!("{PREFIX}m_{compact}"), &[("networkid", TAG), ("mac", &mac)], None));
        if !has_host(&others, client.mac) {
            // dnsmasq does not start with an address that two hosts have: the admin's stays.
            let ip = client.ip.map(|ip| ip.to_string()).filter(|ip| !is_given(&others, ip));
            let mut options = vec![("name", client.hostname.as_str()), ("leasetime", "infinite")];
            options.extend(ip.as_deref().map(|ip| ("ip", ip)));
            ours.push(section("host", &format!("{PREFIX}h_{compact}"), &options, Some(("mac", vec![mac]))));
        }
    }
    ours
}

/// The package without anything of ours.
#[must_use]
pub fn without_ours(package: &[Section]) -> Vec<Section> {
    package.iter().filter(|section| !is_ours(section)).cloned().collect()
}

/// The lines that dnsmasq's init script makes of our sections: what to have dnsmasq check before it may see them.
#[must_use]
pub fn directives(package: &[Section]) -> String {
    let mut lines = String::new();
    for section in package.iter().filter(|section| is_ours(section)) {
        let get = |name: &str| section.get(name).map(Value::values).unwrap_or_default().join(",");
        match section.kind.as_str() {
            "tag" => {
                for option in section.get("dhcp_option").map(Value::values).unwrap_or_default() {
                    lines.push_str(&format!("dhcp-option-force=tag:{TAG},{option}\n"));
                }
            }
            "mac" => lines.push_str(&format!("dhcp-mac={},{}\n", get("networkid"), get("mac"))),
            "host" => {
                let address = if is_set(section, "ip") { format!("{},", get("ip")) } else { String::new() };
                lines.push_str(&format!("dhcp-host={},{address}{},{}\n", get("mac"), get("name"), get("leasetime")));
            }
            "boot" => lines.push_str(&format!(
                "dhcp-boot=tag:{TAG},{},{},{}\n",
                get("filename"),
                get("servername"),
                get("serveraddress")
            )),
            _ => {}
        }
    }
    lines
}

/// The lines that dnsmasq's init script makes of what others have set as raw text. It checks nothing, and one bad line keeps
/// dnsmasq from starting: a reload is no time to find that out.
#[must_use]
pub fn directives_of_others(package: &[Section]) -> String {
    let mut lines = String::new();
    let values = |section: &Section, option: &str| -> Vec<String> {
        match section.get(option) {
            // What is not a list, and all that is in a tag, is split at blanks.
            Some(Value::List(values)) if section.kind != "tag" => values.clone(),
            Some(value) => {
                value.values().iter().flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
            }
            None => Vec::new(),
        }
    };
    for section in package.iter().filter(|section| !is_ours(section)) {
        let text = |option: &str| section.get(option).and_then(|value| value.values().last()).cloned();
        // Of an interface without DHCP no line is made.
        if section.kind == "dhcp" && text("ignore").as_deref() == Some("1") {
            continue;
        }
        if let ("host", Some(ip)) = (section.kind.as_str(), text("ip")) {
            let macs: String = values(section, "mac")
                .iter()
                .flat_map(|mac| mac.split_whitespace())
                .map(|mac| format!("{mac},"))
                .collect();
            if !macs.is_empty() && ip != "ignore" {
                lines.push_str(&format!("dhcp-host={macs}{ip}\n"));
            }
        }
        let network = text("networkid");
        let prefix = match (section.kind.as_str(), &network) {
            ("dnsmasq", _) => Some(String::new()),
            ("dhcp", _) => text("networkid").or(text("interface")).map(|network| format!("{network},")),
            ("tag", _) => section.name.as_ref().map(|name| format!("tag:{name},")),
            ("mac" | "match" | "vendorclass" | "userclass" | "host", Some(network)) => Some(format!("{network},")),
            _ => None,
        };
        let Some(prefix) = prefix else { continue };
        let force = if text("force").as_deref() == Some("1") && section.kind != "mac" { "-force" } else { "" };
        for (option, force) in [("dhcp_option", force), ("dhcp_option_force", "-force")] {
            for value in values(section, option) {
                lines.push_str(&format!("dhcp-option{force}={prefix}{value}\n"));
            }
        }
        let Some(network) = network else { continue };
        match section.kind.as_str() {
            "mac" => lines.extend(text("mac").map(|mac| format!("dhcp-mac={network},{mac}\n"))),
            "match" => lines.extend(text("match").map(|what| format!("dhcp-match=set:{network},{what}\n"))),
            "vendorclass" => {
                lines.extend(text("vendorclass").map(|class| format!("dhcp-vendorclass=set:{network},{class}\n")));
            }
            _ => {}
        }
    }
    lines
}

/// Whether a boot server is named for all clients: it would reach Pis too, beside ours.
fn boots_everybody(package: &[Section]) -> bool {
    package.iter().any(|section| match section.kind.as_str() {
        "dnsmasq" => is_set(section, "dhcp_boot"),
        "boot" => !is_set(section, "networkid"),
        _ => false,
    })
}

/// Whether the admin has named this hardware address: that section is used as it is.
fn has_host(package: &[Section], mac: Mac) -> bool {
    let is_of = |section: &&Section| {
        let values = section.get("mac").map(Value::values).unwrap_or_default();
        // One `option` may hold several, with blanks between them.
        values.iter().flat_map(|value| value.split_whitespace()).any(|text| text.parse() == Ok(mac))
    };
    package.iter().filter(|section| section.kind == "host").any(|section| is_of(&section))
}

/// Whether the admin has given this address to a host.
fn is_given(package: &[Section], ip: &str) -> bool {
    let mut hosts = package.iter().filter(|section| section.kind == "host");
    hosts.any(|section| section.get("ip").is_some_and(|value| value.values().iter().any(|given| given == ip)))
}

pub(super) fn is_set(section: &Section, option: &str) -> bool {
    section.get(option).is_some_and(|value| value.values().iter().any(|value| !value.is_empty()))
}

fn section(kind: &str, name: &str, options: &[(&str, &str)], list: Option<(&str, Vec<String>)>) -> Section {
    let option =
        |(name, value): &(&str, &str)| Opt { name: (*name).to_owned(), value: Value::One((*value).to_owned()) };
    let mut options: Vec<Opt> = options.iter().map(option).collect();
    options.extend(list.map(|(name, values)| Opt { name: name.to_owned(), value: Value::List(values) }));
    Section { kind: kind.to_owned(), name: Some(name.to_owned()), options, span: 0..0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::replace_sections;
    use crate::config::uci::parse;

    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const FRESH: &str = "config dnsmasq\n\toption authoritative '1'\n\nconfig dhcp 'lan'\n\toption interface 'lan'\n";

    fn lion() -> Client {
        Client { mac: "dc:a6:32:79:26:df".parse().unwrap(), hostname: "running-lion".to_owned(), ip: None }
    }

    fn change(package: &str, clients: &[Client]) -> String {
        let ours = wanted(&parse(package).unwrap(), SERVER, clients);
        replace_sections("", is_ours, &ours).unwrap().unwrap_or_default()
    }

    #[test]
    fn a_pi_gets_a_tag_with_the_options_a_name_and_a_lease_for_ever() {
        assert_eq!(
            change(FRESH, &[lion()]),
            "config tag 'piboot_rpi'\n\
             \toption force '1'\n\
             \tlist dhcp_option '43,06:01:03:0a:04:00:50:58:45:09:17:00:00:14:52:61:73:70:62:65:72:72:79:20:50:69:20:42:6f:6f:74:20:20:20:ff'\n\
             \tlist dhcp_option '60,PXEClient'\n\
             \tlist dhcp_option '66,192.168.1.1'\n\n\
             config mac 'piboot_m_dca6327926df'\n\
             \toption networkid 'piboot_rpi'\n\
             \toption mac 'dc:a6:32:79:26:df'\n\n\
             config host 'piboot_h_dca6327926df'\n\
             \toption name 'running-lion'\n\
             \toption leasetime 'infinite'\n\
             \tlist mac 'dc:a6:32:79:26:df'\n"
        );
        assert_eq!(change(FRESH, &[]), "");
        let fixed = Client { ip: Some(Ipv4Addr::new(192, 168, 1, 50)), ..lion() };
        assert!(change(FRESH, std::slice::from_ref(&fixed)).contains("\toption ip '192.168.1.50'\n"));
        let lines = directives(&wanted(&parse(FRESH).unwrap(), SERVER, std::slice::from_ref(&fixed)));
        assert!(lines.contains("dhcp-host=dc:a6:32:79:26:df,192.168.1.50,running-lion,infinite\n"), "{lines}");
        let nas = format!("{FRESH}\nconfig host\n\toption mac '00:11:22:33:44:55'\n\toption ip '192.168.1.50'\n");
        assert!(!change(&nas, &[fixed]).contains("192.168.1.50"), "another's address");
    }

    #[test]
    fn what_is_ours_does_not_change_what_is_wanted() {
        let fresh = parse(FRESH).unwrap();
        let ours = wanted(&fresh, SERVER, &[lion()]);
        let both = [fresh.clone(), ours.clone()].concat();
        assert_eq!(wanted(&both, SERVER, &[lion()]), ours);
        assert_eq!(without_ours(&both), fresh);
    }

    #[test]
    fn the_admins_own_host_section_is_used_as_it_is() {
        for mac in [
            "\toption mac 'DC:A6:32:79:26:DF'\n",
            "\toption mac '00:11:22:33:44:55 dc:a6:32:79:26:df'\n",
            "\tlist mac 'dc:a6:32:79:26:df'\n",
        ] {
            let lines = change(&format!("{FRESH}\nconfig host\n\toption ip '192.168.1.7'\n{mac}"), &[lion()]);
            assert!(lines.contains("piboot_m_") && !lines.contains("piboot_h_"), "{mac} {lines}");
        }
    }

    #[test]
    fn a_boot_server_for_everybody_is_kept_from_pis() {
        for everybody in [
            "config dnsmasq\n\toption dhcp_boot 'pxelinux.0,,192.168.1.9'\n",
            "config boot 'pc'\n\toption filename 'pxelinux.0'\n",
        ] {
            let lines = change(everybody, &[lion()]);
            assert!(lines.contains("\toption serveraddress '192.168.1.1'\n"), "{lines}");
            assert!(!lines.contains("'66,"), "{lines}");
        }
        let tagged = "config boot 'pc'\n\toption filename 'x'\n\toption networkid 'pcs'\n";
        assert!(!change(tagged, &[lion()]).contains("piboot_boot"));
    }

    #[test]
    fn the_raw_text_of_others_becomes_the_lines_that_the_init_script_makes() {
        let package = parse(
            "config host\n\toption mac '00:11:22:33:44:55 00:11:22:33:44:56'\n\toption ip '192.168.1.9'\n\nconfig dhcp 'off'\n\toption interface 'off'\n\toption ignore '1'\n\tlist dhcp_option 'bad'\n\n\
             config dnsmasq\n\tlist dhcp_option '6,192.168.1.1'\n\nconfig dhcp 'lan'\n\toption interface 'lan'\n\tlist dhcp_option_force '43,\"a b\"'\n\n\
             config tag 'voip'\n\toption force '1'\n\tlist dhcp_option '66,a b'\n\nconfig mac\n\toption networkid 'x'\n\toption mac 'no-address'\n\toption force '1'\n\tlist dhcp_option '3,1.2.3.4'\n\n\
             config match\n\toption networkid 'y'\n\toption match '97,00'\n\nconfig host\n\toption name 'tv'\n",
        );
        let mut package = package.unwrap();
        package.extend(wanted(&package, SERVER, &[lion()]));
        assert_eq!(
            directives_of_others(&package),
            "dhcp-host=00:11:22:33:44:55,00:11:22:33:44:56,192.168.1.9\ndhcp-option=6,192.168.1.1\ndhcp-option-force=lan,43,\"a b\"\ndhcp-option-force=tag:voip,66,a\n\
             dhcp-option-force=tag:voip,b\ndhcp-option=x,3,1.2.3.4\ndhcp-mac=x,no-address\ndhcp-match=set:y,97,00\n"
        );
    }

    #[test]
    fn what_dnsmasq_is_to_check_is_what_it_will_get() {
        let lines = directives(&wanted(&parse("config boot\n\toption filename 'x'\n").unwrap(), SERVER, &[lion()]));
        assert_eq!(
            lines,
            "dhcp-option-force=tag:piboot_rpi,43,06:01:03:0a:04:00:50:58:45:09:17:00:00:14:52:61:73:70:62:65:72:72:79:20:50:69:20:42:6f:6f:74:20:20:20:ff\n\
             dhcp-option-force=tag:piboot_rpi,60,PXEClient\n\
             dhcp-boot=tag:piboot_rpi,bootcode.bin,192.168.1.1,192.168.1.1\n\
             dhcp-mac=piboot_rpi,dc:a6:32:79:26:df\n\
             dhcp-host=dc:a6:32:79:26:df,running-lion,infinite\n"
        );
    }
}
