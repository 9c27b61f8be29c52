//! Is it a Pi, and which one? Read from a single DHCP packet.
//!
//! Pure: bytes in, observation out. What each model sends was collected from published captures; the document that
//! names most of it is raspberrypi/documentation, boot-net.adoc, and rpi-eeprom issues 74, 103 and 182.

use std::net::Ipv4Addr;

use dhcproto::v4::Opcode;
use dhcproto::v4::borrowed::Message;

use crate::events::{Dhcp, DhcpKind};
use crate::pi::{Evidence, Identity, Mac, Model, Revision, Serial};

/// The transaction id of the boot ROM of Pi 2B v1.2, 3 and CM3, the same in every boot.
const ROM_XID: u32 = 0x26f3_0339;
/// Option 97 of the Pi 3B's ROM: type 0 and sixteen times 0x44.
pub(super) const ROM_GUID: [u8; 16] = [0x44; 16];
/// What Pi menus are recognised by, in option 43 (boot-net.adoc).
pub const BOOT_MENU_TEXT: &[u8] = b"Raspberry Pi Boot";

// Option codes, RFC 2132 and RFC 4578.
const HOSTNAME: u8 = 12;
const VENDOR_EXTENSIONS: u8 = 43;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const CLASS_IDENTIFIER: u8 = 60;
const TFTP_SERVER_NAME: u8 = 66;
pub(super) const CLIENT_GUID: u8 = 97;

/// Longest host name kept from a packet (RFC 1035 §2.3.4).
const MAX_HOSTNAME: usize = 255;

/// Reads a BOOTP/DHCP message (the payload of a UDP packet). `None` if it is no DHCP over Ethernet.
#[must_use]
pub fn read(payload: &[u8]) -> Option<Dhcp> {
    let message = Message::new(payload).ok()?;
    // chaddr() reads hlen bytes unchecked; only Ethernet's six are of interest anyway.
    if message.hlen() != 6 {
        return None;
    }
    let mac = Mac(message.chaddr().try_into().ok()?);
    if !mac.is_device() {
        return None;
    }
    let mut found = Options::default();
    for option in message.opts() {
        found.take(option.code().into(), option.data());
    }
    let request = message.opcode() == Opcode::BootRequest;
    let netboot = found.class.as_deref().is_some_and(|class| class.starts_with(b"PXEClient"));
    let given = |ip: Ipv4Addr| (!ip.is_unspecified()).then_some(ip);
    let ip = if request { found.requested.or_else(|| given(message.ciaddr())) } else { given(message.yiaddr()) };
    Some(Dhcp {
        mac,
        kind: found.kind?,
        xid: message.xid(),
        ip,
        netboot,
        identity: if request { identify(mac, message.xid(), netboot, found.guid.as_deref()) } else { None },
        hostname: if request { found.hostname } else { None },
        server: found.server,
        boot_menu: !request && found.boot_menu,
        tftp: if request { None } else { found.tftp.or_else(|| given(message.siaddr())) },
    })
}

#[derive(Default)]
struct Options {
    kind: Option<DhcpKind>,
    class: Option<Box<[u8]>>,
    guid: Option<Box<[u8]>>,
    hostname: Option<Box<[u8]>>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    boot_menu: bool,
    tftp: Option<Ipv4Addr>,
}

impl Options {
    fn take(&mut self, code: u8, data: &[u8]) {
        let address = || <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        match code {
            MESSAGE_TYPE => self.kind = data.first().and_then(|&b| kind(b)),
            CLASS_IDENTIFIER => self.class = Some(data.into()),
            CLIENT_GUID => self.guid = Some(data.into()),
            HOSTNAME if data.len() <= MAX_HOSTNAME => self.hostname = Some(data.into()),
            REQUESTED_ADDRESS => self.requested = address(),
            SERVER_IDENTIFIER => self.server = address(),
            // Only an address in ASCII is of use to a Pi; some servers end it with a NUL.
            TFTP_SERVER_NAME => {
                let text = std::str::from_utf8(data).unwrap_or_default();
                self.tftp = text.trim_end_matches('\0').parse().ok();
            }
            VENDOR_EXTENSIONS => {
                self.boot_menu = data.windows(BOOT_MENU_TEXT.len()).any(|window| window == BOOT_MENU_TEXT);
            }
            _ => {}
        }
    }
}

