//! Directories: a linear scan, which reads hashed directories too, since their index blocks look like empty ones
//! (Linux Documentation/filesystems/ext4/directory.rst).

use super::inode::Inode;
use super::runs::{Run, Runs};
use super::superblock::incompat;
use super::{Ext4, Ext4Error};
use crate::image::fields::{u16_at, u32_at};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Inode it leads to.
    pub inode: u32,
    /// Any bytes but '/' and NUL.
    pub name: Vec<u8>,
}

const HEADER: usize = 8;

/// Reads the names of one directory piece by piece, so that a large one needs little memory.
pub struct Entries<'a> {
    fs: &'a Ext4<'a>,
    inode: u32,
    parts: Parts<'a>,
}

enum Parts<'a> {
    Inline(Vec<Vec<u8>>),
    Blocks { runs: Runs<'a>, run: Option<Run> },
}

impl<'a> Entries<'a> {
    pub(super) fn new(fs: &'a Ext4<'a>, inode: &Inode) -> Result<Self, Ext4Error> {
        let parts = match fs.inline_parts(inode)? {
            // The first four bytes are the parent's number in place of "..".
            Some((first, rest)) => Parts::Inline(vec![rest, first.get(4..).unwrap_or_default().to_vec()]),
            None => Parts::Blocks { runs: Runs::new(fs, inode)?, run: None },
        };
        Ok(Self { fs, inode: inode.number, parts })
    }

    /// At least `wanted` more names unless the directory ends; empty at the end. "." and ".." are left out.
    ///
    /// # Errors
    /// What reading met, or damage.
    pub fn next_chunk(&mut self, wanted: usize) -> Result<Vec<Entry>, Ext4Error> {
        let mut chunk = Vec::new();
        let with_type = self.fs.superblock().has(incompat::FILETYPE);
        while chunk.len() < wanted {
            let Some(part) = self.next_part()? else { break };
            parse(&part, with_type, &mut chunk).map_err(|what| Ext4Error::inode(self.inode, what))?;
        }
        Ok(chunk)
    }

    /// Bytes of the file system kept in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.parts {
            Parts::Inline(parts) => parts.iter().map(Vec::len).sum(),
            Parts::Blocks { runs, .. } => runs.held(),
        }
    }

    fn next_part(&mut self) -> Result<Option<Vec<u8>>, Ext4Error> {
        match &mut self.parts {
            Parts::Inline(parts) => Ok(parts.pop()),
            Parts::Blocks { runs, run } => {
                let current = match run.take() {
                    Some(run) => run,
                    None => match runs.next()? {
                        Some(run) => run,
                        None => return Ok(None),
                    },
                };
                let block = self.fs.read_owned_block(self.inode, current.physical)?;
                if current.count > 1 {
                    *run = Some(Run { physical: current.physical + 1, count: current.count - 1, ..current });
                }
                Ok(Some(block))
            }
        }
    }
}

/// Reads the names in one block or inline part.
fn parse(data: &[u8], with_type: bool, out: &mut Vec<Entry>) -> Result<(), &'static str> {
    let mut at = 0;
    while at + HEADER <= data.len() {
        let inode = u32_at(data, at);
        let length = record_length(u16_at(data, at + 4), data.len());
        // Without the filetype feature the type byte is the length's high half.
        let name_length = if with_type { usize::from(data[at + 6]) } else { usize::from(u16_at(data, at + 6)) };
        if length < HEADER || !length.is_multiple_of(4) || at + length > data.len() {
            return Err("directory entry of impossible length");
        }
        if inode != 0 {
            if name_length == 0 || HEADER + name_length > length || name_length > 255 {
                return Err("directory entry with an impossible name length");
            }
            let name = &data[at + HEADER..at + HEADER + name_length];
            if name.iter().any(|b| matches!(b, b'/' | 0)) {
                return Err("directory entry with '/' or NUL in its name");
            }
            if name != b"." && name != b".." {
                out.push(Entry { inode, name: name.to_vec() });
            }
        }
        at += length;
    }
    Ok(())
}

/// 64 KiB does not fit in sixteen bits: there 0 and 65535 mean the whole block.
fn record_length(raw: u16, block: usize) -> usize {
    match usize::from(raw) {
        0 | 65535 if block == 65536 => block,
        length if block == 65536 => length & 0xfffc | (length & 3) << 16,
        length => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, length: u16, name: &[u8]) -> Vec<u8> {
        let mut data = inode.to_le_bytes().to_vec();
        data.extend(length.to_le_bytes());
        data.extend([u8::try_from(name.len()).unwrap(), 1]);
        data.extend(name);
        data.resize(usize::from(length), 0);
        data
    }

    fn names(data: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
        let mut out = Vec::new();
        parse(data, true, &mut out)?;
        Ok(out.into_iter().map(|e| e.name).collect())
    }

    #[test]
    fn deleted_entries_dots_and_checksum_tails_are_skipped() {
        let mut block =
            [entry(2, 12, b"."), entry(2, 12, b".."), entry(0, 16, b"gone"), entry(11, 12, b"\xff")].concat();
        block.extend(entry(0, 12, b""));
        assert_eq!(names(&block).unwrap(), [b"\xff"]);
    }

    #[test]
    fn damaged_entries_are_errors() {
        for (data, what) in [
            (entry(11, 12, b"a/b"), "'/'"),
            (entry(11, 12, b"a\0b"), "'/'"),
            (entry(11, 12, b""), "name length"),
            (entry(11, 12, b"1234")[..8].to_vec(), "impossible length"),
            (vec![11, 0, 0, 0, 0, 0, 1, 1], "impossible length"),
            (vec![11, 0, 0, 0, 8, 0, 1, 1], "name length"),
            (vec![11, 0, 0, 0, 9, 0, 1, 1, b'a', 0, 0, 0], "impossible length"),
        ] {
            let error = names(&data).unwrap_err();
            assert!(error.contains(what), "{error} for {data:?}");
        }
    }

    #[test]
    fn a_64_kib_block_has_its_own_lengths() {
        assert_eq!(record_length(0, 65536), 65536);
        assert_eq!(record_length(65535, 65536), 65536);
        assert_eq!(record_length(24, 65536), 24);
        assert_eq!(record_length(0, 4096), 0);
    }
}
