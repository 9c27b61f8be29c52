//! Replay of a journal in memory: what an unclean shutdown left in it is read from there instead of from where it
//! belongs. Nothing is written, and only where the newer blocks are is remembered, not what is in them.

mod crc32c;
mod format;

use std::collections::{BTreeMap, HashMap};

use super::runs::Run;
use super::{Ext4, Ext4Error};
use crate::image::blocks::BlockSource;
use format::{MAGIC, Superblock, Tag, be32};

/// Blocks that a replay may put in other places, some 16 MiB of memory. The largest journal that mke2fs makes has a
/// million, most of them older copies of the same.
const MAX_BLOCKS: usize = 400_000;

/// Kinds of block in a log.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

/// Where blocks are that the journal has newer than the file system.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// By block: the one to read instead, and whether its first word has to be restored.
    blocks: BTreeMap<u64, (u64, bool)>,
}

impl Replayed {
    /// Fills `buf` from byte `offset` of the file system.
    pub(super) fn read(
        &self,
        source: &dyn BlockSource,
        block_size: u32,
        buf: &mut [u8],
        offset: u64,
    ) -> std::io::Result<()> {
        let size = u64::from(block_size);
        let last = offset.saturating_add(buf.len() as u64).div_ceil(size);
        if self.blocks.range(offset / size..last).next().is_none() {
            return source.read_at(buf, offset);
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let skip = at % size;
            let length = usize::try_from(size - skip).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut(length);
            match self.blocks.get(&(at / size)) {
                None => source.read_at(piece, at)?,
                Some((instead, escaped)) => {
                    source.read_at(piece, instead.saturating_mul(size).saturating_add(skip))?;
                    let word = MAGIC.to_be_bytes().into_iter().enumerate();
                    for (n, byte) in word.filter(|_| *escaped) {
                        let to = usize::try_from(skip).ok().and_then(|skip| n.checked_sub(skip));
                        if let Some(to) = to.and_then(|to| piece.get_mut(to)) {
                            *to = byte;
                        }
                    }
                }
            }
            at += length as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// Replays the journal that lies in inode `number` of `fs`.
///
/// # Errors
/// A journal that is damaged or uses what is not supported, or what reading met.
pub(super) fn replay(fs: &Ext4<'_>, number: u32) -> Result<Replayed, Ext4Error> {
    let mut runs = Vec::new();
    let inode = fs.inode(number)?;
    let mut walk = fs.runs(&inode)?;
    while let Some(run) = walk.next()? {
        // Extents may lead to the same blocks again and again.
        fs.claim(number, run.count)?;
        runs.push(run);
        if runs.len() > MAX_BLOCKS {
            return Err(Ext4Error::Journal("it is in too many pieces"));
        }
    }
    let mut log = Log { fs, runs, superblock: None };
    let superblock = Superblock::parse(&log.block(0)?).map_err(Ext4Error::Journal)?;
    if superblock.block_size != fs.superblock().block_size {
        return Err(Ext4Error::Journal("its blocks have another size than the file system's"));
    }
    if superblock.start == 0 {
        return Ok(Replayed::default());
    }
    log.superblock = Some(superblock);
    log.replay()
}

struct Log<'a> {
    fs: &'a Ext4<'a>,
    runs: Vec<Run>,
    superblock: Option<Superblock>,
}

/// What a pass over the log meets, with the number of its transaction.
enum Met<'m> {
    /// A block to put in its place, and where it is in the log.
    Block(&'m Tag, u32),
    /// Copies of this block in this transaction and in those before it do not count.
    Revoked(u64),
}

type Visit<'v> = dyn FnMut(u32, Met<'_>) -> Result<(), Ext4Error> + 'v;

impl Log<'_> {
    fn replay(&self) -> Result<Replayed, Ext4Error> {
        let sb = self.superblock()?;
        let end = self.pass(None, &mut |_, _| Ok(()))?;
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        self.pass(Some(end), &mut |sequence, met| {
            if let Met::Revoked(block) = met {
                revoked.insert(block, sequence);
            }
            if revoked.len() > MAX_BLOCKS { Err(TOO_MUCH) } else { Ok(()) }
        })?;
        let mut found = Replayed::default();
        self.pass(Some(end), &mut |sequence, met| {
            let Met::Block(tag, at) = met else { return Ok(()) };
            // Numbers of transactions wrap around.
            let counts = |until: &u32| until.wrapping_sub(sequence).cast_signed() < 0;
            if !revoked.get(&tag.home).is_none_or(counts) {
                return Ok(());
            }
            if tag.home >= self.fs.superblock().blocks {
                return Err(Ext4Error::Journal("it has a block that belongs outside of the file system"));
            }
            if sb.has_data_checksums() && !sb.data_fits(tag, sequence, &self.block(at)?) {
                return Err(Ext4Error::Journal("the checksum of a block is wrong"));
            }
            found.blocks.insert(tag.home, (self.physical(at)?, tag.escaped));
            if found.blocks.len() > MAX_BLOCKS { Err(TOO_MUCH) } else { Ok(()) }
        })?;
        Ok(found)
    }

    /// Goes through the transactions until `end`, or to the last one that was committed; answers the number of the one
    /// after it.
    fn pass(&self, end: Option<u32>, visit: &mut Visit<'_>) -> Result<u32, Ext4Error> {
        let sb = self.superblock()?;
        let ring = sb.length - sb.first;
        let (mut at, mut sequence, mut used, mut torn) = (sb.start, sb.sequence, 0, false);
        // Whatever is in it, a log is no longer than its ring.
        while end != Some(sequence) && used < ring {
            let data = self.block(at)?;
            if be32(&data, 0) != MAGIC || be32(&data, 8) != sequence {
                break;
            }
            let mut step = || {
                at = if at + 1 < sb.length { at + 1 } else { sb.first };
                used += 1;
                at
            };
            let mut next = step();
            match be32(&data, 4) {
                DESCRIPTOR => {
                    torn |= !sb.tail_fits(&data);
                    for tag in sb.tags(&data) {
                        if !torn {
                            visit(sequence, Met::Block(&tag, next))?;
                        }
                        next = step();
                    }
                }
                REVOKE => {
                    torn |= !sb.tail_fits(&data);
                    for block in sb.revoked(&data).into_iter().filter(|_| !torn) {
                        visit(sequence, Met::Revoked(block))?;
                    }
                }
                COMMIT if !sb.commit_fits(&data) => break,
                // What was never committed may be half written; what was must be whole.
                COMMIT if torn => return Err(Ext4Error::Journal("the checksum of a descriptor is wrong")),
                COMMIT => sequence = sequence.wrapping_add(1),
                _ => break,
            }
        }
        Ok(sequence)
    }

    fn superblock(&self) -> Result<&Superblock, Ext4Error> {
        self.superblock.as_ref().ok_or(Ext4Error::Journal("it has no superblock"))
    }

    /// The block of the file system that holds a block of the journal.
    fn physical(&self, block: u32) -> Result<u64, Ext4Error> {
        let block = u64::from(block);
        let after = self.runs.partition_point(|run| run.logical <= block);
        let run = after.checked_sub(1).and_then(|n| self.runs.get(n));
        let run = run.filter(|run| block < run.logical + run.count);
        run.map(|run| run.physical + (block - run.logical)).ok_or(Ext4Error::Journal("a part of it is missing"))
    }

    fn block(&self, block: u32) -> Result<Vec<u8>, Ext4Error> {
        self.fs.read_block(self.physical(block)?)
    }
}

const TOO_MUCH: Ext4Error = Ext4Error::Journal("it changes more blocks than memory allows");
