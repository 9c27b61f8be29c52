//! The superblock: sizes, counts and feature bits (Linux Documentation/filesystems/ext4/super.rst).

use super::Ext4Error;
use crate::image::blocks::BlockSource;
use crate::image::fields::{u16_at, u32_at};

/// Byte of the superblock in the partition, whatever the block size.
pub const OFFSET: u64 = 1024;
/// Its size in bytes.
pub const SIZE: usize = 1024;

const MAGIC: u16 = 0xef53;

/// Incompatible features (`s_feature_incompat`).
pub(super) mod incompat {
    pub(crate) const FILETYPE: u32 = 0x2;
    pub(crate) const RECOVER: u32 = 0x4;
    pub(crate) const JOURNAL_DEV: u32 = 0x8;
    pub(crate) const META_BG: u32 = 0x10;
    pub(crate) const EXTENTS: u32 = 0x40;
    pub(crate) const BIT64: u32 = 0x80;
    pub(crate) const MMP: u32 = 0x100;
    pub(crate) const FLEX_BG: u32 = 0x200;
    pub(crate) const EA_INODE: u32 = 0x400;
    pub(crate) const CSUM_SEED: u32 = 0x2000;
    pub(crate) const LARGEDIR: u32 = 0x4000;
    pub(crate) const INLINE_DATA: u32 = 0x8000;
    pub(crate) const ENCRYPT: u32 = 0x1_0000;
    pub(crate) const CASEFOLD: u32 = 0x2_0000;

    pub(crate) const KNOWN: u32 =
        FILETYPE | META_BG | EXTENTS | BIT64 | MMP | FLEX_BG | EA_INODE | CSUM_SEED | LARGEDIR | INLINE_DATA;
}

const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;

/// What the reader needs of the superblock; every figure is checked, so that arithmetic with them cannot overflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes in a block: 1024 to 65536.
    pub block_size: u32,
    /// Blocks in the file system.
    pub blocks: u64,
    /// Blocks nobody uses.
    pub free_blocks: u64,
    /// Inodes in the file system.
    pub inodes: u32,
    /// Inodes nobody uses.
    pub free_inodes: u32,
    /// Volume label, without its padding.
    pub label: Vec<u8>,
    pub(super) first_data_block: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) desc_size: u16,
    pub(super) groups: u32,
    pub(super) incompat: u32,
    first_meta_bg: u32,
    sparse_super: bool,
    sparse_super2: Option<[u32; 2]>,
    shared_blocks: bool,
    /// Inode of the journal, if that holds changes that are not in place yet.
    pub(super) to_replay: Option<u32>,
}

impl Superblock {
    /// Reads the superblock of a file system as it lies there, whatever its journal holds.
    ///
    /// # Errors
    /// As [`Superblock::parse`], or what reading met.
    pub fn read(source: &dyn BlockSource) -> Result<Self, Ext4Error> {
        if source.size() < OFFSET + SIZE as u64 {
            return Err(Ext4Error::NotExt);
        }
        let mut data = vec![0; SIZE];
        let read = source.read_at(&mut data, OFFSET);
        read.map_err(|source| Ext4Error::Read { offset: OFFSET, len: SIZE, source })?;
        let superblock = Self::parse(&data)?;
        if superblock.size() > source.size() {
            return Err(Ext4Error::Superblock("the file system is larger than its partition"));
        }
        Ok(superblock)
    }

