//! Inodes: owner, mode, times, sizes (Linux Documentation/filesystems/ext4/inodes.rst).

use super::Ext4Error;
use super::superblock::Superblock;
use crate::image::fields::{i32_at, u16_at, u32_at};
use crate::storage::tree_writer::{Meta, Time};

/// The directory at the root of every file system.
pub const ROOT: u32 = 2;

pub(super) mod flags {
    pub(crate) const ENCRYPT: u32 = 0x800;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    pub(crate) const EA_INODE: u32 = 0x20_0000;
    pub(crate) const INLINE_DATA: u32 = 0x1000_0000;
    pub(crate) const CASEFOLD: u32 = 0x4000_0000;
}

/// Offset of the first byte after the fields every inode has.
pub(super) const GOOD_OLD_SIZE: usize = 128;
/// Where the block map lies in the inode.
const I_BLOCK: usize = 0x28;
/// Its size: fifteen block numbers, an extent root or inline data.
pub(super) const I_BLOCK_SIZE: usize = 60;

/// Kind of file, the upper four bits of the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Directory.
    Directory,
    /// Block device.
    BlockDevice,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Unix socket.
    Socket,
}

/// One inode, decoded.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Its number.
    pub number: u32,
    /// Kind of file.
    pub kind: Kind,
    /// Permission bits, owner and times.
    pub meta: Meta,
    /// Size in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u16,
    pub(super) flags: u32,
    /// Block with extended attributes, 0 for none.
    pub(super) xattr_block: u64,
    /// The raw inode, `inode_size` bytes.
    pub(super) raw: Vec<u8>,
    /// Bytes used after the first 128.
    pub(super) extra_size: usize,
}

impl Inode {
    /// Bytes of the file system kept in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.raw.len()
    }

    /// Decodes a raw inode of `inode_size` bytes.
    pub(super) fn parse(number: u32, raw: Vec<u8>, sb: &Superblock) -> Result<Self, Ext4Error> {
        let bad = |what| Ext4Error::inode(number, what);
        if raw.len() < GOOD_OLD_SIZE {
            return Err(bad("inode too short"));
        }
        let mode = u16_at(&raw, 0);
        let kind = match mode >> 12 {
            0x1 => Kind::Fifo,
            0x2 => Kind::CharDevice,
            0x4 => Kind::Directory,
            0x6 => Kind::BlockDevice,
            0x8 => Kind::File,
            0xa => Kind::Symlink,
            0xc => Kind::Socket,
            _ => return Err(bad("unknown file type")),
        };
        let flags = u32_at(&raw, 0x20);
        if flags & flags::ENCRYPT != 0 {
            return Err(Ext4Error::EncryptedInode(number));
        }
        if flags & flags::CASEFOLD != 0 {
            return Err(Ext4Error::Casefold);
        }
        let extra_size = if raw.len() > GOOD_OLD_SIZE { usize::from(u16_at(&raw, 0x80)) } else { 0 };
        if GOOD_OLD_SIZE + extra_size > raw.len() || !extra_size.is_multiple_of(4) {
            return Err(bad("impossible extra size"));
        }
        // Directories have used the high half only since large_dir; before, the field was the directory's ACL block.
        let high =
            if kind == Kind::File || sb.has(super::superblock::incompat::LARGEDIR) { u32_at(&raw, 0x6c) } else { 0 };
        let size = u64::from(u32_at(&raw, 0x4)) | u64::from(high) << 32;
        if size > i64::MAX as u64 {
            return Err(bad("impossible size"));
        }
        let halves = |low, high| u32::from(u16_at(&raw, low)) | u32::from(u16_at(&raw, high)) << 16;
        let extra = |at: usize| (at + 4 <= GOOD_OLD_SIZE + extra_size).then(|| u32_at(&raw, at));
        let meta = Meta {
            mode: u32::from(mode & 0o7777),
            uid: halves(0x2, 0x78),
            gid: halves(0x18, 0x7a),
            atime: time(i32_at(&raw, 0x8), extra(0x8c)),
            mtime: time(i32_at(&raw, 0x10), extra(0x88)),
        };
        Ok(Self {
            number,
            kind,
            meta,
            size,
            links: u16_at(&raw, 0x1a),
            flags,
            xattr_block: u64::from(u32_at(&raw, 0x68)) | u64::from(u16_at(&raw, 0x76)) << 32,
            raw,
            extra_size,
        })
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The block map.
    pub(super) fn i_block(&self) -> &[u8] {
        self.raw.get(I_BLOCK..I_BLOCK + I_BLOCK_SIZE).unwrap_or_default()
    }

    /// Major and minor number of a device: 8:8 bits in the first word, or 12:20 bits in the second.
    #[must_use]
    pub fn device(&self) -> (u32, u32) {
        let (old, new) = (u32_at(self.i_block(), 0), u32_at(self.i_block(), 4));
        if old != 0 { (old >> 8 & 0xff, old & 0xff) } else { (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00) }
    }
}

/// Seconds are signed; the extra word holds two more bits above them and nanoseconds in the other thirty.
fn time(seconds: i32, extra: Option<u32>) -> Time {
    let extra = extra.unwrap_or(0);
    let nanoseconds = extra >> 2;
    Time {
        seconds: i64::from(seconds) + (i64::from(extra & 3) << 32),
        // Damage only: no system call takes a whole second here.
        nanoseconds: if nanoseconds < 1_000_000_000 { nanoseconds } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_bits_reach_from_1901_to_2446() {
        let at = |seconds, extra| time(seconds, Some(extra)).seconds;
        assert_eq!(at(i32::MIN, 0), -0x8000_0000); // 1901-12-13
        assert_eq!(at(-1, 0), -1);
        assert_eq!(at(i32::MIN, 1), 0x8000_0000); // 2038-01-19
        assert_eq!(at(i32::MAX, 3), 0x3_7fff_ffff); // 2446-05-10
        assert_eq!(time(5, None), Time { seconds: 5, nanoseconds: 0 });
        assert_eq!(time(5, Some(999_999_999 << 2 | 1)), Time { seconds: (1 << 32) + 5, nanoseconds: 999_999_999 });
        assert_eq!(time(5, Some(1_000_000_000 << 2)).nanoseconds, 0);
    }
}
