//! A reader that vouches for what it has given: at the end the digest has to be the one that was promised.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// A SHA-256 digest as it is written: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum(String);

/// It is no SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no SHA-256 digest: that is 64 hexadecimal digits")]
pub struct SumError(String);

impl Sum {
    /// Takes a digest in capital or small letters.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, SumError> {
        let text = text.trim();
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(SumError(crate::printable::printable(text.as_bytes()).chars().take(100).collect()))
    }
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Gives what `inner` gives, and an error instead of the end if that was not what was promised.
#[derive(Debug)]
pub struct Checked<R> {
    inner: R,
    promised: Option<Sum>,
    hash: Sha256,
}

impl<R: Read> Checked<R> {
    /// Without a promise nothing is checked.
    pub fn new(inner: R, promised: Option<Sum>) -> Self {
        Self { inner, promised, hash: Sha256::new() }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buf)?;
        if self.promised.is_some() {
            self.hash.update(&buf[..length]);
        }
        if length > 0 || buf.is_empty() {
            return Ok(length);
        }
        let Some(Sum(promised)) = self.promised.take() else { return Ok(0) };
        let found = hex(std::mem::take(&mut self.hash));
        if found == promised {
            return Ok(0);
        }
        Err(io::Error::other(format!(
            "this is not the file that was asked for: its SHA-256 is {found}, and was to be {promised}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_was_promised_is_read_to_its_end_and_nothing_else_is() {
        let read = |promised: Option<&str>| {
            let promised = promised.map(|sum| Sum::parse(sum).unwrap());
            let mut all = Vec::new();
            Checked::new(&b"abc"[..], promised).read_to_end(&mut all).map(|_| all).map_err(|e| e.to_string())
        };
        assert_eq!(read(None), Ok(b"abc".to_vec()));
        assert_eq!(read(Some(ABC)), Ok(b"abc".to_vec()));
        assert_eq!(read(Some(&ABC.to_uppercase())), Ok(b"abc".to_vec()));
        let wrong = read(Some(&"0".repeat(64))).unwrap_err();
        assert!(wrong.contains(ABC) && wrong.contains(&"0".repeat(64)), "{wrong}");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "abc", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "g")] {
            assert!(Sum::parse(text).is_err(), "{text}");
        }
        assert!(Sum::parse(&format!(" {ABC}\n")).is_ok(), "as it is copied from a page");
    }
}
