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
use super::unpack::{Format, is_tar};

/// Answer of [`inspect`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What the file is: `img`, `xz`, `gz`, `zst`, `zip`; `tar`, `tar.xz` … for an archive of a root, of which no more is
    /// said.
    pub format: String,
    /// Its size in bytes.
    pub source_bytes: u64,
    /// Size of the unpacked image that the partition table asks for, in bytes.
    pub disk_bytes: u64,
    /// First half of every PARTUUID, or the disk's GUID.
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
    /// From 1 on.
    pub number: u16,
    /// Type: a byte in hex, or a GUID.
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
    let mut stream = source.into_stream()?;
    if is_tar(stream.head()?) {
        let format = if format == Format::Raw { "tar".to_owned() } else { format!("tar.{}", format.name()) };
        return Ok(Inspection { format, source_bytes, ..Inspection::default() });
    }
    let disk = match &file {
        Some(file) if format == Format::Raw => Some(open(file, path)?),
        _ => None,
    };
    let table = match &disk {
        Some(disk) => partition::read(disk),
        None => {
            let mut head = vec![0; partition::USUAL_SIZE];
            let length = stream.read(&mut head)?;
            partition::read(&head.get(..length).unwrap_or_default())
        }
    };
    let table = table.map_err(|error| ImportError::Partition { path: path.display().to_string(), error })?;
    let partitions = table.partitions.iter().map(|p| InspectedPartition {
        number: p.number,
        kind: p.kind.to_string(),
        start: p.start,
        bytes: p.size,
    });
    let problem = table.boot().and(table.root()).err().map(|error| error.to_string());
    let mut found = Inspection {
        format: format.name().to_owned(),
        source_bytes,
        disk_bytes: table.end(),
        disk_id: table.disk_id.to_string(),
        partitions: partitions.collect(),
        root_label: None,
        root_used_bytes: None,
        os: None,
        architecture: None,
        problem,
    };
    if let Some(disk) = &disk {
        look_into_root(disk, &table, &mut found);
    }
    Ok(found)
}

fn open(file: &File, path: &Path) -> Result<FileBlocks, ImportError> {
    file.try_clone().and_then(FileBlocks::new).map_err(|source| ImportError::disk("read", path, source))
}

fn look_into_root(disk: &FileBlocks, table: &PartitionTable, found: &mut Inspection) {
    let Ok(root) = table.root() else { return };
    let window = Window::new(disk, root.start, root.size);
    let fs = match Ext4::open(&window) {
        Ok(fs) => fs,
        Err(error) => {
            found.problem.get_or_insert(error.to_string());
            return;
        }
    };
    found.root_label = Some(String::from_utf8_lossy(&fs.superblock().label).into_owned());
    found.root_used_bytes = Some(fs.superblock().used_bytes());
    let head = |path: &str, max| fs.resolve(path).and_then(|inode| fs.content(&inode, max)).ok();
    found.os = head("/etc/os-release", 16384).and_then(|text| parse_os_release(&String::from_utf8_lossy(&text)).0);
    found.architecture = head("/sbin/init", 64).and_then(|data| elf_architecture(&data));
}
