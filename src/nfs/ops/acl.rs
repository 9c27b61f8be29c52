//! GETACL of NFSACL: what a file's access control lists are.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Done, Op};
use crate::nfs::attr;
use crate::nfs::proto::Status;
use crate::nfs::xdr;

/// Bits of the mask: the list that decides who may, and its number of entries; the same of a directory's default.
const ACCESS: u32 = 3;
const DEFAULT: u32 = 0xc;
/// Marks the entries of a default list.
const OF_DEFAULT: u32 = 0x1000;
/// Longest list that is answered (fs/nfs_common/nfsacl.c, NFS_ACL_MAX_ENTRIES).
const MAX_ENTRIES: usize = 1024;
/// Version of the attribute that Linux keeps them in, and the length of an entry (linux/posix_acl_xattr.h).
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const ENTRY: usize = 8;

/// Type, id and permissions, as they go over the wire.
type Entry = [u32; 3];

pub(super) fn get(op: &mut Op<'_>, mask: u32) -> Done {
    let (object, attr) = op.object()?;
    op.be_root()?;
    let has_lists = matches!(attr.kind, FileType::RegularFile | FileType::Directory);
    let list = |name: &str, flag| match has_lists {
        true => read(object.as_fd().as_raw_fd(), name, flag),
        false => Ok(Vec::new()),
    };
    let access = list("system.posix_acl_access", 0)?;
    let default = list("system.posix_acl_default", OF_DEFAULT)?;
    op.put_status(Status::Ok);
    let out = &mut op.worker.reply;
    attr::put_post_op(out, Some(&attr), op.volume.fsid);
    xdr::put_u32(out, mask & (ACCESS | DEFAULT));
    put(out, &access, mask & ACCESS != 0);
    put(out, &default, mask & DEFAULT != 0);
    Ok(Status::Ok)
}

fn read(fd: i32, name: &str, flag: u32) -> Result<Vec<Entry>, Status> {
    // What is opened by path alone has no attributes by its descriptor.
    let path = format!("/proc/self/fd/{fd}");
    let mut value = vec![0; VERSION.len() + MAX_ENTRIES * ENTRY];
    match rustix::fs::getxattr(path, name, &mut value) {
        Ok(length) => Ok(entries(value.get(..length).unwrap_or_default(), flag)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// The entries of the attribute; none if it is something else.
fn entries(value: &[u8], flag: u32) -> Vec<Entry> {
    let Some(rest) = value.strip_prefix(&VERSION) else { return Vec::new() };
    let (chunks, _) = rest.as_chunks::<ENTRY>();
    let entry = |[t0, t1, p0, p1, id @ ..]: &[u8; ENTRY]| {
        let kind = u16::from_le_bytes([*t0, *t1]);
        let permissions = u16::from_le_bytes([*p0, *p1]);
        // Only users and groups have an id, and those are told from the owner's by their kind.
        let id = if matches!(kind, 2 | 8) { u32::from_le_bytes(*id) } else { 0 };
        [u32::from(kind) | flag, id, u32::from(permissions & 7)]
    };
    chunks.iter().map(entry).collect()
}

/// How many there are, twice: once for those who ask for that alone.
fn put(out: &mut Vec<u8>, entries: &[Entry], is_wanted: bool) {
    let count = u32::try_from(entries.len()).unwrap_or(0);
    xdr::put_u32(out, count);
    xdr::put_u32(out, if is_wanted { count } else { 0 });
    for word in entries.iter().filter(|_| is_wanted).flatten() {
        xdr::put_u32(out, *word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_becomes_entries() {
        // user::rw-, user:33:r--, group::r--, mask::rw-, other::---
        let mut value = VERSION.to_vec();
        for (kind, permissions, id) in [(1, 6, !0), (2, 4, 33), (4, 4, !0), (0x10, 6, !0), (0x20, 0, !0_u32)] {
            value.extend([kind, 0, permissions, 0]);
            value.extend(id.to_le_bytes());
        }
        let list = entries(&value, OF_DEFAULT);
        assert_eq!(list, [[0x1001, 0, 6], [0x1002, 33, 4], [0x1004, 0, 4], [0x1010, 0, 6], [0x1020, 0, 0]]);
        assert_eq!(entries(&value[..value.len() - 1], 0).len(), 4);
        assert_eq!((entries(&[], 0), entries(&[1, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0], 0)), (vec![], vec![]));
        let mut out = Vec::new();
        put(&mut out, &list[..1], true);
        assert_eq!(out, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 6]);
        out.clear();
        put(&mut out, &list[..1], false);
        assert_eq!(out, [0, 0, 0, 1, 0, 0, 0, 0]);
    }
}
