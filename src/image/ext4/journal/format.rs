//! Blocks of a jbd2 journal (Linux Documentation/filesystems/ext4/journal.rst). All its figures are big-endian.

use super::crc32c::crc32c;

pub(super) const MAGIC: u32 = 0xc03b_3998;
const SUPERBLOCK_SIZE: usize = 1024;

/// Incompatible features of a journal.
mod incompat {
    pub(super) const REVOKE: u32 = 0x1;
    pub(super) const BIT64: u32 = 0x2;
    pub(super) const ASYNC_COMMIT: u32 = 0x4;
    pub(super) const CSUM_V2: u32 = 0x8;
    pub(super) const CSUM_V3: u32 = 0x10;
    pub(super) const FAST_COMMIT: u32 = 0x20;
    pub(super) const KNOWN: u32 = REVOKE | BIT64 | ASYNC_COMMIT | CSUM_V2 | CSUM_V3;
}

/// Flags of a tag.
mod flag {
    pub(super) const ESCAPED: u32 = 1;
    pub(super) const SAME_UUID: u32 = 2;
    pub(super) const LAST: u32 = 8;
}

pub(super) fn be32(data: &[u8], at: usize) -> u32 {
    let field = data.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(field.copied().unwrap_or_default())
}

fn be16(data: &[u8], at: usize) -> u16 {
    let field = data.get(at..).and_then(|rest| rest.first_chunk());
    u16::from_be_bytes(field.copied().unwrap_or_default())
}

/// Which checksums a journal carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksums {
    None,
    V2,
    V3,
}

/// The first block of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) block_size: u32,
    /// Blocks of the whole journal.
    pub(super) length: u32,
    /// First block of the log.
    pub(super) first: u32,
    /// Where the log begins, 0 if there is nothing in it.
    pub(super) start: u32,
    /// Number of its first transaction.
    pub(super) sequence: u32,
    is64: bool,
    checksums: Checksums,
    seed: u32,
}

impl Superblock {
    /// Reads the journal's first block.
    ///
    /// # Errors
    /// What is wrong, or not supported.
    pub(super) fn parse(data: &[u8]) -> Result<Self, &'static str> {
        let head = data.get(..SUPERBLOCK_SIZE).ok_or("it is too short")?;
        let kind = be32(head, 4);
        if be32(head, 0) != MAGIC || !matches!(kind, 3 | 4) {
            return Err("it has no superblock");
        }
        let features = if kind == 4 { be32(head, 0x28) } else { 0 };
        if features & incompat::FAST_COMMIT != 0 {
            return Err("it uses fast commits, which are not supported");
        }
        if features & !incompat::KNOWN != 0 {
            return Err("it uses features that are not supported");
        }
        let checksums = match features & (incompat::CSUM_V2 | incompat::CSUM_V3) {
            0 => Checksums::None,
            incompat::CSUM_V2 => Checksums::V2,
            incompat::CSUM_V3 => Checksums::V3,
            _ => return Err("it has two kinds of checksum"),
        };
        if features & incompat::ASYNC_COMMIT != 0 && checksums == Checksums::None {
            // Only the old kind of checksum, over all of a transaction, would tell a whole one from a torn one.
            return Err("it uses asynchronous commits, which are not supported");
        }
        if checksums != Checksums::None {
            let mut plain = head.to_vec();
            plain.iter_mut().skip(0xfc).take(4).for_each(|byte| *byte = 0);
            if be32(head, 0xfc) != crc32c(!0, &plain) {
                return Err("its superblock's checksum is wrong");
            }
        }
        let uuid = head.get(0x30..0x40).unwrap_or_default();
        let found = Self {
            block_size: be32(head, 0xc),
            length: be32(head, 0x10),
            first: be32(head, 0x14),
            start: be32(head, 0x1c),
            sequence: be32(head, 0x18),
            is64: features & incompat::BIT64 != 0,
            checksums,
            seed: crc32c(!0, uuid),
        };
        let inside = |block| (found.first..found.length).contains(&block);
        if found.first == 0 || (found.start != 0 && !inside(found.start)) {
            return Err("its log lies outside of it");
        }
        Ok(found)
    }

    /// Whether the checksum at the end of a descriptor or revoke block fits.
    pub(super) fn tail_fits(&self, data: &[u8]) -> bool {
        let Some((content, stored)) = data.split_last_chunk::<4>() else { return false };
        let sum = || crc32c(crc32c(self.seed, content), &[0; 4]);
        self.checksums == Checksums::None || u32::from_be_bytes(*stored) == sum()
    }

    /// Whether the checksum inside a commit block fits.
    pub(super) fn commit_fits(&self, data: &[u8]) -> bool {
        if self.checksums == Checksums::None {
            return true;
        }
        let mut plain = data.to_vec();
        plain.iter_mut().skip(0x10).take(4).for_each(|byte| *byte = 0);
        be32(data, 0x10) == crc32c(self.seed, &plain)
    }

    /// Whether a block of the log is what its tag says.
    pub(super) fn data_fits(&self, tag: &Tag, sequence: u32, data: &[u8]) -> bool {
        let sum = || crc32c(crc32c(self.seed, &sequence.to_be_bytes()), data);
        match self.checksums {
            Checksums::None => true,
            Checksums::V2 => tag.checksum == sum() & 0xffff,
            Checksums::V3 => tag.checksum == sum(),
        }
    }

    pub(super) fn has_data_checksums(&self) -> bool {
        self.checksums != Checksums::None
    }

    /// Bytes at a block's end that hold its checksum.
    fn tail(&self) -> usize {
        if self.checksums == Checksums::None { 0 } else { 4 }
    }

    /// The tags of a descriptor block: one for each block of the log that follows it.
    pub(super) fn tags(&self, data: &[u8]) -> Vec<Tag> {
        let end = data.len().saturating_sub(self.tail());
        let size = match (self.checksums, self.is64) {
            (Checksums::V3, _) => 16,
            (Checksums::V2, true) => 14,
            (Checksums::V2, false) => 10,
            (Checksums::None, true) => 12,
            (Checksums::None, false) => 8,
        };
        let mut tags = Vec::new();
        let mut at = 12;
        while let Some(entry) = data.get(at..at + size).filter(|_| at + size <= end) {
            let (flags, checksum) = match self.checksums {
                Checksums::V3 => (be32(entry, 4), be32(entry, 12)),
                _ => (u32::from(be16(entry, 6)), u32::from(be16(entry, 4))),
            };
            let high = if self.is64 { u64::from(be32(entry, 8)) << 32 } else { 0 };
            let home = u64::from(be32(entry, 0)) | high;
            tags.push(Tag { home, escaped: flags & flag::ESCAPED != 0, checksum });
            at += size + if flags & flag::SAME_UUID == 0 { 16 } else { 0 };
            if flags & flag::LAST != 0 {
                break;
            }
        }
        tags
    }

    /// The blocks that a revoke block names.
    pub(super) fn revoked(&self, data: &[u8]) -> Vec<u64> {
        let end = usize::try_from(be32(data, 12)).unwrap_or(0).min(data.len().saturating_sub(self.tail()));
        let records = data.get(16..end).unwrap_or_default();
        if self.is64 {
            let wide = |record: &[u8]| u64::from(be32(record, 0)) << 32 | u64::from(be32(record, 4));
            records.chunks_exact(8).map(wide).collect()
        } else {
            records.chunks_exact(4).map(|record| u64::from(be32(record, 0))).collect()
        }
    }
}

