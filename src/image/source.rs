//! Where an image comes from: a file whose content, not whose name, says how it is packed.
//!
//! A [`Decode`] turns packed bytes into image bytes and knows nothing of files; an [`ImageStream`] drives one over any
//! reader and keeps the digest of what it read. A new format is a new `Decode`, a new place a new reader.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::xz::Xz;
use crate::progress::Progress;

/// Why an image file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Opening or reading.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device, a socket.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// Nothing known.
    #[error("{0} is neither a disk image nor an xz stream of one")]
    Unknown(String),
    /// Known, but not read by this version.
    #[error("{path} is a {format} file, which is not supported yet: unpack it and import the .img, or use .img.xz")]
    UnsupportedFormat {
        /// The file.
        path: String,
        /// Its format's name.
        format: &'static str,
    },
    /// The stream stops before its end.
    #[error("{0} ends too early: the download or copy is incomplete; fetch it again")]
    Truncated(String),
    /// What the decoder says.
    #[error("{path}: {error}")]
    Decode {
        /// The file.
        path: String,
        /// What is wrong.
        error: DecodeError,
    },
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

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

/// An image file, opened and recognised.
#[derive(Debug)]
pub struct Source {
    file: File,
    path: String,
    format: Format,
    size: u64,
}

const READ_SIZE: usize = 256 * 1024;

impl Source {
    /// Opens a file and looks at its first bytes.
    ///
    /// # Errors
    /// [`SourceError`] naming the file.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let shown = path.display().to_string();
        let failed = |source| SourceError::Read { path: path.display().to_string(), source };
        // Opening a named pipe would wait for its writer, for ever.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(SourceError::NotAFile(shown));
        }
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = Vec::with_capacity(512);
        (&file).take(512).read_to_end(&mut head).map_err(failed)?;
        let format = recognise(&head, &shown)?;
        Ok(Self { file, path: shown, format, size })
    }

    /// How the image is packed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size of the file in bytes, packed as it is.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file itself: a [`Format::Raw`] image can be read in place.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn file(&self) -> Result<File, SourceError> {
        self.file.try_clone().map_err(|source| SourceError::Read { path: self.path.clone(), source })
    }

    /// The image's bytes from its beginning.
    ///
    /// # Errors
    /// When the file cannot be rewound or the decoder cannot start.
    pub fn stream(&self) -> Result<ImageStream, SourceError> {
        use std::io::Seek;
        let mut file = self.file()?;
        file.rewind().map_err(|source| SourceError::Read { path: self.path.clone(), source })?;
        let decode: Box<dyn Decode> = match self.format {
            Format::Raw => Box::new(Raw),
            Format::Xz => Box::new(Xz::new().map_err(|error| SourceError::Decode { path: self.path.clone(), error })?),
        };
        Ok(ImageStream::new(Box::new(file), decode, self.path.clone()))
    }

    /// Digest of the file as it is, for images that are read in place.
    ///
    /// # Errors
    /// What reading met, or [`SourceError::Cancelled`].
    pub fn digest(&self, progress: &dyn Progress) -> Result<String, SourceError> {
        let mut stream = self.stream()?;
        while stream.fill()? {
            stream.start = stream.end;
            progress.add(stream.end as u64, 0);
            if progress.cancelled() {
                return Err(SourceError::Cancelled);
            }
        }
        Ok(stream.finish())
    }
}

