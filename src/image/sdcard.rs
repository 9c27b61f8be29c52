//! The SD card that makes an old Pi boot from the network: one FAT32 partition with nothing but `bootcode.bin`.
//!
//! The ROM of a Pi 1, 2 or Zero knows cards alone; the `bootcode.bin` that it finds there has the network (facts about
//! boards: README, "Old and odd Pis"). The layout is what `mkfs.vfat` makes, after Microsoft's FAT specification 1.03.

const SECTOR: usize = 512;
/// Where the partition begins, in sectors: 1 MiB, where every tool puts it.
const START: u32 = 2048;
/// Sectors of the partition: 40 MiB. FAT32 needs 65525 clusters, or programs take it for FAT16.
const SECTORS: u32 = 40 * 2048;
/// Sectors before the tables.
const RESERVED: u32 = 32;
/// Sectors of one of the two tables: an entry of four bytes for each cluster of one sector.
const TABLE: u32 = (SECTORS - RESERVED).div_ceil(SECTOR as u32 / 4 + 2) + 1;
/// Sectors before cluster 2, the first that there is.
const DATA: u32 = RESERVED + 2 * TABLE;
const CLUSTERS: u32 = SECTORS - DATA;
const _: () = assert!(CLUSTERS >= 65_525 && (CLUSTERS + 2) * 4 <= TABLE * SECTOR as u32);

/// End of a chain of clusters.
const END: u32 = 0x0fff_ffff;
/// Where FSInfo and the copy of the boot sector are.
const INFO: u32 = 1;
const COPY: u32 = 6;
/// Size of the whole card's image in bytes.
pub const CARD_BYTES: u64 = (START + SECTORS) as u64 * SECTOR as u64;
/// The ROM loads it into the second-level cache of 128 KB.
pub const MAX_BOOTCODE: usize = 128 << 10;

/// What cannot be put on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bootcode.bin of {0} bytes is none: it has at most {MAX_BOOTCODE}, and more than nothing. Take that of Raspberry Pi OS, from its boot partition"
)]
pub struct NotBootcode(usize);

/// The beginning of the card, from its first sector to the last that is not empty. What follows, up to [`CARD_BYTES`], says
/// nothing.
///
/// # Errors
/// When `bootcode` cannot be one.
pub fn beginning(bootcode: &[u8]) -> Result<Vec<u8>, NotBootcode> {
    if bootcode.is_empty() || bootcode.len() > MAX_BOOTCODE {
        return Err(NotBootcode(bootcode.len()));
    }
    let clusters = u32::try_from(bootcode.len().div_ceil(SECTOR)).unwrap_or(u32::MAX);
    let mut card = Card(vec![0; sector(START + DATA + 1 + clusters)]);
    card.master_boot_record();
    for at in [START, START + COPY] {
        card.boot_sector(at);
        card.file_system_info(at + INFO, CLUSTERS - 1 - clusters, 2 + 1 + clusters);
    }
    for table in [START + RESERVED, START + RESERVED + TABLE] {
        // The medium, no errors, the top directory, then the file.
        let chain = (4..3 + clusters).chain([END]);
        for (n, value) in [0x0fff_fff8, END, END].into_iter().chain(chain).enumerate() {
            card.put(sector(table) + 4 * n, &value.to_le_bytes());
        }
    }
    card.directory(START + DATA, bootcode.len());
    card.put(sector(START + DATA + 1), bootcode);
    Ok(card.0)
}

const fn sector(number: u32) -> usize {
    number as usize * SECTOR
}

/// Bytes of a card.
struct Card(Vec<u8>);

impl Card {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn sign(&mut self, number: u32) {
        self.put(sector(number) + 510, &[0x55, 0xaa]);
    }

    fn master_boot_record(&mut self) {
        // A disk identifier, of no meaning here.
        self.put(440, b"piSD");
        let mut entry = [0; 16];
        let (start, size) = (START.to_le_bytes(), SECTORS.to_le_bytes());
        // Cylinders, heads and sectors say: see the sector numbers. 0x0c is FAT32 with such.
        let head = [0, 0xfe, 0xff, 0xff, 0x0c, 0xfe, 0xff, 0xff];
        for (to, from) in entry.iter_mut().zip(head.into_iter().chain(start).chain(size)) {
            *to = from;
        }
        self.put(446, &entry);
        self.sign(0);
    }

