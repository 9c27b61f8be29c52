//! Read-only reader of ext2, ext3 and ext4, over raw inodes. It allocates nothing that the file system's own bytes
//! do not justify and gives every damaged structure a name. Checksums are not verified: the image's own stream
//! carries stronger ones.

mod acl;
mod dir;
mod error;
mod inode;
mod journal;
mod runs;
mod superblock;
mod xattr;

use std::cell::Cell;

pub use dir::{Entries, Entry};
pub use error::Ext4Error;
pub use inode::{Inode, Kind, ROOT};
pub use runs::{Run, Runs};
pub use superblock::{OFFSET as SUPERBLOCK_OFFSET, SIZE as SUPERBLOCK_SIZE, Superblock};

use super::blocks::BlockSource;
use super::fields::u32_at;
use crate::printable::printable;
use journal::Replayed;

/// Longest symlink target (PATH_MAX without its NUL).
const MAX_TARGET: usize = 4095;
/// Symlinks followed by [`Ext4::resolve`], as in Linux.
const MAX_LINKS: u32 = 40;

/// An open file system.
pub struct Ext4<'a> {
    source: &'a dyn BlockSource,
    superblock: Superblock,
    replayed: Option<Replayed>,
    /// Blocks that files may still claim. Every block belongs to one file, so that a sound file system never runs
    /// out; a damaged one whose files share blocks cannot make a walk endless or a copy larger than itself.
    budget: Cell<u64>,
    /// Group and inode table of the last inode read: neighbours are read together.
    table: Cell<Option<(u32, u64)>>,
}

impl<'a> Ext4<'a> {
    /// Reads and checks the superblock, and replays the journal in memory if the file system was not shut down cleanly.
    ///
    /// # Errors
    /// A refusal by name for what cannot be read, damage, or what reading met.
    pub fn open(source: &'a dyn BlockSource) -> Result<Self, Ext4Error> {
        let superblock = Superblock::read(source)?;
        let Some(journal) = superblock.to_replay else { return Ok(Self::new(source, superblock, None)) };
        if journal == 0 {
            return Err(Ext4Error::Journal("it is on another device"));
        }
        let mut fs = Self::new(source, superblock, None);
        let replayed = journal::replay(&fs, journal)?;
        fs.replayed = Some(replayed);
        // The superblock may be among the blocks that the journal has newer.
        let mut data = vec![0; SUPERBLOCK_SIZE];
        fs.read(&mut data, SUPERBLOCK_OFFSET)?;
        let superblock = Superblock::parse(&data)?;
        if superblock.size() > source.size() || superblock.block_size != fs.superblock.block_size {
            return Err(Ext4Error::Superblock("the journal has another one that does not fit"));
        }
        Ok(Self::new(source, superblock, fs.replayed))
    }

    fn new(source: &'a dyn BlockSource, superblock: Superblock, replayed: Option<Replayed>) -> Self {
        let budget = if superblock.shares_blocks() { superblock.blocks.saturating_mul(16) } else { superblock.blocks };
        Self { source, superblock, replayed, budget: Cell::new(budget), table: Cell::new(None) }
    }

    /// Sizes and counts.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Reads one inode.
    ///
    /// # Errors
    /// Damage, an encrypted inode, or what reading met.
    pub fn inode(&self, number: u32) -> Result<Inode, Ext4Error> {
        let sb = &self.superblock;
        if number == 0 || number > sb.inodes {
            return Err(Ext4Error::inode(number, "inode number out of range"));
        }
        let (group, index) = ((number - 1) / sb.inodes_per_group, (number - 1) % sb.inodes_per_group);
        let table = self.inode_table(number, group)?;
        let offset = table * u64::from(sb.block_size) + u64::from(index) * u64::from(sb.inode_size);
        let mut raw = vec![0; usize::from(sb.inode_size)];
        if offset + u64::from(sb.inode_size) > sb.size() {
            return Err(Ext4Error::inode(number, "inode table past the end of the file system"));
        }
        self.read(&mut raw, offset)?;
        Inode::parse(number, raw, sb)
    }

    /// First block of a group's inode table.
    fn inode_table(&self, inode: u32, group: u32) -> Result<u64, Ext4Error> {
        if let Some((known, table)) = self.table.get().filter(|(known, _)| *known == group) {
            debug_assert_eq!(known, group);
            return Ok(table);
        }
        let sb = &self.superblock;
        let size = usize::from(sb.desc_size);
        let mut descriptor = vec![0; size];
        self.read(&mut descriptor, sb.descriptor_offset(group))?;
        let high = if size >= 64 { u64::from(u32_at(&descriptor, 0x28)) << 32 } else { 0 };
        let table = u64::from(u32_at(&descriptor, 0x8)) | high;
        self.check_blocks(inode, table, 1)?;
        self.table.set(Some((group, table)));
        Ok(table)
    }