/// Where a block of the log belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) home: u64,
    /// It began with the journal's magic number, which was replaced by zeros.
    pub(super) escaped: bool,
    checksum: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(features: u32) -> Superblock {
        let mut data = vec![0; 1024];
        for (at, value) in
            [(0, MAGIC), (4, 4), (0xc, 1024), (0x10, 100), (0x14, 1), (0x18, 7), (0x1c, 1), (0x28, features)]
        {
            data[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        let sum = crc32c(!0, &data);
        data[0xfc..0x100].copy_from_slice(&sum.to_be_bytes());
        Superblock::parse(&data).unwrap()
    }

    #[test]
    fn tags_have_five_sizes() {
        for (features, size) in [(0, 8), (2, 12), (8, 10), (8 | 2, 14), (0x10, 16), (0x10 | 2, 16)] {
            let sb = sample(features);
            let mut data = vec![0; 1024];

            for (n, flags) in [(0, 0_u8), (1, 1 | 2), (2, 2 | 8)] {
                let at = 12 + n * size + if n > 0 { 16 } else { 0 };
                data[at + 3] = 10 + n as u8;
                data[at + 7] = flags;
                if features & 2 != 0 {
                    data[at + 11] = 1;
                }
            }
            let high = if features & 2 != 0 { 1_u64 << 32 } else { 0 };
            let found: Vec<_> = sb.tags(&data).iter().map(|tag| (tag.home, tag.escaped)).collect();
            assert_eq!(found, [(high | 10, false), (high | 11, true), (high | 12, false)], "features {features:#x}");
        }
    }

    #[test]
    fn revoke_records_are_cut_at_the_block() {
        let mut data = vec![0xff; 1024];
        assert_eq!(sample(0).revoked(&data).len(), (1024 - 16) / 4);
        assert_eq!(sample(0x10 | 2).revoked(&data).len(), (1024 - 16 - 4) / 8);
        data[12..16].copy_from_slice(&24_u32.to_be_bytes());
        assert_eq!(sample(2).revoked(&data), [u64::MAX]);
        data[12..16].copy_from_slice(&3_u32.to_be_bytes());
        assert!(sample(2).revoked(&data).is_empty());
    }
}
