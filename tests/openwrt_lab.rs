//! The tests' own OpenWrt router: whether it is one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

#[path = "openwrt/generator.rs"]
mod generator;
#[path = "support/openwrt/mod.rs"]
mod openwrt;

use std::fs;
use std::process::Command;

use emupi::{Model, Pi};
use openwrt::ubus::Served;
use openwrt::{Extra, Happening, LAN, OpenWrt, uci};
use serde_json::json;
use ubus_zero::UbusObject;
use ubus_zero::json::json_to_blobmsg;

const SERIAL: u64 = 0x1000_0000_5b15_4510;
/// The boot menu as it is sent: PXE discovery control, the prompt, and the menu's one entry.
const MENU: &[u8] = b"\x06\x01\x03\x0a\x04\x00PXE\x09\x17\x00\x00\x14Raspberry Pi Boot   \xff";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

#[test]
fn uci_keeps_what_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (config, save) = (dir.path().join("config"), dir.path().join("save"));
    for made in [&config, &save] {
        fs::create_dir(made).unwrap();
    }
    fs::write(config.join("dhcp"), "config dnsmasq\n\toption domain lan # a comment\n").unwrap();
    let uci = |args: &[&str]| {
        let mut command = Command::new(uci::program());
        let output = command.arg("-c").arg(&config).arg("-t").arg(&save).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let batch = dir.path().join("batch");
    let values = ["43,\"Raspberry Pi Boot   \"", "it's", "trailing  ", "#no comment", "two\nlines", "\\"];
    let quoted = |value: &str| format!("'{}'", value.replace('\'', "'\\''"));
    let mut commands = "set dhcp.piboot_rpi=mac\n".to_owned();
    for value in values {
        commands += &format!("add_list dhcp.piboot_rpi.dhcp_option={}\n", quoted(value));
    }
    fs::write(&batch, &commands).unwrap();
    uci(&["-f", batch.to_str().unwrap(), "batch"]);
    // Not committed yet: a change is kept aside, and seen by who looks there.
    assert!(!fs::read_to_string(config.join("dhcp")).unwrap().contains("piboot"));
    let check = || {
        let sections = uci::parse(&uci(&["-n", "export", "dhcp"]));
        assert_eq!(sections[0].name, "cfg01411c");
        assert_eq!(sections[0].get("domain"), "lan");
        assert_eq!((sections[1].name.as_str(), sections[1].kind.as_str()), ("piboot_rpi", "mac"));
        assert_eq!(sections[1].items("dhcp_option"), values);
    };
    check();
    uci(&["commit", "dhcp"]);
    assert_eq!(fs::read_dir(&save).unwrap().filter(|e| e.as_ref().unwrap().metadata().unwrap().len() > 0).count(), 0);
    check();
    let text = fs::read_to_string(config.join("dhcp")).unwrap();
    assert!(text.contains("\tlist dhcp_option 'it'\\''s'\n"), "{text}");
    assert!(uci(&["show", "dhcp.piboot_rpi.dhcp_option"]).contains("'it'\\''s' 'trailing  '"));
    assert_eq!(uci(&["get", "dhcp.@dnsmasq[0].domain"]), "lan\n");
}

#[test]
fn a_fresh_router_gives_addresses_and_nothing_to_boot_from() {
    let router = OpenWrt::new();
    assert!(router.dnsmasq_runs(), "{}", router.logs());
    assert!(router.dnsmasq_test().contains("syntax check OK"));
    let conf = router.dnsmasq_conf();
    assert!(conf.contains("\ndhcp-range=set:lan,192.168.1.100,192.168.1.249,255.255.255.0,12h\n"), "{conf}");

    let link = router.net.tap_link().unwrap();
    for model in [Model::Laptop, Model::X86Pxe, Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5] {
        let offer = router.offer(&link, &Pi::new(model, SERIAL));
        let [a, b, c, d] = offer.message.yiaddr.octets();
        assert!([a, b, c] == [192, 168, 1] && (100..250).contains(&d), "{model}: {offer:?}");
        assert_eq!(offer.message.address(54), Some(LAN), "{model}");
        for code in [43, 60, 66, 67] {
            assert_eq!(offer.only(code), None, "{model}, option {code}");
        }
    }
}

