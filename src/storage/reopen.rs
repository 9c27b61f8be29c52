//! From a descriptor that only names a file to one that reads it. A Pi is root in its own trees, so a name in them can
//! be a device node, and merely opening one may do something: a watchdog starts counting.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};

/// Opens what `found`, an `O_PATH` descriptor, names, for reading if it is a regular file; `None` for anything else.
///
/// # Errors
/// As fstat(2) and open(2).
pub(crate) fn reopen_regular(found: impl AsFd) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
    let found = found.as_fd();
    let stat = fstat(found)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(None);
    }
    let mut magic_link = [0; 32];
    let link = proc_link(found.as_raw_fd(), &mut magic_link);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(Some((open(OsStr::from_bytes(link), flags, Mode::empty())?, stat)))
}

/// `/proc/self/fd/<fd>` without an allocation.
fn proc_link(fd: i32, buffer: &mut [u8; 32]) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    // Prefix and the longest number take 25 bytes, so this cannot fail; if it did, the open of a cut name would.
    let _ = write!(rest, "/proc/self/fd/{fd}");
    let unused = rest.len();
    &buffer[..buffer.len() - unused]
}
