//! Removes a tree that may be deeper than PATH_MAX and than the limit of open files, without leaving its file system.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Open directories on the way: name in the parent, identity of the parent, subdirectories still to remove.
struct Level {
    name: CString,
    parent: (u64, u64),
    pending: Vec<CString>,
}

/// Removes `name` in `parent` and everything below. Nothing there is fine.
///
/// # Errors
/// The first call that failed; a mount point inside the tree gives `EXDEV` before anything in it is touched.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(other) => return Err(other),
    }
    let mut current = descend(&parent, &name)?;
    let mut levels = vec![Level { parent: identity(&parent)?, pending: clear_files(&current)?, name: name.clone() }];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.pending.pop() {
            let next = descend(&current, &child)?;
            let parent = identity(&current)?;
            levels.push(Level { name: child, parent, pending: clear_files(&next)? });
            current = next;
            continue;
        }
        // Something may have been added meanwhile.
        let more = clear_files(&current)?;
        if !more.is_empty() {
            level.pending = more;
            continue;
        }
        let Some(level) = levels.pop() else { break };
        if levels.is_empty() {
            break;
        }
        let up = rustix::fs::openat(&current, c"..", DIRECTORY, Mode::empty())?;
        if identity(&up)? != level.parent {
            // The directory was moved under us: ".." is not where we came from.
            return Err(Errno::STALE);
        }
        rustix::fs::unlinkat(&up, &level.name, AtFlags::REMOVEDIR)?;
        current = up;
    }
    rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn descend(parent: impl AsFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    crate::openat2::openat2(parent, name, DIRECTORY, Mode::empty(), resolve)
}

fn identity(fd: impl AsFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    #[allow(clippy::useless_conversion, reason = "the fields' types differ between targets")]
    Ok((stat.st_dev.into(), stat.st_ino.into()))
}

/// Removes what is no directory and names the rest.
fn clear_files(directory: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type().is_dir() {
            directories.push(name.to_owned());
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // File systems that do not tell the type in the listing.
            Err(Errno::ISDIR) => directories.push(name.to_owned()),
            Err(other) => return Err(other),
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn removes_what_is_deeper_than_path_max_and_keeps_what_links_lead_to() {
        let scratch = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(scratch.path(), DIRECTORY, Mode::empty()).unwrap();
        fs::write(scratch.path().join("outside"), "kept").unwrap();
        rustix::fs::mkdirat(&top, c"tree", Mode::RWXU).unwrap();
        let mut at = rustix::fs::openat(&top, c"tree", DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::symlinkat(scratch.path(), &at, c"link").unwrap();
        for _ in 0..40 {
            let name = "d".repeat(200);
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, DIRECTORY, Mode::empty()).unwrap();
            rustix::fs::symlinkat("nowhere", &at, c"file").unwrap();
        }
        remove_tree(&top, b"tree").unwrap();
        assert_eq!(fs::read_to_string(scratch.path().join("outside")).unwrap(), "kept");
        assert!(!scratch.path().join("tree").exists());
        remove_tree(&top, b"tree").unwrap();
        remove_tree(&top, b"outside").unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
