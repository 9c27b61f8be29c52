//! An SD card in the router, or a file in its place: is it one that may be written over, and writing it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags};

use super::{rename_new, sync_directory};

/// Major number of loop devices: a file in disguise.
const LOOP: u32 = 7;

/// Why a card is not written. Nothing on it was changed, unless it is said.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// No such file or device.
    #[error("cannot use {0}: {1}")]
    Io(PathBuf, io::Error),
    /// A file of that name.
    #[error("{0} exists already, and nothing is replaced: choose another name")]
    Exists(PathBuf),
    /// Neither a file nor a disk.
    #[error("{0} is neither a disk nor the name of a new file")]
    NoDisk(PathBuf),
    /// `/dev/sdb1`
    #[error("{0} is a part of a disk: name the whole disk")]
    Partition(PathBuf),
    /// Somebody uses it.
    #[error("{0} is in use ({1}): unmount it first, if it is the card at all")]
    InUse(PathBuf, String),
    /// No card.
    #[error(
        "{0} is no card that can be taken out ({1}), more likely a disk of this machine: write to a file (-o FILE), and copy that to the card elsewhere"
    )]
    Fixed(PathBuf, String),
    /// What was written is not what is read.
    #[error("{0} was written, and reads back differently: the card is worn out, or write-protected")]
    Differs(PathBuf),
}

/// A place that a card's content may be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file that is not there yet.
    NewFile,
    /// A disk that may be written over, as people may know it.
    Disk(String),
}

/// Says whether `path` may be written to.
///
/// # Errors
/// [`CardError`] naming what speaks against it.
pub fn look(path: &Path) -> Result<Place, CardError> {
    let own = || path.to_owned();
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::NewFile),
        other => other.map_err(|e| CardError::Io(own(), e))?,
    };
    if meta.is_file() {
        return Err(CardError::Exists(own()));
    }
    if !meta.file_type().is_block_device() {
        return Err(CardError::NoDisk(own()));
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if sys.join("partition").exists() {
        return Err(CardError::Partition(own()));
    }
    if let Some(user) = user_of(path, &sys, major, minor) {
        return Err(CardError::InUse(own(), user));
    }
    let fact = |name: &str| std::fs::read_to_string(sys.join(name)).unwrap_or_default().trim().to_owned();
    let (kind, removable) = (fact("device/type"), fact("removable") == "1");
    // Soldered memory says "MMC" where a card says "SD".
    if major != LOOP && !removable && kind != "SD" {
        let what = [fact("device/vendor"), fact("device/model"), fact("device/name")].join(" ");
        return Err(CardError::Fixed(own(), what.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    let sectors: u64 = fact("size").parse().unwrap_or(0);
    let name = [fact("device/vendor"), fact("device/model"), fact("device/name")].join(" ");
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = partitions(&sys).len();
    Ok(Place::Disk(format!(
        "{} MB, {parts} partitions{}{name}",
        sectors.saturating_mul(512) / 1_000_000,
        if name.is_empty() { "" } else { ", " }
    )))
}

/// Who uses a disk or a part of it.
fn user_of(path: &Path, sys: &Path, major: u32, minor: u32) -> Option<String> {
    let mut numbers = vec![format!("{major}:{minor}")];
    for part in partitions(sys) {
        numbers.extend(std::fs::read_to_string(part.join("dev")).map(|text| text.trim().to_owned()));
        if let Some(holder) = first_name(&part.join("holders")) {
            return Some(format!("it is a part of {holder}"));
        }
    }
    if let Some(holder) = first_name(&sys.join("holders")) {
        return Some(format!("it is a part of {holder}"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(2);
        if let (Some(number), Some(point)) = (words.next(), words.nth(1))
            && numbers.iter().any(|own| own == number)
        {
            return Some(format!("mounted at {point}"));
        }
    }
    // The kernel knows of every mount, of swap, and of whoever else has claimed the disk for himself.
    let flags = (OFlags::EXCL | OFlags::CLOEXEC).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Some("something has claimed it".to_owned()),
        _ => None,
    }
}

fn partitions(sys: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sys).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("partition").exists()).collect()
}

fn first_name(directory: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(directory).ok()?.flatten();
    entries.next().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Writes `content` to the beginning of a card and compares what can be read from it then; a new file gets `size` bytes, and
/// its name when it is complete.
///
/// # Errors
/// [`CardError`].
pub fn write(path: &Path, place: &Place, content: &[u8], size: u64) -> Result<(), CardError> {
    let failed = |error: io::Error| CardError::Io(path.to_owned(), error);
    match place {
        Place::Disk(_) => {
            let flags = (OFlags::EXCL | OFlags::CLOEXEC).bits().cast_signed();
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(failed)?;
            write_and_compare(path, file, content)
        }
        Place::NewFile => {
            let mut name = std::ffi::OsString::from(".");
            name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename).map_err(|e| failed(e.into()))?);
            name.push(".part");
            let beside = path.with_file_name(name);
            let written = write_new(path, &beside, content, size);
            if written.is_err() {
                // The error that matters is the first one.
                let _ = std::fs::remove_file(&beside);
            }
            written
        }
    }
}

fn write_new(path: &Path, beside: &Path, content: &[u8], size: u64) -> Result<(), CardError> {
    let failed = |error: io::Error| CardError::Io(path.to_owned(), error);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(beside).map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    write_and_compare(path, file, content)?;
    rename_new(rustix::fs::CWD, beside, rustix::fs::CWD, path).map_err(|errno| match errno {
        rustix::io::Errno::EXIST => CardError::Exists(path.to_owned()),
        other => failed(other.into()),
    })?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(directory).map_err(failed)
}

fn write_and_compare(path: &Path, mut file: File, content: &[u8]) -> Result<(), CardError> {
    let failed = |error: io::Error| CardError::Io(path.to_owned(), error);
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    // What is read is to come from the card, not from memory.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut piece = vec![0; 64 << 10];
    for expected in content.chunks(piece.len()) {
        let read = piece.get_mut(..expected.len()).unwrap_or_default();
        file.read_exact(read).map_err(failed)?;
        if read != expected {
            return Err(CardError::Differs(path.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_complete_or_not_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("card.img");
        assert_eq!(look(&path).unwrap(), Place::NewFile);
        write(&path, &Place::NewFile, b"content", 1 << 20).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert!(written.len() == 1 << 20 && written.starts_with(b"content\0"));
        assert!(matches!(look(&path), Err(CardError::Exists(_))));
        assert!(matches!(write(&path, &Place::NewFile, b"other", 1 << 20), Err(CardError::Exists(_))));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(matches!(look(Path::new("/dev/null")), Err(CardError::NoDisk(_))));
        assert!(matches!(look(place.path()), Err(CardError::NoDisk(_))));
    }
}
