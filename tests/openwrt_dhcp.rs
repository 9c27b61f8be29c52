//! The agent on a router with OpenWrt's `uci` and dnsmasq: enrolled Pis get what they need, everybody else what they got
//! before, and in the end the configuration is what it was.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

#[path = "support/openwrt/mod.rs"]
mod openwrt;

use emupi::{Model, Pi};
use openwrt::{Extra, Happening, LAN, OpenWrt};

const SERIAL: u64 = 0x1000_0000_5b15_4510;
/// The boot menu as dnsmasq's `pxe-service=0,"Raspberry Pi Boot   "` sends it.
const MENU: &[u8] = b"\x06\x01\x03\x0a\x04\x00PXE\x09\x17\x00\x00\x14Raspberry Pi Boot   \xff";
const DHCP: &str = "/etc/config/dhcp";

/// Waits until the agent has brought dnsmasq in line, and dnsmasq runs with that.
fn settled(router: &OpenWrt) {
    router.wait_until("the boot options", || router.said("dnsmasq has the boot options") > 0);
    router.procd.wait_until_settled();
}

/// What everybody but an enrolled Pi is offered.
fn others(router: &OpenWrt, link: &emupi::Link) -> Vec<Vec<u8>> {
    [Model::Laptop, Model::X86Pxe].map(|model| router.offer(link, &Pi::new(model, SERIAL)).bytes).to_vec()
}

fn own_sections(router: &OpenWrt) -> Vec<String> {
    let text = router.uci(&["export", "dhcp"]);
    text.lines().filter(|line| line.starts_with("config ") && line.contains("'piboot_")).map(str::to_owned).collect()
}

fn own_text(router: &OpenWrt) -> String {
    String::from_utf8(router.read(DHCP)).unwrap().split("\nconfig ").filter(|s| s.contains(" 'piboot_")).collect()
}

fn restarts(router: &OpenWrt) -> usize {
    router.happenings().iter().filter(|happening| matches!(happening, Happening::Started { .. })).count()
}

