//! Names that are given only once.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, statat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Renames to a name that is free (renameat2(2), `RENAME_NOREPLACE`). File systems without the flag, NFS among them, are
/// asked before: there nobody else gives names at the same time.
///
/// # Errors
/// As rename(2); `EXIST` if the name is taken.
pub fn rename_new(
    from_directory: impl AsFd,
    from: impl Arg + Copy,
    to_directory: impl AsFd,
    to: impl Arg + Copy,
) -> Result<(), Errno> {
    match renameat_with(&from_directory, from, &to_directory, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => match statat(&to_directory, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(&from_directory, from, &to_directory, to),
            Err(other) => Err(other),
            Ok(_) => Err(Errno::EXIST),
        },
        other => other,
    }
}
