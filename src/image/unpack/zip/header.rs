//! Records of a zip archive (PKWARE's APPNOTE.TXT 6.3, section 4.3): what a local header says of its entry.

use super::super::DecodeError;
use crate::image::fields::{u16_at, u32_at};
use crate::printable::printable;

/// Length of a local header after its signature, before the name.
pub(super) const LOCAL: usize = 26;

/// What is kept of an entry's name for messages.
const MAX_NAME: usize = 200;

/// Compression methods (section 4.4.5) that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// One entry, by its local header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// For messages.
    pub(super) name: String,
    pub(super) method: Method,
    /// Checksum and sizes follow the content instead of being here.
    pub(super) descriptor: bool,
    pub(super) crc: u32,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
}

/// Bytes of name and extra fields behind a local header.
pub(super) fn variable_part(header: &[u8]) -> usize {
    usize::from(u16_at(header, 22)) + usize::from(u16_at(header, 24))
}

/// Reads a local header with its name and extra fields.
pub(super) fn entry(data: &[u8]) -> Result<Entry, DecodeError> {
    let name_end = LOCAL + usize::from(u16_at(data, 22));
    let name = data.get(LOCAL..name_end.min(LOCAL + MAX_NAME)).unwrap_or_default();
    let name = printable(name);
    let directory = data.get(LOCAL..name_end).is_some_and(|name| name.ends_with(b"/"));
    let flags = u16_at(data, 2);
    if flags & (1 | 1 << 6 | 1 << 13) != 0 {
        let what = format!("the zip is encrypted ({name}): unpack it with its password and import the image");
        return Err(DecodeError::Archive(what));
    }
    let method = match u16_at(data, 4) {
        0 => Method::Stored,
        8 => Method::Deflated,
        other => {
            let known = [(9, "deflate64"), (12, "bzip2"), (14, "LZMA"), (93, "Zstandard"), (95, "xz")];
            let method = known.iter().find(|(number, _)| *number == other);
            let method = method.map_or_else(|| format!("method {other}"), |(_, name)| (*name).to_owned());
            let what = format!("{name} in the zip is packed with {method}, which is not supported: unpack the zip");
            return Err(DecodeError::Archive(what));
        }
    };
    let descriptor = flags & 1 << 3 != 0;
    let (mut packed, mut unpacked) = (u64::from(u32_at(data, 14)), u64::from(u32_at(data, 18)));
    if let Some(extra) = extra_field(data.get(name_end..).unwrap_or_default(), 1) {
        let long = |at| u64::from(u32_at(extra, at)) | u64::from(u32_at(extra, at + 4)) << 32;
        let mut at = 0;
        for size in [&mut unpacked, &mut packed] {
            if *size == u64::from(u32::MAX) && extra.len() >= at + 8 {
                *size = long(at);
                at += 8;
            }
        }
    }
    if method == Method::Stored && descriptor && !directory {
        let what = format!(
            "{name} in the zip is not compressed and its length is not said before it, so that its end cannot be found in a stream: unpack the zip"
        );
        return Err(DecodeError::Archive(what));
    }
    Ok(Entry { name, method, descriptor, crc: u32_at(data, 10), packed, unpacked })
}

/// The content of one extra field (section 4.5): id, length, content.
fn extra_field(mut extra: &[u8], id: u16) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let length = usize::from(u16_at(extra, 2));
        let content = extra.get(4..4 + length)?;
        if u16_at(extra, 0) == id {
            return Some(content);
        }
        extra = extra.get(4 + length..)?;
    }
    None
}

/// Longest data descriptor: signature, CRC, two sizes of eight bytes.
pub(super) const DESCRIPTOR: usize = 24;

/// Length of the data descriptor (section 4.3.9) that `data` begins with, if it fits what was unpacked. It may have a
/// signature or not, and sizes of four or eight bytes; only trying tells.
pub(super) fn descriptor(data: &[u8], crc: u32, packed: u64, unpacked: u64) -> Option<usize> {
    let long = |at| u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32;
    let low = u64::from(u32::MAX);
    [4, 0].into_iter().find_map(|start| {
        let signed = start == 0 || data.starts_with(b"PK\x07\x08");
        if !signed || u32_at(data, start) != crc {
            return None;
        }
        let at = start + 4;
        if long(at) == packed && long(at + 8) == unpacked && data.len() >= at + 16 {
            return Some(at + 16);
        }
        let short = u64::from(u32_at(data, at)) == packed & low && u64::from(u32_at(data, at + 4)) == unpacked & low;
        short.then_some(at + 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u16, method: u16, extra: &[u8]) -> Vec<u8> {
        let mut data = vec![0; LOCAL];
        data[2..4].copy_from_slice(&flags.to_le_bytes());
        data[4..6].copy_from_slice(&method.to_le_bytes());
        data[14..22].fill(0xff);
        data[22] = 5;
        data[24] = u8::try_from(extra.len()).unwrap();
        data.extend(b"a.img");
        data.extend(extra);
        data
    }

    #[test]
    fn zip64_sizes_come_from_the_extra_field() {
        let mut extra = b"XX\x02\x00ab\x01\x00\x10\x00".to_vec();
        extra.extend(5_000_000_000_u64.to_le_bytes());
        extra.extend(4_999_999_999_u64.to_le_bytes());
        let data = header(0, 8, &extra);
        assert_eq!(variable_part(&data), 5 + extra.len());
        let entry = entry(&data).unwrap();
        assert_eq!((entry.unpacked, entry.packed, entry.name.as_str()), (5_000_000_000, 4_999_999_999, "a.img"));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (flags, method, words) in
            [(1, 8, "encrypted"), (0, 12, "bzip2"), (0, 77, "method 77"), (8, 0, "not compressed")]
        {
            let error = entry(&header(flags, method, b"")).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("a.img"), "{error}");
        }
    }

    #[test]
    fn every_form_of_descriptor_is_known() {
        let (crc, packed, unpacked) = (7_u32, 100_u64, 5_000_000_000_u64);
        let long = [&crc.to_le_bytes()[..], &packed.to_le_bytes(), &unpacked.to_le_bytes()].concat();
        let short =
            [&crc.to_le_bytes()[..], &100_u32.to_le_bytes(), &(unpacked as u32).to_le_bytes(), &[b'P'; 8]].concat();
        for (data, length) in [(long, 20), (short, 12)] {
            assert_eq!(descriptor(&data, crc, packed, unpacked), Some(length));
            let signed = [b"PK\x07\x08", &data[..]].concat();
            assert_eq!(descriptor(&signed, crc, packed, unpacked), Some(length + 4));
            assert_eq!(descriptor(&data, crc + 1, packed, unpacked), None);
            assert_eq!(descriptor(&data, crc, packed + 1, unpacked), None);
        }
    }
}
