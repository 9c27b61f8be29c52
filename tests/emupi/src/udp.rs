//! UDP over IPv4 (RFC 768).

use crate::ip;
use std::net::Ipv4Addr;

const HEADER: usize = 8;

/// Why a datagram was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// Too short or a length field that lies.
    #[error("not a UDP datagram")]
    Malformed,
    /// The checksum is wrong.
    #[error("wrong UDP checksum")]
    Checksum,
}

/// One datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// The payload.
    pub payload: &'a [u8],
}

/// Reads a datagram. With `verify` a checksum that is present must be right.
///
/// # Errors
/// See [`UdpError`].
pub fn parse(bytes: &[u8], src: Ipv4Addr, dst: Ipv4Addr, verify: bool) -> Result<Datagram<'_>, UdpError> {
    let header = bytes.first_chunk::<HEADER>().ok_or(UdpError::Malformed)?;
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let len = usize::from(field(4));
    if len < HEADER {
        return Err(UdpError::Malformed);
    }
    let datagram = bytes.get(..len).ok_or(UdpError::Malformed)?;
    if verify && field(6) != 0 && ip::checksum(datagram, pseudo_header(src, dst, field(4))) != 0 {
        return Err(UdpError::Checksum);
    }
    Ok(Datagram { src_port: field(0), dst_port: field(2), payload: &datagram[HEADER..] })
}

/// Writes a datagram; without `with_checksum` the field is 0, "no checksum".
pub fn build(
    (src, src_port): (Ipv4Addr, u16),
    (dst, dst_port): (Ipv4Addr, u16),
    payload: &[u8],
    with_checksum: bool,
) -> Vec<u8> {
    let len = u16::try_from(HEADER + payload.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(usize::from(len));
    for field in [src_port, dst_port, len, 0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out.extend_from_slice(payload);
    if with_checksum {
        // A computed 0 is sent as all ones: 0 means "none" (RFC 768).
        let sum = match ip::checksum(&out, pseudo_header(src, dst, len)) {
            0 => 0xffff,
            sum => sum,
        };
        out[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, len: u16) -> u32 {
    let half = |a: u8, b: u8| u32::from(u16::from_be_bytes([a, b]));
    let ([a, b, c, d], [e, f, g, h]) = (src.octets(), dst.octets());
    half(a, b) + half(c, d) + half(e, f) + half(g, h) + u32::from(ip::UDP) + u32::from(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    const B: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 4);

    #[test]
    fn checksums_are_optional_but_never_wrong() {
        let plain = build((A, 68), (B, 67), b"abc", false);
        assert_eq!(&plain[6..8], &[0, 0]);
        assert_eq!(parse(&plain, A, B, true).unwrap().payload, b"abc");
        let mut summed = build((A, 68), (B, 67), b"abc", true);
        assert_eq!(parse(&summed, A, B, true).unwrap().dst_port, 67);
        summed[8] ^= 1;
        assert_eq!(parse(&summed, A, B, true).unwrap_err(), UdpError::Checksum);
        assert!(parse(&summed, A, B, false).is_ok());
    }

    #[test]
    fn a_length_beyond_the_packet_is_refused() {
        let bytes = build((A, 1), (B, 2), &[7; 10], false);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len], A, B, false).unwrap_err(), UdpError::Malformed);
        }
    }
}
