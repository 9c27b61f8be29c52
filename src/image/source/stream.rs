//! A decoder driven over a reader.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::SourceError;
use crate::image::unpack::{Decode, Format, HEAD};
use crate::progress::Progress;

const READ_SIZE: usize = 256 * 1024;

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
    /// Beginning of the image that was looked at, and how much of it was given since.
    head: Vec<u8>,
    head_given: usize,
}

impl ImageStream {
    /// Decodes what `input` gives; `path` names it in errors.
    #[must_use]
    pub fn new(input: Box<dyn Read + Send>, decode: Box<dyn Decode>, path: String) -> Self {
        let buffer = vec![0; READ_SIZE];
        let hash = Sha256::new();
        Self {
            input,
            decode,
            path,
            hash,
            consumed: 0,
            buffer,
            start: 0,
            end: 0,
            input_ended: false,
            done: false,
            head: Vec::new(),
            head_given: 0,
        }
    }

    /// Fills `output` unless the image ends; answers the bytes written, 0 at the end.
    ///
    /// # Errors
    /// [`SourceError`] naming the file.
    pub fn read(&mut self, output: &mut [u8]) -> Result<usize, SourceError> {
        let head = self.head.get(self.head_given..).unwrap_or_default();
        let mut filled = head.len().min(output.len());
        output.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
        self.head_given += filled;
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

    /// The image's first bytes, as many as [`HEAD`] if it has them; [`ImageStream::read`] gives them again.
    ///
    /// # Errors
    /// As [`ImageStream::read`].
    pub fn head(&mut self) -> Result<&[u8], SourceError> {
        if self.head.is_empty() {
            let mut head = vec![0; HEAD];
            let length = self.read(&mut head)?;
            head.truncate(length);
            (self.head, self.head_given) = (head, 0);
        }
        Ok(&self.head)
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

/// Digest of everything `input` gives.
pub(super) fn digest(input: Box<dyn Read + Send>, label: &str, progress: &dyn Progress) -> Result<String, SourceError> {
    let mut stream = ImageStream::new(
        input,
        Format::Raw.decoder().map_err(|error| SourceError::Decode { path: label.to_owned(), error })?,
        label.to_owned(),
    );
    while stream.fill()? {
        progress.add(stream.end as u64, 0);
        if progress.cancelled() {
            return Err(SourceError::Cancelled);
        }
    }
    Ok(stream.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::DecodeError;
    use std::io::Write;

    fn packed(data: &[u8], preset: u32) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), preset);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: Vec<u8>) -> Result<(Vec<u8>, String), SourceError> {
        let decode = Format::Xz.decoder().unwrap();
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
}
