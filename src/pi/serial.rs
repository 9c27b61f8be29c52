//! Serial numbers, as far as they show on the wire.

use std::fmt;
use std::str::FromStr;

use super::Mac;
use super::text::serde_as_text;

/// The low 32 bits of a Pi's serial number: its default TFTP prefix, eight lower-case hex digits.
/// On a Pi 5 the high 32 bits vary too, but no boot stage sends them (rpi-eeprom issue 563).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub u32);

/// The text is no serial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a serial (eight hex digits as in 38c128c0: the last eight of the Serial line in /proc/cpuinfo)")]
pub struct ParseSerialError(pub String);

impl Serial {
    /// Reads exactly the form of a TFTP prefix: eight lower-case hex digits.
    #[must_use]
    pub fn from_prefix(text: &[u8]) -> Option<Self> {
        if text.len() != 8 || !text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        text.iter().try_fold(0_u32, |n, &b| Some(n << 4 | char::from(b).to_digit(16)?)).map(Self)
    }
}

impl Serial {
    /// Whether a Pi with this hardware address can have this serial. Up to the Pi 3+ the address is b8:27:eb and the low
    /// three bytes of the serial; later boards have no such relation.
    #[must_use]
    pub fn may_belong_to(self, mac: Mac) -> bool {
        let [_, low @ ..] = self.0.to_be_bytes();
        let [_, _, _, tail @ ..] = mac.0;
        !mac.follows_serial() || tail == low
    }
}

impl FromStr for Serial {
    type Err = ParseSerialError;

    /// Also takes the sixteen digits of `/proc/cpuinfo` and upper case: people paste what they see.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix("0x").unwrap_or(&lower).as_bytes();
        let low = match digits.len() {
            16 if digits.iter().all(u8::is_ascii_hexdigit) => &digits[8..],
            _ => digits,
        };
        Self::from_prefix(low).ok_or_else(|| ParseSerialError(text.to_owned()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Serial);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_prefix_and_cpuinfo_forms() {
        assert_eq!("38c128c0".parse::<Serial>().unwrap().to_string(), "38c128c0");
        assert_eq!("1000000038C128C0".parse::<Serial>().unwrap().to_string(), "38c128c0");
        assert_eq!("00000001".parse::<Serial>(), Ok(Serial(1)));
    }

    #[test]
    fn an_old_pis_address_ends_like_its_serial() {
        let mac: Mac = "b8:27:eb:c1:28:c0".parse().unwrap();
        assert!(Serial(0x38c1_28c0).may_belong_to(mac) && !Serial(0x38c1_28c1).may_belong_to(mac));
        assert!(Serial(7).may_belong_to("dc:a6:32:00:00:01".parse().unwrap()));
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "38c128c", "38c128c00", "38c128cg", "38c128c0/", "zz00000038c128c0"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
        assert_eq!(Serial::from_prefix(b"38C128C0"), None);
    }
}
