//! Trees in a tar archive and back, with every attribute: POSIX's interchange format of 2001 (pax), as GNU tar and bsdtar
//! read it. Extended attributes, and ACLs among them, are `SCHILY.xattr.*` records; holes are GNU's sparse format 1.0; a
//! socket, which tar has no type for, is an empty file with the record `SCHILY.filetype=socket` (star(5)).
//!
//! Knows files and bytes, and nothing of Pis. What is read is not trusted: a path that leads out of the tree, a length
//! that nothing stands behind, an order that a tree cannot be written in are refused, and memory is bounded.

mod extents;
mod file;
mod header;
mod pack;
mod pax;
mod read;
mod unpack;
mod write;

use std::io;

pub use file::{Input, Output};
pub use pack::{Packed, pack_tree};
pub use read::Reader;
pub use unpack::{Unpacked, unpack_tree};
pub use write::Writer;

use crate::storage::tree_walk::WalkError;
use crate::storage::tree_writer::{Meta, WriteError, Xattr};

/// Longest extension of one entry that is read: names and extended attributes, as long as the kernel lets them be, and
/// room to spare.
const MAX_EXTENSION: u64 = 2 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file; its data follows.
    File,
    /// Another name of the entry with this path.
    HardLink(Vec<u8>),
    /// Symbolic link with this target.
    Symlink(Vec<u8>),
    /// Directory; what is in it follows.
    Directory,
    /// Pipe, socket or device.
    Special(crate::storage::tree_writer::Special),
}

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path with no slash in front or behind: `root/etc/fstab`. Empty for the directory that all others are in.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, mode, times.
    pub meta: Meta,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Size of a regular file, holes included; 0 for everything else.
    pub size: u64,
    /// Where in a regular file data is: offset and length, in order. The rest is holes.
    pub extents: Vec<(u64, u64)>,
}

/// Why an archive could not be written or read. Paths are those in the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The original tree.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The new tree.
    #[error(transparent)]
    Tree(#[from] WriteError),
    /// The archive's file could not be written.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
    /// The archive's file could not be read.
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    /// It ends before it is complete.
    #[error("the archive is cut off: it ends in the middle")]
    CutOff,
    /// It is not what was written.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// It holds what a backup does not.
    #[error("the archive cannot be used: {0}")]
    Unsupported(String),
    /// A file of the original changed while it was read.
    #[error("{0} changed while it was being read")]
    Changed(String),
    /// Too little is left for everybody else.
    #[error("only {0} MB would be left on the disk")]
    NoSpace(u64),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl ArchiveError {
    /// What a failed write of the (compressed) archive means.
    #[must_use]
    pub fn writing(error: io::Error) -> Self {
        if error.kind() == file::CANCELLED { Self::Cancelled } else { Self::Write(error) }
    }

    /// What a failed read of the (decompressed) archive means.
    fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            file::CANCELLED => Self::Cancelled,
            _ if error.raw_os_error().is_some() => Self::Read(error),
            // Whoever decompresses takes no more than it may.
            io::ErrorKind::OutOfMemory => Self::Unsupported(error.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

type Result<T> = std::result::Result<T, ArchiveError>;
