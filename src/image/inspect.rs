//! What an image file or disk holds, without importing it.

use std::fs::File;
use std::path::Path;

use serde::Serialize;

use super::blocks::{FileBlocks, Window};
use super::ext4::Ext4;
use super::import::ImportError;
use super::info::{elf_architecture, parse_os_release};
use super::partition::{self, PartitionTable};
use super::source::Source;
use super::unpack::Format;

/// Answer of [`inspect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// How the file is packed: `img` or `xz`.
    pub format: &'static str,
    /// Its size in bytes.
    pub source_bytes: u64,
    /// Size of the unpacked image that the partition table asks for, in bytes.
    pub disk_bytes: u64,
    /// First half of every PARTUUID.
    pub disk_id: String,
    /// The partitions.
    pub partitions: Vec<InspectedPartition>,
    /// Label of the root file system; only for unpacked images.
    pub root_label: Option<String>,
    /// Bytes used in the root file system; only for unpacked images.
    pub root_used_bytes: Option<u64>,
    /// `PRETTY_NAME` of the root's os-release; only for unpacked images.
    pub os: Option<String>,
    /// Architecture of the root's init; only for unpacked images.
    pub architecture: Option<String>,
    /// What would stop an import, as far as it shows.
    pub problem: Option<String>,
}

/// One line of the partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedPartition {
    /// 1 to 4.
    pub number: u8,
    /// Type byte in hex.
    pub kind: String,
    /// First byte.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Looks into an image file or disk. Of a packed one only the beginning is decoded.
///
/// # Errors
/// [`ImportError`] when the file cannot be read or holds no partition table.
pub fn inspect(path: &Path) -> Result<Inspection, ImportError> {
    let source = Source::open(path)?;
    let (format, source_bytes, file) = (source.format(), source.size().unwrap_or(0), source.seekable()?);
    let mut sector = [0; 512];
    let length = source.into_stream()?.read(&mut sector)?;
    let table = partition::parse(&sector[..length]);
    let table = table.map_err(|error| ImportError::Partition { path: path.display().to_string(), error })?;
    let partitions = table.partitions.iter().map(|p| InspectedPartition {
        number: p.number,
        kind: format!("{:02x}", p.kind),
        start: p.start,
        bytes: p.size,
    });
    let problem = table.boot().and(table.root()).err().map(|error| error.to_string());
    let mut found = Inspection {
        format: format.name(),
        source_bytes,
        disk_bytes: table.end(),
        disk_id: format!("{:08x}", table.disk_id),
        partitions: partitions.collect(),
        root_label: None,
        root_used_bytes: None,
        os: None,
        architecture: None,
        problem,
    };
    if let Some(file) = file.filter(|_| format == Format::Raw) {
        look_into_root(file, &table, &mut found, path)?;
    }
    Ok(found)
}

fn look_into_root(file: File, table: &PartitionTable, found: &mut Inspection, path: &Path) -> Result<(), ImportError> {
    let disk = FileBlocks::new(file);
    let disk = disk.map_err(|source| ImportError::disk("read", path, source))?;
    let Ok(root) = table.root() else { return Ok(()) };
    let window = Window::new(&disk, root.start, root.size);
    let fs = match Ext4::open(&window) {
        Ok(fs) => fs,
        Err(error) => {
            found.problem.get_or_insert(error.to_string());
            return Ok(());
        }
    };
    found.root_label = Some(String::from_utf8_lossy(&fs.superblock().label).into_owned());
    found.root_used_bytes = Some(fs.superblock().used_bytes());
    let head = |path: &str, max| fs.resolve(path).and_then(|inode| fs.content(&inode, max)).ok();
    found.os = head("/etc/os-release", 16384).and_then(|text| parse_os_release(&String::from_utf8_lossy(&text)).0);
    found.architecture = head("/sbin/init", 64).and_then(|data| elf_architecture(&data));
    Ok(())
}
