//! An object of an export, held by an `O_PATH` descriptor, and what can be done to it.
//!
//! Permission is always the kernel's decision: the thread has the caller's identity when it gets here.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Timestamps, Uid};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::sys;
use crate::nfs::attr::Attr;
use crate::nfs::handle::KernelHandle;
use crate::nfs::proto::{MAX_NAME, Status};

/// The process's descriptors as paths: the way to reopen an `O_PATH` descriptor.
#[derive(Debug)]
pub(crate) struct ProcFds(OwnedFd);

impl ProcFds {
    /// Opens `/proc/self/fd`.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub(crate) fn open() -> Result<Self, Errno> {
        fs::open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }
}

/// The name of one directory entry: no separator, no NUL, not empty, at most 255 bytes. May be `.` or `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks a name from the wire.
    ///
    /// # Errors
    /// The status to answer.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Status> {
        if bytes.len() > MAX_NAME {
            Err(Status::NameTooLong)
        } else if bytes.is_empty() || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            Err(Status::Acces)
        } else {
            Ok(Self(bytes))
        }
    }

    /// A name that something can be made under or taken from.
    ///
    /// # Errors
    /// The status to answer; `dots` for `.` and `..`.
    pub(crate) fn new_entry(bytes: &'a [u8], dots: Status) -> Result<Self, Status> {
        let name = Self::new(bytes)?;
        if matches!(bytes, b"." | b"..") { Err(dots) } else { Ok(name) }
    }

    /// The bytes.
    #[must_use]
    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Attributes of `name` below `dir`, or of `dir` itself for the empty name. Symlinks are not followed.
///
/// # Errors
/// What statx(2) returns.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Attr, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME).map(Attr::from)
}

/// Reopens a descriptor's object; the caller made sure that it is a regular file or a directory.
///
/// # Errors
/// What open(2) returns.
pub(crate) fn reopen(proc: &ProcFds, object: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    // NONBLOCK: a lease of somebody else must not stop the thread. No O_NOFOLLOW: the link in /proc is to be followed.
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    fs::openat(&proc.0, DecInt::from_fd(object), flags, Mode::empty())
}

