//! ARP for IPv4 over Ethernet (RFC 826).

use crate::frame::Mac;
use std::net::Ipv4Addr;

/// Request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// One ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Request or reply.
    pub op: Op,
    /// Sender's hardware address.
    pub sender_mac: Mac,
    /// Sender's protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target's hardware address (zero in a request).
    pub target_mac: Mac,
    /// Target's protocol address.
    pub target_ip: Ipv4Addr,
}

/// Hardware type Ethernet, protocol IPv4, address lengths 6 and 4.
const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Reads a packet; `None` for anything but Ethernet/IPv4 requests and replies.
pub fn parse(bytes: &[u8]) -> Option<Packet> {
    let body = bytes.strip_prefix(&PREFIX)?;
    let (op, body) = body.split_first_chunk::<2>()?;
    let op = match u16::from_be_bytes(*op) {
        1 => Op::Request,
        2 => Op::Reply,
        _ => return None,
    };
    let (sender_mac, body) = body.split_first_chunk::<6>()?;
    let (sender_ip, body) = body.split_first_chunk::<4>()?;
    let (target_mac, body) = body.split_first_chunk::<6>()?;
    let target_ip = body.first_chunk::<4>()?;
    Some(Packet {
        op,
        sender_mac: Mac(*sender_mac),
        sender_ip: Ipv4Addr::from(*sender_ip),
        target_mac: Mac(*target_mac),
        target_ip: Ipv4Addr::from(*target_ip),
    })
}

/// Writes a packet.
pub fn build(packet: &Packet) -> Vec<u8> {
    let mut out = PREFIX.to_vec();
    out.extend_from_slice(&match packet.op {
        Op::Request => [0, 1],
        Op::Reply => [0, 2],
    });
    out.extend_from_slice(&packet.sender_mac.0);
    out.extend_from_slice(&packet.sender_ip.octets());
    out.extend_from_slice(&packet.target_mac.0);
    out.extend_from_slice(&packet.target_ip.octets());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_truncation_refused() {
        let packet = Packet {
            op: Op::Request,
            sender_mac: Mac([1; 6]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 2),
            target_mac: Mac([0; 6]),
            target_ip: Ipv4Addr::new(10, 0, 0, 1),
        };
        let bytes = build(&packet);
        assert_eq!(bytes.len(), 28);
        assert_eq!(parse(&bytes), Some(packet));
        for len in 0..28 {
            assert_eq!(parse(&bytes[..len]), None);
        }
    }
}