    /// Reads the 1024 bytes at [`OFFSET`].
    ///
    /// # Errors
    /// A refusal by name for what cannot be read, or what is damaged.
    pub fn parse(data: &[u8]) -> Result<Self, Ext4Error> {
        if data.len() < SIZE || u16_at(data, 0x38) != MAGIC {
            return Err(Ext4Error::NotExt);
        }
        let incompat = u32_at(data, 0x60);
        refuse_features(incompat)?;
        let bad = |what| Err(Ext4Error::Superblock(what));
        let log_block_size = u32_at(data, 0x18);
        if log_block_size > 6 {
            return bad("block size over 64 KiB");
        }
        let block_size = 1024_u32 << log_block_size;
        let is64 = incompat & incompat::BIT64 != 0;
        let high = |at| if is64 { u64::from(u32_at(data, at)) << 32 } else { 0 };
        let blocks = u64::from(u32_at(data, 0x4)) | high(0x150);
        let free_blocks = (u64::from(u32_at(data, 0xc)) | high(0x158)).min(blocks);
        // 2^48 blocks is what extents can address.
        if blocks == 0 || blocks >= 1 << 48 {
            return bad("impossible block count");
        }
        let first_data_block = u32_at(data, 0x14);
        if first_data_block > 1 || u64::from(first_data_block) >= blocks {
            return bad("impossible first data block");
        }
        let (blocks_per_group, inodes_per_group) = (u32_at(data, 0x20), u32_at(data, 0x28));
        // A bitmap is one block; with bigalloc its bits stand for clusters of up to 2^16 blocks.
        if blocks_per_group == 0 || inodes_per_group == 0 || inodes_per_group > block_size * 8 {
            return bad("impossible group size");
        }
        let revision = u32_at(data, 0x4c);
        let inode_size = if revision == 0 { 128 } else { u16_at(data, 0x58) };
        if inode_size < 128 || u32::from(inode_size) > block_size || !inode_size.is_power_of_two() {
            return bad("impossible inode size");
        }
        let desc_size = if is64 { u16_at(data, 0xfe) } else { 32 };
        if desc_size < 32 || u32::from(desc_size) > block_size || !desc_size.is_power_of_two() {
            return bad("impossible group descriptor size");
        }
        let groups = (blocks - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let inodes = u32_at(data, 0x0);
        let Ok(groups) = u32::try_from(groups) else { return bad("impossible group count") };
        if inodes == 0 || u64::from(inodes) > u64::from(groups) * u64::from(inodes_per_group) {
            return bad("impossible inode count");
        }
        let sparse_super2 = u32_at(data, 0x5c) & COMPAT_SPARSE_SUPER2 != 0;
        let ro_compat = u32_at(data, 0x64);
        let label = data[0x78..0x88].split(|&b| b == 0).next().unwrap_or_default().to_vec();
        Ok(Self {
            block_size,
            blocks,
            free_blocks,
            inodes,
            free_inodes: u32_at(data, 0x10).min(inodes),
            label,
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            inode_size,
            desc_size,
            groups,
            incompat,
            first_meta_bg: u32_at(data, 0x104),
            sparse_super: ro_compat & RO_COMPAT_SPARSE_SUPER != 0,
            sparse_super2: sparse_super2.then(|| [u32_at(data, 0x24c), u32_at(data, 0x250)]),
            shared_blocks: ro_compat & RO_COMPAT_SHARED_BLOCKS != 0,
            to_replay: (incompat & incompat::RECOVER != 0).then(|| u32_at(data, 0xe0)),
        })
    }

    /// Bytes that files, directories and metadata occupy.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        (self.blocks - self.free_blocks).saturating_mul(u64::from(self.block_size))
    }

    /// Size of the file system in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    /// Whether files may share blocks (Android's deduplicated images), so that none may be given back after one copy.
    #[must_use]
    pub fn shares_blocks(&self) -> bool {
        self.shared_blocks
    }

    pub(super) fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// Byte in the partition where the descriptor of `group` lies.
    pub(super) fn descriptor_offset(&self, group: u32) -> u64 {
        let per_block = self.block_size / u32::from(self.desc_size);
        let (meta_group, index) = (group / per_block, group % per_block);
        let block_size = u64::from(self.block_size);
        let super_block = u64::from(self.block_size == 1024);
        let block = if self.has(incompat::META_BG) && meta_group >= self.first_meta_bg {
            let first = meta_group * per_block;
            let start = u64::from(self.first_data_block) + u64::from(first) * u64::from(self.blocks_per_group);
            // Block 0 of a 1 KiB file system with bigalloc holds the boot sector, block 1 the superblock.
            let boot = u64::from(self.block_size == 1024 && meta_group == 0 && self.first_data_block == 0);
            start + u64::from(self.has_super(first)) + boot
        } else {
            super_block + 1 + u64::from(meta_group)
        };
        block * block_size + u64::from(index) * u64::from(self.desc_size)
    }

    /// Whether a group begins with a copy of the superblock.
    fn has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if let Some(backups) = self.sparse_super2 {
            return backups.contains(&group);
        }
        let power_of = |base: u32| {
            let mut power = base;
            while power < group && power <= u32::MAX / base {
                power *= base;
            }
            power == group
        };
        group == 1 || !self.sparse_super || [3, 5, 7].into_iter().any(power_of)
    }
}

