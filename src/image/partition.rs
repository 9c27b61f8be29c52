//! Partition tables: the classic MBR and GPT, and which partitions hold the boot files and the root.

mod gpt;
mod mbr;

use std::fmt;

use super::blocks::BlockSource;

pub use gpt::Guid;

/// Bytes in a sector as partition tables of disk images count them.
pub const SECTOR: u64 = 512;
/// Bytes of a disk's beginning that hold any usual partition table: MBR, GPT header, 128 entries of 128 bytes.
pub const USUAL_SIZE: usize = 34 * 512;

/// What is wrong with a partition table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// The first sector carries no boot signature.
    #[error("no partition table in the first sector: this is not an image of a whole SD card")]
    NoTable,
    /// A protective MBR, and no GPT that is whole.
    #[error("the GPT partition table is damaged ({0}); try sgdisk --verify on the source")]
    Gpt(&'static str),
    /// A disk with large sectors.
    #[error("the partition table counts in sectors of 4096 bytes; only images of disks with 512 can be read")]
    LargeSectors,
    /// No partition at all.
    #[error("the partition table is empty")]
    Empty,
    /// Two partitions claim the same sectors.
    #[error("partitions {0} and {1} overlap: the partition table is damaged")]
    Overlap(u16, u16),
    /// A partition begins inside the table itself, or ends before it begins.
    #[error("partition {0} begins or ends at an impossible place: the partition table is damaged")]
    BadStart(u16),
    /// Nothing that could be the boot files.
    #[error(
        "no FAT partition for the boot files (MBR types 0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e; GPT types EFI system, basic data)"
    )]
    NoBoot,
    /// Nothing that could be the root.
    #[error("no Linux partition for the root file system (MBR type 0x83; GPT types Linux data, root ARM, root ARM64)")]
    NoRoot,
}

/// What a partition is for, as its table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Type byte of an MBR entry.
    Mbr(u8),
    /// Type of a GPT entry.
    Gpt(Guid),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(kind) => write!(f, "{kind:02x}"),
            Self::Gpt(kind) => write!(f, "{kind}"),
        }
    }
}

impl Kind {
    fn may_hold_boot(self) -> bool {
        match self {
            Self::Mbr(kind) => matches!(kind, 0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e),
            Self::Gpt(kind) => [Guid::EFI_SYSTEM, Guid::BASIC_DATA].contains(&kind),
        }
    }

    /// 0 for what cannot be a root, more for what says so more clearly.
    fn root_rank(self) -> u8 {
        match self {
            Self::Mbr(kind) => u8::from(kind == 0x83),
            Self::Gpt(kind) if [Guid::ROOT_ARM64, Guid::ROOT_ARM].contains(&kind) => 2,
            Self::Gpt(kind) => u8::from(kind == Guid::LINUX_DATA),
        }
    }
}

/// What identifies a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskId {
    /// Signature in an MBR, the first half of every PARTUUID.
    Mbr(u32),
    /// GUID in a GPT; its partitions have their own.
    Gpt(Guid),
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(id) => write!(f, "{id:08x}"),
            Self::Gpt(id) => write!(f, "{id}"),
        }
    }
}

/// One used entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// From 1 on, as in `PARTUUID=…-02` and `mmcblk0p2`.
    pub number: u16,
    /// What it is for.
    pub kind: Kind,
    /// Its own GUID, if it has one.
    pub guid: Option<Guid>,
    /// First byte in the image.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A parsed table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Signature or GUID.
    pub disk_id: DiskId,
    /// The used entries in table order.
    pub partitions: Vec<Partition>,
}

impl PartitionTable {
    /// Where the last partition ends, in bytes: the image is at least this long.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.partitions.iter().map(|p| p.start + p.size).max().unwrap_or(0)
    }

    /// The partition with the boot files: the first FAT one.
    ///
    /// # Errors
    /// [`PartitionError::NoBoot`].
    pub fn boot(&self) -> Result<Partition, PartitionError> {
        self.partitions.iter().find(|p| p.kind.may_hold_boot()).copied().ok_or(PartitionError::NoBoot)
    }

    /// The partition with the root file system: the largest Linux one, unless the type of one says that it is a root.
    ///
    /// # Errors
    /// [`PartitionError::NoRoot`].
    pub fn root(&self) -> Result<Partition, PartitionError> {
        let linux = self.partitions.iter().filter(|p| p.kind.root_rank() > 0);
        linux.max_by_key(|p| (p.kind.root_rank(), p.size)).copied().ok_or(PartitionError::NoRoot)
    }

    /// What Linux calls a partition: `4e639091-02`, or its GUID.
    #[must_use]
    pub fn partuuid(&self, partition: &Partition) -> String {
        match partition.guid {
            Some(guid) => guid.to_string(),
            None => format!("{}-{:02x}", self.disk_id, partition.number),
        }
    }

    /// Refuses partitions that share sectors, the extended container of an MBR aside, which does so by design.
    fn checked(self) -> Result<Self, PartitionError> {
        if self.partitions.is_empty() {
            return Err(PartitionError::Empty);
        }
        let extended = |p: &&Partition| !matches!(p.kind, Kind::Mbr(0x05 | 0x0f));
        let mut sorted: Vec<&Partition> = self.partitions.iter().filter(extended).collect();
        sorted.sort_by_key(|p| p.start);
        for pair in sorted.windows(2) {
            if let [a, b] = pair
                && b.start < a.start + a.size
            {
                return Err(PartitionError::Overlap(a.number.min(b.number), a.number.max(b.number)));
            }
        }
        Ok(self)
    }
}

/// Reads the table of a disk of which at least the beginning is there.
///
/// Where an MBR beside a GPT names both partitions that matter (a hybrid MBR, for a Pi whose boot ROM knows no GPT), it
/// counts: the Pi boots by it.
///
/// # Errors
/// [`PartitionError`] for every table that is none or is damaged.
pub fn read(disk: &dyn BlockSource) -> Result<PartitionTable, PartitionError> {
    let mut sector = [0; 512];
    disk.read_at(&mut sector, 0).map_err(|_| PartitionError::NoTable)?;
    let (table, protective) = mbr::parse(&sector)?;
    if !protective {
        return table.checked();
    }
    if table.boot().is_ok() && table.root().is_ok() {
        return table.checked();
    }
    gpt::read(disk)?.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_that_it_is_a_root_is_one() {
        let partition = |number, kind, size| {
            let start = u64::from(number) << 30;
            Partition { number, kind: Kind::Gpt(kind), guid: Some(Guid::EFI_SYSTEM), start, size }
        };
        let mut table = PartitionTable {
            disk_id: DiskId::Gpt(Guid::LINUX_DATA),
            partitions: vec![
                partition(1, Guid::EFI_SYSTEM, 100),
                partition(2, Guid::ROOT_ARM64, 1000),
                partition(3, Guid::LINUX_DATA, 5000),
                partition(4, Guid::LINUX_DATA, 6000),
            ],
        };
        assert_eq!((table.boot().unwrap().number, table.root().unwrap().number), (1, 2));
        table.partitions.remove(1);
        assert_eq!(table.root().unwrap().number, 4);
        assert_eq!(table.partuuid(&table.partitions[1]), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        table.partitions[0].kind = Kind::Gpt(Guid::BASIC_DATA);
        assert_eq!(table.boot().unwrap().number, 1);
    }
}
