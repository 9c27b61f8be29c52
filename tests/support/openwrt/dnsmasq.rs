//! What OpenWrt's init script for dnsmasq makes of `/etc/config/dhcp`: the configuration files dnsmasq is started with.
//!
//! Told anew from observed behaviour, as far as IPv4 DHCP and network boot go. The parts come out in the script's order.
//! Left out: DNS records, relays, IPv6, and lines that Debian's dnsmasq cannot take (`user=`, `enable-ubus=`).

use std::net::Ipv4Addr;

use super::uci::Section;

/// One dnsmasq, as procd has to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The name of its section.
    pub name: String,
    /// The content of `/var/etc/dnsmasq.conf.<name>`.
    pub conf: String,
    /// Its drop-in directory.
    pub confdir: String,
    /// What goes into `extraconfig.conf` there.
    pub extra: Option<String>,
}

impl Instance {
    /// Where the script writes its configuration.
    pub fn path(&self) -> String {
        format!("/var/etc/dnsmasq.conf.{}", self.name)
    }
}

/// Options of `config dnsmasq` that are switched on, and the directive of each.
const SWITCHES: [(&str, &str, bool); 16] = [
    ("authoritative", "dhcp-authoritative", false),
    ("domainneeded", "domain-needed", false),
    ("boguspriv", "bogus-priv", false),
    ("localise_queries", "localise-queries", false),
    ("expandhosts", "expand-hosts", false),
    ("nonegcache", "no-negcache", false),
    ("noresolv", "no-resolv", false),
    ("nonwildcard", "bind-dynamic", true),
    ("localservice", "local-service", false),
    ("logqueries", "log-queries", false),
    ("logdhcp", "log-dhcp", false),
    ("quietdhcp", "quiet-dhcp", false),
    ("noping", "no-ping", false),
    ("sequential_ip", "dhcp-sequential-ip", false),
    ("readethers", "read-ethers", false),
    ("tftp_no_fail", "tftp-no-fail", false),
];

/// Options of `config dnsmasq` with one value.
const VALUES: [(&str, &str); 11] = [
    ("port", "port"),
    ("local", "local"),
    ("domain", "domain"),
    ("cachesize", "cache-size"),
    ("leasefile", "dhcp-leasefile"),
    ("resolvfile", "resolv-file"),
    ("dhcpleasemax", "dhcp-lease-max"),
    ("logfacility", "log-facility"),
    ("tftp_unique_root", "tftp-unique-root"),
    ("dhcp_boot", "dhcp-boot"),
    ("pxe_prompt", "pxe-prompt"),
];

/// Lists of `config dnsmasq`, whose items reach the file byte for byte.
const LISTS: [(&str, &str); 9] = [
    ("server", "server"),
    ("address", "address"),
    ("rev_server", "rev-server"),
    ("listen_address", "listen-address"),
    ("addnhosts", "addn-hosts"),
    ("dhcphostsfile", "dhcp-hostsfile"),
    ("pxe_service", "pxe-service"),
    ("dhcp_option_force", "dhcp-option-force"),
    ("dhcp_option", "dhcp-option"),
];

/// The section types that set a tag for those who send something: type, directive, option with what they send.
const SENT: [(&str, &str, &str); 5] = [
    ("vendorclass", "dhcp-vendorclass", "vendorclass"),
    ("userclass", "dhcp-userclass", "userclass"),
    ("circuitid", "dhcp-circuitid", "circuitid"),
    ("remoteid", "dhcp-remoteid", "remoteid"),
    ("subscrid", "dhcp-subscrid", "subscrid"),
];

/// The configuration of every enabled instance, from the sections of the packages `dhcp` and `network`.
pub fn generate(dhcp: &[Section], network: &[Section]) -> Vec<Instance> {
    let enabled = dhcp.iter().filter(|s| s.kind == "dnsmasq" && !s.is("disabled", false));
    enabled.map(|own| Generator { dhcp, network, own, lines: String::new() }.run()).collect()
}

struct Generator<'a> {
    dhcp: &'a [Section],
    network: &'a [Section],
    own: &'a Section,
    lines: String,
}

impl<'a> Generator<'a> {
    fn add(&mut self, directive: &str, value: &str) {
        self.lines.push_str(directive);
        if !value.is_empty() {
            self.lines.push('=');
            self.lines.push_str(value);
        }
        self.lines.push('\n');
    }

