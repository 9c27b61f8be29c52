//! Access control lists: from the form on disk (version 1, entries of 4 or 8 bytes) to what setxattr takes
//! (version 2, entries of 8 bytes; acl(5), linux/posix_acl_xattr.h).

use crate::image::fields::{u16_at, u32_at};

const DISK_VERSION: u32 = 1;
const XATTR_VERSION: u32 = 2;
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const UNDEFINED_ID: u32 = u32::MAX;

/// Converts one list.
pub(super) fn to_posix(disk: &[u8]) -> Result<Vec<u8>, &'static str> {
    if disk.len() < 4 || u32_at(disk, 0) != DISK_VERSION {
        return Err("access control list of an unknown version");
    }
    let mut out = XATTR_VERSION.to_le_bytes().to_vec();
    let mut at = 4;
    while at < disk.len() {
        let (tag, permissions) = (u16_at(disk, at), u16_at(disk, at + 2));
        let (id, length) = match tag {
            USER | GROUP => (u32_at(disk, at + 4), 8),
            // Owner, owning group, mask, others.
            0x01 | 0x04 | 0x10 | 0x20 => (UNDEFINED_ID, 4),
            _ => return Err("access control list with an unknown entry"),
        };
        if at + length > disk.len() {
            return Err("access control list cut short");
        }
        out.extend(tag.to_le_bytes());
        out.extend(permissions.to_le_bytes());
        out.extend(id.to_le_bytes());
        at += length;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_entries_grow_an_undefined_id() {
        // u::rw-, u:70000:r--, mask::r--
        let disk = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0x70, 0x11, 1, 0, 0x10, 0, 4, 0];
        let xattr = to_posix(&disk).unwrap();
        assert_eq!(xattr.len(), 4 + 3 * 8);
        assert_eq!(xattr[..12], [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(xattr[12..20], [2, 0, 4, 0, 0x70, 0x11, 1, 0]);
    }

    #[test]
    fn damage_is_an_error() {
        for disk in [&[][..], &[2, 0, 0, 0], &[1, 0, 0, 0, 3, 0, 0, 0], &[1, 0, 0, 0, 2, 0, 4, 0], &[1, 0, 0, 0, 1, 0]]
        {
            assert!(to_posix(disk).is_err(), "{disk:?}");
        }
    }
}
