//! Extensions: records `LENGTH KEY=VALUE\n` before an entry (POSIX.1-2001 pax, "pax Extended Header").

use super::{ArchiveError, Result};
use crate::printable::printable;
use crate::storage::tree_writer::{Time, Xattr};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the extension of an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    /// `SCHILY.filetype`: a type that tar has no flag for.
    pub(super) filetype: Option<Vec<u8>>,
    pub(super) sparse: Option<Sparse>,
}

/// GNU's sparse format 1.0: the data begins with a map of the extents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Records of the formats 0.0 and 0.1.
    pub(super) is_old: bool,
}

/// Records being written.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    pub(super) fn put_xattr(&mut self, xattr: &Xattr) {
        // As GNU tar does: the key must not hold the sign that ends it.
        let mut key = XATTR.to_vec();
        for byte in &xattr.name {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                other => key.push(*other),
            }
        }
        self.put(&key, &xattr.value);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Pax {
    /// Reads the records of one extension. Those with other keys say nothing here.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut pax = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (record, after) = split_record(rest).ok_or_else(|| damaged("a record of an extension is none"))?;
            rest = after;
            let at = record.iter().position(|byte| *byte == b'=');
            let at = at.ok_or_else(|| damaged("a record of an extension has no '='"))?;
            let (key, value) = (record.get(..at).unwrap_or_default(), record.get(at + 1..).unwrap_or_default());
            pax.take(key, value)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(read_time(value)?),
            b"atime" => self.atime = Some(read_time(value)?),
            b"SCHILY.filetype" => self.filetype = Some(value.to_vec()),
            b"GNU.sparse.major" => self.sparse().major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.sparse().minor = Some(decimal(value)?),
            b"GNU.sparse.name" => self.sparse().name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.sparse().size = Some(decimal(value)?),
            _ => match key.strip_prefix(XATTR) {
                Some(name) => self.xattrs.push(Xattr { name: unquote(name), value: value.to_vec() }),
                None if key.starts_with(b"GNU.sparse.") => self.sparse().is_old = true,
                None => {}
            },
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut Sparse {
        self.sparse.get_or_insert_default()
    }
}

/// A record without its length and line end, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..blank)?).ok()?.parse().ok()?;
    let (record, rest) = (bytes.get(blank + 1..length)?, bytes.get(length..)?);
    Some((record.strip_suffix(b"\n")?, rest))
}

fn unquote(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let (byte, left) = match (rest.strip_prefix(b"%25"), rest.strip_prefix(b"%3D")) {
            (Some(left), _) => (b'%', left),
            (_, Some(left)) => (b'=', left),
            _ => (*first, after),
        };
        plain.push(byte);
        rest = left;
    }
    plain
}

fn decimal(value: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| damaged(&format!("'{}' is no number", printable(value))))
}

fn damaged(what: &str) -> ArchiveError {
    ArchiveError::Damaged(what.to_owned())
}

/// `-12.345`: seconds since 1970 with as many digits as are not 0.
pub(super) fn time(time: Time) -> String {
    let (sign, seconds, nanoseconds) = match time {
        Time { seconds: 0.., nanoseconds } => ("", time.seconds.unsigned_abs(), nanoseconds),
        Time { nanoseconds: 0, seconds } => ("-", seconds.unsigned_abs(), 0),
        // Nanoseconds count forward: -2 s and 500 000 000 ns are 1.5 s before 1970.
        Time { seconds, nanoseconds } => {
            ("-", seconds.unsigned_abs() - 1, 1_000_000_000_u32.saturating_sub(nanoseconds))
        }
    };
    let whole = format!("{sign}{seconds}");
    match nanoseconds {
        0 => whole,
        _ => format!("{whole}.{nanoseconds:09}").trim_end_matches('0').to_owned(),
    }
}

fn read_time(value: &[u8]) -> Result<Time> {
    let bad = || damaged(&format!("'{}' is no time", printable(value)));
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (1_700_000_000, 5, "1700000000.000000005"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
        ] {
            let value = Time { seconds, nanoseconds };
            assert_eq!(time(value), text);
            assert_eq!(read_time(text.as_bytes()).unwrap(), value);
        }
        for bad in ["", "-", "1e9", " 1", "1.-5", "99999999999999999999"] {
            assert!(read_time(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_count_their_own_length() {
        for length in 0..200 {
            let mut records = Records::default();
            records.put(b"path", &vec![b'x'; length]);
            records.put_xattr(&Xattr { name: b"user.a=b%3D".to_vec(), value: b"\0\n=1".to_vec() });
            let pax = Pax::decode(records.bytes()).unwrap();
            assert_eq!(pax.path.map(|path| path.len()), Some(length));
            assert_eq!(pax.xattrs, [Xattr { name: b"user.a=b%3D".to_vec(), value: b"\0\n=1".to_vec() }]);
        }
        for bad in [&b"5 a=b"[..], b"99 a=b\n", b"3 a\n", b"0 \n", b" a=b\n", b"6 a=b\n", b"9999999 a"] {
            let decoded = Pax::decode(bad);
            assert!(decoded.is_err() == (bad != b"6 a=b\n"), "{decoded:?}");
        }
    }
}