    /// The runs of blocks that hold a file's content; empty for content kept in the inode (see [`Ext4::inline`]).
    ///
    /// # Errors
    /// A damaged block map.
    pub fn runs(&'a self, inode: &Inode) -> Result<Runs<'a>, Ext4Error> {
        Runs::new(self, inode)
    }

    /// Content kept in the inode itself, cut to the file's size; `None` when it is in blocks. Where the file is longer
    /// the rest is a hole: mke2fs -d makes such files of sparse ones.
    ///
    /// # Errors
    /// Damage, or what reading met.
    pub fn inline(&self, inode: &Inode) -> Result<Option<Vec<u8>>, Ext4Error> {
        let Some((mut data, rest)) = self.inline_parts(inode)? else { return Ok(None) };
        data.extend(rest);
        data.truncate(usize::try_from(inode.size).unwrap_or(usize::MAX));
        Ok(Some(data))
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// A damaged block map, or not a directory.
    pub fn entries(&'a self, inode: &Inode) -> Result<Entries<'a>, Ext4Error> {
        if inode.kind != Kind::Directory {
            return Err(Ext4Error::inode(inode.number, "not a directory"));
        }
        Entries::new(self, inode)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// Damage: empty, too long, with NUL inside; or what reading met.
    pub fn symlink(&self, inode: &Inode) -> Result<Vec<u8>, Ext4Error> {
        let bad = |what| Ext4Error::inode(inode.number, what);
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
        if size == 0 || size > MAX_TARGET {
            return Err(bad("symbolic link of impossible length"));
        }
        let target = if let Some(data) = self.inline(inode)? {
            data
        } else if size < inode::I_BLOCK_SIZE {
            inode.i_block().get(..size).unwrap_or_default().to_vec()
        } else {
            self.content(inode, size)?
        };
        if target.contains(&0) {
            return Err(bad("NUL in the target of a symbolic link"));
        }
        Ok(target)
    }

    /// The first `max` bytes of a file's content.
    ///
    /// # Errors
    /// Damage, or what reading met.
    pub fn content(&self, inode: &Inode, max: usize) -> Result<Vec<u8>, Ext4Error> {
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX).min(max);
        if let Some(mut data) = self.inline(inode)? {
            data.resize(size, 0);
            return Ok(data);
        }
        let mut out = vec![0; size];
        let block = u64::from(self.superblock.block_size);
        let mut runs = Runs::new(self, inode)?;
        while let Some(run) = runs.next()? {
            let Some(start) = usize::try_from(run.logical * block).ok().filter(|start| *start < size) else { break };
            let length = usize::try_from(run.count * block).unwrap_or(usize::MAX).min(size - start);
            self.read(&mut out[start..start + length], run.physical * block)?;
        }
        Ok(out)
    }

    /// Fills `buf` from byte `skip` of a run.
    ///
    /// # Errors
    /// What reading met.
    pub fn read_run(&self, run: Run, skip: u64, buf: &mut [u8]) -> Result<(), Ext4Error> {
        self.read(buf, run.physical.saturating_mul(u64::from(self.superblock.block_size)).saturating_add(skip))
    }

    /// The run's blocks will not be read again.
    pub fn discard(&self, run: Run) {
        if !self.superblock.shares_blocks() {
            let block = u64::from(self.superblock.block_size);
            self.source.discard(run.physical * block, run.count * block);
        }
    }

    /// Finds a file by its absolute path, following symbolic links inside the file system.
    ///
    /// # Errors
    /// [`Ext4Error::NotFound`], damage, or what reading met.
    pub fn resolve(&'a self, path: &str) -> Result<Inode, Ext4Error> {
        let missing = || Ext4Error::NotFound(printable(path.as_bytes()));
        let mut pending: Vec<Vec<u8>> = path.split('/').rev().map(|part| part.as_bytes().to_vec()).collect();
        let mut trail = vec![self.inode(ROOT)?];
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = trail.last().ok_or_else(missing)?;
            if here.kind != Kind::Directory {
                return Err(missing());
            }
            let inode = self.lookup(here, &part)?.ok_or_else(missing)?;
            if inode.kind != Kind::Symlink {
                trail.push(inode);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(missing());
            }
            let target = self.symlink(&inode)?;
            if target.first() == Some(&b'/') {
                trail.truncate(1);
            }
            pending.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
        trail.pop().ok_or_else(missing)
    }

    fn lookup(&'a self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, Ext4Error> {
        let mut entries = self.entries(directory)?;
        loop {
            let chunk = entries.next_chunk(256)?;
            if chunk.is_empty() {
                return Ok(None);
            }
            if let Some(entry) = chunk.iter().find(|entry| entry.name == name) {
                return self.inode(entry.inode).map(Some);
            }
        }
    }

    fn read_block(&self, block: u64) -> Result<Vec<u8>, Ext4Error> {
        let size = self.superblock.block_size;
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read(&mut data, block.saturating_mul(u64::from(size)))?;
        Ok(data)
    }

    /// Reads a block that belongs to `inode` alone.
    fn read_owned_block(&self, inode: u32, block: u64) -> Result<Vec<u8>, Ext4Error> {
        self.check_blocks(inode, block, 1)?;
        self.claim(inode, 1)?;
        self.read_block(block)
    }

    fn check_blocks(&self, inode: u32, first: u64, count: u64) -> Result<(), Ext4Error> {
        let sb = &self.superblock;
        let end = first.checked_add(count);
        if first <= u64::from(sb.first_data_block) || end.is_none_or(|end| end > sb.blocks) {
            return Err(Ext4Error::inode(inode, "block number out of range"));
        }
        Ok(())
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Ext4Error> {
        let len = buf.len();
        let done = match &self.replayed {
            Some(replayed) => replayed.read(self.source, self.superblock.block_size, buf, offset),
            None => self.source.read_at(buf, offset),
        };
        done.map_err(|source| Ext4Error::Read { offset, len, source })
    }

    /// Takes `count` blocks from the budget.
    ///
    /// # Errors
    /// [`Ext4Error::TooMuch`].
    pub fn claim(&self, inode: u32, count: u64) -> Result<(), Ext4Error> {
        let left = self.budget.get().checked_sub(count).ok_or(Ext4Error::TooMuch(inode))?;
        self.budget.set(left);
        Ok(())
    }
}
