//! What can be wrong with a file system.

use std::io;

/// Why a file system or a file in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// The source failed, or a structure points past its end.
    #[error("reading {len} bytes at byte {offset} of the file system failed: {source}")]
    Read {
        /// Byte in the partition.
        offset: u64,
        /// Bytes asked for.
        len: usize,
        /// What the source said.
        source: io::Error,
    },
    /// No magic number.
    #[error("the partition holds no ext2, ext3 or ext4 file system")]
    NotExt,
    /// A figure in the superblock that cannot be.
    #[error("the superblock is damaged: {0}; try e2fsck on the source")]
    Superblock(&'static str),
    /// The journal holds changes that are not in place yet, and cannot be replayed.
    #[error(
        "the file system was not shut down cleanly and its journal cannot be replayed: {0}; run e2fsck on it, or mount it once and unmount it"
    )]
    Journal(&'static str),
    /// fscrypt.
    #[error("the file system uses encryption (feature 'encrypt'), which cannot be read without its keys")]
    Encrypted,
    /// Case-insensitive directories.
    #[error("the file system uses case-insensitive directories (feature 'casefold'), which are not supported")]
    Casefold,
    /// An external journal device, not a file system.
    #[error("the partition is the external journal of another file system (feature 'journal_dev')")]
    JournalDevice,
    /// Features that change the format and that this reader does not know.
    #[error("the file system has incompatible features this version does not know: {0:#x}")]
    UnknownFeatures(u32),
    /// One encrypted file in a file system without the feature bit.
    #[error("inode {0} is encrypted and cannot be read without its key")]
    EncryptedInode(u32),
    /// A structure that belongs to an inode makes no sense.
    #[error("the file system is damaged at inode {inode}: {what}; try e2fsck on the source")]
    Inode {
        /// The inode's number.
        inode: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Files claim more blocks than there are: shared blocks or a loop.
    #[error("the files claim more blocks than the file system has (seen at inode {0}); try e2fsck on the source")]
    TooMuch(u32),
    /// A path does not exist or leads through too many links.
    #[error("no such file in the file system: {0}")]
    NotFound(String),
}

impl Ext4Error {
    pub(super) const fn inode(inode: u32, what: &'static str) -> Self {
        Self::Inode { inode, what }
    }
}
