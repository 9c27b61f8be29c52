//! What each personality says about itself in its DHCPDISCOVER, and which replies it believes.

use super::{Message, code, kind};
use crate::frame::Mac;
use crate::model::{Family, Model, Pi};
use std::net::Ipv4Addr;

/// The transaction id of every message from a boot ROM or `bootcode.bin` (653460281 in dnsmasq's log).
pub const ROM_XID: u32 = 0x26f3_0339;
/// What every Raspberry Pi claims to be, an x86 BIOS with PXE 2.1, though it is none (rpi-eeprom issue 182).
pub const PXE_CLASS: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
/// What a server must have in option 43, and what the 3B's ROM insists on: three spaces at the end.
pub const PI_BOOT: &[u8] = b"Raspberry Pi Boot";
const PI_BOOT_STRICT: &[u8] = b"Raspberry Pi Boot   ";

/// Which program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Mask ROM of a 3B.
    RomB,
    /// Mask ROM of a 3B+, or `bootcode.bin` on any board up to it.
    Bootcode,
    /// EEPROM bootloader of a Raspberry Pi 4 or 5.
    Eeprom,
    /// PC boot ROM.
    Pc,
    /// A laptop's operating system.
    Laptop,
}

impl Speaker {
    /// The program that speaks first on this model.
    pub fn first(model: Model) -> Speaker {
        match (model, model.family()) {
            (Model::Pi3B, _) => Speaker::RomB,
            (Model::Laptop, _) => Speaker::Laptop,
            (_, Family::Rom) => Speaker::Bootcode,
            (_, Family::Bcm2711 | Family::Bcm2712) => Speaker::Eeprom,
            (_, Family::Other) => Speaker::Pc,
        }
    }

    /// Its transaction id: constant for the ROM, from the MAC address for a PC, otherwise `random`.
    pub fn xid(self, mac: Mac, random: u32) -> u32 {
        let [_, _, c, d, e, f] = mac.0;
        match self {
            Speaker::RomB | Speaker::Bootcode => ROM_XID,
            Speaker::Pc => u32::from_be_bytes([c, d, e, f]),
            Speaker::Eeprom | Speaker::Laptop => random,
        }
    }

    fn parameters(self) -> Vec<u8> {
        let pxe = 128..=135;
        let mut list = Vec::new();
        match self {
            Speaker::RomB | Speaker::Bootcode => {
                list.extend([43, 60, 67]);
                list.extend(pxe);
                list.push(66);
                if self == Speaker::Bootcode {
                    list.extend([1, 3]);
                }
            }
            Speaker::Eeprom => {
                list.extend([1, 3, 43, 60, 66, 67]);
                list.extend(pxe);
            }
            Speaker::Pc => {
                list.extend([1, 2, 3, 4, 5, 6, 11, 12, 13, 15, 16, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58]);
                list.extend([59, 60, 66, 67, 97]);
                list.extend(pxe);
            }
            Speaker::Laptop => list.extend([1, 2, 6, 12, 15, 26, 28, 121, 3, 33, 40, 41, 42, 119, 249, 252, 17]),
        }
        list
    }

    /// The DHCPDISCOVER. Option order and length follow captures: 320 bytes for the 3B's ROM, 322 for the others.
    pub fn discover(self, pi: &Pi, xid: u32) -> Message {
        let message = Message::from_client(pi.mac, xid).with(code::MESSAGE_TYPE, [kind::DISCOVER]);
        self.describe(pi, message, true)
    }

    /// The DHCPREQUEST for an offer. An EEPROM bootloader leaves option 60 out of it (rpi-eeprom issues 82, 87).
    pub fn request(self, pi: &Pi, xid: u32, ip: Ipv4Addr, server: Ipv4Addr) -> Message {
        let message = Message::from_client(pi.mac, xid)
            .with(code::MESSAGE_TYPE, [kind::REQUEST])
            .with(code::REQUESTED_IP, ip.octets())
            .with(code::SERVER_ID, server.octets());
        self.describe(pi, message, self != Speaker::Eeprom)
    }

    fn describe(self, pi: &Pi, message: Message, class: bool) -> Message {
        let guid = if self == Speaker::RomB { rom_guid() } else { pi.guid() };
        match self {
            Speaker::Laptop => {
                let mut id = vec![1];
                id.extend_from_slice(&pi.mac.0);
                message
                    .with(code::CLIENT_ID, id)
                    .with(code::PARAMETER_LIST, self.parameters())
                    .with(code::MAX_SIZE, [5, 0xc0])
                    .with(code::HOST_NAME, *b"laptop")
            }
            Speaker::Pc => {
                let mut message = message;
                message.flags = 0x8000;
                message.secs = 4;
                message
                    .with(code::PARAMETER_LIST, self.parameters())
                    .with(code::MAX_SIZE, [4, 0xec])
                    .with(code::MACHINE_ID, guid)
                    .with(code::ARCHITECTURE, [0, 0])
                    .with(code::UNDI, [1, 2, 1])
                    .with(code::VENDOR_CLASS, PXE_CLASS)
            }
            Speaker::RomB | Speaker::Bootcode | Speaker::Eeprom => {
                let message = message
                    .with(code::PARAMETER_LIST, self.parameters())
                    .with(code::ARCHITECTURE, [0, 0])
                    .with(code::UNDI, [1, 2, 1])
                    .with(code::MACHINE_ID, guid);
                if class { message.with(code::VENDOR_CLASS, PXE_CLASS) } else { message }
            }
        }
    }

    /// Whether a reply says that this network boots Raspberry Pis: option 43 with the words, bare or in a PXE menu.
    pub fn sees_boot_menu(self, reply: &Message) -> bool {
        let words = if self == Speaker::RomB { PI_BOOT_STRICT } else { PI_BOOT };
        let Some(value) = reply.option(code::VENDOR_SPECIFIC) else { return false };
        value.windows(words.len()).any(|w| w == words)
    }

