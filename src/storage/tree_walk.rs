//! Looks at every entry of a tree, always relative to directory descriptors: paths may be longer than PATH_MAX, links are
//! not followed, and other file systems are not entered. Memory is bounded whatever the tree looks like.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::tree_copy::{device, identity, read_names, read_xattrs};
use super::tree_writer::Xattr;
use crate::printable::printable;

/// Deepest nesting of directories, as for copies.
const MAX_DEPTH: usize = 2000;
/// Names of a directory taken at once, and memory for the names taken of all directories on the way down.
const CHUNK: usize = 2048;
const MAX_HELD: usize = 8 << 20;
const PER_NAME: usize = 32;

/// Why a tree could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A call failed.
    #[error("cannot {what} {path}: {errno}")]
    Read {
        /// What was being done.
        what: &'static str,
        /// Path from the tree's root.
        path: String,
        /// Why it failed.
        errno: Errno,
    },
    /// Another file system is mounted inside the tree.
    #[error("another file system is mounted at {0}: unmount it first")]
    Mount(String),
    /// Nesting.
    #[error("directories are nested more than {MAX_DEPTH} deep at {0}")]
    TooDeep(String),
    /// Somebody moved a directory meanwhile.
    #[error("{0} was moved while it was being read: try again")]
    Moved(String),
}

/// A directory on the way down.
struct Frame {
    identity: (u64, u64),
    pending: std::vec::IntoIter<CString>,
    held: usize,
    /// Where the names after those begin; `None` at the end.
    next: Option<u64>,
    /// Length of the path to the directory's parent.
    length: usize,
}

/// An entry of the tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub name: CString,
    /// What it is.
    pub stat: Stat,
}

impl Found {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// A look through a tree, depth first; a directory comes before what is in it.
pub struct Walk {
    /// The directory that holds the entry found last.
    current: OwnedFd,
    device: u64,
    frames: Vec<Frame>,
    path: Vec<u8>,
    held: usize,
    /// A directory that was found last, and is to be gone into.
    below: Option<Found>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("path", &printable(&self.path)).finish_non_exhaustive()
    }
}

type Result<T> = std::result::Result<T, WalkError>;

