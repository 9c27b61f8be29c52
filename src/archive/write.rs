//! An archive, entry by entry.

use std::io::{self, Write};

use super::header::{BLOCK, Header, fits_octal, flag};
use super::pax::{Records, time};
use super::{Entry, Kind, extents};
use crate::storage::tree_writer::{Special, Time};

/// Writes entries one behind the other.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of the last file that are still to come, and those that fill its last block.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0 }
    }

    /// Begins an entry. The data of a regular file's extents is to follow, no less and no more.
    ///
    /// # Errors
    /// What `out` says.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_entry()?;
        let is_file = entry.kind == Kind::File;
        let is_sparse = is_file && entry.extents.as_slice() != [(0, entry.size)] && entry.size > 0;
        let map = if is_sparse { extents::encode(&entry.extents) } else { Vec::new() };
        let data: u64 = if is_file { entry.extents.iter().map(|(_, length)| length).sum() } else { 0 };
        let size = data.saturating_add(map.len() as u64);
        let header = header(entry, size, is_sparse);
        let records = records(entry, &header, size, is_sparse);
        let extension =
            Header { name: b"././@PaxHeader".to_vec(), flag: flag::PAX, size: records.len() as u64, ..header.clone() };
        self.out.write_all(&Header { link: Vec::new(), major: 0, minor: 0, ..extension }.encode())?;
        self.out.write_all(&records)?;
        self.pad(records.len() as u64)?;
        self.out.write_all(&header.encode())?;
        self.out.write_all(&map)?;
        self.left = data;
        self.padding = padding(data);
        Ok(())
    }

    /// Writes data of the file begun last.
    ///
    /// # Errors
    /// What `out` says; more data than the file has.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other("more data than the entry has"))?;
        self.out.write_all(bytes)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// What `out` says; a file that is not complete.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("less data than the entry has"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all([0; BLOCK].get(..padding).unwrap_or_default())
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        self.out.write_all([0; BLOCK].get(..padding(length)).unwrap_or_default())
    }
}

/// Bytes from `length` to the next whole block.
fn padding(length: u64) -> usize {
    usize::try_from(length.next_multiple_of(BLOCK as u64) - length).unwrap_or(0)
}

fn header(entry: &Entry, size: u64, is_sparse: bool) -> Header {
    let (flag, link, device) = match &entry.kind {
        Kind::File | Kind::Special(Special::Socket) => (flag::FILE, &[][..], (0, 0)),
        Kind::HardLink(target) => (flag::HARD_LINK, target.as_slice(), (0, 0)),
        Kind::Symlink(target) => (flag::SYMLINK, target.as_slice(), (0, 0)),
        Kind::Directory => (flag::DIRECTORY, &[][..], (0, 0)),
        Kind::Special(Special::Fifo) => (flag::FIFO, &[][..], (0, 0)),
        Kind::Special(Special::Char(major, minor)) => (flag::CHAR, &[][..], (*major, *minor)),
        Kind::Special(Special::Block(major, minor)) => (flag::BLOCK, &[][..], (*major, *minor)),
    };
    let mut name = match entry.path.iter().rposition(|byte| *byte == b'/') {
        // Programs that do not know the format find the condensed file there (GNU tar manual, "Storing Sparse Files").
        Some(at) if is_sparse => {
            let (directory, name) = entry.path.split_at(at);
            [directory, b"/GNUSparseFile.0", name].concat()
        }
        None if is_sparse => [b"GNUSparseFile.0/", entry.path.as_slice()].concat(),
        _ => entry.path.clone(),
    };
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    Header {
        name,
        flag,
        mode: entry.meta.mode,
        uid: u64::from(entry.meta.uid),
        gid: u64::from(entry.meta.gid),
        size,
        mtime: entry.meta.mtime.seconds,
        link: link.to_vec(),
        major: u64::from(device.0),
        minor: u64::from(device.1),
    }
}

/// What the header cannot say.
fn records(entry: &Entry, header: &Header, size: u64, is_sparse: bool) -> Vec<u8> {
    let mut records = Records::default();
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if !is_text(&entry.path) || !is_text(&header.link) {
        // Names are UTF-8 unless it is said that they are bytes.
        records.put(b"hdrcharset", b"BINARY");
    }
    if is_sparse {
        records.put(b"GNU.sparse.major", b"1");
        records.put(b"GNU.sparse.minor", b"0");
        records.put(b"GNU.sparse.name", &entry.path);
        records.put(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    } else if header.name.len() > 100 || !is_text(&entry.path) {
        records.put(b"path", &header.name);
    }
    if header.link.len() > 100 || !is_text(&header.link) {
        records.put(b"linkpath", &header.link);
    }
    for (key, number, field) in [(&b"size"[..], size, 12), (b"uid", header.uid, 8), (b"gid", header.gid, 8)] {
        if !fits_octal(number, field) {
            records.put(key, number.to_string().as_bytes());
        }
    }
    let is_whole = |time: Time| time.nanoseconds == 0 && u64::try_from(time.seconds).is_ok_and(|t| fits_octal(t, 12));
    if !is_whole(entry.meta.mtime) {
        records.put(b"mtime", time(entry.meta.mtime).as_bytes());
    }
    records.put(b"atime", time(entry.meta.atime).as_bytes());
    if entry.kind == Kind::Special(Special::Socket) {
        records.put(b"SCHILY.filetype", b"socket");
    }
    entry.xattrs.iter().for_each(|xattr| records.put_xattr(xattr));
    records.bytes().to_vec()
}
