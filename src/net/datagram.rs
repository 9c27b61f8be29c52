//! IP and UDP headers for payloads that came through ordinary sockets, so that they can be kept like packets from the wire.

use std::net::{IpAddr, SocketAddr};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A UDP packet from its IP header on, as it may have travelled: checksums fit, time to live and the like are usual ones.
/// `None` if the addresses are of two families, or the payload is too long.
#[must_use]
pub fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len().checked_add(UDP_HEADER)?).ok()?;
    let (mut packet, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = length.checked_add(20)?.to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            (header, [&from.octets()[..], &to.octets()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let size = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, size[0], size[1], UDP, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            (header, [&from.octets()[..], &to.octets()].concat())
        }
        _ => return None,
    };
    let mut udp = [from.port().to_be_bytes(), to.port().to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    let protocol_and_length = [&[0, UDP][..], &length.to_be_bytes()].concat();
    // Zero would mean that there is none (RFC 768).
    let sum =
        Some(checksum(&[&pseudo, &protocol_and_length, &udp, payload])).filter(|sum| *sum != 0).unwrap_or(u16::MAX);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);
    packet.extend(payload);
    Some(packet)
}

/// RFC 1071; each part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::udp_payload;

    #[test]
    fn a_packet_can_be_read_again_and_its_sums_fit() {
        let (from, to) = ("10.77.0.60:49152".parse().unwrap(), "10.77.0.1:69".parse().unwrap());
        let packet = udp_packet(from, to, b"odd").unwrap();
        assert_eq!(udp_payload(&packet), Some(&b"odd"[..]));
        // A sum over what includes the right checksum is zero.
        assert_eq!(checksum(&[&packet[..20]]), 0);
        let pseudo = [&packet[12..20], &[0, UDP, 0, 11]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);

        let (from, to) = ("[fd00::9]:49152".parse().unwrap(), "[fd00::1]:69".parse().unwrap());
        let packet = udp_packet(from, to, b"even").unwrap();
        assert_eq!((packet[0], packet.len(), &packet[4..6]), (0x60, 40 + 8 + 4, &[0, 12][..]));
        let pseudo = [&packet[8..40], &[0, UDP, 0, 12]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[40..]]), 0);
        assert_eq!(udp_packet(from, "10.77.0.1:69".parse().unwrap(), b""), None);
        assert_eq!(udp_packet(from, to, &vec![0; 70_000]), None);
    }
}
