//! System calls that neither rustix nor nix wraps, or not in the form needed here.

#![allow(unsafe_code, reason = "file handles, faccessat2 with an empty path and reads into unused capacity")]

use std::ffi::CStr;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::nfs::creds::last_error;
use crate::nfs::handle::{KernelHandle, MAX_KERNEL_HANDLE};

/// `struct file_handle` with room for the longest handle that fits on the wire.
#[repr(C)]
struct RawHandle {
    length: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; MAX_KERNEL_HANDLE],
}

/// The kernel's handle of `name` below `dir`, or of `dir` itself for the empty name (name_to_handle_at(2)).
///
/// # Errors
/// `EOPNOTSUPP` if the file system has none, `EOVERFLOW` if it is longer than fits, and what a lookup may return.
pub(crate) fn name_to_handle(dir: BorrowedFd<'_>, name: &CStr) -> Result<KernelHandle, Errno> {
    let mut raw = RawHandle {
        // MAX_KERNEL_HANDLE is 46.
        length: MAX_KERNEL_HANDLE as libc::c_uint,
        kind: 0,
        bytes: [0; MAX_KERNEL_HANDLE],
    };
    let mut mount_id = 0;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `raw` starts with the fields of struct file_handle and has `length` bytes after them; the name is a C
    // string; all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            std::ptr::from_mut(&mut raw),
            std::ptr::from_mut::<libc::c_int>(&mut mount_id),
            flags,
        )
    };
    if result != 0 {
        return Err(last_error());
    }
    let length = usize::try_from(raw.length).map_err(|_| Errno::OVERFLOW)?;
    let bytes = raw.bytes.get(..length).ok_or(Errno::OVERFLOW)?;
    let kind = u8::try_from(raw.kind).map_err(|_| Errno::OVERFLOW)?;
    KernelHandle::new(kind, bytes).ok_or(Errno::OVERFLOW)
}

/// How often a handle is tried whose inode number is being given to a new file at this very moment: the kernel then answers
/// `ENOMEM` (`iget_locked` finds an inode in `I_CREATING`), and an NFS client that is told to wait does so for seconds.
const TRIES: u32 = 100;

/// Opens the object of a handle without access to its data (`O_PATH`), on the file system of `mount`.
/// The thread must be root.
///
/// # Errors
/// `ESTALE` if the object is gone.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, handle: &KernelHandle) -> Result<OwnedFd, Errno> {
    for _ in 1..TRIES {
        match try_open_by_handle(mount, handle) {
            Err(Errno::NOMEM) => std::thread::yield_now(),
            other => return other,
        }
    }
    try_open_by_handle(mount, handle)
}

fn try_open_by_handle(mount: BorrowedFd<'_>, handle: &KernelHandle) -> Result<OwnedFd, Errno> {
    const { assert!(offset_of!(RawHandle, bytes) == size_of::<libc::file_handle>()) }
    let mut raw = RawHandle {
        // At most MAX_KERNEL_HANDLE.
        length: libc::c_uint::try_from(handle.bytes().len()).map_err(|_| Errno::INVAL)?,
        kind: libc::c_int::from(handle.kind),
        bytes: [0; MAX_KERNEL_HANDLE],
    };
    raw.bytes[..handle.bytes().len()].copy_from_slice(handle.bytes());
    // SAFETY: as in `name_to_handle`; the kernel reads the structure and returns a new descriptor or -1.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_mut(&mut raw),
            libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(last_error()),
    }
}

/// Whether this thread's file-system identity may do `mode` (`R_OK | W_OK | X_OK`) to the object (faccessat2(2)).
///
/// # Errors
/// `EACCES` if not; `EROFS` for writing on a read-only file system.
pub(crate) fn access(object: BorrowedFd<'_>, mode: i32) -> Result<(), Errno> {
    // SAFETY: the path is a C string constant and nothing is written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            object.as_raw_fd(),
            c"".as_ptr(),
            mode,
            libc::AT_EACCESS | libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Read from the disk what is not in memory.
    Allowed,
    /// Take only what is in the page cache; `EAGAIN` if that is nothing.
    Refused,
}

