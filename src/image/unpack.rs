//! How images are packed, decided by content: each format is a [`Decode`] that turns packed bytes into image bytes and
//! knows nothing of files.

mod gzip;
mod inflate;
mod memory;
mod xz;
mod zip;
mod zstd;

/// Why a decoder cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Checksum, structure.
    #[error("the compressed data is damaged ({0}); fetch the file again and compare its SHA-256")]
    Damaged(&'static str),
    /// More memory than we want to give.
    #[error(
        "unpacking needs {} MiB of memory and {} MiB can be spared; {advice}, or import the unpacked .img",
        .needed.div_ceil(1 << 20), .limit >> 20
    )]
    MemoryLimit {
        /// Bytes that the decoder asks for.
        needed: u64,
        /// Bytes it may have.
        limit: u64,
        /// How to pack it so that it takes less.
        advice: &'static str,
    },
    /// The system has no more memory.
    #[error("not enough memory to unpack")]
    OutOfMemory,
    /// A filter, check or method this build has not.
    #[error("it uses {0}, which is not supported; pack it again with plain xz -6")]
    Unsupported(&'static str),
    /// An archive that holds something else than one image.
    #[error("{0}")]
    Archive(String),
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
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// zip.
    Zip,
}

impl Format {
    /// As file names end.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "img",
            Self::Xz => "xz",
            Self::Gzip => "gz",
            Self::Zstd => "zst",
            Self::Zip => "zip",
        }
    }

    /// A decoder for a stream that begins now.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn decoder(self) -> Result<Box<dyn Decode>, DecodeError> {
        self.decoder_within(memory::limit())
    }

    /// A decoder that takes at most some `limit` bytes of memory.
    fn decoder_within(self, limit: u64) -> Result<Box<dyn Decode>, DecodeError> {
        Ok(match self {
            Self::Raw => Box::new(Raw),
            Self::Xz => Box::new(xz::Xz::new(limit)?),
            Self::Gzip => Box::new(gzip::Gzip::new()),
            Self::Zstd => Box::new(zstd::Zstd::new(limit)?),
            Self::Zip => Box::new(zip::Zip::new()),
        })
    }
}

/// Bytes of memory that a decoder may take here and now.
pub(super) fn memory_limit() -> u64 {
    memory::limit()
}

/// The largest window that zstd is given within `limit` bytes of memory, as a power of two.
pub(super) fn zstd_window_log(limit: u64) -> u32 {
    zstd::window_log(limit)
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// Something this version reads.
    Known(Format),
    /// A tar archive that is not packed.
    Tar,
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
        [0x1f, 0x8b, ..] => Recognised::Known(Format::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Recognised::Known(Format::Zstd),
        // A skippable frame (RFC 8878 section 3.1.2), as pzstd writes first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Recognised::Known(Format::Zstd),
        [b'P', b'K', 3, 4, ..] => Recognised::Known(Format::Zip),
        [b'B', b'Z', b'h', ..] => Recognised::Unsupported("bzip2"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Recognised::Unsupported("7z"),
        _ if head.get(510..512) == Some(&[0x55, 0xaa]) => Recognised::Known(Format::Raw),
        _ if is_tar(head) => Recognised::Tar,
        _ => Recognised::Nothing,
    }
}

/// Whether a tar archive begins so: its first header's magic number and checksum (POSIX.1-2001 pax).
#[must_use]
pub fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..512).filter(|block| block[257..].starts_with(b"ustar")) else { return false };
    let (before, rest) = block.split_at(148);
    let (stored, after) = rest.split_at(8);
    let sum = before.iter().chain(after).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    let digits = stored.iter().skip_while(|byte| **byte == b' ').take_while(|byte| matches!(byte, b'0'..=b'7'));
    sum == digits.fold(0, |sum, digit| sum << 3 | u32::from(digit - b'0'))
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
        for (head, format) in [
            (&[0x1f, 0x8b, 8][..], Format::Gzip),
            (b"PK\x03\x04", Format::Zip),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x5e\x2a\x4d\x18", Format::Zstd),
            (b"\xfd7zXZ\0", Format::Xz),
        ] {
            assert_eq!(recognise(head), Recognised::Known(format));
        }
        assert_eq!(recognise(b"BZh9"), Recognised::Unsupported("bzip2"));
        assert_eq!(recognise(b"7z\xbc\xaf\x27\x1c"), Recognised::Unsupported("7z"));
        assert_eq!(recognise(b""), Recognised::Nothing);
        assert_eq!(recognise(&[0; 512]), Recognised::Nothing);
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&sector), Recognised::Known(Format::Raw));
    }
}
