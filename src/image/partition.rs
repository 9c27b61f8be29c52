//! The partition table in the first sector (classic MBR, IBM PC DOS 2.0 layout).

use super::fields::{u16_at, u32_at};

/// Bytes in a sector as partition tables count them.
pub const SECTOR: u64 = 512;

/// What is wrong with a partition table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// The first sector carries no boot signature.
    #[error("no partition table in the first sector: this is not an image of a whole SD card")]
    NoTable,
    /// A GPT hides behind a protective entry of type 0xee.
    #[error("the image has a GPT partition table, which is not supported yet; Raspberry Pi OS images have an MBR")]
    Gpt,
    /// No partition at all.
    #[error("the partition table is empty")]
    Empty,
    /// Two partitions claim the same sectors.
    #[error("partitions {0} and {1} overlap: the partition table is damaged")]
    Overlap(u8, u8),
    /// A partition begins inside the table itself.
    #[error("partition {0} begins in sector 0: the partition table is damaged")]
    BadStart(u8),
    /// Nothing that could be the boot files.
    #[error("no FAT partition (types 0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e) for the boot files")]
    NoBoot,
    /// Nothing that could be the root.
    #[error("no Linux partition (type 0x83) for the root file system")]
    NoRoot,
}

/// One used entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// 1 to 4, as in `PARTUUID=…-02`.
    pub number: u8,
    /// Type byte.
    pub kind: u8,
    /// First byte in the image.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A parsed table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Disk signature, the first half of every PARTUUID.
    pub disk_id: u32,
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
        let fat = |p: &&Partition| matches!(p.kind, 0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e);
        self.partitions.iter().find(fat).copied().ok_or(PartitionError::NoBoot)
    }

    /// The partition with the root file system: the largest Linux one.
    ///
    /// # Errors
    /// [`PartitionError::NoRoot`].
    pub fn root(&self) -> Result<Partition, PartitionError> {
        let linux = self.partitions.iter().filter(|p| p.kind == 0x83);
        linux.max_by_key(|p| p.size).copied().ok_or(PartitionError::NoRoot)
    }
}

/// Reads the table from the first sector. Extended partitions are not followed: no Raspberry Pi image has them.
///
/// # Errors
/// [`PartitionError`] for every table that is none, is damaged or is not supported.
pub fn parse(sector: &[u8]) -> Result<PartitionTable, PartitionError> {
    if sector.len() < 512 || u16_at(sector, 510) != 0xaa55 {
        return Err(PartitionError::NoTable);
    }
    let mut partitions = Vec::with_capacity(4);
    for number in 1..=4_u8 {
        let at = 446 + usize::from(number - 1) * 16;
        let kind = sector[at + 4];
        let (start, count) = (u32_at(sector, at + 8), u32_at(sector, at + 12));
        if kind == 0xee {
            return Err(PartitionError::Gpt);
        }
        if kind == 0 || count == 0 {
            continue;
        }
        // A FAT boot sector ends in the same signature; its bytes here are text or code, so flags give it away.
        if sector[at] & 0x7f != 0 {
            return Err(PartitionError::NoTable);
        }
        if start == 0 {
            return Err(PartitionError::BadStart(number));
        }
        partitions.push(Partition { number, kind, start: u64::from(start) * SECTOR, size: u64::from(count) * SECTOR });
    }
    if partitions.is_empty() {
        return Err(PartitionError::Empty);
    }
    for (i, a) in partitions.iter().enumerate() {
        // The extended container (0x05, 0x0f) holds others by design.
        for b in
            partitions.iter().skip(i + 1).filter(|b| !matches!((a.kind, b.kind), (0x05 | 0x0f, _) | (_, 0x05 | 0x0f)))
        {
            if a.start < b.start + b.size && b.start < a.start + a.size {
                return Err(PartitionError::Overlap(a.number, b.number));
            }
        }
    }
    Ok(PartitionTable { disk_id: u32_at(sector, 440), partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[440..444].copy_from_slice(&0x4e63_9091_u32.to_le_bytes());
        for (i, (kind, start, count)) in entries.iter().enumerate() {
            let at = 446 + i * 16;
            sector[at + 4] = *kind;
            sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn reads_the_layout_of_raspberry_pi_os() {
        let parsed = parse(&table(&[(0x0c, 8192, 1_048_576), (0x83, 1_056_768, 7_700_000)])).unwrap();
        assert_eq!(parsed.disk_id, 0x4e63_9091);
        assert_eq!(parsed.boot().unwrap().start, 8192 * 512);
        assert_eq!(parsed.root().unwrap().number, 2);
        assert_eq!(parsed.end(), (1_056_768 + 7_700_000) * 512);
    }

    #[test]
    fn refuses_by_name() {
        assert_eq!(parse(&[0; 511]), Err(PartitionError::NoTable));
        assert_eq!(parse(&[0; 512]), Err(PartitionError::NoTable));
        assert_eq!(parse(&table(&[])), Err(PartitionError::Empty));
        assert_eq!(parse(&table(&[(0xee, 1, u32::MAX)])), Err(PartitionError::Gpt));
        assert_eq!(parse(&table(&[(0x0c, 0, 9)])), Err(PartitionError::BadStart(1)));
        assert_eq!(parse(&table(&[(0x0c, 10, 10), (0x83, 19, 5)])), Err(PartitionError::Overlap(1, 2)));
        let no_root = parse(&table(&[(0x0c, 10, 10)])).unwrap();
        assert_eq!((no_root.root(), no_root.boot().is_ok()), (Err(PartitionError::NoRoot), true));
        let no_boot = parse(&table(&[(0x83, 10, 10)])).unwrap();
        assert_eq!(no_boot.boot(), Err(PartitionError::NoBoot));
    }

    #[test]
    fn the_largest_figures_do_not_overflow() {
        let parsed = parse(&table(&[(0x83, u32::MAX, u32::MAX)])).unwrap();
        assert_eq!(parsed.end(), u64::from(u32::MAX) * 1024);
    }
}
