//! FSSTAT, FSINFO, PATHCONF.

use super::{Done, Op};
use crate::nfs::proto::{MAX_NAME, Status};
use crate::nfs::xdr::{put_bool, put_u32, put_u64};
use crate::quota::Quota;

pub(super) fn stat(op: &mut Op<'_>) -> Done {
    let (object, attr) = op.object()?;
    let s = rustix::fs::fstatvfs(&object)?;
    let [mut total, mut free, available] = [s.f_blocks, s.f_bfree, s.f_bavail].map(|n| n.saturating_mul(s.f_frsize));
    // What the client may fill.
    let mut available = available.saturating_sub(op.shared.space.reserve());
    // Before it is known what is used, the disk is all there is to tell.
    if let Some(figures) = op.quota().and_then(Quota::figures) {
        [total, free, available] = limited(total, available, figures);
    }
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    let out = &mut op.worker.reply;
    for bytes in [total, free, available] {
        put_u64(out, bytes);
    }
    for files in [s.f_files, s.f_ffree, s.f_favail] {
        put_u64(out, files);
    }
    // How long this will hold: no promise.
    put_u32(out, 0);
    Ok(Status::Ok)
}

/// Total, free and available as a quota with `(limit, used)` has it. What is free and not available is what others took of the
/// disk: df(1) shows as used what is not free, and that is to be the Pi's own.
fn limited(total: u64, available: u64, (limit, used): (u64, u64)) -> [u64; 3] {
    let total = total.min(limit);
    let available = available.min(limit.saturating_sub(used)).min(total);
    [total, total.saturating_sub(used).max(available), available]
}

pub(super) fn info(op: &mut Op<'_>) -> Done {
    /// Hard links, symlinks, the same PATHCONF everywhere, times that can be set (RFC 1813 §3.3.19).
    const PROPERTIES: u32 = 1 | 2 | 8 | 16;
    /// What a READDIR or READDIRPLUS should ask for.
    const DIRECTORY_PREFERRED: u32 = 32 << 10;
    const MULTIPLE: u32 = 4096;
    let (_, attr) = op.object()?;
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    let transfer = op.shared.limits.max_transfer;
    let out = &mut op.worker.reply;
    for word in [transfer, transfer, MULTIPLE, transfer, transfer, MULTIPLE, DIRECTORY_PREFERRED] {
        put_u32(out, word);
    }
    // The largest offset there is; a file system's own limit answers EFBIG.
    put_u64(out, u64::try_from(i64::MAX).unwrap_or(u64::MAX));
    // Times are exact to the nanosecond.
    put_u32(out, 0);
    put_u32(out, 1);
    put_u32(out, PROPERTIES);
    Ok(Status::Ok)
}

pub(super) fn path_conf(op: &mut Op<'_>) -> Done {
    /// ext4 allows 65000; file systems that allow more lose nothing that matters.
    const MAX_LINKS: u32 = 65_000;
    let (_, attr) = op.object()?;
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    let out = &mut op.worker.reply;
    put_u32(out, MAX_LINKS);
    put_u32(out, u32::try_from(MAX_NAME).unwrap_or(u32::MAX));
    // no_trunc, chown_restricted, case_insensitive, case_preserving.
    for flag in [true, true, false, true] {
        put_bool(out, flag);
    }
    Ok(Status::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_the_pis_own_however_full_the_disk_is() {
        for (disk, (limit, used), shown) in [
            // total, available
            ((1000, 900), (100, 30), [100, 70, 70]),
            ((1000, 20), (100, 30), [100, 70, 20]),
            ((1000, 0), (100, 30), [100, 70, 0]),
            ((1000, 900), (100, 150), [100, 0, 0]),
            // More than the disk has.
            ((1000, 500), (5000, 300), [1000, 700, 500]),
            ((1000, 0), (u64::MAX, 300), [1000, 700, 0]),
            // What clones share counts for each.
            ((1000, 900), (5000, 800), [1000, 900, 900]),
        ] {
            assert_eq!(limited(disk.0, disk.1, (limit, used)), shown, "{disk:?} {limit} {used}");
        }
    }
}
