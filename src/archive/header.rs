//! The block of 512 bytes before every entry (POSIX.1-2001 pax, "ustar Interchange Format").

use super::{ArchiveError, Result};

pub(super) const BLOCK: usize = 512;

/// Type flags.
pub(super) mod flag {
    pub(in crate::archive) const FILE: u8 = b'0';
    pub(in crate::archive) const HARD_LINK: u8 = b'1';
    pub(in crate::archive) const SYMLINK: u8 = b'2';
    pub(in crate::archive) const CHAR: u8 = b'3';
    pub(in crate::archive) const BLOCK: u8 = b'4';
    pub(in crate::archive) const DIRECTORY: u8 = b'5';
    pub(in crate::archive) const FIFO: u8 = b'6';
    /// Extension of the next entry.
    pub(in crate::archive) const PAX: u8 = b'x';
    /// Extension of all entries that follow.
    pub(in crate::archive) const PAX_GLOBAL: u8 = b'g';
    /// GNU's long name and long link target of the next entry.
    pub(in crate::archive) const LONG_NAME: u8 = b'L';
    pub(in crate::archive) const LONG_LINK: u8 = b'K';
}

/// A header as it stands in the archive; extensions may say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) flag: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    pub(super) link: Vec<u8>,
    pub(super) major: u64,
    pub(super) minor: u64,
}

/// Where the fields are, and how long.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const SUM: (usize, usize) = (148, 8);
const FLAG: usize = 156;
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 6);
const VERSION: (usize, usize) = (263, 2);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, 155);

impl Header {
    /// The block. What does not fit is cut or left 0: an extension has to say it.
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, NAME, &self.name);
        put_number(&mut block, MODE, u64::from(self.mode));
        put_number(&mut block, UID, self.uid);
        put_number(&mut block, GID, self.gid);
        put_number(&mut block, SIZE, self.size);
        put_number(&mut block, MTIME, u64::try_from(self.mtime).unwrap_or(0));
        put(&mut block, (FLAG, 1), &[self.flag]);
        put(&mut block, LINK, &self.link);
        put(&mut block, MAGIC, b"ustar\0");
        put(&mut block, VERSION, b"00");
        put_number(&mut block, MAJOR, self.major);
        put_number(&mut block, MINOR, self.minor);
        let sum = format!("{:06o}\0 ", checksum(&block));
        put(&mut block, SUM, sum.as_bytes());
        block
    }

    /// Reads a block that is not all zeros.
    pub(super) fn decode(block: &[u8; BLOCK]) -> Result<Self> {
        let sum = number(block, SUM)?;
        if sum != checksum(block) {
            return Err(ArchiveError::Damaged("the checksum of a header is wrong".to_owned()));
        }
        let magic = field(block, MAGIC);
        // GNU's own format says "ustar " and has something else where POSIX has the prefix.
        let is_posix = magic == b"ustar\0";
        if !is_posix && magic != b"ustar " {
            return Err(ArchiveError::Unsupported("it is no tar archive of this century".to_owned()));
        }
        let mut name = text(block, if is_posix { PREFIX } else { (0, 0) }).to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(block, NAME));
        Ok(Self {
            name,
            flag: field(block, (FLAG, 1)).first().copied().unwrap_or_default(),
            // Higher bits are the type, which some programs put there too.
            mode: u32::try_from(number(block, MODE)? & 0o7777).unwrap_or(0),
            uid: number(block, UID)?,
            gid: number(block, GID)?,
            size: number(block, SIZE)?,
            mtime: seconds(block)?,
            link: text(block, LINK).to_vec(),
            major: number(block, MAJOR)?,
            minor: number(block, MINOR)?,
        })
    }
}

fn field(block: &[u8; BLOCK], (at, length): (usize, usize)) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

fn text(block: &[u8; BLOCK], place: (usize, usize)) -> &[u8] {
    field(block, place).split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between blanks and NULs, or GNU's base 256, marked by the highest bit.
fn number(block: &[u8; BLOCK], place: (usize, usize)) -> Result<u64> {
    let bad = || ArchiveError::Damaged("a number in a header is none".to_owned());
    let field = field(block, place);
    if let Some((0x80, rest)) = field.split_first().map(|(first, rest)| (*first, rest)) {
        return rest.iter().try_fold(0_u64, |sum, byte| {
            let sum = sum.checked_mul(256).ok_or_else(bad)?;
            Ok(sum | u64::from(*byte))
        });
    }
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).find(|part| !part.is_empty()).unwrap_or_default();
    digits.iter().try_fold(0_u64, |sum, digit| match digit {
        // Twelve octal digits fit.
        b'0'..=b'7' => Ok(sum << 3 | u64::from(digit - b'0')),
        _ => Err(bad()),
    })
}

/// GNU's base 256 also has times before 1970, as a two's complement.
fn seconds(block: &[u8; BLOCK]) -> Result<i64> {
    let field = field(block, MTIME);
    if field.first() == Some(&0xff) {
        let last: Option<[u8; 8]> = field.last_chunk().copied();
        return Ok(last.map_or(0, i64::from_be_bytes));
    }
    Ok(i64::try_from(number(block, MTIME)?).unwrap_or(i64::MAX))
}

fn put(block: &mut [u8; BLOCK], (at, length): (usize, usize), bytes: &[u8]) {
    let length = length.min(bytes.len());
    if let (Some(to), Some(from)) = (block.get_mut(at..at + length), bytes.get(..length)) {
        to.copy_from_slice(from);
    }
}

/// With as many digits as fit before a NUL; 0 if that is too few.
fn put_number(block: &mut [u8; BLOCK], (at, length): (usize, usize), number: u64) {
    let digits = length - 1;
    let fits = number >> (3 * digits) == 0;
    let text = format!("{:0digits$o}", if fits { number } else { 0 });
    put(block, (at, length), text.as_bytes());
}

/// The sum of all bytes, those of the sum itself taken for blanks.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let (at, length) = SUM;
    let byte = |(n, byte): (usize, &u8)| u64::from(if (at..at + length).contains(&n) { b' ' } else { *byte });
    block.iter().enumerate().map(byte).sum()
}

/// Whether so large a number stands in an octal field of so many bytes.
pub(super) const fn fits_octal(number: u64, field: u32) -> bool {
    number >> (3 * (field - 1)) == 0
}
