//! Read-only reader of FAT12, FAT16 and FAT32 with long names (Microsoft, "FAT: General Overview of On-Disk Format",
//! 1.03). The boot files of an image are few and small; what matters is that no damaged volume can stop the agent.

mod boot_sector;
mod file;
mod names;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;

pub use boot_sector::BootSector;
pub use file::FatFile;
pub use names::FatEntry;

use super::blocks::BlockSource;
use super::fields::{u16_at, u32_at};
use crate::printable::printable;
use boot_sector::Width;

/// A directory is at most 65536 entries of 32 bytes.
const MAX_DIRECTORY: usize = 65536 * 32;
/// Part of the table kept in memory.
const WINDOW: usize = 4096;

/// Why a FAT volume cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The source failed, or a structure points past its end.
    #[error("reading {len} bytes at byte {offset} failed: {source}")]
    Read {
        /// Byte in the partition.
        offset: u64,
        /// Bytes asked for.
        len: usize,
        /// What the source said.
        source: io::Error,
    },
    /// The boot sector makes no sense.
    #[error("no FAT file system, or a damaged boot sector: {0}; try fsck.fat on the source")]
    BootSector(&'static str),
    /// A file's cluster chain makes no sense.
    #[error("the FAT file system is damaged at {name}: {what}; try fsck.fat on the source")]
    Damaged {
        /// File or directory.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl FatError {
    fn damaged(name: &str, what: &'static str) -> Self {
        Self::Damaged { name: printable(name.as_bytes()), what }
    }
}

/// An open volume.
pub struct Fat<'a> {
    source: &'a dyn BlockSource,
    boot: BootSector,
    window: RefCell<(u64, Vec<u8>)>,
    directories: RefCell<HashSet<u32>>,
    /// Clusters that files may still claim: each belongs to one file, so a sound volume never runs out and a damaged
    /// one cannot become larger than itself.
    budget: Cell<u32>,
}

impl<'a> Fat<'a> {
    /// Reads and checks the boot sector.
    ///
    /// # Errors
    /// [`FatError`].
    pub fn open(source: &'a dyn BlockSource) -> Result<Self, FatError> {
        let mut sector = [0; 512];
        read(source, &mut sector, 0)?;
        let boot = BootSector::parse(&sector, source.size())?;
        let budget = Cell::new(boot.clusters);
        let window = RefCell::new((u64::MAX, Vec::new()));
        Ok(Self { source, boot, window, directories: RefCell::new(HashSet::new()), budget })
    }

    /// Bytes of the data area that the table marks as used, an upper bound of what [`Fat::content`] yields.
    ///
    /// # Errors
    /// What reading met.
    pub fn used_bytes(&self) -> Result<u64, FatError> {
        let mut used = 0_u64;
        for cluster in 2..self.boot.clusters + 2 {
            used += u64::from(self.entry(cluster)? != 0);
        }
        Ok(used * self.boot.cluster_size)
    }

    /// Entries of the root directory.
    ///
    /// # Errors
    /// Damage, or what reading met.
    pub fn root(&self) -> Result<Vec<FatEntry>, FatError> {
        if self.boot.width == Width::Fat32 {
            return self.read_directory("/", self.boot.root_cluster);
        }
        let length = usize::try_from(self.boot.root_size).unwrap_or(0).min(MAX_DIRECTORY);
        let mut data = vec![0; length];
        read(self.source, &mut data, self.boot.root_offset)?;
        names::parse(&data).map_err(|what| FatError::damaged("/", what))
    }

    /// Entries of a subdirectory; each directory is given once.
    ///
    /// # Errors
    /// Damage, also a directory met twice; or what reading met.
    pub fn directory(&self, entry: &FatEntry) -> Result<Vec<FatEntry>, FatError> {
        self.read_directory(&entry.name, entry.cluster)
    }

    fn read_directory(&self, name: &str, cluster: u32) -> Result<Vec<FatEntry>, FatError> {
        if !self.directories.borrow_mut().insert(cluster) {
            return Err(FatError::damaged(name, "the directory exists in two places"));
        }
        let mut chain = Chain { fs: self, name: name.to_owned(), cluster, left: u64::MAX };
        let mut data = Vec::new();
        let mut buffer = vec![0; self.cluster_bytes()];
        loop {
            let length = chain.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            data.extend_from_slice(&buffer[..length]);
            if data.len() > MAX_DIRECTORY {
                return Err(FatError::damaged(name, "directory longer than the format allows"));
            }
        }
        names::parse(&data).map_err(|what| FatError::damaged(name, what))
    }

