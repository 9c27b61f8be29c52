//! The lab's dnsmasq configuration against what OpenWrt's init script was seen to make of the same sections.

use crate::openwrt::dnsmasq::{Instance, generate};
use crate::openwrt::uci;

const NETWORK: &str = "config interface 'lan'\n\toption device 'br-lan'\n\toption ipaddr '192.168.1.1'\n\
                       \toption netmask '255.255.255.0'\nconfig interface 'wan'\n\toption device 'eth1'\n";
const OWN: &str = "config dnsmasq 'main'\n";

fn instances(dhcp: &str) -> Vec<Instance> {
    generate(&uci::parse(dhcp), &uci::parse(NETWORK))
}

/// The lines that sections beside a bare `config dnsmasq` add.
fn added(sections: &str) -> Vec<String> {
    let lines = |dhcp: &str| -> Vec<String> {
        let [instance] = instances(dhcp).try_into().unwrap();
        instance.conf.lines().map(str::to_owned).collect()
    };
    let bare = lines(OWN);
    lines(&format!("{OWN}{sections}\n")).into_iter().filter(|line| !bare.contains(line)).collect()
}

/// The lines that options of `config dnsmasq` add.
fn global(options: &str) -> Vec<String> {
    added(options)
}

#[test]
fn a_bare_instance() {
    let [instance] = instances(OWN).try_into().unwrap();
    assert_eq!(instance.path(), "/var/etc/dnsmasq.conf.main");
    assert_eq!(instance.confdir, "/tmp/dnsmasq.main.d");
    let lines: Vec<&str> = instance.conf.lines().collect();
    // The file of the admin's own options first, the drop-in directory after the global ones.
    assert_eq!(lines[0], "conf-file=/etc/dnsmasq.conf");
    assert_eq!(lines[lines.len() - 2..], ["dhcp-broadcast=tag:needs-broadcast", "conf-dir=/tmp/dnsmasq.main.d"]);
}

#[test]
fn global_options() {
    assert_eq!(
        global(
            "\tlist dhcp_option '43,\"Raspberry Pi Boot   \"'\n\tlist dhcp_option_force '208,f1:00'\n\
             \tlist pxe_service 'tag:x,0,\"Raspberry Pi Boot   \"'\n\toption dhcp_boot 'pxelinux.0,pc,192.168.1.9'\n\
             \toption pxe_prompt 'Boot?,1'\n\toption logdhcp '1'\n\toption confdir '/tmp/dnsmasq.d'"
        ),
        [
            "log-dhcp",
            "dhcp-boot=pxelinux.0,pc,192.168.1.9",
            "pxe-prompt=Boot?,1",
            "pxe-service=tag:x,0,\"Raspberry Pi Boot   \"",
            "dhcp-option-force=208,f1:00",
            "dhcp-option=43,\"Raspberry Pi Boot   \"",
            "conf-dir=/tmp/dnsmasq.d",
        ]
    );
    // Without a root there is no TFTP.
    assert_eq!(global("\toption enable_tftp '1'"), [""; 0]);
    assert_eq!(
        global("\toption enable_tftp '1'\n\toption tftp_root '/srv/tftp'"),
        ["enable-tftp", "tftp-root=/srv/tftp"]
    );
    let [instance] = instances("config dnsmasq 'main'\n\toption extraconftext 'a=1\\nb=2'\n").try_into().unwrap();
    assert_eq!(instance.extra.as_deref(), Some("a=1\nb=2\n"));
    assert!(!instance.conf.contains("a=1"));
}

#[test]
fn a_range() {
    let lan = "config dhcp 'lan'\n\toption interface 'lan'\n\toption start '100'\n\toption limit '150'\n";
    assert_eq!(added(lan), ["dhcp-range=set:lan,192.168.1.100,192.168.1.249,255.255.255.0,12h"]);
    let options = "\toption dynamicdhcp '0'\n\toption leasetime '1h'\n\tlist tag 'known'\n\
                   \tlist dhcp_option '6,192.168.1.53'\n\tlist dhcp_option_force '66,nas'";
    assert_eq!(
        added(&format!("{lan}{options}")),
        [
            "dhcp-range=tag:known,set:lan,192.168.1.100,static,255.255.255.0,1h",
            "dhcp-option=lan,6,192.168.1.53",
            "dhcp-option-force=lan,66,nas",
        ]
    );
    assert_eq!(added("config dhcp 'wan'\n\toption interface 'wan'\n\toption ignore '1'"), ["no-dhcp-interface=eth1"]);
    assert_eq!(added(&format!("{lan}\toption dhcpv4 'disabled'")), [""; 0]);
    // odhcpd serves IPv4 as well.
    assert_eq!(added(&format!("{lan}config odhcpd 'odhcpd'\n\toption maindhcp '1'")), [""; 0]);
}

#[test]
fn a_tag_is_cut_at_blanks() {
    let tag = |value: &str, force: &str| {
        added(&format!("config tag 'pi'\n{force}\tlist dhcp_option '{value}'\n\tlist dhcp_option '60,PXEClient'"))
    };
    assert_eq!(tag("43,52:61", ""), ["dhcp-option=tag:pi,43,52:61", "dhcp-option=tag:pi,60,PXEClient"]);
    assert_eq!(
        tag("43,\"Raspberry Pi Boot   \"", "\toption force '1'\n"),
        [
            "dhcp-option-force=tag:pi,43,\"Raspberry",
            "dhcp-option-force=tag:pi,Pi",
            "dhcp-option-force=tag:pi,Boot",
            "dhcp-option-force=tag:pi,\"",
            "dhcp-option-force=tag:pi,60,PXEClient",
        ]
    );
}

