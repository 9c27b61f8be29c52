//! How much room an image's content needs.

use crate::image::blocks::{BlockSource, Window};
use crate::image::ext4::Superblock;
use crate::image::extract::ExtractError;
use crate::image::fat::Fat;
use crate::image::partition::PartitionTable;

/// What the two trees of an image will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Need {
    /// Asks the superblock and the file allocation table. A source that ends before them gives an error: the caller
    /// asks when they are there.
    pub(super) fn of(disk: &dyn BlockSource, table: &PartitionTable) -> Result<Self, ExtractError> {
        let window = |p: crate::image::partition::Partition| Window::new(disk, p.start, p.size);
        let (Ok(boot), Ok(root)) = (table.boot(), table.root()) else { return Ok(Self { bytes: 0, entries: 0 }) };
        let boot = window(boot);
        let root = window(root);
        let boot_bytes = Fat::open(&boot)?.used_bytes()?;
        // Not yet the file system: of a stream, little more than its beginning may be here.
        let superblock = Superblock::read(&root)?;
        Ok(Self {
            bytes: superblock.used_bytes().saturating_add(boot_bytes),
            entries: u64::from(superblock.inodes - superblock.free_inodes),
        })
    }
}
