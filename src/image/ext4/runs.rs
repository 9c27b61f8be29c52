//! Which blocks a file's content lies in: extent trees and indirect block maps, as runs of adjacent blocks in the
//! order of the file. Holes and unwritten extents are left out.

use super::inode::{Inode, flags};
use super::{Ext4, Ext4Error};
use crate::image::fields::{u16_at, u32_at};

/// Adjacent blocks of a file, counted in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First block in the file.
    pub logical: u64,
    /// First block in the file system.
    pub physical: u64,
    /// How many.
    pub count: u64,
}

const EXTENT_MAGIC: u16 = 0xf30a;
/// Deepest tree the format allows (`EXT4_MAX_EXTENT_DEPTH`).
const MAX_DEPTH: u16 = 5;
/// Header, index and leaf entries are twelve bytes each.
const ENTRY: usize = 12;
/// Longer lengths mark an extent as allocated but not written: it reads as zeros.
const MAX_WRITTEN: u64 = 32768;

/// Walks the runs of one file; the content after the file's size is left out.
pub struct Runs<'a> {
    fs: &'a Ext4<'a>,
    inode: u32,
    /// Blocks that the file's size covers.
    limit: u64,
    map: Map,
}

enum Map {
    Extents { levels: Vec<ExtentNode>, next_logical: u64 },
    Indirect { levels: Vec<IndirectNode>, logical: u64 },
}

struct ExtentNode {
    data: Vec<u8>,
    depth: u16,
    entries: usize,
    next: usize,
}

struct IndirectNode {
    words: Vec<u8>,
    next: usize,
    /// 0: the words are data blocks; n: they are blocks of words of height n - 1. The root mixes them.
    height: u32,
    root: bool,
}

impl<'a> Runs<'a> {
    pub(super) fn new(fs: &'a Ext4<'a>, inode: &Inode) -> Result<Self, Ext4Error> {
        let limit = inode.size.div_ceil(u64::from(fs.superblock().block_size));
        let root = inode.i_block().to_vec();
        let map = if inode.has(flags::EXTENTS) {
            let depth = u16_at(&root, 6);
            if depth > MAX_DEPTH {
                return Err(Ext4Error::inode(inode.number, "extent tree deeper than five levels"));
            }
            Map::Extents { levels: vec![extent_node(inode.number, root, depth)?], next_logical: 0 }
        } else {
            Map::Indirect { levels: vec![IndirectNode { words: root, next: 0, height: 0, root: true }], logical: 0 }
        };
        Ok(Self { fs, inode: inode.number, limit, map })
    }

    /// Bytes of the file system kept in memory.
    pub(super) fn held(&self) -> usize {
        match &self.map {
            Map::Extents { levels, .. } => levels.iter().map(|level| level.data.len()).sum(),
            Map::Indirect { levels, .. } => levels.iter().map(|level| level.words.len()).sum(),
        }
    }

    /// The next run, `None` at the end.
    ///
    /// # Errors
    /// Damage, or what reading met.
    #[allow(
        clippy::should_implement_trait,
        reason = "an error ends the walk, which an Iterator of Results does not say"
    )]
    pub fn next(&mut self) -> Result<Option<Run>, Ext4Error> {
        let (fs, inode, limit) = (self.fs, self.inode, self.limit);
        let run = match &mut self.map {
            Map::Extents { levels, next_logical } => next_extent(fs, inode, limit, levels, next_logical)?,
            Map::Indirect { levels, logical } => next_indirect(fs, inode, limit, levels, logical)?,
        };
        if let Some(run) = run {
            fs.check_blocks(inode, run.physical, run.count)?;
        }
        Ok(run)
    }
}

/// Checks a node's header.
fn extent_node(inode: u32, data: Vec<u8>, depth: u16) -> Result<ExtentNode, Ext4Error> {
    let bad = |what| Err(Ext4Error::inode(inode, what));
    let entries = usize::from(u16_at(&data, 2));
    if u16_at(&data, 0) != EXTENT_MAGIC {
        return bad("extent node without its magic number");
    }
    if u16_at(&data, 6) != depth {
        return bad("extent node at the wrong depth");
    }
    if entries > usize::from(u16_at(&data, 4)) || (entries + 1) * ENTRY > data.len() {
        return bad("extent node with more entries than fit");
    }
    Ok(ExtentNode { data, depth, entries, next: 0 })
}

fn next_extent(
    fs: &Ext4<'_>,
    inode: u32,
    limit: u64,
    levels: &mut Vec<ExtentNode>,
    next_logical: &mut u64,
) -> Result<Option<Run>, Ext4Error> {
    let bad = |what| Err(Ext4Error::inode(inode, what));
    while let Some(level) = levels.last_mut() {
        if level.next == level.entries {
            levels.pop();
            continue;
        }
        let entry = &level.data[(level.next + 1) * ENTRY..];
        level.next += 1;
        let logical = u64::from(u32_at(entry, 0));
        // Strictly rising order is also what makes the walk of a damaged tree end: no node can be visited twice.
        if logical < *next_logical {
            return bad("extents overlap or are out of order");
        }
        if level.depth > 0 {
            let depth = level.depth - 1;
            let child = u64::from(u32_at(entry, 4)) | u64::from(u16_at(entry, 8)) << 32;
            let node = extent_node(inode, fs.read_owned_block(inode, child)?, depth)?;
            if node.entries == 0 {
                return bad("empty extent node");
            }
            *next_logical = logical;
            levels.push(node);
            continue;
        }
        let length = u64::from(u16_at(entry, 4));
        let (length, written) = if length > MAX_WRITTEN { (length - MAX_WRITTEN, false) } else { (length, true) };
        if length == 0 || logical + length > 1 << 32 {
            return bad("extent of impossible length");
        }
        *next_logical = logical + length;
        if logical >= limit {
            return Ok(None);
        }
        if written {
            let physical = u64::from(u32_at(entry, 8)) | u64::from(u16_at(entry, 6)) << 32;
            return Ok(Some(Run { logical, physical, count: length.min(limit - logical) }));
        }
    }
    Ok(None)
}

fn next_indirect(
    fs: &Ext4<'_>,
    inode: u32,
    limit: u64,
    levels: &mut Vec<IndirectNode>,
    logical: &mut u64,
) -> Result<Option<Run>, Ext4Error> {
    let per_block = u64::from(fs.superblock().block_size / 4);
    let mut run: Option<Run> = None;
    while let Some(level) = levels.last_mut() {
        if *logical >= limit {
            break;
        }
        let at = level.next * 4;
        if at >= level.words.len() {
            levels.pop();
            continue;
        }
        // The root holds twelve direct blocks, then one each of height 1, 2 and 3.
        let height = if level.root { u32::try_from(level.next.saturating_sub(11)).unwrap_or(3) } else { level.height };
        let physical = u64::from(u32_at(&level.words, at));
        if physical == 0 {
            if run.is_some() {
                break;
            }
            level.next += 1;
            *logical = logical.saturating_add(per_block.saturating_pow(height));
            continue;
        }
        if height > 0 {
            level.next += 1;
            let words = fs.read_owned_block(inode, physical)?;
            levels.push(IndirectNode { words, next: 0, height: height - 1, root: false });
            continue;
        }
        match &mut run {
            None => run = Some(Run { logical: *logical, physical, count: 1 }),
            Some(run) if run.physical + run.count == physical && run.count < MAX_WRITTEN => run.count += 1,
            Some(_) => break,
        }
        level.next += 1;
        *logical += 1;
    }
    Ok(run)
}
