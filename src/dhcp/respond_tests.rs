use super::*;
use crate::dhcp::fingerprint;
use crate::net::packet::udp_payload;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const INTERFACE: u32 = 7;

/// What a board really sends.
fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/emupi/fixtures/discover-{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn at(ms: u64) -> Moment {
    Moment::new(Duration::from_millis(ms))
}

/// A script for a network where everything that has a fixture is enrolled.
fn script() -> Script {
    let orders = Orders::default();
    let names = ["3b", "3bplus", "4b", "5", "x86pxe", "laptop"];
    orders.set_enrolled(names.map(|name| fingerprint::read(&fixture(name)).unwrap().mac));
    orders.set_proxied([(INTERFACE, SERVER)]);
    Script::new(INTERFACE, orders)
}

fn hear(script: &mut Script, ms: u64, packet: &[u8]) {
    script.hear(at(ms), packet, &fingerprint::read(packet).unwrap());
}

/// Everything that is sent until a moment: when, whether it is an offer, and which quirks it tells of.
fn sent(script: &mut Script, until: u64) -> Vec<(u64, bool, Vec<&'static str>)> {
    let due = std::iter::from_fn(|| script.next(at(until)));
    let told = |due: &Due| due.notes.iter().map(|(quirk, _)| quirk.name()).collect();
    due.map(|due| (u64::try_from(due.at.since_start().as_millis()).unwrap(), due.is_offer, told(&due))).collect()
}

/// The offer of somebody else's server.
fn others_offer(discover: &[u8]) -> Vec<u8> {
    let mut offer = discover.to_vec();
    offer[0] = 2;
    offer[16..20].copy_from_slice(&[192, 168, 1, 50]);
    offer[242] = 2;
    offer
}

#[test]
fn a_pi_is_answered_at_once_by_a_packet_for_it_alone_and_a_pc_never() {
    let mut script = script();
    for name in ["3bplus", "4b", "5"] {
        let discover = fixture(name);
        hear(&mut script, 10, &discover);
        let due = script.next(at(10)).unwrap();
        assert_eq!(due.to, fingerprint::read(&discover).unwrap().mac);
        let offer = fingerprint::read(udp_payload(&due.packet).unwrap()).unwrap();
        assert_eq!((offer.kind, offer.tftp, offer.boot_menu), (DhcpKind::Offer, Some(SERVER), true), "{name}");
        assert_eq!(due.packet[12..20], [192, 168, 1, 1, 255, 255, 255, 255]);
        hear(&mut script, 20, &others_offer(&discover));
    }
    for name in ["x86pxe", "laptop"] {
        hear(&mut script, 10, &fixture(name));
    }
    assert_eq!(script.wait(at(20)), None);
}

#[test]
fn who_is_not_enrolled_or_on_another_interface_or_without_proxy_gets_nothing() {
    let change: [fn(&Orders); 3] = [
        |orders| orders.set_enrolled([]),
        |orders| orders.set_proxied([(INTERFACE + 1, SERVER)]),
        |orders| orders.set_proxied([]),
    ];
    for change in change {
        let mut script = script();
        change(&script.orders);
        for name in ["3b", "4b"] {
            hear(&mut script, 0, &fixture(name));
        }
        assert_eq!(sent(&mut script, 10_000), []);
    }
}

#[test]
fn the_rom_of_a_3b_is_answered_later_and_once_however_often_it_asks() {
    let mut script = script();
    let rom = fixture("3b");
    hear(&mut script, 0, &rom);
    hear(&mut script, 1000, &rom);
    assert_eq!(script.wait(at(1000)), Some(Duration::from_millis(500)));
    assert_eq!(sent(&mut script, 10_000), [(1500, true, vec!["menu_spaces", "reply_delay"])]);
    // The program that it loads is in no need of that.
    hear(&mut script, 10_000, &fixture("3b-bootcode"));
    assert_eq!(sent(&mut script, 10_000), [(10_000, true, vec![])]);

    script.orders.set_quirks_off(&[Quirk::ReplyDelay, Quirk::MenuSpaces]);
    hear(&mut script, 20_000, &rom);
    assert_eq!(sent(&mut script, 20_000), [(20_000, true, vec![])]);
}

#[test]
fn a_3b_is_woken_after_each_reply_but_not_for_ever() {
    let mut script = script();
    script.orders.set_proxied([]);
    let (rom, bootcode) = (fixture("3b"), fixture("3b-bootcode"));
    let burst = |from: u64| WAKE_UPS.map(|after| from + u64::try_from(after.as_millis()).unwrap());
    let moments = |sent: Vec<(u64, bool, Vec<&str>)>| sent.iter().map(|(ms, ..)| *ms).collect::<Vec<_>>();
    // Nobody has asked yet: the offer is not for a 3B that boots.
    hear(&mut script, 0, &others_offer(&bootcode));
    assert_eq!(sent(&mut script, 9000), []);
    hear(&mut script, 0, &rom);
    hear(&mut script, 100, &others_offer(&rom));
    hear(&mut script, 200, &others_offer(&rom));
    let woken = sent(&mut script, 9000);
    assert_eq!(woken[0].2, ["wake_up"]);
    assert!(woken[1..].iter().all(|(_, is_offer, told)| !is_offer && told.is_empty()));
    assert_eq!(moments(woken), burst(200), "after the second");
    // What it loads is the same board.
    hear(&mut script, 10_000, &bootcode);
    hear(&mut script, 10_000, &others_offer(&bootcode));
    assert_eq!(moments(sent(&mut script, 19_000)), burst(10_000));

    // Asking for ever gets it so many, and another boot as many again.
    let asked = |script: &mut Script, from: u64| -> usize {
        let each = |n: u64| {
            hear(script, from + n * 5000, &rom);
            hear(script, from + n * 5000, &others_offer(&rom));
            sent(script, from + n * 5000 + 4999).len()
        };
        (0..30).map(each).sum()
    };
    assert_eq!(asked(&mut script, 20_000), MAX_WAKE_UPS - 8);
    assert_eq!(asked(&mut script, 1_000_000), MAX_WAKE_UPS);

    // Its kernel is left alone, as is everybody by order.
    hear(&mut script, 2_000_000, &rom);
    let mut kernel = fixture("laptop");
    kernel[28..34].copy_from_slice(&rom[28..34]);
    hear(&mut script, 2_000_100, &kernel);
    hear(&mut script, 2_000_200, &others_offer(&rom));
    assert_eq!(sent(&mut script, 2_100_000), []);
    script.orders.set_quirks_off(&[Quirk::WakeUp]);
    hear(&mut script, 3_000_000, &rom);
    hear(&mut script, 3_000_000, &others_offer(&rom));
    assert_eq!(sent(&mut script, 3_100_000), []);
}

#[test]
fn made_up_addresses_do_not_grow_memory() {
    let mut script = script();
    let mut rom = fixture("3b");
    let macs = (0..5000_u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        Mac([0xb8, 0x27, 0xeb, 0, high, low])
    });
    script.orders.set_enrolled(macs.clone());
    for mac in macs {
        rom[28..34].copy_from_slice(&mac.0);
        hear(&mut script, 0, &rom);
        hear(&mut script, 0, &others_offer(&rom));
    }
    assert_eq!((script.due.len(), script.booting.len()), (MAX_DUE, MAX_BOOTING));
}