    fn run(mut self) -> Instance {
        self.add("conf-file", "/etc/dnsmasq.conf");
        self.global();
        let name = self.own.name.clone();
        let confdir = self.own.some("confdir").unwrap_or_else(|| format!("/tmp/dnsmasq.{name}.d"));
        self.add("conf-dir", &confdir);
        self.each("host", Self::host);
        self.each("boot", Self::boot);
        self.each("mac", Self::mac);
        self.each("tag", Self::tag);
        for (kind, directive, sent) in SENT {
            self.each(kind, |own, section| own.sent(section, directive, sent));
        }
        self.each("match", |own, section| own.sent(section, "dhcp-match", "match"));
        self.each("dhcp", Self::range);
        let extra = self.own.some("extraconftext").map(|text| unescape(&text) + "\n");
        Instance { name, conf: self.lines, confdir, extra }
    }

    /// Goes through the sections of a type that are for this instance: those that name no other.
    fn each(&mut self, kind: &str, make: impl Fn(&mut Self, &'a Section)) {
        let own = &self.own.name;
        let mine = |s: &&Section| s.kind == kind && s.some("instance").is_none_or(|named| named == *own);
        for section in self.dhcp.iter().filter(mine) {
            make(self, section);
        }
    }

    fn global(&mut self) {
        let own = self.own;
        for (option, directive, default) in SWITCHES {
            if own.is(option, default) {
                self.add(directive, "");
            }
        }
        if own.is("rebind_protection", true) {
            self.add("stop-dns-rebind", "");
            if own.is("rebind_localhost", false) {
                self.add("rebind-localhost-ok", "");
            }
        }
        for (option, directive) in VALUES {
            if let Some(value) = own.some(option) {
                self.add(directive, &value);
            }
        }
        for (option, directive) in [("interface", "interface"), ("notinterface", "except-interface")] {
            for item in own.items(option) {
                let device = self.device(&item).unwrap_or(item);
                self.add(directive, &device);
            }
        }
        for (option, directive) in LISTS {
            for item in own.items(option) {
                self.add(directive, &item);
            }
        }
        if own.is("enable_tftp", false)
            && let Some(root) = own.some("tftp_root")
        {
            self.add("enable-tftp", "");
            self.add("tftp-root", &root);
        }
        self.add("dhcp-broadcast", "tag:needs-broadcast");
    }

    /// `dhcp_option` of a section, for those who have the tag.
    fn options(&mut self, section: &Section, tag: &str, force: bool) {
        let directive = if force { "dhcp-option-force" } else { "dhcp-option" };
        for item in section.items("dhcp_option") {
            self.add(directive, &format!("{tag},{item}"));
        }
    }

    /// A host cannot have tags alone: without address, name or host id nothing becomes of it.
    fn host(&mut self, host: &'a Section) {
        let (ip, name, hostid) = (host.get("ip"), host.get("name"), host.get("hostid"));
        if (ip.is_empty() && name.is_empty() && hostid.is_empty()) || !host.is("enable", true) {
            return;
        }
        let (macs, mut name) = (host.words("mac").join(","), name);
        let who = if macs.is_empty() { std::mem::take(&mut name) } else { macs };
        if who.is_empty() {
            return;
        }
        let mut parts: Vec<String> = host.words("match_tag").iter().map(|tag| format!("tag:{tag}")).collect();
        parts.push(who);
        let tag = host.get("networkid");
        let own = Some(tag.clone()).filter(|t| !t.is_empty());
        parts.extend(own.into_iter().chain(host.words("tag")).map(|tag| format!("set:{tag}")));
        if host.is("broadcast", false) {
            parts.push("set:needs-broadcast".into());
        }
        parts.extend([ip, name, host.get("leasetime")].into_iter().filter(|part| !part.is_empty()));
        self.add("dhcp-host", &parts.join(","));
        if !tag.is_empty() {
            self.options(host, &tag, host.is("force", false));
        }
    }

    fn boot(&mut self, boot: &'a Section) {
        let (file, name, address) = (boot.get("filename"), boot.get("servername"), boot.get("serveraddress"));
        if file.is_empty() || (name.is_empty() && !address.is_empty()) {
            return;
        }
        let tag = boot.get("networkid");
        let selector = if tag.is_empty() { String::new() } else { format!("tag:{tag}") };
        let parts = [selector, file, name, address].into_iter().filter(|part| !part.is_empty());
        self.add("dhcp-boot", &parts.collect::<Vec<_>>().join(","));
        if !tag.is_empty() {
            self.options(boot, &tag, boot.is("force", false));
        }
    }

    /// `force` is not looked at here.
    fn mac(&mut self, mac: &'a Section) {
        let (Some(tag), Some(address)) = (mac.some("networkid"), mac.some("mac")) else { return };
        self.add("dhcp-mac", &format!("{tag},{address}"));
        self.options(mac, &tag, false);
    }

    /// The name of the section is the tag, and the values are cut at blanks.
    fn tag(&mut self, tag: &'a Section) {
        let directive = if tag.is("force", false) { "dhcp-option-force" } else { "dhcp-option" };
        for word in tag.words("dhcp_option") {
            self.add(directive, &format!("tag:{},{word}", tag.name));
        }
    }

    fn sent(&mut self, section: &'a Section, directive: &str, sent: &str) {
        let (Some(tag), Some(value)) = (section.some("networkid"), section.some(sent)) else { return };
        self.add(directive, &format!("set:{tag},{value}"));
        self.options(section, &tag, section.is("force", false));
    }

    fn range(&mut self, dhcp: &'a Section) {
        let Some(interface) = dhcp.some("interface") else { return };
        let Some(device) = self.device(&interface) else { return };
        if dhcp.is("ignore", false) {
            self.add("no-dhcp-interface", &device);
            return;
        }
        let odhcpd_serves = self.dhcp.iter().any(|s| s.kind == "odhcpd" && s.is("maindhcp", false));
        let Some((address, mask)) = self.static_address(&interface) else { return };
        if odhcpd_serves || dhcp.get("dhcpv4") == "disabled" {
            return;
        }
        let network = u32::from(address) & u32::from(mask);
        let number = |option: &str, default: u32| dhcp.get(option).parse().unwrap_or(default);
        let start = network + number("start", 100);
        let end = start + number("limit", 150) - 1;
        let tag = dhcp.some("networkid").unwrap_or_else(|| interface.clone());
        let dynamic = dhcp.is("dynamicdhcp", true) && dhcp.is("dynamicdhcpv4", true);
        let end = if dynamic { Ipv4Addr::from(end).to_string() } else { "static".into() };
        let tags: String = dhcp.words("tag").iter().map(|tag| format!("tag:{tag},")).collect();
        let mask = dhcp.some("netmask").unwrap_or_else(|| mask.to_string());
        let lease = dhcp.some("leasetime").unwrap_or_else(|| "12h".into());
        let options = dhcp.some("options").map(|o| format!(" {o}")).unwrap_or_default();
        self.add("dhcp-range", &format!("{tags}set:{tag},{},{end},{mask},{lease}{options}", Ipv4Addr::from(start)));
        self.options(dhcp, &tag, false);
        for item in dhcp.items("dhcp_option_force") {
            self.add("dhcp-option-force", &format!("{tag},{item}"));
        }
    }

    fn interface(&self, name: &str) -> Option<&'a Section> {
        self.network.iter().find(|s| s.kind == "interface" && s.name == name)
    }

    /// The device of an interface, which the script asks netifd for.
    fn device(&self, interface: &str) -> Option<String> {
        self.interface(interface)?.some("device")
    }

    fn static_address(&self, interface: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let interface = self.interface(interface)?;
        let text = interface.words("ipaddr").into_iter().next()?;
        match text.split_once('/') {
            Some((address, len)) => {
                let len: u32 = len.parse().ok().filter(|len| (1..=32).contains(len))?;
                Some((address.parse().ok()?, (u32::MAX << (32 - len)).into()))
            }
            None => Some((text.parse().ok()?, interface.get("netmask").parse().ok()?)),
        }
    }
}

/// What `echo -e` makes of a text.
fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text.chars());
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('\\') | None => out.push('\\'),
                Some(other) => out.extend(['\\', other]),
            },
            (c, false) => out.push(c),
        }
    }
    out
}
