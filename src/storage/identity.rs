//! Which disk it is: the volume carries a number, and the router remembers that of the one which it used last.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::atomic::{make_private, write_beside};

/// Hexadecimal digits of a number.
const DIGITS: usize = 32;

/// The number in a file, if one is there.
#[must_use]
pub fn read_id(file: &Path) -> Option<String> {
    let mut text = String::new();
    // One byte more, so that a longer text is none.
    File::open(file).ok()?.take(DIGITS as u64 + 2).read_to_string(&mut text).ok()?;
    let id = text.trim_end();
    (id.len() == DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// The number in a file; one is made if there is none, once and for ever.
///
/// # Errors
/// When it cannot be written.
pub fn read_or_make_id(file: &Path) -> io::Result<String> {
    if let Some(id) = read_id(file) {
        return Ok(id);
    }
    let mut random = [0; DIGITS / 2];
    crate::random::fill(&mut random)?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write_beside(file, format!("{id}\n").as_bytes(), 0o600)?;
    Ok(id)
}

/// A volume as the router remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub id: String,
    /// Where it was used.
    pub data_dir: PathBuf,
    /// What people know it by: file system and size.
    pub what: String,
}

/// What the router remembers of its volume. It is on the router's flash: written when it changes, and only then.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
    known: Option<Known>,
}

impl Memory {
    /// Reads it. What cannot be read is forgotten: a router that knows no volume takes any.
    #[must_use]
    pub fn load(file: PathBuf) -> Self {
        let read = std::fs::read(&file).and_then(|bytes| serde_json::from_slice(&bytes).map_err(Into::into));
        let known = match read {
            Ok(known) => Some(known),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{}: {error}; the disk that is there now counts as the right one", file.display());
                None
            }
        };
        Self { file, known }
    }

    /// The volume used last.
    #[must_use]
    pub const fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Takes any volume from now on; nothing is written until one is remembered.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Remembers a volume, on the flash if that is news.
    ///
    /// # Errors
    /// When it cannot be written; it is remembered until the agent ends then.
    pub fn remember(&mut self, known: Known) -> io::Result<()> {
        let is_known = |old: &Known| old.id == known.id && old.data_dir == known.data_dir;
        if self.known.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&known)?;
        self.known = Some(known);
        self.file.parent().map_or(Ok(()), make_private)?;
        write_beside(&self.file, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_volume_gets_a_number_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("volume.id");
        assert_eq!(read_id(&file), None);
        let id = read_or_make_id(&file).unwrap();
        let written = file.metadata().unwrap().ino();
        assert_eq!((read_or_make_id(&file).unwrap(), read_id(&file)), (id.clone(), Some(id.clone())));
        assert_eq!(file.metadata().unwrap().ino(), written, "not written again");
        for damaged in [String::new(), format!("{id}0\n"), id.replace(|_: char| true, "x")] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read_id(&file), None);
        }
        assert_ne!(read_or_make_id(&file).unwrap(), id);
    }

    #[test]
    fn what_is_remembered_is_written_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("piboot/handle.volume");
        let known = |id: &str| Known { id: id.to_owned(), data_dir: "/mnt".into(), what: "ext4".to_owned() };
        let mut memory = Memory::load(file.clone());
        assert_eq!(memory.known(), None);
        memory.remember(known("a")).unwrap();
        let written = file.metadata().unwrap().ino();
        memory.remember(Known { what: "ext4, grown".to_owned(), ..known("a") }).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), written);
        assert_eq!(Memory::load(file.clone()).known(), Some(&known("a")));
        memory.forget();
        assert_eq!(Memory::load(file.clone()).known(), Some(&known("a")), "until there is another");
        memory.remember(known("b")).unwrap();
        assert_eq!(Memory::load(file.clone()).known(), Some(&known("b")));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Memory::load(file).known(), None);
    }
}
