//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `8G`. `K`, `M`, `G` and `T` are powers of 1000, as everywhere else in piboot; `Ki`, `Mi`, `Gi` and `Ti`
/// of 1024. A `B` may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no size such as 8G, 7.5G, 500M or 8Gi")]
pub struct ParseSizeError(String);

/// Larger ones first.
const UNITS: [(&str, u64); 9] = [
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("K", 1000),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("", 1),
];

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let size = || -> Option<u64> {
            let trimmed = text.trim();
            let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
            let (number, unit) = trimmed.split_at(end);
            let unit = unit.trim_start();
            let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
            let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            if whole.is_empty() || part.is_empty() || part.len() > 9 || part.contains('.') {
                return None;
            }
            let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
            let part = u128::from(part.parse::<u64>().ok()?) * u128::from(factor)
                / 10_u128.pow(u32::try_from(part.len()).ok()?);
            whole.checked_add(u64::try_from(part).ok()?)
        };
        size().map(Self).ok_or_else(|| ParseSizeError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Size {
    /// Exactly, in the largest unit of which it is a multiple.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, again) in [
            ("8G", 8_000_000_000, "8G"),
            ("8g", 8_000_000_000, "8G"),
            ("8 GB", 8_000_000_000, "8G"),
            ("7.5G", 7_500_000_000, "7500M"),
            ("0.5T", 500_000_000_000, "500G"),
            ("8Gi", 8 << 30, "8Gi"),
            ("8GiB", 8 << 30, "8Gi"),
            ("1.5Ki", 1536, "1536"),
            ("500M", 500_000_000, "500M"),
            ("4096", 4096, "4Ki"),
            ("1000000001", 1_000_000_001, "1000000001"),
            ("0", 0, "0"),
            ("18446744073709551615", u64::MAX, "18446744073709551615"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, again), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for wrong in [
            "",
            "G",
            "-1",
            "8X",
            "8GG",
            "8.G",
            ".5G",
            "1.2.3G",
            "8Gib/s",
            "20000000T",
            "99999999999999999999",
            "1e9",
            "0.0000000001G",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
