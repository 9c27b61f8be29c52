//! The files of a freshly installed router (OpenWrt 24.10), as far as somebody here reads them.

use std::fs;
use std::path::Path;

use super::Extra;

const NETWORK: &str = "
config interface 'loopback'
	option device 'lo'
	option proto 'static'
	option ipaddr '127.0.0.1'
	option netmask '255.0.0.0'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'eth0'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	option ipaddr '192.168.1.1'
	option netmask '255.255.255.0'
	option ip6assign '60'

config interface 'wan'
	option device 'eth1'
	option proto 'dhcp'
";

// `noping` is ours: an address is not tried out for three seconds before it is offered.
const DHCP: &str = "
config dnsmasq
	option domainneeded '1'
	option boguspriv '1'
	option filterwin2k '0'
	option localise_queries '1'
	option rebind_protection '1'
	option rebind_localhost '1'
	option local '/lan/'
	option domain 'lan'
	option expandhosts '1'
	option nonegcache '0'
	option cachesize '1000'
	option authoritative '1'
	option readethers '1'
	option leasefile '/tmp/dhcp.leases'
	option resolvfile '/tmp/resolv.conf.d/resolv.conf.auto'
	option nonwildcard '1'
	option localservice '1'
	option ednspacket_max '1232'
	option filter_aaaa '0'
	option filter_a '0'
	option noping '1'

config dhcp 'lan'
	option interface 'lan'
	option start '100'
	option limit '150'
	option leasetime '12h'
	option dhcpv4 'server'
	option dhcpv6 'server'
	option ra 'server'
	option ra_slaac '1'
	list ra_flags 'managed-config'
	list ra_flags 'other-config'

config dhcp 'wan'
	option interface 'wan'
	option ignore '1'

config odhcpd 'odhcpd'
	option maindhcp '0'
	option leasefile '/tmp/hosts/odhcpd'
	option leasetrigger '/usr/sbin/odhcpd-update'
	option loglevel '4'
";

const FIREWALL: &str = "
config defaults
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option synflood_protect '1'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'
	option output 'ACCEPT'
	option forward 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	option input 'REJECT'
	option output 'ACCEPT'
	option forward 'REJECT'
	option masq '1'
	option mtu_fix '1'

config forwarding
	option src 'lan'
	option dest 'wan'
";

const PIBOOT: &str = "
config piboot 'main'
	option enabled '1'
	list interface 'lan'
	option data_dir '/mnt/ssd/piboot'
	option dhcp 'auto'
	option unknown 'ask'
";

/// Makes in `root` what the namespace takes its directories from.
pub fn write(root: &Path, extra: &Extra) {
    let directories = [
        "config",
        "keys",
        "sbin",
        "etc/config",
        "etc/piboot",
        "mnt/ssd/piboot",
        "tmp/etc",
        "tmp/lib/misc",
        "tmp/log",
        "tmp/resolv.conf.d",
        "tmp/run/dnsmasq",
        "tmp/run/ubus",
    ];
    for directory in directories {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let files = [
        ("config/network", NETWORK, extra.network),
        ("config/dhcp", DHCP, extra.dhcp),
        ("config/firewall", FIREWALL, extra.firewall),
        ("config/piboot", PIBOOT, extra.piboot),
        ("etc/dnsmasq.conf", "# Change this file if you want dnsmasq to have options that UCI does not.\n", ""),
        ("etc/ethers", "", ""),
        ("sbin/piboot", "", ""),
        ("tmp/resolv.conf.d/resolv.conf.auto", "", ""),
    ];
    for (name, text, extra) in files {
        fs::write(root.join(name), [text, "\n", extra].concat()).unwrap();
    }
    fs::copy(super::uci::program(), root.join("sbin/uci")).unwrap();
}