/// Appends up to `count` bytes of the file from `offset` to `out` and returns how many there were.
///
/// # Errors
/// What pread(2) returns; with [`Wait::Refused`] what preadv2(2) does: `EAGAIN`, `EOPNOTSUPP` where the file system
/// cannot promise it, `ENOSYS` where there is no such call (Linux before 4.6, QEMU's user emulation).
pub(crate) fn read_at(
    file: BorrowedFd<'_>,
    out: &mut Vec<u8>,
    count: usize,
    offset: u64,
    wait: Wait,
) -> Result<usize, Errno> {
    out.reserve_exact(count);
    let spare = &mut out.spare_capacity_mut()[..count];
    let read = match wait {
        Wait::Allowed => rustix::io::pread(file, spare, offset)?.0.len(),
        Wait::Refused => read_nowait(file, spare, offset)?,
    };
    // SAFETY: the kernel has initialised `read` bytes, and never more than `count`.
    unsafe { out.set_len(out.len() + read.min(count)) };
    Ok(read.min(count))
}

fn read_nowait(file: BorrowedFd<'_>, to: &mut [MaybeUninit<u8>], offset: u64) -> Result<usize, Errno> {
    let part = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    // The kernel takes the offset as two words; on 64-bit machines it shifts the high one out.
    #[allow(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
    let (low, high) = (offset as libc::c_ulong, (offset >> 32) as libc::c_ulong);
    // SAFETY: `part` describes the writable bytes of `to`.
    let result = unsafe {
        let (fd, part) = (file.as_raw_fd(), std::ptr::from_ref(&part));
        libc::syscall(libc::SYS_preadv2, fd, part, 1_usize, low, high, libc::RWF_NOWAIT)
    };
    usize::try_from(result).map_err(|_| last_error())
}

/// Appends what one read of up to `count` bytes gives to `out`.
///
/// # Errors
/// What read(2) returns.
pub(crate) fn read_some(from: BorrowedFd<'_>, out: &mut Vec<u8>, count: usize) -> Result<usize, Errno> {
    out.reserve_exact(count);
    let spare = &mut out.spare_capacity_mut()[..count];
    // SAFETY: the kernel writes at most `count` bytes into the vector's unused capacity.
    let result = unsafe { libc::read(from.as_raw_fd(), spare.as_mut_ptr().cast(), count) };
    let read = usize::try_from(result).map_err(|_| last_error())?.min(count);
    // SAFETY: the kernel has initialised `read` bytes.
    unsafe { out.set_len(out.len() + read) };
    Ok(read)
}

/// Identity of the file system at `fd` that lasts over reboots and changes with the disk, as far as the kernel tells.
#[must_use]
pub(crate) fn volume_uuid(fd: BorrowedFd<'_>) -> Option<[u8; 16]> {
    /// `struct fsuuid2` of linux/fs.h.
    #[repr(C)]
    struct FsUuid2 {
        length: u8,
        uuid: [u8; 16],
    }
    // FS_IOC_GETFSUUID = _IOR(0x15, 0, struct fsuuid2), since Linux 6.9.
    const GET_FS_UUID: u32 = (READ << DIRECTION_SHIFT) | (17 << 16) | (0x15 << 8);
    let mut answer = FsUuid2 { length: 0, uuid: [0; 16] };
    // SAFETY: the kernel writes at most the 17 bytes of the structure.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GET_FS_UUID as _, std::ptr::from_mut(&mut answer)) };
    (result == 0 && answer.length == 16).then_some(answer.uuid)
}

/// Direction bits of an ioctl number (asm-generic/ioctl.h; MIPS, PowerPC and SPARC have their own).
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "powerpc", target_arch = "powerpc64")))]
pub(super) const DIRECTION_SHIFT: u32 = 30;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "powerpc", target_arch = "powerpc64")))]
pub(super) const WRITE: u32 = 1;
#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "powerpc", target_arch = "powerpc64"))]
pub(super) const DIRECTION_SHIFT: u32 = 29;
#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "powerpc", target_arch = "powerpc64"))]
pub(super) const WRITE: u32 = 4;
const READ: u32 = 2;
