//! Where an image comes from: a file, an SD card or USB stick in the router, or a stream such as a download. Its content,
//! not its name, says how it is packed.
//!
//! An [`ImageStream`] drives the format's [`Decode`](super::unpack::Decode) over any reader and keeps the digest of what
//! it read. A new format is a new `Decode`, a new place a new reader for [`Source::from_reader`].

mod device;
mod stream;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::unpack::{self, DecodeError, Format, Recognised};
use crate::progress::Progress;
pub use stream::ImageStream;

/// Why a source cannot be read.
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
    /// A directory, a pipe, a socket.
    #[error("{0} is neither a regular file nor a disk")]
    NotAFile(String),
    /// A partition's device node.
    #[error("{path} is one partition of a disk: import the whole disk, {disk}")]
    OnePartition {
        /// The device node.
        path: String,
        /// The disk's node.
        disk: String,
    },
    /// A disk somebody may write to.
    #[error("{path} is {by}: what is read from it could change meanwhile; {cure}")]
    InUse {
        /// The device node.
        path: String,
        /// Who uses it.
        by: String,
        /// What to do.
        cure: &'static str,
    },
    /// Nothing known.
    #[error("{0} is neither a disk image nor a packed one (.xz, .gz, .zst, .zip), nor a tar archive of a root")]
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

/// An image, opened and recognised.
pub struct Source {
    input: Input,
    label: String,
    format: Format,
    size: Option<u64>,
}

enum Input {
    /// A regular file or a whole disk: can be read anywhere, and again.
    Seekable(File),
    /// Comes once, in order; what was looked at comes first.
    Stream(Box<dyn Read + Send>),
}

impl Source {
    /// Opens a file or a disk's device node and looks at its first bytes. A disk is claimed as long as the source lives,
    /// so that nobody mounts it meanwhile.
    ///
    /// # Errors
    /// [`SourceError`] naming the file.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let label = path.display().to_string();
        let failed = |source| SourceError::Read { path: path.display().to_string(), source };
        // Opening a named pipe would wait for its writer, for ever.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let mut file = if metadata.is_file() {
            File::open(path).map_err(failed)?
        } else if metadata.file_type().is_block_device() {
            device::open(path, &metadata)?
        } else {
            return Err(SourceError::NotAFile(label));
        };
        // A device's metadata knows no size.
        let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size)).map_err(failed)?;
        let head = read_head(&mut file).map_err(failed)?;
        let format = recognise(&head, &label)?;
        Ok(Self { input: Input::Seekable(file), label, format, size: Some(size) })
    }

    /// Takes what `reader` gives as an image, packed or not, once its first bytes say which. `size` is what it will give
    /// in all, if that is known; `label` names it in messages, its part after the last `/` in `image.json`.
    ///
    /// # Errors
    /// [`SourceError`] naming it.
    pub fn from_reader(
        mut reader: Box<dyn Read + Send>,
        size: Option<u64>,
        label: String,
    ) -> Result<Self, SourceError> {
        let head = read_head(&mut reader).map_err(|source| SourceError::Read { path: label.clone(), source })?;
        let format = recognise(&head, &label)?;
        let reader = Box::new(io::Cursor::new(head).chain(reader));
        Ok(Self { input: Input::Stream(reader), label, format, size })
    }

    /// How the image is packed.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What it is called in messages: a path, an address.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The last part of the label.
    #[must_use]
    pub fn name(&self) -> &str {
        self.label.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default()
    }

    /// Its size in bytes, packed as it is; unknown for some streams.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// What can be read anywhere: a [`Format::Raw`] image in it need not be copied.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn seekable(&self) -> Result<Option<File>, SourceError> {
        let Input::Seekable(file) = &self.input else { return Ok(None) };
        let failed = |source| SourceError::Read { path: self.label.clone(), source };
        file.try_clone().map(Some).map_err(failed)
    }

    /// The image's bytes from its beginning.
    ///
    /// # Errors
    /// When the file cannot be rewound or the decoder cannot start.
    pub fn into_stream(self) -> Result<ImageStream, SourceError> {
        let failed = |error| SourceError::Decode { path: self.label.clone(), error };
        let decode = self.format.decoder().map_err(failed)?;
        let input: Box<dyn Read + Send> = match self.input {
            Input::Stream(reader) => reader,
            Input::Seekable(mut file) => {
                file.rewind().map_err(|source| SourceError::Read { path: self.label.clone(), source })?;
                Box::new(file)
            }
        };
        Ok(ImageStream::new(input, decode, self.label))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("label", &self.label).field("format", &self.format).finish_non_exhaustive()
    }
}

/// Digest of the first `length` bytes of a file as it is, for images that are read in place; `label` names it.
///
/// # Errors
/// What reading met, or [`SourceError::Cancelled`].
pub fn digest(mut file: File, length: u64, label: &str, progress: &dyn Progress) -> Result<String, SourceError> {
    file.rewind().map_err(|source| SourceError::Read { path: label.to_owned(), source })?;
    stream::digest(Box::new(file.take(length)), label, progress)
}

fn read_head(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(unpack::HEAD);
    reader.take(unpack::HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn recognise(head: &[u8], label: &str) -> Result<Format, SourceError> {
    match unpack::recognise(head) {
        Recognised::Known(format) => Ok(format),
        // What is in a packed source shows only later; a tar archive is told apart there.
        Recognised::Tar => Ok(Format::Raw),
        Recognised::Unsupported(format) => Err(SourceError::UnsupportedFormat { path: label.to_owned(), format }),
        Recognised::Nothing => Err(SourceError::Unknown(label.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gives_all_its_bytes_and_is_named_by_its_last_part() {
        let mut image: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        let reader = Box::new(io::Cursor::new(image.clone()));
        let source = Source::from_reader(reader, None, "http://router/images/a.img".into()).unwrap();
        assert_eq!((source.format(), source.name(), source.size()), (Format::Raw, "a.img", None));
        assert!(source.seekable().unwrap().is_none());
        let mut stream = source.into_stream().unwrap();
        let mut out = vec![0; image.len() + 1];
        assert_eq!(stream.read(&mut out).unwrap(), image.len());
        assert!(out[..image.len()] == image);
    }

    #[test]
    fn what_is_no_image_is_named() {
        let error = |bytes: &'static [u8]| Source::from_reader(Box::new(bytes), None, "http://x/y".into()).unwrap_err();
        assert!(error(b"<html>404").to_string().starts_with("http://x/y is neither"));
        assert!(error(b"BZh9").to_string().contains("bzip2"));
    }
}
