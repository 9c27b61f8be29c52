//! XDR (RFC 4506): the bounded codec under RPC, MOUNT, portmap and NFS.
//!
//! A [`Decoder`] borrows from the received record and never allocates; every variable length is checked against the
//! caller's limit and against what is there. Encoding appends to a byte vector that its owner bounds.

/// The bytes do not decode: too short, a length over its limit, or a value outside its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed XDR data")]
pub struct Malformed;

/// Reads XDR items from the front of a byte slice.
#[derive(Debug, Clone, Copy)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `N` bytes without a length (RFC 4506 §4.9); `N` is a multiple of four everywhere in NFSv3.
    ///
    /// # Errors
    /// [`Malformed`] if fewer bytes are left.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// [`Malformed`] if fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// An unsigned hyper integer.
    ///
    /// # Errors
    /// [`Malformed`] if fewer than eight bytes are left.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// A boolean; anything but 0 and 1 is malformed (RFC 4506 §4.4).
    ///
    /// # Errors
    /// [`Malformed`] for other values and short input.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Variable-length opaque data or a string of at most `limit` bytes, with its padding (RFC 4506 §4.10, §4.11).
    ///
    /// # Errors
    /// [`Malformed`] if the length exceeds `limit` or what is left.
    pub fn opaque(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if length > limit {
            return Err(Malformed);
        }
        let padded = length.checked_next_multiple_of(4).ok_or(Malformed)?;
        if padded > self.rest.len() {
            return Err(Malformed);
        }
        let (item, rest) = self.rest.split_at(padded);
        self.rest = rest;
        Ok(&item[..length])
    }
}

/// Appends an unsigned integer.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends an unsigned hyper integer.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a boolean.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    put_u32(out, u32::from(value));
}

/// Appends variable-length opaque data or a string, padded with zeros.
pub fn put_opaque(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
    put_padding(out, bytes.len());
}

/// Appends the zeros that follow an item of `length` bytes.
pub fn put_padding(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&[0; 3][..padding(length)]);
}

/// How many zeros follow an item of `length` bytes.
#[must_use]
pub const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// Overwrites the unsigned integer at `at`; does nothing if it lies outside.
pub fn patch_u32(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back_with_padding() {
        let mut out = Vec::new();
        put_u32(&mut out, 7);
        put_u64(&mut out, u64::MAX - 1);
        put_bool(&mut out, true);
        for length in 0..9_u8 {
            put_opaque(&mut out, &vec![length; usize::from(length)]);
        }
        assert_eq!(out.len() % 4, 0);
        let mut d = Decoder::new(&out);
        assert_eq!((d.u32(), d.u64(), d.bool()), (Ok(7), Ok(u64::MAX - 1), Ok(true)));
        for length in 0..9_u8 {
            assert_eq!(d.opaque(8), Ok(&*vec![length; usize::from(length)]));
        }
        assert!(d.rest().is_empty());
    }

    #[test]
    fn lengths_are_checked_against_limit_and_input() {
        for bytes in [&[0xff; 4][..], &[0, 0, 0, 5, 1, 2, 3, 4, 5], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 0]] {
            assert_eq!(Decoder::new(bytes).opaque(8), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Decoder::new(&[0, 0, 0, 2]).bool(), Err(Malformed));
        assert_eq!(Decoder::new(&[0; 7]).u64(), Err(Malformed));
    }
}
