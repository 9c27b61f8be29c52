//! Directory entries: short names, long names, times.

use crate::image::fields::{u16_at, u32_at};
use crate::storage::tree_writer::Time;

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatEntry {
    /// Long name if there is a valid one, otherwise the short one.
    pub name: String,
    /// Directory or file.
    pub directory: bool,
    /// Size in bytes, 0 for directories.
    pub size: u32,
    /// Last change. FAT keeps local time; images are built in UTC.
    pub mtime: Time,
    pub(super) cluster: u32,
}

const ENTRY: usize = 32;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
/// Where the thirteen UTF-16 units of a long-name entry lie.
const LONG_UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// The upper half of code page 437, which Linux assumes for short names.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A long name being collected; its parts come last first.
#[derive(Default)]
struct LongName {
    units: Vec<[u16; 13]>,
    checksum: u8,
    missing: u8,
}

/// Reads a directory's bytes.
pub(super) fn parse(data: &[u8]) -> Result<Vec<FatEntry>, &'static str> {
    let mut out = Vec::new();
    let mut long = LongName::default();
    for entry in data.chunks_exact(ENTRY) {
        let (first, attributes) = (entry[0], entry[11]);
        if first == 0 {
            break;
        }
        if first == 0xe5 {
            long = LongName::default();
            continue;
        }
        if attributes & 0x3f == ATTRIBUTE_LONG_NAME {
            long.take(entry);
            continue;
        }
        let long = std::mem::take(&mut long);
        if attributes & ATTRIBUTE_VOLUME != 0 || entry.starts_with(b".          ") || entry.starts_with(b"..         ")
        {
            continue;
        }
        let name = long.finish(&entry[..11]).unwrap_or_else(|| short_name(entry));
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err("an entry with an impossible name");
        }
        out.push(FatEntry {
            name,
            directory: attributes & ATTRIBUTE_DIRECTORY != 0,
            size: u32_at(entry, 28),
            mtime: time(u16_at(entry, 24), u16_at(entry, 22)),
            cluster: u32::from(u16_at(entry, 20)) << 16 | u32::from(u16_at(entry, 26)),
        });
    }
    Ok(out)
}

impl LongName {
    fn take(&mut self, entry: &[u8]) {
        let (order, checksum) = (entry[0], entry[13]);
        if order & 0x40 != 0 {
            *self = Self { units: Vec::new(), checksum, missing: order & 0x1f };
        } else if self.missing == 0 || order != self.missing || checksum != self.checksum {
            // Left over from a system that knows no long names.
            *self = Self::default();
            return;
        }
        // 255 units fit in twenty entries.
        if self.missing == 0 || self.missing > 20 {
            *self = Self::default();
            return;
        }
        self.units.push(LONG_UNITS.map(|at| u16_at(entry, at)));
        self.missing -= 1;
    }

    /// The name, if all its parts came and belong to this short name.
    fn finish(self, short: &[u8]) -> Option<String> {
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || self.missing != 0 || sum != self.checksum {
            return None;
        }
        let units: Vec<u16> = self.units.iter().rev().flatten().copied().take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units).ok()
    }
}

/// `README  TXT` is `README.TXT`; two bits say that base or extension were typed in lower case.
fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8], lower: bool| -> String {
        let decode = |byte: &u8| {
            let c = match usize::from(*byte) {
                high @ 128.. => CP437.chars().nth(high - 128).unwrap_or('_'),
                _ => char::from(*byte),
            };
            if lower { c.to_ascii_lowercase() } else { c }
        };
        let end = bytes.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
        bytes[..end].iter().map(decode).collect()
    };
    let mut base = entry[..8].to_vec();
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let (base, extension) = (text(&base, entry[12] & 0x08 != 0), text(&entry[8..11], entry[12] & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// Date (years since 1980, month, day) and time (two-second steps) of an entry.
fn time(date: u16, time: u16) -> Time {
    let (year, month, day) = (i64::from(date >> 9) + 1980, i64::from(date >> 5 & 15), i64::from(date & 31));
    if !(1..=12).contains(&month) || day == 0 {
        return Time::default();
    }
    // Days since 1970 by counting years from March, so that a leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    Time { seconds: days * 86400 + seconds, nanoseconds: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &[u8; 11], case: u8) -> Vec<u8> {
        let mut entry = vec![0; ENTRY];
        entry[..11].copy_from_slice(name);
        entry[12] = case;
        entry
    }

    fn long(order: u8, text: &str, name: &[u8; 11]) -> Vec<u8> {
        let mut entry = vec![0xff; ENTRY];
        (entry[0], entry[11]) = (order, ATTRIBUTE_LONG_NAME);
        entry[13] = name.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        for (at, unit) in LONG_UNITS.into_iter().zip(text.encode_utf16().chain([0])) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    }

    fn names(parts: &[Vec<u8>]) -> Vec<String> {
        parse(&parts.concat()).unwrap().into_iter().map(|e| e.name).collect()
    }

    #[test]
    fn long_names_need_every_part_and_the_right_checksum() {
        let name = b"BCM271~1DTB";
        let whole = [long(0x42, "cm4.dtb", name), long(1, "bcm2711-rpi-äö", name), short(name, 0)];
        // Thirteen units in the first part: the fourteenth would be cut.
        assert_eq!(names(&whole), ["bcm2711-rpi-äcm4.dtb"]);
        assert_eq!(names(&whole[1..]), ["BCM271~1.DTB"]);
        assert_eq!(names(&[whole[0].clone(), whole[1].clone(), short(b"OTHER   DTB", 0)]), ["OTHER.DTB"]);
        assert_eq!(names(&[whole[0].clone(), short(name, 0)]), ["BCM271~1.DTB"]);
    }

    #[test]
    fn short_names_keep_their_case_and_code_page() {
        assert_eq!(names(&[short(b"README  TXT", 0)]), ["README.TXT"]);
        assert_eq!(names(&[short(b"README  TXT", 0x18)]), ["readme.txt"]);
        assert_eq!(names(&[short(b"README  TXT", 0x08)]), ["readme.TXT"]);
        assert_eq!(names(&[short(b"\x81BC     \x94  ", 0)]), ["üBC.ö"]);
        assert_eq!(names(&[short(b"\x05BC        ", 0)]), ["σBC"]);
        assert_eq!(CP437.chars().count(), 128);
    }

    #[test]
    fn deleted_labels_dots_and_the_end_are_skipped() {
        let mut label = short(b"bootfs     ", 0);
        label[11] = ATTRIBUTE_VOLUME;
        let parts =
            [label, short(b".          ", 0), short(b"\xe5ONE       ", 0), short(b"A          ", 0), vec![0; 32]];
        assert_eq!(names(&[parts.concat(), short(b"B          ", 0)]), ["A"]);
        assert!(parse(&short(b"A/B        ", 0)).is_err());
        assert!(parse(&short(b"           ", 0)).is_err());
    }

    #[test]
    fn times_are_civil_dates() {
        assert_eq!(time(0x0021, 0).seconds, 315_532_800); // 1980-01-01
        assert_eq!(time((44 << 9) | (2 << 5) | 29, (12 << 11) | (34 << 5) | 28).seconds, 1_709_210_096); // 2024-02-29 12:34:56
        assert_eq!(time(0, 0), Time::default());
    }
}
