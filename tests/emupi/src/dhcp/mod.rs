//! DHCP (RFC 2131) as boot firmware speaks it: messages here, each personality's DISCOVER in [`discover`], its way to an
//! address in [`client`].

pub mod client;
pub mod discover;

use crate::frame::Mac;
use std::net::Ipv4Addr;

/// Option codes (RFC 2132, RFC 4578).
#[allow(missing_docs)]
pub mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const HOST_NAME: u8 = 12;
    pub const VENDOR_SPECIFIC: u8 = 43;
    pub const REQUESTED_IP: u8 = 50;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const ARCHITECTURE: u8 = 93;
    pub const UNDI: u8 = 94;
    pub const MACHINE_ID: u8 = 97;
}

/// Message types (option 53).
#[allow(missing_docs)]
pub mod kind {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
}

const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const PAD: u8 = 0;
const END: u8 = 255;

/// A message. Options keep their order; parts of one split over several (RFC 3396) are joined when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// 1 from a client, 2 from a server.
    pub op: u8,
    /// Relays passed.
    pub hops: u8,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Bit 15: please answer by broadcast.
    pub flags: u16,
    /// Client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// Address offered.
    pub yiaddr: Ipv4Addr,
    /// Next server.
    pub siaddr: Ipv4Addr,
    /// Relay.
    pub giaddr: Ipv4Addr,
    /// Client's Ethernet address.
    pub chaddr: Mac,
    /// Server name, without trailing zeros; empty when overloaded with options.
    pub sname: Vec<u8>,
    /// Boot file name, likewise.
    pub file: Vec<u8>,
    /// Options in order, without pad and end.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Message {
    /// A client's message without options.
    pub fn from_client(chaddr: Mac, xid: u32) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        Message {
            op: 1,
            hops: 0,
            xid,
            secs: 0,
            flags: 0,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            options: Vec::new(),
        }
    }

    /// Adds an option.
    pub fn with(mut self, code: u8, value: impl Into<Vec<u8>>) -> Message {
        self.options.push((code, value.into()));
        self
    }

    /// An option's value.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(c, _)| *c == code).map(|(_, value)| value.as_slice())
    }

    /// The message type (option 53), if it is one byte.
    pub fn kind(&self) -> Option<u8> {
        match self.option(code::MESSAGE_TYPE)? {
            [kind] => Some(*kind),
            _ => None,
        }
    }

    /// An option that holds one address (or a list: the first).
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code)?.first_chunk::<4>().map(|a| Ipv4Addr::from(*a))
    }

    /// The bytes of a message. The boot ROM pads nothing, and neither does this.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.op, 1, 6, self.hops];
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.chaddr.0);
        out.resize(44, 0);
        for (field, end) in [(&self.sname, 108), (&self.file, FIXED)] {
            out.extend(field.iter().take(end - out.len()));
            out.resize(end, 0);
        }
        out.extend_from_slice(&COOKIE);
        for (code, value) in &self.options {
            // RFC 3396: a value longer than 255 bytes is split.
            for part in value.chunks(255).chain(value.is_empty().then_some(&[][..])) {
                out.extend_from_slice(&[*code, part.len() as u8]);
                out.extend_from_slice(part);
            }
        }
        out.push(END);
        out
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DhcpError {
    /// Shorter than the fixed part.
    #[error("shorter than a BOOTP message")]
    Short,
    /// Not Ethernet, or without the magic cookie of RFC 2131.
    #[error("not a DHCP message for Ethernet")]
    Foreign,
    /// An option reaches beyond the end.
    #[error("option {0} is cut off")]
    Cut(u8),
}

/// Reads a message (the payload of a UDP datagram).
///
/// # Errors
/// See [`DhcpError`].
pub fn parse(bytes: &[u8]) -> Result<Message, DhcpError> {
    let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or(DhcpError::Short)?;
    let options_field = rest.strip_prefix(&COOKIE).ok_or(DhcpError::Foreign)?;
    if fixed[1..3] != [1, 6] {
        return Err(DhcpError::Foreign);
    }
    let word = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
    let mut options = Vec::new();
    read_options(options_field, &mut options)?;
    let (sname, file) = (&fixed[44..108], &fixed[108..]);
    // Option overload (RFC 2132 §9.3): 1 = file, 2 = sname, 3 = both hold options.
    let overload =
        options.iter().find(|(c, _)| *c == code::OVERLOAD).and_then(|(_, v)| v.first().copied()).unwrap_or(0);
    if overload & 1 != 0 {
        read_options(file, &mut options)?;
    }
    if overload & 2 != 0 {
        read_options(sname, &mut options)?;
    }
    let text = |field: &[u8], overloaded: bool| {
        let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
        if overloaded { Vec::new() } else { field[..end].to_vec() }
    };
    Ok(Message {
        op: fixed[0],
        hops: fixed[3],
        xid: u32::from_be_bytes(word(4)),
        secs: u16::from_be_bytes([fixed[8], fixed[9]]),
        flags: u16::from_be_bytes([fixed[10], fixed[11]]),
        ciaddr: word(12).into(),
        yiaddr: word(16).into(),
        siaddr: word(20).into(),
        giaddr: word(24).into(),
        chaddr: Mac([fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]]),
        sname: text(sname, overload & 2 != 0),
        file: text(file, overload & 1 != 0),
        options,
    })
}

fn read_options(mut bytes: &[u8], into: &mut Vec<(u8, Vec<u8>)>) -> Result<(), DhcpError> {
    while let Some((&code, rest)) = bytes.split_first() {
        match code {
            PAD => bytes = rest,
            END => break,
            _ => {
                let (&len, rest) = rest.split_first().ok_or(DhcpError::Cut(code))?;
                let (value, rest) = rest.split_at_checked(len.into()).ok_or(DhcpError::Cut(code))?;
                match into.iter_mut().find(|(known, _)| *known == code) {
                    Some((_, known)) => known.extend_from_slice(value),
                    None => into.push((code, value.to_vec())),
                }
                bytes = rest;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::from_client(Mac([2, 3, 4, 5, 6, 7]), 0x26f3_0339)
            .with(code::MESSAGE_TYPE, [kind::DISCOVER])
            .with(code::MACHINE_ID, [0x44; 17])
    }

    #[test]
    fn a_message_survives_the_wire() {
        let message = message();
        let bytes = message.encode();
        assert_eq!(bytes.len(), 240 + 3 + 19 + 1);
        assert_eq!(parse(&bytes).unwrap(), message);
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        let bytes = message().encode();
        for len in 0..bytes.len() {
            let _ = parse(&bytes[..len]);
        }
        assert_eq!(parse(&bytes[..235]).unwrap_err(), DhcpError::Short);
        assert_eq!(parse(&bytes[..245]).unwrap_err(), DhcpError::Cut(97));
        let mut bad = bytes;
        bad[237] ^= 1;
        assert_eq!(parse(&bad).unwrap_err(), DhcpError::Foreign);
    }

    #[test]
    fn long_options_are_split_and_joined_and_overload_is_followed() {
        let long = message().with(code::VENDOR_SPECIFIC, vec![7; 300]);
        assert_eq!(parse(&long.encode()).unwrap().option(code::VENDOR_SPECIFIC), Some(&[7; 300][..]));
        let mut overloaded = message().with(code::OVERLOAD, [1]);
        overloaded.file = vec![code::TFTP_SERVER, 3, b'a', b'b', b'c', END];
        let read = parse(&overloaded.encode()).unwrap();
        assert_eq!((read.option(code::TFTP_SERVER), read.file.as_slice()), (Some(&b"abc"[..]), &b""[..]));
    }
}
