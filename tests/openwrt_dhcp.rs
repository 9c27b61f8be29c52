//! The agent on a router with OpenWrt's `uci` and dnsmasq: enrolled Pis get what they need, everybody else what they got
//! before, and in the end the configuration is what it was.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

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