    /// The TFTP server a reply names, if it makes this speaker boot from it. `src` is the reply's sender.
    ///
    /// The 3B's ROM never looks at siaddr (firmware issue 801); the EEPROM takes option 66 or siaddr even without the
    /// menu (smee issue 23), and the reply's sender with it.
    pub fn tftp_server(self, reply: &Message, src: Ipv4Addr) -> Option<Ipv4Addr> {
        let menu = self.sees_boot_menu(reply);
        let named = reply.option(code::TFTP_SERVER).and_then(dotted);
        let next = Some(reply.siaddr).filter(|a| !a.is_unspecified());
        let sender = reply.address(code::SERVER_ID).unwrap_or(src);
        match self {
            Speaker::RomB if menu => Some(named.unwrap_or(sender)),
            Speaker::Bootcode if menu => Some(named.or(next).unwrap_or(sender)),
            Speaker::Eeprom if menu => Some(named.unwrap_or(sender)),
            Speaker::Eeprom => named.or(next),
            _ => None,
        }
    }
}

/// The 3B's ROM has no serial number to give.
fn rom_guid() -> [u8; 17] {
    let mut guid = [0x44; 17];
    guid[0] = 0;
    guid
}

/// Option 66 as text; a NUL that some servers append is cut off.
fn dotted(value: &[u8]) -> Option<Ipv4Addr> {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes dnsmasq makes of `pxe-service=0,"…"`: discovery control, prompt, menu.
    fn menu(words: &[u8]) -> Vec<u8> {
        let len = words.len() as u8;
        let mut value = vec![6, 1, 3, 10, 4, 0, 0x50, 0x58, 0x45, 9, len + 3, 0, 0, len];
        value.extend_from_slice(words);
        value.push(255);
        value
    }

    fn reply(option43: Vec<u8>) -> Message {
        let mut reply = Message::from_client(Mac([2; 6]), 1).with(code::VENDOR_SPECIFIC, option43);
        reply.op = 2;
        reply
    }

    const SRC: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const NEXT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
    const NAMED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

    #[test]
    fn only_the_3b_insists_on_three_spaces() {
        for (words, strict) in
            [(&b"Raspberry Pi Boot   "[..], true), (b"Raspberry Pi Boot", false), (b"Raspberry Pi Boot  ", false)]
        {
            for value in [words.to_vec(), menu(words)] {
                let reply = reply(value);
                assert_eq!(Speaker::RomB.sees_boot_menu(&reply), strict, "{words:?}");
                assert!(Speaker::Bootcode.sees_boot_menu(&reply));
                assert!(Speaker::Eeprom.sees_boot_menu(&reply));
            }
        }
        assert!(!Speaker::Eeprom.sees_boot_menu(&reply(menu(b"Raspberry Pi"))));
    }

    #[test]
    fn each_rom_has_its_own_idea_of_the_tftp_server() {
        let mut offer = reply(menu(b"Raspberry Pi Boot   "));
        for speaker in [Speaker::RomB, Speaker::Bootcode, Speaker::Eeprom] {
            assert_eq!(speaker.tftp_server(&offer, SRC), Some(SRC));
        }
        offer = offer.with(code::SERVER_ID, ID.octets());
        offer.siaddr = NEXT;
        assert_eq!(Speaker::RomB.tftp_server(&offer, SRC), Some(ID));
        assert_eq!(Speaker::Bootcode.tftp_server(&offer, SRC), Some(NEXT));
        assert_eq!(Speaker::Eeprom.tftp_server(&offer, SRC), Some(ID));
        offer = offer.with(code::TFTP_SERVER, *b"10.0.0.4\0");
        for speaker in [Speaker::RomB, Speaker::Bootcode, Speaker::Eeprom] {
            assert_eq!(speaker.tftp_server(&offer, SRC), Some(NAMED));
        }
        offer.options.retain(|(c, _)| *c == code::TFTP_SERVER);
        assert_eq!(Speaker::RomB.tftp_server(&offer, SRC), None);
        assert_eq!(Speaker::Bootcode.tftp_server(&offer, SRC), None);
        assert_eq!(Speaker::Eeprom.tftp_server(&offer, SRC), Some(NAMED));
        offer.options.clear();
        assert_eq!(Speaker::Eeprom.tftp_server(&offer, SRC), Some(NEXT));
        offer.siaddr = Ipv4Addr::UNSPECIFIED;
        assert_eq!(Speaker::Eeprom.tftp_server(&offer, SRC), None);
    }

    #[test]
    fn discovers_are_as_long_as_the_captured_ones() {
        let len = |speaker: Speaker, model| speaker.discover(&Pi::new(model, 0x5564_247d), 1).encode().len();
        assert_eq!(len(Speaker::RomB, Model::Pi3B), 320);
        assert_eq!(len(Speaker::Bootcode, Model::Pi3BPlus), 322);
        assert_eq!(len(Speaker::Eeprom, Model::Pi4B), 322);
    }

    #[test]
    fn an_eeprom_forgets_its_class_in_the_request() {
        let pi = Pi::new(Model::Pi4B, 1);
        assert!(Speaker::Eeprom.discover(&pi, 1).option(code::VENDOR_CLASS).is_some());
        let request = Speaker::Eeprom.request(&pi, 1, NEXT, ID);
        assert_eq!(request.option(code::VENDOR_CLASS), None);
        assert_eq!(request.address(code::REQUESTED_IP), Some(NEXT));
        assert_eq!(request.option(code::MACHINE_ID), Some(&pi.guid()[..]));
    }
}
