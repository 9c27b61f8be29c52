//! An archive read entry by entry: what piboot writes, and what GNU tar or bsdtar make of it when somebody packs it anew.

use std::io::Read;

use super::header::{BLOCK, Header, flag};
use super::pax::Pax;
use super::{ArchiveError, Entry, Kind, MAX_EXTENSION, Result, extents};
use crate::printable::printable;
use crate::storage::tree_writer::{Meta, Special, Time};

/// What may follow the end of an archive: tar fills its last record up.
const MAX_TRAILER: u64 = 16 << 20;
/// Extensions before one entry: names, attributes, comments. Programs write three at most.
const MAX_EXTENSIONS: usize = 8;
/// Data is handed over in pieces of this size.
const PIECE: usize = 256 << 10;

/// Reads an archive from `input`, already decompressed.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Data of the current entry that was not read yet, and what fills its last block.
    left: u64,
    padding: u64,
    extents: std::vec::IntoIter<(u64, u64)>,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads from the beginning of an archive.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, extents: Vec::new().into_iter(), buffer: Vec::new() }
    }

    /// What is read from.
    pub const fn get_ref(&self) -> &R {
        &self.input
    }

    /// What is left of what was read from.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; `None` at the end, which is read to the last byte, so that a checksum of the whole was compared.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let rest = self.left.saturating_add(self.padding);
        self.skip(rest)?;
        (self.left, self.padding) = (0, 0);
        let (mut pax, mut long_name, mut long_link) = (Pax::default(), None, None);
        for _ in 0..=MAX_EXTENSIONS {
            let block = self.block()?;
            if block.iter().all(|byte| *byte == 0) {
                self.finish()?;
                return Ok(None);
            }
            let header = Header::decode(&block)?;
            match header.flag {
                flag::PAX => pax = Pax::decode(&self.extension(header.size)?)?,
                // Nothing that is needed: piboot writes none, git and others a comment.
                flag::PAX_GLOBAL => drop(self.extension(header.size)?),
                flag::LONG_NAME => long_name = Some(until_nul(self.extension(header.size)?)),
                flag::LONG_LINK => long_link = Some(until_nul(self.extension(header.size)?)),
                _ => {
                    pax.path = pax.path.or(long_name);
                    pax.link = pax.link.or(long_link);
                    return self.entry(header, pax).map(Some);
                }
            }
        }
        let what = format!("more than {MAX_EXTENSIONS} extensions stand before one of its entries");
        Err(ArchiveError::Unsupported(what))
    }

    /// Hands over the data of the current entry: where in the file it belongs, and what it is.
    ///
    /// # Errors
    /// [`ArchiveError`], or what `take` says.
    pub fn content(&mut self, mut take: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(PIECE, 0);
        for (mut offset, mut length) in self.extents.by_ref() {
            while length > 0 {
                let step = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.get_mut(..step).unwrap_or_default();
                self.input.read_exact(piece).map_err(ArchiveError::reading)?;
                self.left = self.left.saturating_sub(step as u64);
                take(offset, piece)?;
                (offset, length) = (offset + step as u64, length - step as u64);
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// The data of the current entry, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn small_content(&mut self, limit: u64) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(ArchiveError::Unsupported(format!("a description in it is longer than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        self.content(|_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn entry(&mut self, header: Header, pax: Pax) -> Result<Entry> {
        let size = pax.size.unwrap_or(header.size);
        let sparse = pax.sparse.unwrap_or_default();
        let name = sparse.name.or(pax.path).unwrap_or(header.name);
        let path = clean(&name)?;
        let shown = || printable(&path);
        let id = |number: u64| {
            u32::try_from(number).map_err(|_| ArchiveError::Damaged(format!("the owner of {} is none", shown())))
        };
        let device = || -> Result<(u32, u32)> {
            let bad = |_| ArchiveError::Damaged(format!("the device number of {} is none", shown()));
            Ok((u32::try_from(header.major).map_err(bad)?, u32::try_from(header.minor).map_err(bad)?))
        };
        let link = pax.link.unwrap_or(header.link);
        let kind = match header.flag {
            flag::FILE | 0 | b'7' if pax.filetype.as_deref() == Some(b"socket") => Kind::Special(Special::Socket),
            // Before POSIX a directory was a file with a slash behind its name.
            flag::FILE | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            flag::FILE | 0 | b'7' => Kind::File,
            flag::HARD_LINK => Kind::HardLink(clean(&link)?),
            flag::SYMLINK if link.is_empty() => {
                return Err(ArchiveError::Damaged(format!("the link {} leads nowhere", shown())));
            }
            flag::SYMLINK => Kind::Symlink(link),
            flag::DIRECTORY => Kind::Directory,
            flag::FIFO => Kind::Special(Special::Fifo),
            flag::CHAR => device().map(|(major, minor)| Kind::Special(Special::Char(major, minor)))?,
            flag::BLOCK => device().map(|(major, minor)| Kind::Special(Special::Block(major, minor)))?,
            other => {
                let what = format!("{} is of a kind that is not known here ('{}')", shown(), printable(&[other]));
                return Err(ArchiveError::Unsupported(what));
            }
        };
        let mut entry = Entry {
            kind,
            meta: Meta {
                mode: header.mode,
                uid: id(pax.uid.unwrap_or(header.uid))?,
                gid: id(pax.gid.unwrap_or(header.gid))?,
                atime: Time::default(),
                mtime: pax.mtime.unwrap_or(Time { seconds: header.mtime, nanoseconds: 0 }),
            },
            xattrs: pax.xattrs,
            size: 0,
            extents: Vec::new(),
            path,
        };
        entry.meta.atime = pax.atime.unwrap_or(entry.meta.mtime);
        // Data, of whatever kind of entry, has to be gone past.
        (self.left, self.padding) = (size, padding(size));
        if entry.kind != Kind::File {
            self.extents = Vec::new().into_iter();
            return Ok(entry);
        }
        (entry.size, entry.extents) = match (sparse.major, sparse.minor, sparse.size) {
            (None, None, None) if !sparse.is_old => (size, vec![(0, size)]),
            (Some(1), Some(0), Some(real)) => (real, self.map(real)?),
            _ => {
                let what = format!("{} has holes in a format other than 1.0", printable(&entry.path));
                return Err(ArchiveError::Unsupported(what));
            }
        };
        self.extents = entry.extents.clone().into_iter();
        Ok(entry)
    }

    /// The map of a sparse file, the first blocks of its data.
    fn map(&mut self, size: u64) -> Result<Vec<(u64, u64)>> {
        let mut left = self.left;
        let damaged = || ArchiveError::Damaged("the map of a sparse file and its data do not agree".to_owned());
        let extents = extents::decode(size, || {
            left = left.checked_sub(BLOCK as u64).ok_or_else(damaged)?;
            self.block()
        })?;
        let data = extents.iter().try_fold(0_u64, |sum, (_, length)| sum.checked_add(*length));
        if data != Some(left) {
            return Err(damaged());
        }
        self.left = left;
        Ok(extents)
    }

    /// Whatever follows the end; nothing may, but zeros.
    fn finish(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        let mut seen = 0;
        loop {
            let read = self.input.read(&mut block).map_err(ArchiveError::reading)?;
            let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            seen += read as u64;
            if bytes.iter().any(|byte| *byte != 0) || seen > MAX_TRAILER {
                return Err(ArchiveError::Damaged("something follows its end".to_owned()));
            }
        }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            let what = format!("a name or attribute in it is longer than {MAX_EXTENSION} bytes");
            return Err(ArchiveError::Unsupported(what));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(size).read_to_end(&mut bytes).map_err(ArchiveError::reading)?;
        if (read as u64) < size {
            return Err(ArchiveError::CutOff);
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(ArchiveError::reading)?;
        Ok(block)
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.input).take(length), &mut std::io::sink());
        let skipped = skipped.map_err(ArchiveError::reading)?;
        if skipped < length { Err(ArchiveError::CutOff) } else { Ok(()) }
    }
}

/// Bytes from the end of so much data to the next whole block.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// A path that stays where it is put: relative, without dots for directories, and without slashes behind.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let refused = |why: &str| Err(ArchiveError::Unsupported(format!("the name '{}' {why}", printable(name))));
    let mut path = name;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    if path.starts_with(b"/") {
        return refused("does not stay in the tree: it begins at the root");
    }
    if path.contains(&0) {
        return refused("is none");
    }
    // The tree itself, as 'tar -C TREE -c .' has it.
    if path == b"." || (path.is_empty() && !name.is_empty()) {
        return Ok(Vec::new());
    }
    match path.split(|byte| *byte == b'/').find(|part| matches!(*part, b"" | b"." | b"..")) {
        Some(b"..") => refused("does not stay in the tree"),
        Some(_) => refused("is none"),
        None => Ok(path.to_vec()),
    }
}