/// RFC 2132 §9.6.
const fn kind(byte: u8) -> Option<DhcpKind> {
    Some(match byte {
        1 => DhcpKind::Discover,
        2 => DhcpKind::Offer,
        3 => DhcpKind::Request,
        4 => DhcpKind::Decline,
        5 => DhcpKind::Ack,
        6 => DhcpKind::Nak,
        7 => DhcpKind::Release,
        8 => DhcpKind::Inform,
        _ => return None,
    })
}

/// Strongest evidence first.
fn identify(mac: Mac, xid: u32, netboot: bool, guid: Option<&[u8]>) -> Option<Identity> {
    // RFC 4578 §2.3: type 0, then sixteen bytes.
    let guid: Option<&[u8; 16]> = guid.and_then(|g| g.strip_prefix(&[0])).and_then(|g| g.try_into().ok());
    if let Some(identity) = guid.and_then(|guid| eeprom_identity(mac, guid)) {
        return Some(identity);
    }
    let oui = mac.is_raspberry_pi_oui();
    let serial = guid.and_then(repeated_serial).filter(|serial| oui && serial.may_belong_to(mac));
    let rom = netboot && xid == ROM_XID;
    let evidence = match (rom, serial, oui) {
        (true, _, _) => Evidence::RomXid,
        (false, Some(_), _) => Evidence::SerialGuid,
        (false, None, true) => Evidence::Oui,
        (false, None, false) => return None,
    };
    let model = (rom && guid == Some(&ROM_GUID)).then_some(Model::Pi3);
    Some(Identity { mac, serial, revision: None, model, evidence })
}

/// The option 97 that EEPROM bootloaders send since 2020-03-04: FourCC, revision (little-endian), bytes 2–5 of the
/// MAC address, serial (little-endian). `DHCP_OPTION97` may replace the FourCC, so revision and MAC also count.
fn eeprom_identity(mac: Mac, guid: &[u8; 16]) -> Option<Identity> {
    let (fourcc, rest) = guid.split_at(4);
    let word = |at: usize| <[u8; 4]>::try_from(&rest[at..at + 4]).map(u32::from_le_bytes).ok();
    let revision = word(0).and_then(Revision::new);
    let mac_bytes = &rest[4..8];
    // Zero between 2020-03-04 and 2020-03-16 (rpi-eeprom issue 103).
    let mac_fits = mac_bytes == &mac.0[2..] || mac_bytes == [0; 4];
    let named = match fourcc {
        [b'R', b'P', b'i', b'4'] | [b'4', b'i', b'P', b'R'] => Some(Model::Pi4),
        [b'R', b'P', b'i', b'5'] | [b'5', b'i', b'P', b'R'] => Some(Model::Pi5),
        _ => None,
    };
    let family = fourcc.starts_with(b"RPi") || named.is_some();
    let shaped = revision.is_some() && mac_bytes == &mac.0[2..];
    if !(family || shaped) {
        return None;
    }
    let serial = word(8).filter(|serial| mac_fits && *serial != 0).map(Serial);
    let model = revision.and_then(|r| r.board().model).or(named);
    Some(Identity { mac, serial, revision: revision.filter(|_| mac_fits), model, evidence: Evidence::Guid })
}

/// Option 97 as the serial four times over.
fn repeated_serial(guid: &[u8; 16]) -> Option<Serial> {
    let (first, rest) = guid.split_first_chunk::<4>()?;
    let repeated = rest.chunks_exact(4).all(|chunk| chunk == first);
    (repeated && guid != &ROM_GUID).then(|| Serial(u32::from_le_bytes(*first)))
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
