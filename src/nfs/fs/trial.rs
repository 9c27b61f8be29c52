//! Handles of a file system that is only tried: do they mean what they meant before it was mounted anew?

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sys;
use crate::nfs::handle::KernelHandle;

/// The handle of what is at `path`.
///
/// # Errors
/// As name_to_handle_at(2).
pub(crate) fn handle_of(path: &Path) -> Result<KernelHandle, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::name_to_handle(rustix::fs::open(path, flags, Mode::empty())?.as_fd(), c"")
}

/// Whether an entry of a directory is of an overlay's lower layer, by its handle.
pub(crate) fn is_held(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    sys::name_to_handle(directory, name).is_ok_and(|handle| handle.is_of_lower_layer())
}

/// Opens the object of a handle on the file system that is mounted at `mount`, without access to its data (`O_PATH`).
///
/// # Errors
/// As open_by_handle_at(2).
pub(crate) fn open(mount: &Path, handle: &KernelHandle) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    sys::open_by_handle(rustix::fs::open(mount, flags, Mode::empty())?.as_fd(), handle)
}
