//! How images are packed, decided by content: each format is a [`Decode`] that turns packed bytes into image bytes and
//! knows nothing of files.

mod xz;

/// Why a decoder cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Checksum, structure.
    #[error("the compressed data is damaged ({0}); fetch the file again and compare its SHA-256")]
    Damaged(&'static str),
    /// More memory than we want to give.
    #[error(
        "unpacking needs more than {} MiB of memory (xz -9 does that); pack it again with xz -6, or import the unpacked .img",
        .0 >> 20
    )]
    MemoryLimit(u64),
    /// The system has no more memory.
    #[error("not enough memory to unpack")]
    OutOfMemory,
    /// A filter or check this build has not.
    #[error("it uses an xz filter or check that is not supported; pack it again with plain xz -6")]
    Unsupported,
}

/// What one call of a decoder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Bytes put into the output.
    pub produced: usize,
    /// The packed stream is complete.
    pub end: bool,
}

/// A decompressor.
pub trait Decode: Send {
    /// Takes what it can from `input` and gives what fits into `output`; `last` says that no input follows this.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder is of no use afterwards.
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError>;
}

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Raw,
    /// xz.
    Xz,
}

impl Format {
    /// As file names end.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "img",
            Self::Xz => "xz",
        }
    }

    /// A decoder for a stream that begins now.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn decoder(self) -> Result<Box<dyn Decode>, DecodeError> {
        Ok(match self {
            Self::Raw => Box::new(Raw),
            Self::Xz => Box::new(xz::Xz::new()?),
        })
    }
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// Something this version reads.
    Known(Format),
    /// A format by its name that it does not.
    Unsupported(&'static str),
    /// Nothing known.
    Nothing,
}

/// Bytes that [`recognise`] wants to see, if there are so many.
pub const HEAD: usize = 512;

/// Looks at a file's first bytes.
#[must_use]
pub fn recognise(head: &[u8]) -> Recognised {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Recognised::Known(Format::Xz),
        [0x1f, 0x8b, ..] => Recognised::Unsupported("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Recognised::Unsupported("zstd"),
        [b'P', b'K', 3, 4, ..] => Recognised::Unsupported("zip"),
        [b'B', b'Z', b'h', ..] => Recognised::Unsupported("bzip2"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Recognised::Unsupported("7z"),
        _ if head.get(510..512) == Some(&[0x55, 0xaa]) => Recognised::Known(Format::Raw),
        _ => Recognised::Nothing,
    }
}

struct Raw;

impl Decode for Raw {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        let length = input.len().min(output.len());
        output[..length].copy_from_slice(&input[..length]);
        Ok(Step { consumed: length, produced: length, end: last && length == input.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_not_the_name() {
        for (head, name) in [(&[0x1f, 0x8b, 8][..], "gzip"), (b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstd")] {
            assert_eq!(recognise(head), Recognised::Unsupported(name));
        }
        assert_eq!(recognise(b""), Recognised::Nothing);
        assert_eq!(recognise(&[0; 512]), Recognised::Nothing);
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&sector), Recognised::Known(Format::Raw));
        assert_eq!(recognise(b"\xfd7zXZ\0"), Recognised::Known(Format::Xz));
    }
}
