//! Attributes of an object: `fattr3`, `wcc_data` (RFC 1813 §2.6).

use rustix::fs::{FileType, Statx, StatxFlags};

use super::args::Time;
use super::xdr;

/// What the file system says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Type.
    pub kind: FileType,
    /// The twelve permission bits.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes on the disk.
    pub used: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// When it came to be, where the file system keeps that. Never goes over the wire.
    pub born: Option<Birth>,
    /// Where it lies: device and mount. Never goes over the wire.
    pub place: Place,
}

impl Attr {
    /// The same with the link taken off that a file of an overlay's lower layer has besides its names
    /// (`storage::overlay`). No links are left to one that was deleted.
    #[must_use]
    pub fn of(self, is_of_lower_layer: bool) -> Self {
        let is_held = is_of_lower_layer && self.kind != FileType::Directory;
        Self { nlink: self.nlink.saturating_sub(u32::from(is_held)), ..self }
    }
}

/// The moment at which an object was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// Unix time in seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

impl Birth {
    /// Unix time in milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> i64 {
        // Below a thousand, so it fits.
        self.seconds.saturating_mul(1000).saturating_add((self.nanoseconds / 1_000_000) as i64)
    }
}

/// The file system and the mount through which an object was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Major and minor number of the file system's device; differs between btrfs subvolumes too.
    pub dev: (u32, u32),
    /// The mount's id, zero before Linux 5.8; differs at bind mounts of the same file system.
    pub mount: u64,
}

impl From<Statx> for Attr {
    fn from(s: Statx) -> Self {
        let time = |t: rustix::fs::StatxTimestamp| Time {
            // NFSv3 knows 1970 to 2106: earlier and later times become the nearest it has.
            seconds: u32::try_from(t.tv_sec.max(0)).unwrap_or(u32::MAX),
            nanoseconds: t.tv_nsec,
        };
        Self {
            kind: FileType::from_raw_mode(u32::from(s.stx_mode)),
            mode: u32::from(s.stx_mode) & 0o7777,
            nlink: s.stx_nlink,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            used: s.stx_blocks.saturating_mul(512),
            rdev: (s.stx_rdev_major, s.stx_rdev_minor),
            ino: s.stx_ino,
            atime: time(s.stx_atime),
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            born: StatxFlags::from_bits_retain(s.stx_mask)
                .contains(StatxFlags::BTIME)
                .then_some(Birth { seconds: s.stx_btime.tv_sec, nanoseconds: s.stx_btime.tv_nsec }),
            place: Place { dev: (s.stx_dev_major, s.stx_dev_minor), mount: s.stx_mnt_id },
        }
    }
}

/// `ftype3`.
const fn wire_type(kind: FileType) -> u32 {
    match kind {
        FileType::Directory => 2,
        FileType::BlockDevice => 3,
        FileType::CharacterDevice => 4,
        FileType::Symlink => 5,
        FileType::Socket => 6,
        FileType::Fifo => 7,
        FileType::RegularFile | FileType::Unknown => 1,
    }
}

/// Appends `fattr3`; `fsid` names the export.
pub fn put_fattr(out: &mut Vec<u8>, a: &Attr, fsid: u64) {
    let mut b = [0; 84];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        b[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for word in [wire_type(a.kind), a.mode, a.nlink, a.uid, a.gid] {
        put(&word.to_be_bytes());
    }
    put(&a.size.to_be_bytes());
    put(&a.used.to_be_bytes());
    put(&a.rdev.0.to_be_bytes());
    put(&a.rdev.1.to_be_bytes());
    put(&fsid.to_be_bytes());
    put(&a.ino.to_be_bytes());
    for time in [a.atime, a.mtime, a.ctime] {
        put(&time.seconds.to_be_bytes());
        put(&time.nanoseconds.to_be_bytes());
    }
    out.extend_from_slice(&b);
}

/// Appends `post_op_attr`.
pub fn put_post_op(out: &mut Vec<u8>, attr: Option<&Attr>, fsid: u64) {
    xdr::put_bool(out, attr.is_some());
    if let Some(attr) = attr {
        put_fattr(out, attr, fsid);
    }
}

/// Appends `wcc_data`: what the object was before the operation, and what it is now.
pub fn put_wcc(out: &mut Vec<u8>, before: Option<&Attr>, after: Option<&Attr>, fsid: u64) {
    xdr::put_bool(out, before.is_some());
    if let Some(before) = before {
        xdr::put_u64(out, before.size);
        for time in [before.mtime, before.ctime] {
            xdr::put_u32(out, time.seconds);
            xdr::put_u32(out, time.nanoseconds);
        }
    }
    put_post_op(out, after, fsid);
}

#[cfg(test)]
mod tests {
    use nfs3_types::nfs3;
    use nfs3_types::xdr_codec::Unpack;
    use rustix::fs::{AtFlags, CWD, StatxFlags};

    use super::*;

    #[test]
    fn wcc_data_is_read_by_another_decoder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"hello").unwrap();
        let old = rustix::fs::Timespec { tv_sec: -5, tv_nsec: 7 };
        let late = rustix::fs::Timespec { tv_sec: 1 << 33, tv_nsec: 9 };
        rustix::fs::utimensat(
            CWD,
            &path,
            &rustix::fs::Timestamps { last_access: old, last_modification: late },
            AtFlags::empty(),
        )
        .unwrap();
        let attr = Attr::from(rustix::fs::statx(CWD, &path, AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap());
        let mut out = Vec::new();
        put_wcc(&mut out, Some(&attr), Some(&attr), 0x0102_0304_0506_0708);
        let (wcc, used) = nfs3::wcc_data::unpack(&mut out.as_slice()).unwrap();
        assert_eq!(used, out.len());
        let nfs3::Nfs3Option::Some(after) = wcc.after else { panic!("no attributes") };
        assert_eq!((after.size, after.fsid, after.fileid), (5, 0x0102_0304_0506_0708, attr.ino));
        assert_eq!(after.type_, nfs3::ftype3::NF3REG);
        assert_eq!(after.mode, attr.mode);
        assert_eq!(after.atime.seconds, 0, "before 1970");
        assert_eq!(attr.mtime.seconds, after.mtime.seconds);
        let nfs3::Nfs3Option::Some(before) = wcc.before else { panic!("no attributes") };
        assert_eq!((before.size, before.ctime), (5, after.ctime));
        out.clear();
        put_wcc(&mut out, None, None, 1);
        assert_eq!(out, [0; 8]);
    }
}