#[test]
fn a_mac_has_no_force_and_keeps_blanks() {
    assert_eq!(
        added(
            "config mac 'm'\n\toption networkid 'pi'\n\toption mac 'dc:a6:32:*:*:*'\n\toption force '1'\n\
             \tlist dhcp_option '43,\"Raspberry Pi Boot   \"'\n\tlist dhcp_option_force '60,PXEClient'"
        ),
        ["dhcp-mac=pi,dc:a6:32:*:*:*", "dhcp-option=pi,43,\"Raspberry Pi Boot   \""]
    );
    assert_eq!(added("config mac 'm'\n\toption mac 'dc:a6:32:01:02:03'"), [""; 0]);
}

#[test]
fn what_a_client_sends() {
    assert_eq!(
        added(
            "config match 'm'\n\toption networkid 'pi'\n\toption match '97,00:52:50:69:34'\n\toption force '1'\n\
             \tlist dhcp_option '66,192.168.1.1'\n\
             config vendorclass 'v'\n\toption networkid 'pc'\n\toption vendorclass 'PXEClient'"
        ),
        // In the script's order, not in the file's.
        [
            "dhcp-vendorclass=set:pc,PXEClient",
            "dhcp-match=set:pi,97,00:52:50:69:34",
            "dhcp-option-force=pi,66,192.168.1.1"
        ]
    );
}

#[test]
fn a_host_needs_more_than_tags() {
    let host = |options: &str| added(&format!("config host 'h'\n\tlist mac 'dc:a6:32:01:02:03'\n{options}"));
    assert_eq!(host("\tlist tag 'pi'"), [""; 0]);
    assert_eq!(host("\toption name 'lion'\n\toption enable '0'"), [""; 0]);
    assert_eq!(
        host(
            "\tlist mac 'dc:a6:32:01:02:04'\n\toption networkid 'own'\n\tlist tag 'pi'\n\tlist tag 'red'\n\
             \tlist match_tag 'known'\n\toption broadcast '1'\n\toption ip '192.168.1.7'\n\toption name 'lion'\n\
             \toption leasetime '1h'\n\toption force '1'\n\tlist dhcp_option '66,nas'"
        ),
        [
            "dhcp-host=tag:known,dc:a6:32:01:02:03,dc:a6:32:01:02:04,set:own,set:pi,set:red,set:needs-broadcast,\
             192.168.1.7,lion,1h",
            "dhcp-option-force=own,66,nas",
        ]
    );
}

#[test]
fn a_boot_section_may_be_dropped() {
    let boot = |options: &str| added(&format!("config boot 'b'\n{options}"));
    assert_eq!(boot("\toption servername 'nas'"), [""; 0]);
    assert_eq!(boot("\toption filename 'x'\n\toption serveraddress '192.168.1.9'"), [""; 0]);
    assert_eq!(boot("\toption filename 'pxelinux.0'"), ["dhcp-boot=pxelinux.0"]);
    assert_eq!(
        boot(
            "\toption filename 'bootcode.bin'\n\toption servername '192.168.1.1'\n\
             \toption serveraddress '192.168.1.1'\n\toption networkid 'pi'"
        ),
        ["dhcp-boot=tag:pi,bootcode.bin,192.168.1.1,192.168.1.1"]
    );
}

#[test]
fn a_section_is_for_every_instance_unless_it_names_one() {
    let sections = "config dnsmasq 'a'\nconfig dnsmasq 'b'\nconfig dnsmasq 'off'\n\toption disabled '1'\n\
                    config boot\n\toption filename 'both'\n\
                    config boot\n\toption filename 'only-b'\n\toption instance 'b'\n";
    // `uci export -n` gives every section a name.
    let [a, b] = instances(&sections.replace("config boot\n", "config boot 'x'\n")).try_into().unwrap();
    let boots = |instance: &Instance| instance.conf.matches("dhcp-boot=").count();
    assert_eq!((boots(&a), boots(&b)), (1, 2));
    assert!(b.conf.contains("dhcp-boot=only-b\n"));
}

#[test]
fn the_order_of_the_parts() {
    let kinds = [
        ("dhcp", "\toption interface 'lan'\n"),
        ("match", "\toption networkid 't'\n\toption match '97,00'\n"),
        ("tag", "\tlist dhcp_option '66,x'\n"),
        ("mac", "\toption networkid 't'\n\toption mac 'dc:a6:32:*:*:*'\n"),
        ("boot", "\toption filename 'x'\n"),
        ("host", "\toption name 'lion'\n\toption ip '192.168.1.7'\n"),
    ];
    let sections: String = kinds.iter().map(|(kind, options)| format!("config {kind} 's'\n{options}")).collect();
    let lines = added(&sections);
    let directives: Vec<&str> = lines.iter().map(|line| line.split('=').next().unwrap()).collect();
    assert_eq!(directives, ["dhcp-host", "dhcp-boot", "dhcp-mac", "dhcp-option", "dhcp-match", "dhcp-range"]);
}