fn recognise(head: &[u8], path: &str) -> Result<Format, SourceError> {
    let unsupported = |format| Err(SourceError::UnsupportedFormat { path: path.to_owned(), format });
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Format::Xz),
        [0x1f, 0x8b, ..] => unsupported("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unsupported("zstd"),
        [b'P', b'K', 3, 4, ..] => unsupported("zip"),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [b'7', b'z', 0xbc, 0xaf, ..] => unsupported("7z"),
        _ if head.len() == 512 && head[510..] == [0x55, 0xaa] => Ok(Format::Raw),
        _ => Err(SourceError::Unknown(path.to_owned())),
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

/// The bytes of an image in order, and the digest of the packed bytes they came from.
pub struct ImageStream {
    input: Box<dyn Read + Send>,
    decode: Box<dyn Decode>,
    path: String,
    hash: Sha256,
    consumed: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    input_ended: bool,
    done: bool,
}

impl ImageStream {
    /// Decodes what `input` gives; `path` names it in errors.
    #[must_use]
    pub fn new(input: Box<dyn Read + Send>, decode: Box<dyn Decode>, path: String) -> Self {
        let buffer = vec![0; READ_SIZE];
        let hash = Sha256::new();
        Self { input, decode, path, hash, consumed: 0, buffer, start: 0, end: 0, input_ended: false, done: false }
    }

    /// Fills `output` unless the image ends; answers the bytes written, 0 at the end.
    ///
    /// # Errors
    /// [`SourceError`] naming the file.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while filled < output.len() && !self.done {
            if self.start == self.end && !self.input_ended {
                self.fill()?;
            }
            let input = &self.buffer[self.start..self.end];
            let step = self.decode.step(input, &mut output[filled..], self.input_ended);
            let step = step.map_err(|error| SourceError::Decode { path: self.path.clone(), error })?;
            self.start += step.consumed;
            filled += step.produced;
            self.done = step.end;
            if step.consumed == 0 && step.produced == 0 && !step.end && (self.input_ended || self.start < self.end) {
                return Err(SourceError::Truncated(self.path.clone()));
            }
        }
        Ok(filled)
    }

    /// Packed bytes read so far.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// SHA-256 of the packed bytes read so far, in hex: of the whole file once [`ImageStream::read`] answered 0.
    #[must_use]
    pub fn finish(self) -> String {
        use std::fmt::Write;
        self.hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads more packed bytes; `false` at the end.
    fn fill(&mut self) -> Result<bool, SourceError> {
        let length = loop {
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SourceError::Read { path: self.path.clone(), source }),
                Ok(length) => break length,
            }
        };
        self.hash.update(&self.buffer[..length]);
        self.consumed += length as u64;
        (self.start, self.end) = (0, length);
        self.input_ended = length == 0;
        Ok(length > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(data: &[u8], preset: u32) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), preset);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: Vec<u8>) -> Result<(Vec<u8>, String), SourceError> {
        let decode: Box<dyn Decode> = Box::new(Xz::new().unwrap());
        let mut stream = ImageStream::new(Box::new(io::Cursor::new(bytes)), decode, "a.img.xz".into());
        let mut out = Vec::new();
        let mut buffer = vec![0; 70_000];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok((out, stream.finish())),
                length => out.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn sample() -> Vec<u8> {
        (0..300_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect()
    }

    #[test]
    fn several_streams_in_a_row_are_one_image() {
        let data = sample();
        let bytes = [packed(&data[..5000], 1), vec![0; 8], packed(&data[5000..], 1)].concat();
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(decode(bytes).unwrap(), (data, digest));
    }

    #[test]
    fn every_truncation_is_named() {
        let bytes = packed(&sample(), 0);
        for length in [13, 100, bytes.len() / 2, bytes.len() - 13, bytes.len() - 1] {
            let error = decode(bytes[..length].to_vec()).unwrap_err();
            assert!(matches!(error, SourceError::Truncated(ref path) if path == "a.img.xz"), "{length}: {error}");
        }
    }

    #[test]
    fn damage_is_named() {
        let mut bytes = packed(&sample(), 0);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        let error = decode(bytes.clone()).unwrap_err();
        assert!(matches!(error, SourceError::Decode { error: DecodeError::Damaged(_), .. }), "{error}");
        bytes[middle] ^= 0x10;
        bytes.extend(b"<html>404</html>");
        let error = decode(bytes).unwrap_err();
        assert!(matches!(error, SourceError::Decode { error: DecodeError::Damaged(_), .. }), "{error}");
    }

    #[test]
    fn a_dictionary_too_large_for_a_router_is_refused() {
        let error = decode(packed(&[0; 100], 9)).unwrap_err();
        assert!(matches!(error, SourceError::Decode { error: DecodeError::MemoryLimit(_), .. }), "{error}");
        assert!(error.to_string().contains("48 MiB"), "{error}");
    }

    #[test]
    fn content_decides_not_the_name() {
        let name = |head: &[u8]| recognise(head, "x.img").unwrap_err().to_string();
        assert!(name(&[0x1f, 0x8b, 8]).contains("gzip"));
        assert!(name(b"PK\x03\x04").contains("zip"));
        assert!(name(&[0x28, 0xb5, 0x2f, 0xfd]).contains("zstd"));
        assert!(name(b"").contains("neither"));
        assert!(name(&[0; 512]).contains("neither"));
        let mut sector = [0; 512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&sector, "x.xz").unwrap(), Format::Raw);
        assert_eq!(recognise(b"\xfd7zXZ\0", "x.img").unwrap(), Format::Xz);
    }
}