    /// The content of a file, to be read from its beginning.
    ///
    /// # Errors
    /// Damage that shows at once.
    pub fn content(&self, entry: &FatEntry) -> Result<Chain<'_>, FatError> {
        if u64::from(entry.size) > u64::from(self.boot.clusters) * self.boot.cluster_size {
            return Err(FatError::damaged(&entry.name, "file larger than the volume"));
        }
        Ok(Chain { fs: self, name: entry.name.clone(), cluster: entry.cluster, left: entry.size.into() })
    }

    fn cluster_bytes(&self) -> usize {
        usize::try_from(self.boot.cluster_size).unwrap_or(0)
    }

    /// The table's entry for a cluster, its unused upper bits cleared.
    fn entry(&self, cluster: u32) -> Result<u32, FatError> {
        let cluster = u64::from(cluster);
        let at = match self.boot.width {
            Width::Fat12 => cluster + cluster / 2,
            Width::Fat16 => cluster * 2,
            Width::Fat32 => cluster * 4,
        };
        let mut word = [0; 4];
        let width = if self.boot.width == Width::Fat32 { 4 } else { 2 };
        for (i, byte) in word.iter_mut().take(width).enumerate() {
            *byte = self.table_byte(at + i as u64)?;
        }
        Ok(match self.boot.width {
            Width::Fat12 if cluster % 2 == 1 => u32::from(u16_at(&word, 0) >> 4),
            Width::Fat12 => u32::from(u16_at(&word, 0) & 0xfff),
            Width::Fat16 => u32::from(u16_at(&word, 0)),
            Width::Fat32 => u32_at(&word, 0) & 0x0fff_ffff,
        })
    }

    fn table_byte(&self, at: u64) -> Result<u8, FatError> {
        let start = at - at % WINDOW as u64;
        let mut window = self.window.borrow_mut();
        if window.0 != start {
            let length = (WINDOW as u64).min(self.boot.table_size.saturating_sub(start));
            window.1.resize(usize::try_from(length).unwrap_or(0), 0);
            window.0 = u64::MAX;
            read(self.source, &mut window.1, self.boot.table_offset + start)?;
            window.0 = start;
        }
        Ok(usize::try_from(at - start).ok().and_then(|i| window.1.get(i)).copied().unwrap_or(0))
    }
}

/// Reads the clusters of one file in order.
pub struct Chain<'a> {
    fs: &'a Fat<'a>,
    name: String,
    cluster: u32,
    /// Bytes to come; endless for directories, whose size is not kept.
    left: u64,
}

impl Chain<'_> {
    /// Fills `buffer` with as many whole clusters as fit (at least one cluster must) or the file's end; 0 at the end.
    ///
    /// # Errors
    /// Damage, or what reading met.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FatError> {
        let (boot, size) = (&self.fs.boot, self.fs.cluster_bytes());
        let mut filled = 0;
        while self.left > 0 && buffer.len() - filled >= size {
            let ends_by_mark = self.left == u64::MAX;
            if ends_by_mark && self.cluster >= boot.width.end_mark() {
                self.left = 0;
                break;
            }
            let first = self.cluster;
            if first < 2 || first - 2 >= boot.clusters {
                return Err(FatError::damaged(&self.name, "its cluster chain leaves the volume or ends early"));
            }
            // Neighbouring clusters are read together.
            let mut count = 0;
            let mut wanted = self.left;
            while wanted > 0
                && buffer.len() - filled >= (count + 1) * size
                && u64::from(self.cluster) == u64::from(first) + count as u64
            {
                let budget = self.fs.budget.get().checked_sub(1);
                let Some(budget) = budget else {
                    return Err(FatError::damaged(&self.name, "files share clusters, or a chain runs in a circle"));
                };
                self.fs.budget.set(budget);
                self.cluster = self.fs.entry(self.cluster)?;
                count += 1;
                if !ends_by_mark {
                    wanted = wanted.saturating_sub(size as u64);
                }
            }
            let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(count * size);
            let offset = boot.data_offset + u64::from(first - 2) * boot.cluster_size;
            read(self.fs.source, &mut buffer[filled..filled + bytes], offset)?;
            filled += bytes;
            if !ends_by_mark {
                self.left -= bytes as u64;
            }
        }
        Ok(filled)
    }
}