#[test]
fn a_tag_set_by_hand_reaches_the_pi_and_nobody_else() {
    let router = OpenWrt::new();
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, SERIAL);
    let others = [Model::Laptop, Model::X86Pxe].map(|model| Pi::new(model, SERIAL));
    let before = others.each_ref().map(|other| router.offer(&link, other).bytes);
    let seen = router.happenings().len();
    router.uci_batch(&format!(
        "set dhcp.piboot_rpi=tag\nset dhcp.piboot_rpi.force='1'\n\
         add_list dhcp.piboot_rpi.dhcp_option='43,{}'\n\
         add_list dhcp.piboot_rpi.dhcp_option='60,PXEClient'\n\
         add_list dhcp.piboot_rpi.dhcp_option='66,192.168.1.1'\n\
         set dhcp.piboot_m_1=mac\nset dhcp.piboot_m_1.networkid='piboot_rpi'\nset dhcp.piboot_m_1.mac='{}'\n",
        hex(MENU),
        pi.mac
    ));
    router.commit_and_reload("dhcp");
    assert_eq!(
        router.happenings()[seen..],
        [
            Happening::Event { kind: "config.change".into(), data: json!({ "package": "dhcp" }) },
            Happening::Started { instance: "cfg01411c".into(), runs: true },
        ]
    );
    let offer = router.offer(&link, &pi);
    assert_eq!(offer.only(43).unwrap(), MENU);
    assert_eq!(offer.only(60).unwrap(), b"PXEClient");
    assert_eq!(offer.only(66).unwrap(), b"192.168.1.1\0");
    assert_eq!(offer.message.siaddr, LAN);
    assert_eq!(before, others.each_ref().map(|other| router.offer(&link, other).bytes));

    // The same text again: dnsmasq goes on.
    router.config_changed("dhcp");
    router.procd.wait_until_settled();
    assert_eq!(router.happenings().last(), Some(&Happening::Kept { instance: "cfg01411c".into() }));
}

#[test]
fn a_broken_section_takes_dnsmasq_down_and_service_list_says_so() {
    let router = OpenWrt::new();
    let link = router.net.tap_link().unwrap();
    let laptop = Pi::new(Model::Laptop, SERIAL);
    // The admin's own file counts as well.
    fs::write(router.path("/etc/dnsmasq.conf"), "no-such-option\n").unwrap();
    let said = router.dnsmasq_test();
    assert!(said.contains("bad option at line 1 of /etc/dnsmasq.conf"), "{said}");
    fs::write(router.path("/etc/dnsmasq.conf"), "").unwrap();
    router.offer(&link, &laptop);
    router.break_dnsmasq();
    assert!(!router.dnsmasq_runs());
    let list = router.service("dnsmasq");
    let instance = &list["dnsmasq"]["instances"]["cfg01411c"];
    assert_eq!((&instance["running"], &instance["exit_code"]), (&json!(false), &json!(1)), "{list:#}");
    assert!(instance["pid"].is_null());
    assert!(router.logs().contains("error at line"), "{}", router.logs());
    router.assert_no_offer(&link, &laptop);
    assert_eq!(router.service("nosuch"), json!({}));

    router.mend_dnsmasq();
    assert!(router.dnsmasq_runs());
    router.offer(&link, &laptop);
}

#[test]
fn a_dnsmasq_that_does_not_take_what_looks_good() {
    let router = OpenWrt::new();
    router.refuse(Some("tag:piboot_"));
    assert!(router.dnsmasq_runs());
    router.uci_batch("set dhcp.piboot_rpi=tag\nadd_list dhcp.piboot_rpi.dhcp_option='60,PXEClient'\n");
    router.commit_and_reload("dhcp");
    assert!(!router.dnsmasq_runs());
    assert!(router.dnsmasq_test().contains("bad option"));
    router.uci(&["delete", "dhcp.piboot_rpi"]);
    router.commit_and_reload("dhcp");
    assert!(router.dnsmasq_runs() && router.dnsmasq_test().contains("syntax check OK"));
}

#[test]
fn a_global_boot_file_reaches_pis_unless_they_have_their_own() {
    let router = OpenWrt::new();
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, SERIAL);
    router.uci_batch(&format!(
        "set dhcp.@dnsmasq[0].dhcp_boot='pxelinux.0,nas,192.168.1.9'\n\
         set dhcp.piboot_m_1=mac\nset dhcp.piboot_m_1.networkid='piboot_rpi'\nset dhcp.piboot_m_1.mac='{}'\n",
        pi.mac
    ));
    router.commit_and_reload("dhcp");
    assert_eq!(router.offer(&link, &pi).message.siaddr.octets(), [192, 168, 1, 9]);
    router.uci_batch(
        "set dhcp.piboot_boot=boot\nset dhcp.piboot_boot.networkid='piboot_rpi'\n\
         set dhcp.piboot_boot.filename='bootcode.bin'\nset dhcp.piboot_boot.servername='192.168.1.1'\n\
         set dhcp.piboot_boot.serveraddress='192.168.1.1'\n",
    );
    router.commit_and_reload("dhcp");
    let offer = router.offer(&link, &pi);
    assert_eq!(offer.message.siaddr, LAN);
    assert_eq!(offer.only(66).unwrap(), b"192.168.1.1\0");
    assert_eq!(offer.only(67).unwrap(), b"bootcode.bin\0");
    let pc = router.offer(&link, &Pi::new(Model::X86Pxe, SERIAL));
    assert_eq!(pc.message.siaddr.octets(), [192, 168, 1, 9]);
}