impl Walk {
    /// Looks through directory `root`, which itself is not among what is found.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn new(root: OwnedFd) -> Result<Self> {
        let stat = rustix::fs::fstat(&root);
        let stat = stat.map_err(|errno| WalkError::Read { what: "look at", path: "/".to_owned(), errno })?;
        let frame = Frame::new(&stat, 0);
        let device = device(&stat);
        Ok(Self { current: root, device, frames: vec![frame], path: Vec::new(), held: 0, below: None })
    }

    /// The next entry; `None` at the end. What is gone since its directory was read is left out.
    ///
    /// # Errors
    /// [`WalkError`].
    #[allow(clippy::should_implement_trait, reason = "what is found is looked at through the walk")]
    pub fn next(&mut self) -> Result<Option<Found>> {
        if let Some(found) = self.below.take() {
            self.descend(&found)?;
        }
        loop {
            let Some(top) = self.frames.last_mut() else { return Ok(None) };
            let Some(name) = top.pending.next() else {
                if !self.refill()? && !self.ascend()? {
                    return Ok(None);
                }
                continue;
            };
            let stat = match rustix::fs::statat(&self.current, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => self.check("look at", name.to_bytes(), other)?,
            };
            if device(&stat) != self.device {
                return Err(WalkError::Mount(self.display(name.to_bytes())));
            }
            let found = Found { name, stat };
            if found.kind().is_dir() {
                if self.frames.len() >= MAX_DEPTH {
                    return Err(WalkError::TooDeep(self.display(found.name.to_bytes())));
                }
                self.below = Some(found.clone());
            }
            return Ok(Some(found));
        }
    }

    /// Path of the entry found last from the tree's root, without a slash in front.
    #[must_use]
    pub fn path(&self, found: &Found) -> Vec<u8> {
        let mut path = self.path.strip_prefix(b"/").unwrap_or(&self.path).to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(found.name.to_bytes());
        path
    }

    /// The directory that holds the entry found last.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.current.as_fd()
    }

    /// Opens the entry found last for reading; a mount point on it is refused. Meant for files and directories.
    ///
    /// # Errors
    /// [`WalkError`].
    pub fn open(&self, found: &Found) -> Result<OwnedFd> {
        let flags = if found.kind().is_dir() { OFlags::DIRECTORY } else { OFlags::NONBLOCK | OFlags::NOCTTY };
        self.open_as(&found.name, flags)
    }

    /// The extended attributes of the entry found last.
    ///
    /// # Errors
    /// [`WalkError`].
    pub fn xattrs(&self, found: &Found) -> Result<Vec<Xattr>> {
        // There is no getxattrat before Linux 6.13.
        let path = [format!("/proc/self/fd/{}/", self.current.as_raw_fd()).as_bytes(), found.name.to_bytes()].concat();
        self.check("read the extended attributes of", found.name.to_bytes(), read_xattrs(&path))
    }

    /// A failed call on the entry found last.
    #[must_use]
    pub fn error(&self, what: &'static str, found: &Found, errno: Errno) -> WalkError {
        WalkError::Read { what, path: self.display(found.name.to_bytes()), errno }
    }

    fn descend(&mut self, found: &Found) -> Result<()> {
        let into = match self.open_as(&found.name, OFlags::DIRECTORY) {
            // Gone, or another thing by now: as if it had not been found.
            Err(WalkError::Read { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Ok(()),
            other => other?,
        };
        let stat = self.check("look at", found.name.to_bytes(), rustix::fs::fstat(&into))?;
        self.current = into;
        self.frames.push(Frame::new(&stat, self.path.len()));
        self.path.push(b'/');
        self.path.extend_from_slice(found.name.to_bytes());
        Ok(())
    }

    /// From a finished directory to its parent; `false` from the root.
    fn ascend(&mut self) -> Result<bool> {
        let Some(done) = self.frames.pop() else { return Ok(false) };
        let Some(parent) = self.frames.last().map(|frame| frame.identity) else { return Ok(false) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let up = self.check("go back from", b"", rustix::fs::openat(&self.current, c"..", flags, Mode::empty()))?;
        if identity(&self.check("look at", b"", rustix::fs::fstat(&up))?) != parent {
            return Err(WalkError::Moved(self.display(b"")));
        }
        self.current = up;
        self.path.truncate(done.length);
        Ok(true)
    }

    /// Takes the next names of the current directory, fewer the less memory is left; answers whether there are any.
    fn refill(&mut self) -> Result<bool> {
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        self.held = self.held.saturating_sub(std::mem::take(&mut frame.held));
        let Some(from) = frame.next else { return Ok(false) };
        let wanted = (MAX_HELD.saturating_sub(self.held) / 4096).clamp(1, CHUNK);
        let read = read_names(&self.current, from, wanted);
        let (names, next) = self.check("list", b"", read)?;
        let Some(frame) = self.frames.last_mut() else { return Ok(false) };
        frame.held = names.iter().map(|name| PER_NAME + name.as_bytes().len()).sum();
        self.held += frame.held;
        frame.next = next;
        frame.pending = names.into_iter();
        Ok(frame.pending.len() > 0)
    }

    fn open_as(&self, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match crate::openat2::openat2(&self.current, name, flags, Mode::empty(), resolve) {
            Err(Errno::XDEV) => Err(WalkError::Mount(self.display(name.to_bytes()))),
            other => self.check("open", name.to_bytes(), other),
        }
    }

    fn display(&self, name: &[u8]) -> String {
        format!("{}/{}", printable(&self.path), printable(name))
    }

    fn check<T>(&self, what: &'static str, name: &[u8], result: rustix::io::Result<T>) -> Result<T> {
        result.map_err(|errno| WalkError::Read { what, path: self.display(name), errno })
    }
}

impl Frame {
    fn new(stat: &Stat, length: usize) -> Self {
        Self { identity: identity(stat), pending: Vec::new().into_iter(), held: 0, next: Some(0), length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn finds_everything_once_and_directories_before_what_is_in_them() {
        let place = tempfile::tempdir().unwrap();
        for n in 0..3000 {
            fs::write(place.path().join(format!("{n}")), "").unwrap();
        }
        fs::create_dir_all(place.path().join("a/b/c")).unwrap();
        fs::write(place.path().join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", place.path().join("a/link")).unwrap();
        let root = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut walk = Walk::new(root).unwrap();
        let mut paths = Vec::new();
        while let Some(found) = walk.next().unwrap() {
            paths.push(String::from_utf8(walk.path(&found)).unwrap());
        }
        let at = |path: &str| paths.iter().position(|p| p == path).unwrap();
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/c") && at("a/b") < at("a/b/file"));
        assert_eq!(paths.len(), 3005);
        let unique: std::collections::BTreeSet<_> = paths.iter().collect();
        assert_eq!(unique.len(), paths.len());
        assert!(paths.contains(&"a/link".to_owned()));
    }
}