fn refuse_features(features: u32) -> Result<(), Ext4Error> {
    if features & incompat::JOURNAL_DEV != 0 {
        return Err(Ext4Error::JournalDevice);
    }
    if features & incompat::ENCRYPT != 0 {
        return Err(Ext4Error::Encrypted);
    }
    if features & incompat::CASEFOLD != 0 {
        return Err(Ext4Error::Casefold);
    }
    let unknown = features & !incompat::KNOWN & !incompat::RECOVER;
    if unknown != 0 {
        return Err(Ext4Error::UnknownFeatures(unknown));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plausible superblock of 8192 blocks of 4 KiB in one group.
    fn sample() -> Vec<u8> {
        let mut data = vec![0; SIZE];
        for (at, value) in [(0x0, 2048_u32), (0x4, 8192), (0x18, 2), (0x20, 32768), (0x28, 2048), (0x4c, 1)] {
            data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        data[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        data[0x58..0x5a].copy_from_slice(&256_u16.to_le_bytes());
        data
    }

    fn with(at: usize, value: u32) -> Result<Superblock, Ext4Error> {
        let mut data = sample();
        data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Superblock::parse(&data)
    }

    #[test]
    fn refuses_features_by_name() {
        assert_eq!(with(0x60, incompat::RECOVER).unwrap().to_replay, Some(0));
        assert!(matches!(with(0x60, incompat::ENCRYPT), Err(Ext4Error::Encrypted)));
        assert!(matches!(with(0x60, incompat::CASEFOLD), Err(Ext4Error::Casefold)));
        assert!(matches!(with(0x60, incompat::JOURNAL_DEV), Err(Ext4Error::JournalDevice)));
        assert!(matches!(with(0x60, 0x4000_0001), Err(Ext4Error::UnknownFeatures(0x4000_0001))));
        assert!(matches!(with(0x60, 0x1000), Err(Ext4Error::UnknownFeatures(0x1000))));
        assert!(with(0x60, incompat::KNOWN & !incompat::BIT64).is_ok());
    }

    #[test]
    fn refuses_impossible_figures() {
        for (at, value) in [
            (0x18, 7),     // 128 KiB blocks
            (0x4, 0),      // no blocks
            (0x14, 2),     // first data block
            (0x20, 0),     // blocks per group
            (0x28, 0),     // inodes per group
            (0x28, 40000), // more inodes than a bitmap has bits
            (0x58, 64),    // inode size under 128
            (0x58, 8192),  // inode larger than a block
            (0x58, 200),   // not a power of two
            (0x0, 2049),   // more inodes than the groups hold
        ] {
            assert!(matches!(with(at, value), Err(Ext4Error::Superblock(_))), "{at:#x}={value}");
        }
        assert!(matches!(Superblock::parse(&sample()[..1023]), Err(Ext4Error::NotExt)));
        assert!(matches!(Superblock::parse(&[0; SIZE]), Err(Ext4Error::NotExt)));
    }

    #[test]
    fn revision_0_has_128_byte_inodes() {
        assert_eq!(with(0x4c, 0).unwrap().inode_size, 128);
        assert_eq!(with(0x4c, 1).unwrap().inode_size, 256);
    }

    #[test]
    fn descriptors_follow_the_superblock_or_their_meta_group() {
        let sb = with(0x4, 32768 * 300).unwrap();
        assert_eq!(sb.descriptor_offset(0), 4096);
        assert_eq!(sb.descriptor_offset(129), 2 * 4096 + 32);
        let sb = Superblock { incompat: incompat::META_BG, sparse_super: true, ..sb };
        // The second meta group begins at group 128, which carries no superblock copy.
        assert_eq!(sb.descriptor_offset(129), 128 * 32768 * 4096 + 32);
        assert_eq!(sb.descriptor_offset(1), 4096 + 32);
    }

    #[test]
    fn superblock_copies_lie_in_powers_of_3_5_and_7() {
        let sb = Superblock { sparse_super: true, ..with(0x4, 32768 * 300).unwrap() };
        let copies: Vec<u32> = (0..130).filter(|g| sb.has_super(*g)).collect();
        assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        assert!(!sb.has_super(u32::MAX));
    }
}