fn read(source: &dyn BlockSource, buf: &mut [u8], offset: u64) -> Result<(), FatError> {
    let len = buf.len();
    source.read_at(buf, offset).map_err(|source| FatError::Read { offset, len, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    /// A FAT12 volume: boot sector, one table of one sector, a root of 16 entries, then 60 clusters of one sector.
    fn volume(entries: &[(&[u8; 11], u8, u16, u32)], table: &[u16]) -> Vec<u8> {
        let mut data = vec![0; SECTOR * 63];
        data[..3].copy_from_slice(&[0xeb, 0, 0x90]);
        for (at, value) in [(11, 512_u16), (14, 1), (17, 16), (19, 63), (22, 1)] {
            data[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        (data[13], data[16]) = (1, 1);
        data[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (i, value) in table.iter().enumerate() {
            let (at, word) = (SECTOR + (i + 2) * 3 / 2, if i % 2 == 1 { value << 4 } else { *value });
            data[at] |= word.to_le_bytes()[0];
            data[at + 1] |= word.to_le_bytes()[1];
        }
        for (i, (name, attributes, cluster, size)) in entries.iter().enumerate() {
            let at = SECTOR * 2 + i * 32;
            data[at..at + 11].copy_from_slice(*name);
            data[at + 11] = *attributes;
            data[at + 26..at + 28].copy_from_slice(&cluster.to_le_bytes());
            data[at + 28..at + 32].copy_from_slice(&size.to_le_bytes());
        }
        for cluster in 0..60_u8 {
            let at = SECTOR * (3 + usize::from(cluster));
            if cluster >= 10 {
                data[at..at + SECTOR].fill(cluster + 2);
            }
        }
        data
    }

    fn content(fs: &Fat<'_>, name: &str) -> Result<Vec<u8>, FatError> {
        let entry = fs.root()?.into_iter().find(|e| e.name == name).unwrap();
        let mut chain = fs.content(&entry)?;
        let mut out = Vec::new();
        let mut buffer = vec![0; 1024];
        loop {
            let length = chain.read(&mut buffer)?;
            if length == 0 {
                return Ok(out);
            }
            out.extend_from_slice(&buffer[..length]);
        }
    }

    #[test]
    fn follows_a_scattered_chain() {
        let mut table = [0; 60];
        (table[10], table[11], table[20]) = (13, 22, 0xfff); // clusters 12 -> 13 -> 22
        let image = volume(&[(b"A       TXT", 0, 12, 1300)], &table);
        let bytes = image.as_slice();
        let fs = Fat::open(&bytes).unwrap();
        let data = content(&fs, "A.TXT").unwrap();
        assert_eq!((data.len(), data[0], data[512], data[1024], data[1299]), (1300, 12, 13, 22, 22));
        assert_eq!(fs.used_bytes().unwrap(), 3 * 512);
    }

    #[test]
    fn a_scattered_file_can_be_read_anywhere() {
        let mut table = [0; 60];
        (table[10], table[11], table[20]) = (13, 22, 0xfff); // clusters 12 -> 13 -> 22
        let image = volume(&[(b"A       TXT", 0, 12, 1300)], &table);
        let bytes = image.as_slice();
        let fs = Fat::open(&bytes).unwrap();
        let whole = content(&fs, "A.TXT").unwrap();
        let file = fs.file(&fs.root().unwrap()[0]).unwrap();
        assert_eq!(file.size(), 1300);
        for (offset, length) in [(0, 1300), (500, 24), (1023, 2), (1024, 276), (1299, 1), (1300, 0)] {
            let mut buffer = vec![0; length];
            file.read_at(&mut buffer, offset).unwrap();
            assert_eq!(buffer, whole[usize::try_from(offset).unwrap()..][..length]);
        }
        assert!(file.read_at(&mut [0; 2], 1299).is_err());
    }

    #[test]
    fn circles_shared_clusters_and_short_chains_are_errors() {
        let mut table = [0; 60];
        (table[10], table[11], table[12]) = (13, 12, 0xfff); // 12 <-> 13, 14 ends
        let names = [(b"CIRCLE     ", 0, 12, 30_000), (b"SHORT      ", 0, 14, 600), (b"OUT        ", 0, 1, 5)];
        let image = volume(&names, &table);
        let bytes = image.as_slice();
        let fs = Fat::open(&bytes).unwrap();
        assert!(content(&fs, "SHORT").unwrap_err().to_string().contains("ends early"));
        assert!(content(&fs, "OUT").unwrap_err().to_string().contains("leaves the volume"));
        assert_eq!(content(&fs, "CIRCLE").unwrap().len(), 30_000, "within the budget nobody can tell");
        assert!(content(&fs, "CIRCLE").unwrap_err().to_string().contains("circle"));
    }

    #[test]
    fn a_directory_that_contains_itself_is_an_error() {
        let mut table = [0; 60];
        table[0] = 0xfff;
        let image = volume(&[(b"LOOP       ", 0x10, 2, 0)], &table);
        let bytes = image.as_slice();
        let fs = Fat::open(&bytes).unwrap();
        let entry = fs.root().unwrap().remove(0);
        assert!(fs.directory(&entry).unwrap().is_empty());
        assert!(fs.directory(&entry).unwrap_err().to_string().contains("two places"));
    }
}
