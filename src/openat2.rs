//! openat2(2) as `rustix::fs::openat2` has it, on every machine.
//!
//! rustix 1.1 calls number 437 wherever it goes through the C library, but on MIPS the numbers of system calls begin
//! at 4000: there its call does not exist. It also leaves out `O_LARGEFILE`, without which a 32-bit kernel refuses to
//! open files from 2 GiB on.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Opens `path` below `directory`, looked up as `resolve` demands.
///
/// # Errors
/// What openat2(2) returns.
pub(crate) fn openat2(
    directory: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    // With O_PATH there is nothing to read, and openat2(2) refuses flags that make no difference.
    let flags = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::LARGEFILE };
    let how = OpenHow::new()
        .flags(OFlag::from_bits_retain(flags.bits().cast_signed()))
        .mode(nix::sys::stat::Mode::from_bits_retain(mode.bits()))
        .resolve(ResolveFlag::from_bits_retain(resolve.bits()));
    path.into_with_c_str(|path| {
        nix::fcntl::openat2(directory, path, how).map_err(|errno| Errno::from_raw_os_error(errno as i32))
    })
}