    fn boot_sector(&mut self, number: u32) {
        let at = sector(number);
        self.put(at, &[0xeb, 0x58, 0x90]);
        self.put(at + 3, b"MSWIN4.1");
        self.put(at + 11, &512_u16.to_le_bytes());
        // Sectors a cluster.
        self.put(at + 13, &[1]);
        self.put(at + 14, &[RESERVED.to_le_bytes()[0], 0]);
        // Two tables, and a fixed disk.
        self.put(at + 16, &[2]);
        self.put(at + 21, &[0xf8]);
        // A geometry that nobody asks for.
        self.put(at + 24, &63_u16.to_le_bytes());
        self.put(at + 26, &255_u16.to_le_bytes());
        self.put(at + 28, &START.to_le_bytes());
        self.put(at + 32, &SECTORS.to_le_bytes());
        self.put(at + 36, &TABLE.to_le_bytes());
        // The top directory is cluster 2.
        self.put(at + 44, &2_u32.to_le_bytes());
        self.put(at + 48, &[INFO.to_le_bytes()[0], 0, COPY.to_le_bytes()[0], 0]);
        self.put(at + 64, &[0x80, 0, 0x29]);
        self.put(at + 67, b"piSD");
        self.put(at + 71, b"PIBOOT     FAT32   ");
        self.sign(number);
    }

    fn file_system_info(&mut self, number: u32, free: u32, next: u32) {
        let at = sector(number);
        self.put(at, b"RRaA");
        self.put(at + 484, b"rrAa");
        self.put(at + 488, &free.to_le_bytes());
        self.put(at + 492, &next.to_le_bytes());
        self.sign(number);
    }

    fn directory(&mut self, number: u32, size: usize) {
        /// The first day that FAT has, 1980-01-01: the same card every time.
        const DAY: [u8; 2] = 0x0021_u16.to_le_bytes();
        let at = sector(number);
        self.put(at, b"PIBOOT     \x08");
        self.put(at + 24, &DAY);
        let file = at + 32;
        self.put(file, b"BOOTCODEBIN\x20");
        // Name and extension are shown in lower case, as Windows NT has it.
        self.put(file + 12, &[0x18]);
        [16, 18, 24].into_iter().for_each(|offset| self.put(file + offset, &DAY));
        // It begins at cluster 3.
        self.put(file + 26, &3_u16.to_le_bytes());
        self.put(file + 28, &u32::try_from(size).unwrap_or(0).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::blocks::{FileBlocks, Window};
    use crate::image::extract::extract_fat;
    use crate::image::fat::Fat;
    use crate::image::partition;
    use crate::progress::NoProgress;
    use crate::storage::tree_writer::TreeWriter;
    use rustix::fs::{Mode, OFlags};
    use std::process::Command;

    /// By the FAT tools, the kernel, and the importer's own reader.
    #[test]
    fn everybody_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("card.img");
        for size in [1, 512, 513, 52_480, MAX_BOOTCODE] {
            let bootcode: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
            let card = beginning(&bootcode).unwrap();
            std::fs::write(&path, &card).unwrap();
            let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
            file.set_len(CARD_BYTES).unwrap();
            let offset = START as usize * SECTOR;
            let volume = place.path().join("volume");
            let mut bytes = std::fs::read(&path).unwrap();
            std::fs::write(&volume, bytes.split_off(offset)).unwrap();
            let check = Command::new("fsck.fat").arg("-nv").arg(&volume).output().unwrap();
            let said = String::from_utf8_lossy(&check.stdout).into_owned();
            assert!(check.status.success() && !said.contains("differen") && said.contains("32 bit entries"), "{said}");
            let copied = Command::new("mcopy").arg("-i").arg(&volume).args(["::bootcode.bin", "-"]).output().unwrap();
            assert!(copied.stdout == bootcode, "mtools: {copied:?}");
            let listed = Command::new("mdir").args(["-b", "-i"]).arg(&volume).arg("::").output().unwrap();
            assert_eq!(String::from_utf8_lossy(&listed.stdout), "::/bootcode.bin\n");

            let blocks = FileBlocks::new(file).unwrap();
            let table = partition::read(&blocks).unwrap();
            let boot = table.boot().unwrap();
            assert_eq!((boot.start, boot.start + boot.size), (offset as u64, CARD_BYTES));
            let window = Window::new(&blocks, boot.start, boot.size);
            let into = tempfile::tempdir().unwrap();
            let directory = rustix::fs::open(into.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let mut writer = TreeWriter::new(directory).unwrap();
            extract_fat(&Fat::open(&window).unwrap(), &mut writer, &NoProgress).unwrap();
            assert_eq!(std::fs::read(into.path().join("bootcode.bin")).unwrap(), bootcode);
        }
        let mount = place.path().join("mnt");
        std::fs::create_dir(&mount).unwrap();
        let options = ["-t", "vfat", "-o", "ro,loop"];
        let mounted = Command::new("mount").args(options).arg(place.path().join("volume")).arg(&mount).status();
        if mounted.unwrap().success() {
            assert_eq!(std::fs::read(mount.join("bootcode.bin")).unwrap().len(), MAX_BOOTCODE);
            assert!(Command::new("umount").arg(&mount).status().unwrap().success());
        } else {
            eprintln!("this kernel has no vfat: not mounted");
        }
    }

    #[test]
    fn what_is_no_bootcode_is_refused() {
        for size in [0, MAX_BOOTCODE + 1] {
            assert_eq!(beginning(&vec![0; size]), Err(NotBootcode(size)));
        }
    }
}
