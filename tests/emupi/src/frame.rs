//! Ethernet II frames.

use std::fmt;
use std::str::FromStr;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;

const HEADER: usize = 14;
/// Shortest frame without its check sequence (IEEE 802.3 clause 4.2.3.3); shorter ones are padded with zeros.
const MIN_FRAME: usize = 60;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for broadcast and multicast addresses (group bit set).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a MAC address.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a MAC address; write it as b8:27:eb:12:34:56")]
pub struct NotAMac(String);

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let bad = || NotAMac(text.to_owned());
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().ok_or_else(bad)?;
            *byte = hex(part).ok_or_else(bad)?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Mac(mac)) }
    }
}

/// Two hexadecimal digits; `from_str_radix` alone would take a sign too.
fn hex(part: &str) -> Option<u8> {
    let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
}

/// One frame, its payload still with the padding of short frames.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// What the payload is.
    pub ethertype: u16,
    /// Everything after the header.
    pub payload: &'a [u8],
}

/// Reads a frame; `None` if it is shorter than a header.
pub fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let dst = Mac(*bytes.first_chunk::<6>()?);
    let src = Mac(*bytes.get(6..)?.first_chunk::<6>()?);
    let ethertype = u16::from_be_bytes(*bytes.get(12..)?.first_chunk::<2>()?);
    Some(Frame { dst, src, ethertype, payload: &bytes[HEADER..] })
}

/// Writes a frame, padded to the minimum length.
pub fn build(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((HEADER + payload.len()).max(MIN_FRAME));
    out.extend_from_slice(&dst.0);
    out.extend_from_slice(&src.0);
    out.extend_from_slice(&ethertype.to_be_bytes());
    out.extend_from_slice(payload);
    if out.len() < MIN_FRAME {
        out.resize(MIN_FRAME, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_in_both_spellings_and_nothing_else() {
        let mac: Mac = "b8:27:eb:12:34:56".parse().unwrap();
        assert_eq!(mac, "B8-27-EB-12-34-56".parse().unwrap());
        assert_eq!(mac.to_string(), "b8:27:eb:12:34:56");
        for bad in
            ["", "b8:27:eb:12:34", "b8:27:eb:12:34:56:78", "b8:27:eb:12:34:+5", "b827eb123456", "b8:27:eb:12:34:5g"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_frames_are_padded_and_too_short_ones_refused() {
        let bytes = build(Mac::BROADCAST, Mac([2; 6]), ETHERTYPE_ARP, &[1, 2, 3]);
        assert_eq!(bytes.len(), 60);
        let frame = parse(&bytes).unwrap();
        assert_eq!((frame.dst, frame.src, frame.ethertype), (Mac::BROADCAST, Mac([2; 6]), ETHERTYPE_ARP));
        assert_eq!(&frame.payload[..3], &[1, 2, 3]);
        for len in 0..14 {
            assert!(parse(&bytes[..len]).is_none());
        }
    }
}
