//! The first sector of a FAT volume: where its parts lie.

use super::FatError;
use crate::image::fields::{u16_at, u32_at};

/// Bits of a table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// Smallest value that marks the end of a chain.
    pub(super) const fn end_mark(self) -> u32 {
        match self {
            Self::Fat12 => 0xff8,
            Self::Fat16 => 0xfff8,
            Self::Fat32 => 0x0fff_fff8,
        }
    }
}

/// Layout of a volume, in bytes; every part lies inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSector {
    /// Bytes in a cluster.
    pub cluster_size: u64,
    /// Clusters in the data area.
    pub clusters: u32,
    pub(super) width: Width,
    pub(super) table_offset: u64,
    pub(super) table_size: u64,
    pub(super) root_offset: u64,
    pub(super) root_size: u64,
    pub(super) root_cluster: u32,
    pub(super) data_offset: u64,
}

impl BootSector {
    /// Reads the first 512 bytes of a volume of `size` bytes.
    ///
    /// # Errors
    /// [`FatError::BootSector`] naming what cannot be.
    pub fn parse(sector: &[u8], size: u64) -> Result<Self, FatError> {
        let bad = |what| Err(FatError::BootSector(what));
        if sector.len() < 512 || sector[510..512] != [0x55, 0xaa] {
            return bad("no signature");
        }
        let sector_size = u16_at(sector, 11);
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return bad("impossible sector size");
        }
        let sector_size = u64::from(sector_size);
        let per_cluster = sector[13];
        let cluster_size = u64::from(per_cluster) * sector_size;
        if !per_cluster.is_power_of_two() || cluster_size > 64 * 1024 {
            return bad("impossible cluster size");
        }
        let reserved = u64::from(u16_at(sector, 14));
        let tables = u64::from(sector[16]);
        if reserved == 0 || !(1..=4).contains(&tables) {
            return bad("impossible number of tables or reserved sectors");
        }
        let either = |small: u16, large: u32| if small != 0 { u64::from(small) } else { u64::from(large) };
        let sectors = either(u16_at(sector, 19), u32_at(sector, 32));
        let table_sectors = either(u16_at(sector, 22), u32_at(sector, 36));
        let root_size = u64::from(u16_at(sector, 17)) * 32;
        let root_sectors = root_size.div_ceil(sector_size);
        if sectors * sector_size > size {
            return bad("the volume is larger than its partition");
        }
        let data_sector = reserved + tables * table_sectors + root_sectors;
        let Some(data_sectors) = sectors.checked_sub(data_sector).filter(|_| table_sectors > 0) else {
            return bad("no room for data");
        };
        let clusters = u32::try_from(data_sectors / u64::from(per_cluster)).unwrap_or(u32::MAX);
        // The count alone decides the width ("FAT type determination").
        let (width, bits) = match clusters {
            0..4085 => (Width::Fat12, 12),
            4085..65525 => (Width::Fat16, 16),
            65525..0x0fff_fff5 => (Width::Fat32, 32),
            _ => return bad("impossible number of clusters"),
        };
        // mkfs.fat -F 32 makes FAT32 volumes that are too small by the rule; what tells is the missing 16-bit size.
        let (width, bits) = if u16_at(sector, 22) == 0 && root_size == 0 { (Width::Fat32, 32) } else { (width, bits) };
        if width == Width::Fat32 && root_size != 0 {
            return bad("a root directory of fixed size in FAT32");
        }
        let table_size = table_sectors * sector_size;
        if (u64::from(clusters) + 2) * bits > table_size * 8 {
            return bad("the table is too small for the clusters");
        }
        Ok(Self {
            cluster_size,
            clusters,
            width,
            table_offset: reserved * sector_size,
            table_size,
            root_offset: (reserved + tables * table_sectors) * sector_size,
            root_size,
            root_cluster: u32_at(sector, 44) & 0x0fff_ffff,
            data_offset: data_sector * sector_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boot partition of Raspberry Pi OS: 512 MiB, clusters of one sector.
    fn sample() -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (at, value) in [(11, 512_u16), (14, 32)] {
            sector[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        (sector[13], sector[16]) = (1, 2);
        for (at, value) in [(32, 1_048_576_u32), (36, 8130), (44, 2)] {
            sector[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn lays_out_a_fat32_volume() {
        let boot = BootSector::parse(&sample(), 1 << 29).unwrap();
        assert_eq!((boot.width, boot.clusters, boot.root_cluster), (Width::Fat32, 1_048_576 - 32 - 2 * 8130, 2));
        assert_eq!(boot.data_offset, (32 + 2 * 8130) * 512);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let with = |at: usize, bytes: &[u8]| {
            let mut sector = sample();
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            BootSector::parse(&sector, 1 << 29)
        };
        for (at, bytes) in [
            (510, &[0_u8, 0][..]),
            (11, &[1, 2]),
            (13, &[3]),
            (13, &[0]),
            (14, &[0, 0]),
            (16, &[0]),
            (16, &[255]),
            (36, &[0, 0, 0, 0]),
            (36, &[1, 0, 0, 0]),
            (36, &[255, 255, 255, 255]),
            (32, &[255, 255, 255, 255]),
            (32, &[1, 0, 0, 0]),
            (17, &[16, 0]),
        ] {
            assert!(with(at, bytes).is_err(), "{at}: {bytes:?}");
        }
        assert!(BootSector::parse(&sample(), (1 << 29) - 1).is_err());
        assert!(BootSector::parse(&[], 1 << 29).is_err());
    }
}
