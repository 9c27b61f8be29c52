//! Configuration files, read as they are committed and changed the way libuci changes them: under its lock, beside and
//! renamed.
//!
//! Not by the `uci` program: it takes along what an admin has set and not committed yet, whatever directory for changes it
//! is given (`-t` adds one, and `/tmp/.uci` stays), and it writes a file without the comments that were in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::bytes;
use super::edit::EditError;
use super::uci::{self, Section, SyntaxError};
use crate::storage::rewrite;

/// OpenWrt's directory of packages.
const PACKAGES: &str = "/etc/config";
/// How long somebody else may be writing the same file.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const TRIES: u32 = 50;

/// A configuration file that could not be read, or changed. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there or not readable.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The text is not UCI.
    #[error("{0}: {1}")]
    Syntax(PathBuf, SyntaxError),
    /// Somebody else is changing it, and does not end.
    #[error("cannot change {0}: another program has it locked")]
    Busy(PathBuf),
    /// It could not be written.
    #[error("cannot change {0}: {1}")]
    Write(PathBuf, io::Error),
    /// The edit cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// The file of one of OpenWrt's packages.
#[must_use]
pub fn package(name: &str) -> PathBuf {
    Path::new(PACKAGES).join(name)
}

/// The text of a file; what in it is no UTF-8 comes back as it was when the text is written by [`edit()`].
///
/// # Errors
/// [`FileError::Read`].
pub fn text(path: &Path) -> Result<String, FileError> {
    std::fs::read(path).map(bytes::decode).map_err(|e| FileError::Read(path.to_owned(), e))
}

/// The sections of a file.
///
/// # Errors
/// [`FileError::Read`] and [`FileError::Syntax`].
pub fn sections(path: &Path) -> Result<Vec<Section>, FileError> {
    uci::parse(&text(path)?).map_err(|e| FileError::Syntax(path.to_owned(), e))
}

/// Changes a file by an edit of its text; `None` leaves it alone. True if it changed.
///
/// # Errors
/// [`FileError`].
pub fn edit(path: &Path, edit: impl FnOnce(&str) -> Result<Option<String>, EditError>) -> Result<bool, FileError> {
    // Held until the new file has the name.
    let mut old = lock(path)?;
    let Some(edited) = edit(&text(path)?)? else { return Ok(false) };
    let edited = bytes::encode(&edited);
    rewrite(path, &edited).map_err(|e| FileError::Write(path.to_owned(), e))?;
    // libuci opens a file, waits for the lock, and reads what it has opened: who waits now would put the old text back.
    // The old file has no name any more, so nothing is lost if this fails in the middle.
    let _ = old.set_len(0).and_then(|()| old.write_all(&edited));
    Ok(true)
}

/// Takes the lock that libuci takes (flock(2) on the file itself).
fn lock(path: &Path) -> Result<Flock<File>, FileError> {
    for _ in 0..TRIES {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| FileError::Read(path.to_owned(), e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Who had it before may have put another file in its place.
            Ok(lock) if is_at(&lock, path) => return Ok(lock),
            Ok(_) => continue,
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => thread::sleep(PATIENCE / TRIES),
            Err((_, errno)) => return Err(FileError::Write(path.to_owned(), errno.into())),
        }
    }
    Err(FileError::Busy(path.to_owned()))
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(identity).ok().zip(std::fs::metadata(path).map(identity).ok()).is_some_and(|(a, b)| a == b)
}

/// Whether a file is one of OpenWrt's packages.
#[must_use]
pub fn is_package(path: &Path) -> bool {
    const PROGRAMS: [&str; 2] = ["/sbin/uci", "/usr/sbin/uci"];
    path.parent() == Some(Path::new(PACKAGES)) && PROGRAMS.iter().any(|program| Path::new(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_else_holds_the_lock_is_waited_for_and_what_took_the_files_place_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dhcp");
        std::fs::write(&path, "config a\n").unwrap();
        let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        thread::scope(|scope| {
            let edited = scope.spawn(|| edit(&path, |text| Ok(Some(format!("{text}config c\n")))));
            // As libuci does it.
            std::fs::write(dir.path().join("beside"), "config b\n").unwrap();
            std::fs::rename(dir.path().join("beside"), &path).unwrap();
            drop(held);
            assert!(edited.join().unwrap().unwrap());
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "config b\nconfig c\n");
    }

    #[test]
    fn what_is_no_utf8_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dhcp");
        std::fs::write(&path, b"# M\xf6bel\nconfig host\n\toption name 'B\xfcro'\n").unwrap();
        assert_eq!(sections(&path).unwrap().len(), 1);
        assert!(edit(&path, |text| Ok(Some(format!("{text}config b '\u{fc}'\n")))).unwrap());
        let expected = b"# M\xf6bel\nconfig host\n\toption name 'B\xfcro'\nconfig b '\xc3\xbc'\n";
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn who_opened_the_file_before_it_was_replaced_reads_the_new_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("piboot");
        std::fs::write(&path, "config longer_than_what_follows\n").unwrap();
        let opened = File::open(&path).unwrap();
        assert!(edit(&path, |_| Ok(Some("config b\n".to_owned()))).unwrap());
        assert_eq!(io::read_to_string(opened).unwrap(), "config b\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "config b\n");
    }

    #[test]
    fn who_never_lets_go_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dhcp");
        std::fs::write(&path, "config a\n").unwrap();
        let _held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        let error = edit(&path, |_| Ok(Some(String::new()))).unwrap_err();
        assert!(matches!(error, FileError::Busy(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "config a\n");
    }
}
