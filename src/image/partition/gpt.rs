//! GUID partition tables (UEFI specification 2.10, section 5.3): the header in the second sector, or the copy at the end
//! where that is damaged.

use std::fmt;

use flate2::Crc;

use super::{DiskId, Kind, Partition, PartitionError, PartitionTable, SECTOR};
use crate::image::blocks::BlockSource;
use crate::image::fields::{u16_at, u32_at};

/// Largest array of entries that is read: eight times what anybody makes.
const MAX_ENTRIES: u32 = 1024;
const MAX_ENTRY_SIZE: u32 = 512;
/// Smallest header and entry there can be.
const MIN_HEADER: usize = 92;
const MIN_ENTRY: u32 = 128;

/// A GUID as it is on a disk: its first three fields little-endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Guid([u8; 16]);

impl Guid {
    /// EFI system partition, which is FAT.
    pub(super) const EFI_SYSTEM: Self = Self::new(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
    /// Microsoft basic data: a file system that Windows knows.
    pub(super) const BASIC_DATA: Self = Self::new(0xebd0_a0a2, 0xb9e5, 0x4433, 0x87c0_68b6_b726_99c7);
    /// Linux file system data.
    pub(super) const LINUX_DATA: Self = Self::new(0x0fc6_3daf, 0x8483, 0x4772, 0x8e79_3d69_d847_7de4);
    /// Root partition, 64-bit ARM (Discoverable Partitions Specification).
    pub(super) const ROOT_ARM64: Self = Self::new(0xb921_b045, 0x1df0, 0x41c3, 0xaf44_4c6f_280d_3fae);
    /// Root partition, 32-bit ARM.
    pub(super) const ROOT_ARM: Self = Self::new(0x69da_d710, 0x2ce4, 0x4e3c, 0xb16c_21a1_d49a_bed3);

    const fn new(a: u32, b: u16, c: u16, rest: u64) -> Self {
        let (a, b, c, r) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]])
    }

    fn at(data: &[u8], at: usize) -> Self {
        let mut guid = [0; 16];
        guid.iter_mut().zip(data.iter().skip(at)).for_each(|(to, from)| *to = *from);
        Self(guid)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = (u32_at(&self.0, 0), u16_at(&self.0, 4), u16_at(&self.0, 6));
        write!(f, "{a:08x}-{b:04x}-{c:04x}-")?;
        for (n, byte) in self.0.iter().enumerate().skip(8) {
            write!(f, "{}{byte:02x}", if n == 10 { "-" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32
}

fn crc(data: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(data);
    crc.sum()
}

/// Reads the table of a disk with a protective MBR.
pub(super) fn read(disk: &dyn BlockSource) -> Result<PartitionTable, PartitionError> {
    let error = match read_at(disk, 1) {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    // The copy is in the last sector; where the first header is only a little damaged it says where. On a card larger
    // than its image, the last sector is something else.
    let mut header = [0; SECTOR as usize];
    let named = disk.read_at(&mut header, SECTOR).is_ok().then(|| u64_at(&header, 32));
    let last = (disk.size() / SECTOR).checked_sub(1);
    if let Some(table) = [named, last].into_iter().flatten().find_map(|sector| read_at(disk, sector).ok()) {
        return Ok(table);
    }
    let mut header = [0; 8];
    let large = disk.read_at(&mut header, 4096).is_ok() && header == *b"EFI PART";
    Err(if large { PartitionError::LargeSectors } else { error })
}

/// Reads the header in one sector, and its entries.
fn read_at(disk: &dyn BlockSource, sector: u64) -> Result<PartitionTable, PartitionError> {
    let bad = PartitionError::Gpt;
    let mut header = [0; SECTOR as usize];
    let start = sector.checked_mul(SECTOR).ok_or(bad("no header"))?;
    disk.read_at(&mut header, start).map_err(|_| bad("no header"))?;
    if !header.starts_with(b"EFI PART") {
        return Err(bad("no header"));
    }
    let size = usize::try_from(u32_at(&header, 12)).unwrap_or(0);
    let stored = u32_at(&header, 16);
    if let Some(field) = header.get_mut(16..20) {
        field.fill(0);
    }
    let sum = header.get(..size).filter(|_| size >= MIN_HEADER).map(crc);
    if sum != Some(stored) || u64_at(&header, 24) != sector {
        return Err(bad("the header's checksum is wrong"));
    }
    let (count, entry_size) = (u32_at(&header, 80), u32_at(&header, 84));
    if count > MAX_ENTRIES || !(MIN_ENTRY..=MAX_ENTRY_SIZE).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Err(bad("an impossible number or size of entries"));
    }
    let mut entries = vec![0; usize::try_from(count * entry_size).unwrap_or(0)];
    let at = u64_at(&header, 72).checked_mul(SECTOR).ok_or(bad("no entries"))?;
    disk.read_at(&mut entries, at).map_err(|_| bad("no entries"))?;
    if crc(&entries) != u32_at(&header, 88) {
        return Err(bad("the entries' checksum is wrong"));
    }
    let chunks = entries.chunks_exact(usize::try_from(entry_size).unwrap_or(512));
    let used = (1..).zip(chunks).filter(|(_, entry)| entry.iter().take(16).any(|byte| *byte != 0));
    let partitions = used.map(|(number, entry)| partition(number, entry)).collect::<Result<_, _>>()?;
    Ok(PartitionTable { disk_id: DiskId::Gpt(Guid::at(&header, 56)), partitions })
}

fn partition(number: u16, entry: &[u8]) -> Result<Partition, PartitionError> {
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    // Bytes must fit 63 bits, as files' sizes do.
    if first < 2 || last < first || last >= 1 << 54 {
        return Err(PartitionError::BadStart(number));
    }
    Ok(Partition {
        number,
        kind: Kind::Gpt(Guid::at(entry, 0)),
        guid: Some(Guid::at(entry, 16)),
        start: first * SECTOR,
        size: (last - first + 1) * SECTOR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of 100 sectors with two partitions, whole.
    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 100 * 512];
        let mut entries = vec![0; 128 * 128];
        for (n, kind, first, last) in [(0, Guid::EFI_SYSTEM, 40_u64, 49_u64), (4, Guid::LINUX_DATA, 50, 60)] {
            let entry = &mut entries[n * 128..][..128];
            entry[..16].copy_from_slice(&kind.0);
            entry[16..32].fill(0x11 * (n as u8 + 1));
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        for (here, other, at) in [(1_u64, 99_u64, 2_u64), (99, 1, 67)] {
            let mut header = [0; 512];
            header[..8].copy_from_slice(b"EFI PART");
            header[12] = 92;
            header[24..32].copy_from_slice(&here.to_le_bytes());
            header[32..40].copy_from_slice(&other.to_le_bytes());
            header[56..72].fill(0xdd);
            header[72..80].copy_from_slice(&at.to_le_bytes());
            header[80..84].copy_from_slice(&128_u32.to_le_bytes());
            header[84..88].copy_from_slice(&128_u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
            let sum = crc(&header[..92]);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
            disk[here as usize * 512..][..512].copy_from_slice(&header);
            let at = at as usize * 512;
            disk[at..at + entries.len()].copy_from_slice(&entries);
        }
        disk
    }

    #[test]
    fn any_one_damage_is_survived_by_the_copy() {
        let whole = disk();
        let table = read(&whole.as_slice()).unwrap();
        assert_eq!(table.disk_id.to_string(), "dddddddd-dddd-dddd-dddd-dddddddddddd");
        let [boot, root] = table.partitions[..] else { panic!("{table:?}") };
        assert_eq!((boot.number, boot.start, boot.size), (1, 40 * 512, 10 * 512));
        assert_eq!((root.number, table.partuuid(&root).as_str()), (5, "55555555-5555-5555-5555-555555555555"));
        for at in [512, 512 + 12, 512 + 20, 512 + 60, 512 + 88, 1024 + 33, 1024 + 512 + 16] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            assert_eq!(read(&damaged.as_slice()), Ok(table.clone()), "byte {at}");
            // A card is larger than its image; its header still knows where the copy is, unless that is what broke.
            damaged.resize(200 * 512, 0);
            assert!(read(&damaged.as_slice()).is_ok(), "byte {at} on a larger card");
            damaged[99 * 512 + 70] ^= 1;
            assert!(matches!(read(&damaged.as_slice()), Err(PartitionError::Gpt(_))), "byte {at} twice");
        }
    }

    #[test]
    fn hostile_figures_end_in_an_error() {
        let change = |at: usize, value: u64, bytes: usize| {
            let mut disk = disk();
            disk[99 * 512..].fill(0);
            disk[512 + at..][..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            disk[512 + 16..][..4].fill(0);
            let sum = crc(&disk[512..512 + 92]);
            disk[512 + 16..][..4].copy_from_slice(&sum.to_le_bytes());
            read(&disk.as_slice()).unwrap_err().to_string()
        };
        assert!(change(80, u64::from(u32::MAX), 4).contains("number or size"));
        assert!(change(84, 127, 4).contains("number or size"));
        assert!(change(84, 1 << 31, 4).contains("number or size"));
        assert!(change(72, u64::MAX, 8).contains("no entries"));
        assert!(change(24, 5, 8).contains("checksum"));
        let mut entry = [1; 128];
        entry[32..48].fill(0xff);
        assert_eq!(partition(3, &entry), Err(PartitionError::BadStart(3)));
        entry[32..48].fill(0);
        assert_eq!(partition(3, &entry), Err(PartitionError::BadStart(3)));
    }

    #[test]
    fn guids_are_written_as_everybody_does() {
        assert_eq!(Guid::BASIC_DATA.to_string(), "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
    }
}
