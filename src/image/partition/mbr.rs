//! The partition table in the first sector (classic MBR, IBM PC DOS 2.0 layout).

use super::{DiskId, Kind, Partition, PartitionError, PartitionTable, SECTOR};
use crate::image::fields::{u16_at, u32_at};

/// Type of an entry that covers a disk whose table is a GPT.
const PROTECTIVE: u8 = 0xee;

/// Reads the table from the first sector, and whether there is a GPT behind it. Extended partitions are not followed: no
/// Raspberry Pi image has them.
pub(super) fn parse(sector: &[u8]) -> Result<(PartitionTable, bool), PartitionError> {
    if sector.len() < 512 || u16_at(sector, 510) != 0xaa55 {
        return Err(PartitionError::NoTable);
    }
    let mut partitions = Vec::with_capacity(4);
    let mut protective = false;
    for (number, entry) in (1_u16..).zip(sector.get(446..510).unwrap_or_default().as_chunks::<16>().0) {
        let kind = entry[4];
        let (start, count) = (u32_at(entry, 8), u32_at(entry, 12));
        if kind == 0 || count == 0 {
            continue;
        }
        // A FAT boot sector ends in the same signature; its bytes here are text or code, so flags give it away.
        if entry[0] & 0x7f != 0 {
            return Err(PartitionError::NoTable);
        }
        if kind == PROTECTIVE {
            protective = true;
            continue;
        }
        if start == 0 {
            return Err(PartitionError::BadStart(number));
        }
        let (start, size) = (u64::from(start) * SECTOR, u64::from(count) * SECTOR);
        partitions.push(Partition { number, kind: Kind::Mbr(kind), guid: None, start, size });
    }
    Ok((PartitionTable { disk_id: DiskId::Mbr(u32_at(sector, 440)), partitions }, protective))
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn parse(sector: &[u8]) -> Result<PartitionTable, PartitionError> {
        read(&sector)
    }

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
        assert_eq!(parsed.disk_id, DiskId::Mbr(0x4e63_9091));
        assert_eq!(parsed.partuuid(&parsed.partitions[1]), "4e639091-02");
        assert_eq!(parsed.boot().unwrap().start, 8192 * 512);
        assert_eq!(parsed.root().unwrap().number, 2);
        assert_eq!(parsed.end(), (1_056_768 + 7_700_000) * 512);
    }

    #[test]
    fn refuses_by_name() {
        assert_eq!(parse(&[0; 511]), Err(PartitionError::NoTable));
        assert_eq!(parse(&[0; 512]), Err(PartitionError::NoTable));
        assert_eq!(parse(&table(&[])), Err(PartitionError::Empty));
        assert_eq!(parse(&table(&[(0xee, 1, u32::MAX)])), Err(PartitionError::Gpt("no header")));
        assert_eq!(parse(&table(&[(0x0c, 0, 9)])), Err(PartitionError::BadStart(1)));
        assert_eq!(parse(&table(&[(0x0c, 10, 10), (0x83, 19, 5)])), Err(PartitionError::Overlap(1, 2)));
        let no_root = parse(&table(&[(0x0c, 10, 10)])).unwrap();
        assert_eq!((no_root.root(), no_root.boot().is_ok()), (Err(PartitionError::NoRoot), true));
        let no_boot = parse(&table(&[(0x83, 10, 10)])).unwrap();
        assert_eq!(no_boot.boot(), Err(PartitionError::NoBoot));
    }

    #[test]
    fn a_hybrid_table_counts_where_it_names_both_partitions() {
        let both = parse(&table(&[(0xee, 1, 8191), (0x0c, 8192, 100), (0x83, 9000, 100)])).unwrap();
        assert_eq!((both.boot().unwrap().number, both.root().unwrap().number), (2, 3));
        assert_eq!(parse(&table(&[(0xee, 1, 8191), (0x0c, 8192, 100)])), Err(PartitionError::Gpt("no header")));
    }

    #[test]
    fn the_largest_figures_do_not_overflow() {
        let parsed = parse(&table(&[(0x83, u32::MAX, u32::MAX)])).unwrap();
        assert_eq!(parsed.end(), u64::from(u32::MAX) * 1024);
    }
}
