//! What a volume is known by in file handles.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::fs::sys;
use super::handle::HandleKey;

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAY: u32 = 0x794c_7630;

/// The magic of the file system: 32 bits, whose C type differs between architectures.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
fn magic(fd: &OwnedFd) -> Result<u32, Errno> {
    rustix::fs::fstatfs(fd).map(|stat| stat.f_type as u32)
}

/// Whether this is on an overlay.
///
/// # Errors
/// As fstatfs(2).
pub(super) fn is_overlay(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(magic(fd)? == OVERLAY)
}

/// A number that tells one disk from another; the same after a new kernel or a new version of this program.
pub(super) fn tag(root: &OwnedFd, key: &HandleKey) -> u32 {
    let mut identity = Vec::new();
    if is_overlay(root) == Ok(true) {
        // It is told by the disk that it is mounted on, which its layers are on as well: it has no lasting number of its own
        // before Linux 6.6.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        identity.extend_from_slice(&OVERLAY.to_be_bytes());
        if let Ok(below) = rustix::fs::openat(root, c"..", flags, Mode::empty()) {
            identity.extend(identity_of(&below));
        }
    } else {
        identity = identity_of(root);
    }
    let [.., a, b, c, d] = key.hash(&identity).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn identity_of(root: &OwnedFd) -> Vec<u8> {
    let Ok(statfs) = rustix::fs::fstatfs(root) else { return Vec::new() };
    let fsid = rustix::fs::fstatvfs(root).map_or(0, |statvfs| statvfs.f_fsid);
    let magic = magic(root).unwrap_or(0);
    volume_identity(magic, fsid, || sys::volume_uuid(root.as_fd()), statfs.f_blocks)
}

/// What a volume is told by: the kind of file system, and what of the rest lasts.
fn volume_identity(magic: u32, fsid: u64, uuid: impl FnOnce() -> Option<[u8; 16]>, blocks: u64) -> Vec<u8> {
    let mut identity = magic.to_be_bytes().to_vec();
    match magic {
        // ext4 and btrfs make f_fsid of the UUID. They could be asked for that too, but only since Linux 6.9: handles would
        // not outlive the upgrade.
        0xef53 | 0x9123_683e => identity.extend_from_slice(&fsid.to_be_bytes()),
        // xfs and f2fs make it of the device number, which may change when a USB disk is plugged in again. Where they have
        // no UUID to tell the size has to do, and the inode generations in the handles.
        _ => match uuid() {
            Some(uuid) => identity.extend_from_slice(&uuid),
            None => identity.extend_from_slice(&blocks.to_be_bytes()),
        },
    }
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_stays_itself_under_another_kernel() {
        let uuid = Some([7; 16]);
        for magic in [0xef53, 0x9123_683e] {
            let of = |uuid, fsid| volume_identity(magic, fsid, || uuid, 100);
            assert_eq!(of(uuid, 5), of(None, 5), "before and after Linux 6.9");
            assert_ne!(of(None, 5), of(None, 6), "another disk");
        }
        for magic in [0x5846_5342, 0xf2f5_2010] {
            let of = |uuid, fsid| volume_identity(magic, fsid, || uuid, 100);
            assert_eq!(of(uuid, 5), of(uuid, 6), "the same disk in another socket");
            assert_ne!(of(uuid, 5), of(Some([8; 16]), 5));
        }
    }
}
