//! proxyDHCP (PXE 2.1 §2.2.3): where to boot from, for Pis that get their address from somebody else's DHCP server.
//!
//! Pure: a DHCP message in, the reply out. The reply's options are those that dnsmasq's proxy mode sends, in its order, since
//! every model of Pi is known to boot from them (raspberrypi/documentation, boot-net.adoc), and two more that name the TFTP
//! server: `siaddr` and option 66, which a Pi 4 may look for first (tinkerbell/smee issue 23).
//!
//! Pis never come back for more on port 4011, as a PC would: they send REQUEST, if at all, to whoever gave the address.
//! So only DISCOVER is answered: an ACK without an address would be a lie.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::Message as Request;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode};
use dhcproto::{Encodable, Encoder};

use super::fingerprint::{self, CLIENT_GUID};
use super::options::{boot_menu, boot_menu_without_spaces};
use crate::events::DhcpKind;

/// RFC 4578 §2.3: a type and sixteen bytes.
const GUID_LENGTH: usize = 17;
/// What a boot server calls itself (PXE 2.1 §2.2.3).
const CLASS: &[u8] = b"PXEClient";

/// The OFFER for a Pi's DISCOVER, if this is one: where to boot from, and no address. `server` is this machine as the Pi sees it.
///
/// `None` for everybody and everything else, PCs that boot by PXE and what came through a relay among them.
#[must_use]
pub fn offer(request: &[u8], server: Ipv4Addr, with_spaces: bool) -> Option<Vec<u8>> {
    let seen = fingerprint::read(request)?;
    if seen.kind != DhcpKind::Discover || !seen.netboot || seen.identity.is_none() {
        return None;
    }
    let request = Request::new(request).ok()?;
    // A reply at the link layer would not get back through a relay, and some Pis would not take it (boot-net.adoc).
    if !request.giaddr().is_unspecified() {
        return None;
    }
    let guid =
        request.opts().find(|option| u8::from(option.code()) == CLIENT_GUID).map(|option| option.data().to_vec());
    let none = Ipv4Addr::UNSPECIFIED;
    let mut reply = Message::new_with_id(seen.xid, none, none, server, none, &seen.mac.0);
    reply.set_opcode(Opcode::BootReply).set_flags(request.flags());
    let mut options = vec![
        DhcpOption::MessageType(MessageType::Offer),
        DhcpOption::ServerIdentifier(server),
        DhcpOption::ClassIdentifier(CLASS.to_vec()),
    ];
    options.extend(guid.filter(|guid| guid.len() == GUID_LENGTH).map(DhcpOption::ClientMachineIdentifier));
    options.push(DhcpOption::VendorExtensions(if with_spaces { boot_menu() } else { boot_menu_without_spaces() }));
    // Without a NUL at its end (RFC 2132 §9.4).
    options.push(DhcpOption::TFTPServerName(server.to_string().into_bytes()));
    options.push(DhcpOption::End);
    encode(&reply, &options)
}

/// One after the other: a map of options would sort them.
fn encode(message: &Message, options: &[DhcpOption]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(400);
    let mut encoder = Encoder::new(&mut bytes);
    message.encode(&mut encoder).ok()?;
    options.iter().try_for_each(|option| option.encode(&mut encoder)).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::options::hex;
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    /// What a board really sends.
    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/emupi/fixtures/discover-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        unhex(&std::fs::read_to_string(path).unwrap())
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The fixed part of a reply up to the magic cookie: transaction, flags, next server, hardware address.
    fn head(xid: &str, mac: &str) -> Vec<u8> {
        let mut head = unhex(&format!("02010600{xid}000000000000000000000000c0a8010100000000{mac}"));
        head.resize(236, 0);
        head
    }

    /// Options 60 and 43 as dnsmasq sends them, and 66.
    const CLASS_60: &str = "3c09505845436c69656e74";
    const MENU_43: &str = "2b230601030a0400505845091700001452617370626572727920506920426f6f74202020ff";
    const NAME_66: &str = "420b3139322e3136382e312e31";

    #[test]
    fn each_model_gets_these_bytes() {
        let models = [
            ("3b", "26f30339", "b827eb898158", "0044444444444444444444444444444444"),
            ("3b-bootcode", "26f30339", "b827eb898158", "0058818951588189515881895158818951"),
            ("3bplus", "26f30339", "b827ebef1e54", "00541eef06541eef06541eef06541eef06"),
            ("4b", "0a485863", "dca6322ef8ed", "00525069341131a000322ef8ed1045155b"),
            ("5", "0a485863", "d83adde8271e", "00525069357041c000dde8271ee19a98bd"),
        ];
        for (name, xid, mac, guid) in models {
            let options = format!("638253633501023604c0a80101{CLASS_60}6111{guid}{MENU_43}{NAME_66}ff");
            let expected = [head(xid, mac), unhex(&options)].concat();
            let offer = offer(&fixture(name), SERVER, true).unwrap();
            assert_eq!(hex(&offer), hex(&expected), "{name}");
        }
    }

    #[test]
    fn the_spaces_can_be_left_out() {
        let offer = offer(&fixture("4b"), SERVER, false).unwrap();
        let menu = unhex("2b200601030a0400505845091400001152617370626572727920506920426f6f74ff");
        assert!(offer.windows(menu.len()).any(|window| window == menu), "{offer:02x?}");
    }

    #[test]
    fn nobody_else_gets_anything() {
        for name in ["x86pxe", "laptop"] {
            assert_eq!(offer(&fixture(name), SERVER, true), None, "{name}");
        }
        let discover = fixture("4b");
        let changed = |at: usize, byte: u8| {
            let mut packet = discover.clone();
            packet[at] = byte;
            offer(&packet, SERVER, true)
        };
        assert!(changed(2, 6).is_some());
        assert_eq!(changed(0, 2), None, "a reply");
        assert_eq!(changed(24, 10), None, "through a relay");
        for kind in [2, 3, 5, 8] {
            assert_eq!(changed(242, kind), None, "message type {kind}");
        }
        // An operating system on a Pi wants an address.
        let at = discover.windows(9).position(|window| window == CLASS).unwrap();
        assert_eq!(changed(at, b'p'), None);
    }

    #[test]
    fn a_guid_of_another_length_is_not_echoed() {
        let mut discover = fixture("3b");
        let at = discover.windows(3).position(|window| window == [CLIENT_GUID, 17, 0]).unwrap();
        discover[at + 1] = 16;
        discover[at + 18] = 0;
        let offer = offer(&discover, SERVER, true).unwrap();
        assert!(!offer[240..].windows(2).any(|window| window == [CLIENT_GUID, 16]), "{offer:02x?}");
    }
}
