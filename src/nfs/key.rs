//! The handle key's file: made once, kept with the configuration. If it is lost every mounted client gets stale handles.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::random;
use crate::storage::make_private;

/// The key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is there but is no key.
    #[error(
        "{path}: {found} bytes instead of 16: not an NFS handle key. Restore it from a backup, or remove it and reboot every Pi",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// A file operation failed.
    #[error("cannot {action} the NFS handle key {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Reads the key at `path`, or makes one there: random, mode 0600, on the disk before it is used. Its directory is made
/// as well, but none above that.
///
/// # Errors
/// [`KeyError`]; an existing file is never overwritten.
pub fn load_or_create_key(path: &Path) -> Result<[u8; 16], KeyError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::File { action, path, source }
    };
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(17).read_to_end(&mut bytes).map_err(failed("read", path))?;
            return <[u8; 16]>::try_from(bytes.as_slice())
                .map_err(|_| KeyError::Damaged { path: path.to_owned(), found: bytes.len() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", path)(error)),
    }
    let mut key = [0; 16];
    random::fill(&mut key).map_err(failed("make", path))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &beside)(error)),
        _ => {}
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        // Its own directory, where nothing else keeps it: /etc/piboot on a router that piboot was just installed on.
        make_private(parent)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(failed("write", path))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nfs.key");
        fs::write(dir.path().join("nfs.key.new"), b"left by a crash").unwrap();
        let key = load_or_create_key(&path).unwrap();
        assert_ne!(key, [0; 16]);
        assert_eq!(load_or_create_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left beside it");
    }

    #[test]
    fn its_directory_is_made_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("piboot");
        load_or_create_key(&own.join("handle.key")).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o7777, 0o700);
        let deeper = dir.path().join("a/b/handle.key");
        assert!(matches!(load_or_create_key(&deeper), Err(KeyError::File { .. })), "not a mistyped path");
    }

    #[test]
    fn a_damaged_key_is_reported_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nfs.key");
        for bytes in [&b"short"[..], &[7; 17]] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(load_or_create_key(&path), Err(KeyError::Damaged { .. })));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}