/// An object of an export.
#[derive(Debug)]
pub(crate) struct Object(OwnedFd);

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Object {
    /// Takes an `O_PATH` (or fuller) descriptor.
    #[must_use]
    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Attributes now.
    ///
    /// # Errors
    /// What statx(2) returns.
    pub(crate) fn attr(&self) -> Result<Attr, Errno> {
        stat_at(self.as_fd(), c"")
    }

    /// The kernel's handle.
    ///
    /// # Errors
    /// What name_to_handle_at(2) returns.
    pub(crate) fn handle(&self) -> Result<KernelHandle, Errno> {
        sys::name_to_handle(self.as_fd(), c"")
    }

    /// The entry `name` of this directory, never through a mount point or a symlink.
    ///
    /// # Errors
    /// `EXDEV` at a mount point, else what openat2(2) returns.
    pub(crate) fn child(&self, name: Name<'_>) -> Result<Self, Errno> {
        crate::openat2::openat2(
            &self.0,
            name.bytes(),
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS,
        )
        .map(Self)
    }

    /// The parent directory; of a directory only.
    ///
    /// # Errors
    /// What openat(2) returns.
    pub(crate) fn parent(&self) -> Result<Self, Errno> {
        fs::openat(&self.0, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens the directory for reading its entries.
    ///
    /// # Errors
    /// `ENOTDIR` for anything else.
    pub(crate) fn open_dir(&self, proc: &ProcFds) -> Result<OwnedFd, Errno> {
        reopen(proc, self.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Makes and opens a regular file that must not be there yet.
    ///
    /// # Errors
    /// `EEXIST` if there is something under that name.
    pub(crate) fn create(&self, name: Name<'_>, mode: u32) -> Result<Self, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.0, name.bytes(), flags, Mode::from_raw_mode(mode & 0o7777)).map(Self)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// What mkdirat(2) returns.
    pub(crate) fn mkdir(&self, name: Name<'_>, mode: u32) -> Result<(), Errno> {
        fs::mkdirat(&self.0, name.bytes(), Mode::from_raw_mode(mode & 0o7777))
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// What symlinkat(2) returns.
    pub(crate) fn symlink(&self, name: Name<'_>, target: &[u8]) -> Result<(), Errno> {
        fs::symlinkat(target, &self.0, name.bytes())
    }

    /// Makes a device node, FIFO or socket.
    ///
    /// # Errors
    /// What mknodat(2) returns.
    pub(crate) fn mknod(&self, name: Name<'_>, kind: FileType, mode: u32, device: (u32, u32)) -> Result<(), Errno> {
        let device = fs::makedev(device.0, device.1);
        fs::mknodat(&self.0, name.bytes(), kind, Mode::from_raw_mode(mode & 0o7777), device)
    }

    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// What unlinkat(2) returns.
    pub(crate) fn unlink(&self, name: Name<'_>) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name.bytes(), AtFlags::empty())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What unlinkat(2) returns.
    pub(crate) fn rmdir(&self, name: Name<'_>) -> Result<(), Errno> {
        fs::unlinkat(&self.0, name.bytes(), AtFlags::REMOVEDIR)
    }

    /// Moves `from` in this directory to `to` in `target`.
    ///
    /// # Errors
    /// What renameat(2) returns.
    pub(crate) fn rename(&self, from: Name<'_>, target: &Self, to: Name<'_>) -> Result<(), Errno> {
        fs::renameat(&self.0, from.bytes(), &target.0, to.bytes())
    }

    /// Gives this object the further name `name` in `dir`. By way of /proc, because AT_EMPTY_PATH would need a
    /// capability that callers other than root do not have.
    ///
    /// # Errors
    /// What linkat(2) returns.
    pub(crate) fn link(&self, proc: &ProcFds, dir: &Self, name: Name<'_>) -> Result<(), Errno> {
        fs::linkat(&proc.0, DecInt::from_fd(&self.0), &dir.0, name.bytes(), AtFlags::SYMLINK_FOLLOW)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// `EINVAL` for anything else.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>, Errno> {
        fs::readlinkat(&self.0, c"", Vec::new()).map(std::ffi::CString::into_bytes).map_err(|errno| match errno {
            // An empty path gives ENOENT on what is not a symlink (readlink(2)).
            Errno::NOENT => Errno::INVAL,
            other => other,
        })
    }

    /// Changes owner and group.
    ///
    /// # Errors
    /// What fchownat(2) returns.
    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(&self.0, c"", uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
    }

    /// Changes the permission bits.
    ///
    /// # Errors
    /// What chmod(2) returns; `EOPNOTSUPP` on a symlink.
    pub(crate) fn chmod(&self, proc: &ProcFds, mode: u32) -> Result<(), Errno> {
        fs::chmodat(&proc.0, DecInt::from_fd(&self.0), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
    }

    /// Changes the times of access and modification.
    ///
    /// # Errors
    /// What utimensat(2) returns.
    pub(crate) fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        fs::utimensat(&self.0, c"", times, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Puts what was done to this directory, or to this object's metadata, on the disk.
    ///
    /// # Errors
    /// What fsync(2) returns.
    pub(crate) fn sync(&self, proc: &ProcFds, kind: FileType) -> Result<(), Errno> {
        match kind {
            FileType::Directory => fs::fsync(reopen(proc, self.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?),
            FileType::RegularFile => fs::fsync(reopen(proc, self.as_fd(), OFlags::RDONLY)?),
            // Opening a device or a FIFO would have effects, and a symlink cannot be opened.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_no_names() {
        for bad in [&b""[..], b"a/b", b"/", b"a\0b", b"../.."] {
            assert_eq!(Name::new(bad), Err(Status::Acces), "{bad:?}");
        }
        assert_eq!(Name::new(&[b'n'; 256]), Err(Status::NameTooLong));
        assert!(Name::new(&[0xff; 255]).is_ok());
        assert_eq!(Name::new_entry(b"..", Status::Exist), Err(Status::Exist));
        assert!(Name::new_entry(b"...", Status::Exist).is_ok());
    }
}
