//! Where the parsers read from: anything that gives bytes at an offset.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Random access to the bytes of a disk or partition.
pub trait BlockSource {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the range does not lie inside the source, otherwise what reading met.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Size in bytes.
    fn size(&self) -> u64;

    /// The range will not be read again; a scratch file may give its space back.
    fn discard(&self, _offset: u64, _len: u64) {}
}

impl BlockSource for &[u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// A regular file, or a disk's device node.
#[derive(Debug)]
pub struct FileBlocks {
    file: File,
    size: u64,
    punch: bool,
}

impl FileBlocks {
    /// Takes a file open for reading.
    ///
    /// # Errors
    /// What asking for its size met.
    pub fn new(file: File) -> io::Result<Self> {
        // A device's metadata knows no size.
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Self { file, size, punch: false })
    }

    /// Gives the space of discarded ranges back to the file system. For scratch files only: it destroys what was read.
    #[must_use]
    pub fn punching(mut self) -> Self {
        self.punch = true;
        self
    }
}

impl BlockSource for FileBlocks {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn discard(&self, offset: u64, len: u64) {
        if self.punch && len > 0 {
            use rustix::fs::{FallocateFlags, fallocate};
            // Best effort: a file system that cannot punch keeps the space until the scratch file is removed.
            let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
        }
    }
}

/// A part of another source: a partition.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    inner: &'a dyn BlockSource,
    start: u64,
    size: u64,
}

impl<'a> Window<'a> {
    /// `size` bytes of `inner` from `start`, cut at its end.
    #[must_use]
    pub fn new(inner: &'a dyn BlockSource, start: u64, size: u64) -> Self {
        let size = size.min(inner.size().saturating_sub(start));
        Self { inner, start, size }
    }
}

impl BlockSource for Window<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        match end {
            Some(end) if end <= self.size => self.inner.read_at(buf, self.start + offset),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn discard(&self, offset: u64, len: u64) {
        if offset.checked_add(len).is_some_and(|end| end <= self.size) {
            self.inner.discard(self.start + offset, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_cannot_be_left() {
        let disk: Vec<u8> = (0..100).collect();
        let bytes = disk.as_slice();
        let window = Window::new(&bytes, 10, 20);
        let mut buf = [0; 4];
        window.read_at(&mut buf, 16).unwrap();
        assert_eq!(buf, [26, 27, 28, 29]);
        assert!(window.read_at(&mut buf, 17).is_err());
        assert!(window.read_at(&mut buf, u64::MAX - 1).is_err());
        assert_eq!(Window::new(&bytes, 90, 20).size(), 10);
        assert_eq!(Window::new(&bytes, 200, 20).size(), 0);
    }
}