#[test]
fn every_model_gets_what_it_needs_and_others_what_they_got_before() {
    let models = [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5];
    let pis: Vec<Pi> = (0..).zip(models).map(|(n, model)| Pi::new(model, SERIAL + n)).collect();
    let devices: String = (0..)
        .zip(&pis)
        .map(|(n, pi)| format!("config device 'pi{n}'\n\toption mac '{}'\n\toption image 'none'\n", pi.mac))
        .collect();
    let mut router = OpenWrt::with(&Extra { piboot: &devices, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    let (original, before) = (router.read(DHCP), others(&router, &link));
    router.start_agent();
    settled(&router);
    for pi in &pis {
        let offer = router.offer(&link, pi);
        assert_eq!(offer.only(43).unwrap(), MENU, "{}", pi.model);
        assert_eq!(offer.only(60).unwrap(), b"PXEClient", "{}", pi.model);
        assert_eq!(offer.only(66).unwrap(), b"192.168.1.1\0", "{}", pi.model);
        assert_eq!(offer.message.siaddr, LAN, "{}", pi.model);
    }
    assert_eq!(others(&router, &link), before);

    // Those that never confirm an address are to have the one they were offered.
    let fixed = || own_text(&router).matches("option ip '192.168.1.").count();
    router.wait_until("addresses of two Pis", || fixed() == 2);
    settled(&router);

    // Once more, and nothing is to be done.
    let (text, started) = (router.read(DHCP), restarts(&router));
    router.config_changed("piboot");
    router.config_changed("dhcp");
    router.procd.wait_until_settled();
    router.wait_until("both to be taken in", || router.said("read again") >= 2);
    assert_eq!((router.read(DHCP), restarts(&router)), (text, started));

    // Disabled for good: as if there had never been anything.
    router.uci(&["set", "piboot.main.enabled=0"]);
    router.uci(&["commit", "piboot"]);
    router.config_changed("piboot");
    router.wait_until("the end of the agent", || router.said("stopping") > 0);
    router.procd.wait_until_settled();
    assert_eq!(String::from_utf8(router.read(DHCP)), String::from_utf8(original));
    assert_eq!(others(&router, &link), before);
}

const LION: &str = "config device 'lion'\n\toption mac 'dc:a6:32:01:02:03'\n\toption image 'none'\n";

fn lion() -> Pi {
    Pi { mac: "dc:a6:32:01:02:03".parse().unwrap(), ..Pi::new(Model::Pi4B, SERIAL) }
}

#[test]
fn uci_by_hand_and_what_an_admin_is_in_the_middle_of() {
    let host = "config host\n\toption name 'cub'\n\tlist mac 'dc:a6:32:01:02:04'\n\toption ip '192.168.1.60'\n";
    let mut router = OpenWrt::with(&Extra { dhcp: host, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    router.start_agent();
    assert_eq!(own_sections(&router), [""; 0]);

    // Not committed: it is neither taken along nor lost.
    router.uci(&["set", "dhcp.lan.leasetime=1h"]);
    router.uci(&["set", "piboot.main.sync=1"]);
    router.uci(&["commit", "piboot"]);
    router.uci(&["set", "piboot.main.unknown=ignore"]);
    router.uci_batch(
        "set piboot.lion=device\nset piboot.lion.mac='dc:a6:32:01:02:03'\nset piboot.lion.ip='192.168.1.50'\n\
         set piboot.lion.image='none'\nset piboot.cub=device\nset piboot.cub.mac='dc:a6:32:01:02:04'\n\
         set piboot.cub.image='none'\nset piboot.bad=device\nset piboot.bad.mac='nonsense'\nset piboot.bad.image='none'\n",
    );
    router.commit_and_reload("piboot");
    settled(&router);
    assert_eq!(
        own_sections(&router),
        [
            "config tag 'piboot_rpi'",
            "config mac 'piboot_m_dca632010203'",
            "config host 'piboot_h_dca632010203'",
            "config mac 'piboot_m_dca632010204'"
        ]
    );
    assert!(router.uci(&["changes", "dhcp"]).contains("dhcp.lan.leasetime='1h'"));
    assert!(!router.text(DHCP).contains("'1h'"));
    let offer = router.offer(&link, &lion());
    assert_eq!(offer.message.yiaddr.octets(), [192, 168, 1, 50]);
    assert_eq!(offer.message.address(51).map(u32::from), Some(u32::MAX), "a lease for ever");
    let cub = Pi { mac: "dc:a6:32:01:02:04".parse().unwrap(), ..lion() };
    assert_eq!(router.offer(&link, &cub).message.yiaddr.octets(), [192, 168, 1, 60], "as the admin has it");
    let check = router.piboot(&["check"]).unwrap_err();
    assert!(check.contains("piboot.bad.mac"), "{check}");

    // A section without a name behind ours, and a change of it that is not committed: it stays that section's.
    router.uci(&["add", "dhcp", "host"]);
    router.uci(&["set", "dhcp.@host[-1].ip=192.168.1.70"]);
    router.uci(&["commit", "dhcp"]);
    router.uci(&["set", "dhcp.@host[-1].name=rat"]);
    router.uci(&["set", "piboot.lion.ip=192.168.1.51"]);
    router.commit_and_reload("piboot");
    router.wait_until("the new address", || router.text(DHCP).contains("'192.168.1.51'"));
    assert_eq!(router.uci(&["get", "dhcp.@host[-1].ip"]).trim(), "192.168.1.70");
    assert_eq!(router.uci(&["get", "dhcp.@host[-1].name"]).trim(), "rat", "{}", router.uci(&["changes", "dhcp"]));

    router.uci(&["delete", "piboot.lion"]);
    router.commit_and_reload("piboot");
    router.wait_until("lion's sections to go", || !router.text(DHCP).contains("dca632010203"));
}

#[test]
fn a_renamed_pi_gets_its_new_name_and_a_disabled_one_nothing_of_ours() {
    let mut router = OpenWrt::with(&Extra { piboot: LION, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    router.start_agent();
    settled(&router);
    // A bootloader asks for no name; who asks is told this one, by DHCP and by DNS.
    assert!(router.dnsmasq_conf().contains("lion"), "{}", router.dnsmasq_conf());
    let edited = |args: &[&str]| {
        let restarts = restarts(&router);
        router.piboot(&[&["device", "edit", "lion"], args].concat()).unwrap();
        router.wait_until("dnsmasq to read it", || self::restarts(&router) > restarts);
        router.procd.wait_until_settled();
    };
    edited(&["--hostname", "tiger", "--ip", "192.168.1.51"]);
    let offer = router.offer(&link, &lion());
    let conf = router.dnsmasq_conf();
    let hosts: Vec<&str> = conf.lines().filter(|line| line.contains("dc:a6:32:01:02:03")).collect();
    assert!(hosts.iter().any(|line| line.contains("tiger")) && !conf.contains("lion"), "{hosts:?}");
    assert_eq!(offer.message.yiaddr.octets(), [192, 168, 1, 51]);
    assert!(offer.only(43).is_some());
    // It has just asked for an address, and counts as booting.
    edited(&["--disable", "--force"]);
    assert_eq!(own_text(&router), "");
    assert!(router.offer(&link, &lion()).only(43).is_none());
    assert!(router.text("/etc/config/piboot").contains("option hostname 'tiger'"));
}

#[test]
fn what_others_broke_is_not_brought_down_and_what_does_not_come_up_is_taken_back() {
    let mut router = OpenWrt::with(&Extra { piboot: LION, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    let laptop = Pi::new(Model::Laptop, SERIAL);
    // Committed, and not seen by dnsmasq yet.
    router.uci_batch("set dhcp.broken=mac\nset dhcp.broken.networkid=x\nset dhcp.broken.mac=no-address\n");
    router.uci(&["commit", "dhcp"]);
    let before = router.read(DHCP);
    router.start_agent();
    router.wait_until("the reason", || router.said("has something that dnsmasq refuses") > 0);
    assert!(router.piboot(&["check"]).unwrap_err().contains("left alone until that is mended"));
    router.offer(&link, &laptop);
    assert_eq!(router.read(DHCP), before);

    // What cannot be foreseen: dnsmasq does not come up, and what is ours is taken back.
    router.uci(&["delete", "dhcp.broken"]);
    router.uci(&["set", "dhcp.@dnsmasq[0].port=nonsense"]);
    router.uci(&["commit", "dhcp"]);
    let before = router.read(DHCP);
    router.agent().signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    router.wait_until("the way back", || router.said("so they were taken back") > 0);
    assert_eq!(String::from_utf8(router.read(DHCP)), String::from_utf8(before));
    let check = router.piboot(&["check"]).unwrap_err();
    assert!(check.contains("so they were taken back") && check.contains("dnsmasq.conf."), "{check}");
    router.procd.wait_until_settled();
    let started = restarts(&router);
    let read = router.said("read again");
    router.config_changed("piboot");
    router.wait_until("another look", || router.said("read again") > read);
    router.procd.wait_until_settled();
    assert_eq!(restarts(&router), started, "not tried again and again");

    router.uci(&["delete", "dhcp.@dnsmasq[0].port"]);
    router.commit_and_reload("dhcp");
    settled(&router);
    assert_eq!(router.offer(&link, &lion()).only(43).unwrap(), MENU);
    router.offer(&link, &laptop);
}

#[test]
fn a_rollback_is_followed_and_removal_leaves_nothing() {
    let mut router = OpenWrt::with(&Extra { piboot: LION, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    // With a comment from before UTF-8, at an end without a line end.
    let original = [&router.read(DHCP)[..], b"\n# M\xf6bel"].concat();
    std::fs::write(router.path(DHCP), &original).unwrap();
    router.start_agent();
    settled(&router);

    // LuCI takes back a whole file when nobody confirms a change.
    std::fs::write(router.path(DHCP), &original).unwrap();
    router.config_changed("dhcp");
    router.wait_until("the sections to be back", || own_sections(&router).len() == 3);
    router.wait_until("the boot menu to be back", || {
        router.offer(&link, &lion()).only(43).is_some_and(|menu| menu == MENU)
    });

    router.kill_agent();
    router.piboot(&["withdraw"]).unwrap_err();
    assert_eq!(String::from_utf8_lossy(&router.read(DHCP)), String::from_utf8_lossy(&original));
    assert_eq!(router.read(DHCP), original);
}

#[test]
fn enrolled_by_whatever_means_it_is_the_same_section_for_section() {
    let enrol: [fn(&OpenWrt); 3] = [
        |router| {
            let options = [
                "enroll",
                "--mac",
                "dc:a6:32:01:02:03",
                "--hostname",
                "lion",
                "--image",
                "small",
                "--ip",
                "192.168.1.50",
            ];
            router.piboot(&options).unwrap();
        },
        |router| {
            let request = serde_json::json!({ "mac": "dc:a6:32:01:02:03", "hostname": "lion", "image": "small",
                "ip": "192.168.1.50", "ubus_rpc_session": "00000000000000000000000000000000" });
            let answer = router.bus.call("piboot", "enroll", &request).unwrap();
            assert_eq!(answer["id"], "lion");
        },
        |router| {
            router.uci_batch(
                "set piboot.lion=device\nset piboot.lion.mac='dc:a6:32:01:02:03'\nset piboot.lion.ip='192.168.1.50'\n\
                 set piboot.lion.hostname='lion'\nset piboot.lion.image='small'\n",
            );
            router.commit_and_reload("piboot");
        },
    ];
    let ends = enrol.map(|enrol| {
        let mut router = OpenWrt::new();
        let image = support::image::small(router.net.scratch());
        router.start_agent();
        router.piboot(&["image", "import", image.to_str().unwrap(), "--name", "small"]).unwrap();
        enrol(&router);
        // Whoever enrolled it, procd hears of it.
        router
            .wait_for(0, |happening| matches!(happening, Happening::Event { data, .. } if data["package"] == "piboot"));
        settled(&router);
        router.wait_until("its trees", || router.json(&["status"])["devices_ready"] == 1);
        // As `uci` reads it: what it writes itself has another form than what was appended.
        (router.text(DHCP), router.uci(&["export", "piboot"]))
    });
    assert!(ends[0].0.contains("option ip '192.168.1.50'"), "{}", ends[0].0);
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0], ends[2]);
}

#[test]
fn what_is_in_the_way_is_named_with_its_cure() {
    let dhcp = "config dnsmasq 'second'\n\toption port '0'\n\toption enable_tftp '1'\n\toption tftp_root '/srv'\n\
                config vendorclass\n\toption networkid 'x'\n\toption vendorclass 'PXEClient'\n\tlist dhcp_option '66,192.168.1.9'\n";
    let mut router = OpenWrt::with(&Extra { dhcp, piboot: LION, ..Extra::default() });
    router.uci_batch(
        "set dhcp.odhcpd.maindhcp=1\nset dhcp.lan.ignore=1\nset network.lan.proto=dhcp\nset firewall.@zone[0].input=REJECT\n\
         add_list dhcp.@dnsmasq[0].pxe_service='x86PC,boot'\n\
         set piboot.main.dhcp=dnsmasq\ncommit\n",
    );
    router.start_agent();
    settled(&router);
    let check = router.piboot(&["check"]).unwrap_err();
    for finding in [
        "dhcp.odhcpd.maindhcp: odhcpd serves DHCPv4",
        "dhcp.second.enable_tftp: dnsmasq serves TFTP",
        "dhcp: there are several dnsmasq instances",
        "dhcp.@dnsmasq[0].pxe_service: Pis get this boot menu",
        "dhcp.@vendorclass[0].dhcp_option: '66,192.168.1.9'",
        "dhcp.lan.ignore: DHCP is turned off on 'lan'",
        "network.lan.proto: 'lan' has protocol 'dhcp'",
        "firewall.@zone[0].input: the firewall keeps",
    ] {
        assert!(check.contains(finding), "{finding}\n{check}");
    }
}

#[test]
fn where_odhcpd_serves_dhcp_piboot_is_a_proxy_and_dnsmasq_gets_back_what_it_had() {
    let mut router = OpenWrt::with(&Extra { piboot: LION, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    let status = |router: &OpenWrt| router.json(&["status"])["dhcp"].as_str().unwrap().to_owned();
    router.start_agent();
    settled(&router);
    assert_eq!(status(&router), "dnsmasq, by the sections piboot_* of /etc/config/dhcp");
    assert!(!router.offer(&link, &lion()).message.yiaddr.is_unspecified());

    router.uci(&["set", "dhcp.odhcpd.maindhcp=1"]);
    router.uci(&["set", "firewall.@zone[0].input=REJECT"]);
    router.uci(&["commit"]);
    router.config_changed("dhcp");
    router.wait_until("the proxy", || status(&router) == "proxy, because dnsmasq is not the DHCP server on lan");
    router.procd.wait_until_settled();
    assert_eq!(own_sections(&router), [""; 0]);
    // The only offer is ours: odhcpd is played by nobody here.
    let offer = router.offer(&link, &lion());
    assert!(offer.message.yiaddr.is_unspecified() && offer.message.siaddr == LAN, "{offer:?}");
    assert_eq!(offer.only(43).unwrap(), MENU);
    router.assert_no_offer(&link, &Pi::new(Model::X86Pxe, SERIAL));
    let check = router.piboot(&["check"]).unwrap_err();
    assert!(check.contains("firewall.@zone[0].input: ") && !check.contains("maindhcp"), "{check}");

    router.uci(&["set", "dhcp.odhcpd.maindhcp=0"]);
    router.commit_and_reload("dhcp");
    router.wait_until("dnsmasq's own offer with the boot menu", || {
        let offer = router.offer(&link, &lion());
        !offer.message.yiaddr.is_unspecified() && offer.only(43).is_some_and(|menu| menu == MENU)
    });
    router.kill_agent();
    router.piboot(&["withdraw"]).unwrap_err();
    assert_eq!(own_sections(&router), [""; 0]);
}

#[test]
fn a_new_address_is_followed_and_what_only_dnsmasq_dislikes_is_taken_back() {
    let mut router = OpenWrt::with(&Extra { piboot: LION, ..Extra::default() });
    let link = router.net.tap_link().unwrap();
    let original = router.read(DHCP);
    router.refuse(Some("piboot_"));
    router.start_agent();
    router.wait_until("the way back", || router.said("so they were taken back") > 0);
    router.procd.wait_until_settled();
    assert_eq!(String::from_utf8(router.read(DHCP)), String::from_utf8(original));
    assert!(router.dnsmasq_runs(), "{}", router.logs());
    router.offer(&link, &Pi::new(Model::Laptop, SERIAL));
    router.refuse(None);

    // With the address the plan is another one, and tried.
    router.set_lan_address([192, 168, 1, 2].into());
    settled(&router);
    router.wait_until("the new address", || router.text(DHCP).contains("'66,192.168.1.2'"));
    router.procd.wait_until_settled();
    assert_eq!(router.offer(&link, &lion()).only(66).unwrap(), b"192.168.1.2\0");
}