#[test]
fn another_lan_address_and_a_file_nobody_can_read() {
    let router = OpenWrt::new();
    let link = router.net.tap_link().unwrap();
    let laptop = Pi::new(Model::Laptop, SERIAL);
    router.set_lan_address([10, 9, 8, 1].into());
    let offer = router.offer(&link, &laptop);
    assert_eq!(offer.message.yiaddr.octets()[..3], [10, 9, 8]);
    assert_eq!(offer.message.siaddr.octets(), [10, 9, 8, 1]);

    let good = router.read("/etc/config/dhcp");
    fs::write(router.path("/etc/config/dhcp"), "config dhcp 'lan\n").unwrap();
    router.config_changed("dhcp");
    router.procd.wait_until_settled();
    assert!(!router.dnsmasq_runs());
    fs::write(router.path("/etc/config/dhcp"), good).unwrap();
    let seen = router.happenings().len();
    router.config_changed("dhcp");
    router.wait_for(seen, |what| matches!(what, Happening::Started { runs: true, .. }));
    assert!(router.dnsmasq_runs());
}

#[test]
fn objects_of_a_tests_own() {
    let router = OpenWrt::new();
    let lan = Served::new(&router.bus, || {
        UbusObject::new("network.interface.lan")
            .method("status", |_| json_to_blobmsg(&json!({ "up": true, "l3_device": "br-lan" })))
    });
    let mut objects = router.bus.objects();
    objects.sort();
    assert_eq!(objects, ["network.interface.lan", "service"]);
    let status = router.bus.call("network.interface.lan", "status", &json!({})).unwrap();
    assert_eq!(status["l3_device"], "br-lan");
    drop(lan);
    router.wait_until("its end", || router.bus.objects() == ["service"]);
}

#[test]
fn several_instances_and_a_users_own_sections() {
    let dhcp = "config dnsmasq 'second'\n\toption port '0'\n\tlist interface 'guest'\n\toption noping '1'\n\
                config dhcp 'guest'\n\toption interface 'guest'\n\toption instance 'second'\n";
    let network = "config interface 'guest'\n\toption device 'br-guest'\n\toption proto 'static'\n\
                   \toption ipaddr '192.168.7.1/24'\n";
    let router = OpenWrt::with(&Extra { dhcp, network, ..Extra::default() });
    assert!(router.dnsmasq_runs(), "{}", router.logs());
    assert_eq!(router.instances(), ["cfg01411c", "second"]);
    let conf = router.text("/var/etc/dnsmasq.conf.second");
    assert!(conf.contains("interface=br-guest\n"), "{conf}");
    assert!(conf.contains("\ndhcp-range=set:guest,192.168.7.100,"), "{conf}");
    assert!(!router.text("/var/etc/dnsmasq.conf.cfg01411c").contains("set:guest"));
    router.uci(&["delete", "dhcp.second"]);
    router.commit_and_reload("dhcp");
    assert_eq!(router.happenings().iter().filter(|h| matches!(h, Happening::Ended { .. })).count(), 1);
    assert!(router.service("dnsmasq")["dnsmasq"]["instances"]["second"].is_null());
}

#[test]
fn the_agent_runs_there_and_is_told_of_changes() {
    let mut router = OpenWrt::new();
    router.start_agent();
    assert_eq!(router.service("piboot")["piboot"]["instances"]["piboot"]["pid"], router.agent().pid());
    assert!(router.json(&["status"]).is_object());
    let before = router.said("read again");
    router.uci(&["set", "piboot.main.unknown=ignore"]);
    router.commit_and_reload("piboot");
    assert!(router.happenings().contains(&Happening::Signalled));
    router.wait_until("an answer to SIGHUP", || router.said("read again") > before);
    assert!(router.text("/etc/config/piboot").contains("option unknown 'ignore'"));
    assert!(router.path("/mnt/ssd/piboot").is_dir());
    router.stop_agent();
    assert_eq!(router.service("piboot"), json!({}));
}
