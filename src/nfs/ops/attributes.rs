//! GETATTR, SETATTR, ACCESS.

use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Done, Op};
use crate::nfs::args::{SetAttr, SetTime, Time};
use crate::nfs::attr::{self, Attr};
use crate::nfs::creds::NO_ID;
use crate::nfs::fs::{Object, object, sys};
use crate::nfs::proto::Status;
use crate::nfs::xdr;

pub(super) fn get(op: &mut Op<'_>) -> Done {
    let (_, attr) = op.object()?;
    op.put_status(Status::Ok);
    attr::put_fattr(&mut op.worker.reply, &attr, op.volume.fsid);
    Ok(Status::Ok)
}

pub(super) fn set(op: &mut Op<'_>, set: &SetAttr, guard: Option<Time>) -> Done {
    let (object, before) = op.object()?;
    let result = if guard.is_some_and(|ctime| ctime != before.ctime) {
        Err(Status::NotSync)
    } else {
        let handle = op.handle.kernel;
        let room = op.room_to_copy_up(&handle, &before);
        room.and_then(|()| apply(op, &object, &before, set)).and_then(|()| op.sync_changes(&[(&object, before.kind)]))
    };
    let status = result.err().unwrap_or(Status::Ok);
    let after = object.attr().ok().map(|attr| op.own(attr));
    op.put_status(status);
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}

/// Changes what `set` asks for, as the caller. Order as in the Linux kernel's server: a change of owner clears setuid
/// bits that a mode in the same call shall set, and times come last because the others change them.
pub(super) fn apply(op: &mut Op<'_>, object: &Object, attr: &Attr, set: &SetAttr) -> Result<(), Status> {
    let times = times(set)?;
    if set.uid == Some(NO_ID) || set.gid == Some(NO_ID) {
        return Err(Status::Inval);
    }
    if set.uid.is_some() || set.gid.is_some() {
        object.chown(set.uid, set.gid)?;
    }
    if let Some(mode) = set.mode {
        object.chmod(&op.shared.proc, mode)?;
    }
    if let Some(size) = set.size {
        truncate(op, object, attr, size)?;
    }
    match times {
        // open(O_TRUNC) on a client: cutting the file has set this time already.
        Some(_) if set.size.is_some() && (set.atime, set.mtime) == (SetTime::Keep, SetTime::Now) => Ok(()),
        Some(times) => set_times(op, object, set, &times),
        None => Ok(()),
    }
}

/// utimensat(2) lets everybody who may write set both times to now, but only the owner one of them. The protocol, like
/// the kernel's own server, makes no such difference.
fn set_times(op: &mut Op<'_>, object: &Object, set: &SetAttr, times: &Timestamps) -> Result<(), Status> {
    let explicit = matches!(set.atime, SetTime::To(_)) || matches!(set.mtime, SetTime::To(_));
    match object.set_times(times) {
        Err(Errno::PERM) if !explicit && sys::access(object.as_fd(), libc::W_OK).is_ok() => {
            op.be_root()?;
            let result = object.set_times(times);
            op.be_caller()?;
            Ok(result?)
        }
        other => Ok(other?),
    }
}

fn truncate(op: &mut Op<'_>, object: &Object, attr: &Attr, size: u64) -> Result<(), Status> {
    match attr.kind {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Status::IsDir),
        _ => return Err(Status::Inval),
    }
    if i64::try_from(size).is_err() {
        return Err(Status::FBig);
    }
    let file = match object::reopen(&op.shared.proc, object.as_fd(), OFlags::WRONLY) {
        // The owner may always write, as through a descriptor that was opened before the mode changed.
        Err(Errno::ACCESS) if op.identity.uid == attr.uid => {
            op.be_root()?;
            let file = object::reopen(&op.shared.proc, object.as_fd(), OFlags::WRONLY);
            op.be_caller()?;
            file
        }
        other => other,
    }?;
    let charge = op.charge(attr);
    // As the caller again: the kernel then clears setuid bits if the caller may not keep them.
    rustix::fs::ftruncate(&file, size)?;
    charge.look(&file);
    Ok(())
}

fn times(set: &SetAttr) -> Result<Option<Timestamps>, Status> {
    // utimensat(2): "now" and "leave alone" are marked in the nanoseconds.
    let special = |tv_nsec| Ok(Timespec { tv_sec: 0, tv_nsec });
    let time = |set| match set {
        SetTime::Keep => special(rustix::fs::UTIME_OMIT),
        SetTime::Now => special(rustix::fs::UTIME_NOW),
        SetTime::To(Time { seconds, nanoseconds }) if nanoseconds < 1_000_000_000 => {
            // Fits the signed 32 bits that the field has on 32-bit machines too.
            Ok(Timespec { tv_sec: i64::from(seconds), tv_nsec: nanoseconds as _ })
        }
        SetTime::To(_) => Err(Status::Inval),
    };
    if (set.atime, set.mtime) == (SetTime::Keep, SetTime::Keep) {
        return Ok(None);
    }
    Ok(Some(Timestamps { last_access: time(set.atime)?, last_modification: time(set.mtime)? }))
}

/// Bits of ACCESS (RFC 1813 §3.3.4).
mod bit {
    pub(super) const READ: u32 = 1;
    pub(super) const LOOKUP: u32 = 2;
    pub(super) const MODIFY: u32 = 4;
    pub(super) const EXTEND: u32 = 8;
    pub(super) const DELETE: u32 = 16;
    pub(super) const EXECUTE: u32 = 32;
}

pub(super) fn access(op: &mut Op<'_>, wanted: u32) -> Done {
    let (object, attr) = op.object()?;
    op.be_caller()?;
    let (read, write, execute) = if attr.kind == FileType::Directory {
        (bit::READ, bit::MODIFY | bit::EXTEND | bit::DELETE, bit::LOOKUP)
    } else {
        (bit::READ, bit::MODIFY | bit::EXTEND, bit::EXECUTE)
    };
    let mut granted = 0;
    for (bits, mode) in [(read, libc::R_OK), (write, libc::W_OK), (execute, libc::X_OK)] {
        let read_only = op.grant.entry.export.read_only && mode == libc::W_OK;
        if wanted & bits != 0 && !read_only && sys::access(object.as_fd(), mode).is_ok() {
            granted |= wanted & bits;
        }
    }
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    xdr::put_u32(&mut op.worker.reply, granted);
    Ok(Status::Ok)
}
