//! Subvolumes of btrfs: trees that are duplicated as a whole, in one step, however much is in them (btrfs-subvolume(8)).
//! To the NFS server each is a file system of its own.

#![allow(unsafe_code, reason = "ioctls of btrfs, for which there is no wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::sys::{DIRECTION_SHIFT, WRITE};

/// `BTRFS_SUPER_MAGIC` of linux/magic.h.
const BTRFS: u32 = 0x9123_683e;
/// `BTRFS_FIRST_FREE_OBJECTID`: the inode number of every subvolume's root.
const ROOT_INODE: u64 = 256;
/// `BTRFS_PATH_NAME_MAX`, without the zero at the end.
const MAX_NAME: usize = 4087;

/// Numbers in linux/btrfs.h.
const SNAP_CREATE: u32 = 1;
const SUBVOL_CREATE: u32 = 14;
const SNAP_DESTROY: u32 = 15;

/// `struct btrfs_ioctl_vol_args` of linux/btrfs.h.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; MAX_NAME + 1],
}

/// Whether the directory is the root of a subvolume.
#[must_use]
pub(crate) fn is_root(directory: impl AsFd) -> bool {
    // The magic is 32 bits wide; its C type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
    let is_btrfs = rustix::fs::fstatfs(&directory).is_ok_and(|stat| stat.f_type as u32 == BTRFS);
    #[allow(clippy::useless_conversion, reason = "the field's type differs between targets")]
    let inode = rustix::fs::fstat(&directory).map_or(0, |stat| u64::from(stat.st_ino));
    is_btrfs && inode == ROOT_INODE
}

/// Makes an empty subvolume `name` in `parent`.
///
/// # Errors
/// `ENOTTY` where there are none, and what mkdir(2) returns.
pub(crate) fn create(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    call(parent.as_fd(), SUBVOL_CREATE, 0, name)
}

/// Makes `name` in `parent` a duplicate of the subvolume whose root is `source`; both can be changed afterwards.
///
/// # Errors
/// `EINVAL` if `source` is no such root, `ENOTTY` where there are none, and what mkdir(2) returns.
pub(crate) fn duplicate(source: impl AsFd, parent: impl AsFd, name: &str) -> Result<(), Errno> {
    call(parent.as_fd(), SNAP_CREATE, i64::from(source.as_fd().as_raw_fd()), name)
}

/// Deletes the subvolume `name` in `parent` with all that is in it.
///
/// # Errors
/// `EINVAL` if it is none, `ENOTTY` where there are none, and what rmdir(2) returns.
pub(crate) fn delete(parent: impl AsFd, name: &str) -> Result<(), Errno> {
    call(parent.as_fd(), SNAP_DESTROY, 0, name)
}

fn call(parent: BorrowedFd<'_>, number: u32, fd: i64, name: &str) -> Result<(), Errno> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err(Errno::INVAL);
    }
    let mut arguments = VolumeArguments { fd, name: [0; MAX_NAME + 1] };
    arguments.name[..name.len()].copy_from_slice(name.as_bytes());
    // _IOW(BTRFS_IOCTL_MAGIC, number, struct btrfs_ioctl_vol_args); the structure has 4096 bytes.
    let request = (WRITE << DIRECTION_SHIFT) | (4096 << 16) | (0x94 << 8) | number;
    // SAFETY: the kernel reads the 4096 bytes of the structure, whose name ends with a zero, and keeps no pointer to it.
    let result = unsafe { libc::ioctl(parent.as_raw_fd(), request as _, std::ptr::from_ref(&arguments)) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_none_the_calls_say_so() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let here = std::fs::File::open(dir.path()).unwrap();
        assert!(!is_root(&here));
        assert_eq!(std::mem::size_of::<VolumeArguments>(), 4096);
        assert_eq!(create(&here, "a"), Err(Errno::NOTTY));
        assert_eq!(duplicate(&here, &here, "a"), Err(Errno::NOTTY));
        for bad in ["", "..", "a/b", "a\0"] {
            assert_eq!(delete(&here, bad), Err(Errno::INVAL), "{bad}");
        }
    }
}
