//! IPv4 without options and fragments: all that boot firmware uses.

use std::net::Ipv4Addr;

/// Protocol number of UDP.
pub const UDP: u8 = 17;
const HEADER: usize = 20;

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// Too short, wrong version or impossible lengths.
    #[error("not an IPv4 packet")]
    Malformed,
    /// The header's checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    Checksum,
    /// A fragment. Boot firmware cannot reassemble, so a server that sends one has lost the file.
    #[error("IPv4 fragment")]
    Fragment,
}

/// One packet.
#[derive(Debug)]
pub struct Packet<'a> {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// The payload, without link-layer padding.
    pub payload: &'a [u8],
}

/// Reads a packet.
///
/// # Errors
/// See [`IpError`].
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, IpError> {
    let header = bytes.first_chunk::<HEADER>().ok_or(IpError::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < HEADER || total < header_len {
        return Err(IpError::Malformed);
    }
    let packet = bytes.get(..total).ok_or(IpError::Malformed)?;
    if checksum(&packet[..header_len], 0) != 0 {
        return Err(IpError::Checksum);
    }
    // More-fragments flag or an offset (RFC 791 §3.1); don't-fragment is fine.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(IpError::Fragment);
    }
    Ok(Packet {
        src: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        dst: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
        protocol: header[9],
        payload: &packet[header_len..],
    })
}

/// Writes a packet with identification 0 and no flags, as the boot ROM does.
pub fn build(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX);
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, ttl, protocol, 0, 0]);
    out.extend_from_slice(&src.octets());
    out.extend_from_slice(&dst.octets());
    let sum = checksum(&out, 0);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The Internet checksum (RFC 1071) over `bytes`, starting from the partial sum `start`.
pub fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // The loop above leaves at most 16 bits.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

    #[test]
    fn padding_is_cut_off_and_damage_noticed() {
        let mut bytes = build(A, B, UDP, 128, b"hello");
        bytes.extend_from_slice(&[0; 20]);
        let packet = parse(&bytes).unwrap();
        assert_eq!((packet.src, packet.dst, packet.protocol, packet.payload), (A, B, UDP, &b"hello"[..]));
        for i in 0..20 {
            let mut bad = bytes.clone();
            bad[i] ^= 0x10;
            assert!(parse(&bad).is_err(), "byte {i}");
        }
    }

    #[test]
    fn fragments_are_an_error_of_their_own() {
        for flags in [0x20_00u16, 0x00_01] {
            let mut bytes = build(A, B, UDP, 64, b"x");
            bytes[6..8].copy_from_slice(&flags.to_be_bytes());
            bytes[10..12].copy_from_slice(&[0, 0]);
            let sum = checksum(&bytes[..20], 0);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(parse(&bytes).unwrap_err(), IpError::Fragment);
        }
    }
}
