//! Write beside, then rename: a reader, or the next start after a power cut, sees the old file or the new one.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// Replaces `path` by a file with these bytes and permissions, durably.
///
/// # Errors
/// As the system reports; `path` is then untouched.
pub fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_as(path, bytes, mode, None)
}

/// Replaces the content of an existing file, durably; owner and permissions stay, and a symbolic link to it stays one.
///
/// # Errors
/// As the system reports; the file is then untouched.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = path.canonicalize()?;
    let meta = std::fs::metadata(&path)?;
    write_as(&path, bytes, meta.permissions().mode() & 0o7777, Some((meta.uid(), meta.gid())))
}

fn write_as(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let beside = beside(path)?;
    let written = write_new(&beside, bytes, mode, owner).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    // The parent of a bare file name is an empty path, which means the current directory.
    sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Makes renames and new names in a directory durable.
///
/// # Errors
/// As fsync(2).
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory of root's alone where there is none yet, but none above that: a mistyped path makes no tree.
///
/// # Errors
/// As mkdir(2).
pub fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        // Whatever the umask is.
        Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// A name in the same directory that starts with a dot, so that programs which read whole directories skip it.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".new-{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_beside(&path, b"one", 0o644).unwrap();
        write_beside(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bare_file_name_is_in_the_current_directory() {
        let name = format!("piboot-test-bare-name-{}", std::process::id());
        write_beside(Path::new(&name), b"x", 0o600).unwrap();
        std::fs::remove_file(name).unwrap();
    }

    #[test]
    fn rewriting_keeps_the_link_the_mode_and_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "one").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give files away.
        let given = std::os::unix::fs::chown(&real, None, Some(12)).is_ok();
        std::os::unix::fs::symlink("real", &link).unwrap();
        rewrite(&link, b"two").unwrap();
        assert!(link.is_symlink());
        let meta = real.metadata().unwrap();
        assert_eq!((std::fs::read(&real).unwrap(), meta.permissions().mode() & 0o777), (b"two".to_vec(), 0o640));
        assert!(!given || meta.gid() == 12);
    }

    #[test]
    fn a_failure_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("d");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("x"), "x").unwrap();
        assert!(write_beside(&taken, b"", 0o600).is_err(), "a directory is in the way");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
