//! Hardware addresses.

use std::fmt;
use std::str::FromStr;

use super::text::serde_as_text;

/// A 48-bit Ethernet address. Shown as `dc:a6:32:79:26:df`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a MAC address (six pairs of hex digits, as in dc:a6:32:79:26:df)")]
pub struct ParseMacError(pub String);

/// The block of all boards up to the Pi 3+, whose address is made from the serial.
const OLD_OUI: [u8; 3] = [0xb8, 0x27, 0xeb];

/// Address blocks registered by Raspberry Pi (Trading) Ltd. The weakest evidence there is: `MAC_ADDRESS` in a Pi's
/// EEPROM may set any other, and new blocks are bought. Source: the list in LTSP's dnsmasq template, 2025.
const RASPBERRY_PI_OUIS: [[u8; 3]; 7] = [
    OLD_OUI,
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

impl Mac {
    /// The address of everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address lies in a block registered by Raspberry Pi.
    #[must_use]
    pub fn is_raspberry_pi_oui(self) -> bool {
        RASPBERRY_PI_OUIS.iter().any(|oui| self.0.starts_with(oui))
    }

    /// Whether it is an address of a board up to the Pi 3+: its low three bytes are those of the serial.
    #[must_use]
    pub fn follows_serial(self) -> bool {
        self.0.starts_with(&OLD_OUI)
    }

    /// A unicast address that a device may have: not multicast, not all zero.
    #[must_use]
    pub fn is_device(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The form that `TFTP_PREFIX=2` makes a Pi ask with: `dc-a6-32-01-36-c2`.
    #[must_use]
    pub fn dashed(self) -> String {
        let [a, b, c, d, e, f] = self.0;
        format!("{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{f:02x}")
    }

    /// Reads exactly the dashed lower-case form of a TFTP prefix.
    #[must_use]
    pub fn from_dashed(text: &[u8]) -> Option<Self> {
        parse(text, b'-').filter(|mac| mac.dashed().as_bytes() == text)
    }
}

/// Six pairs of hex digits separated by `separator`.
fn parse(text: &[u8], separator: u8) -> Option<Mac> {
    if text.len() != 17 {
        return None;
    }
    let mut mac = [0; 6];
    for (i, byte) in mac.iter_mut().enumerate() {
        let at = i * 3;
        if i > 0 && text[at - 1] != separator {
            return None;
        }
        let high = char::from(text[at]).to_digit(16)?;
        let low = char::from(text[at + 1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(Mac(mac))
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        parse(bytes, b':').or_else(|| parse(bytes, b'-')).ok_or_else(|| ParseMacError(text.to_owned()))
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

serde_as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_separators_and_prints_colons() {
        for text in ["dc:a6:32:79:26:df", "DC:A6:32:79:26:DF", "dc-a6-32-79-26-df"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "dc:a6:32:79:26:df");
        }
    }

    #[test]
    fn refuses_what_is_no_mac() {
        for text in [
            "",
            "dc:a6:32:79:26",
            "dc:a6:32:79:26:dg",
            "dc:a6:32-79:26:df",
            "dca6327926df",
            "dc:a6:32:79:26:df:",
            "é:a6:32:79:26:d",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError(text.to_owned())));
        }
    }

    #[test]
    fn a_tftp_prefix_is_lower_case_and_dashed() {
        assert_eq!(Mac::from_dashed(b"dc-a6-32-01-36-c2"), Some(Mac([0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2])));
        assert_eq!(Mac::from_dashed(b"DC-A6-32-01-36-C2"), None);
        assert_eq!(Mac::from_dashed(b"dc:a6:32:01:36:c2"), None);
    }

    #[test]
    fn knows_raspberry_pis_blocks() {
        assert!(Mac([0xb8, 0x27, 0xeb, 1, 2, 3]).is_raspberry_pi_oui());
        assert!(!Mac([0x52, 0x54, 0x00, 1, 2, 3]).is_raspberry_pi_oui());
        assert!(!Mac::BROADCAST.is_device());
    }
}
