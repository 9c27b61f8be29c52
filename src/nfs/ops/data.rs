//! READ, WRITE, COMMIT.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{Done, Op, Stop};
use crate::nfs::args::Stability;
use crate::nfs::attr::Attr;
use crate::nfs::dispatch::Lane;
use crate::nfs::files::{Mode, OpenFile};
use crate::nfs::fs::sys::{self, Wait};
use crate::nfs::fs::{Object, object};
use crate::nfs::proto::Status;
use crate::nfs::shared::Tail;
use crate::nfs::xdr;

/// READs from this size on are sent by the kernel straight from the page cache, by a thread that may wait.
/// Below it a copy is cheaper.
const SENDFILE: usize = 256 << 10;
/// READs from this size on need leave from the memory budget.
const LARGE: usize = 32 << 10;

pub(super) fn read(op: &mut Op<'_>, offset: u64, count: u32) -> Done {
    let count = usize::try_from(count.min(op.shared.limits.max_transfer)).unwrap_or(usize::MAX);
    let (file, attr) = open(op, Mode::Read)?;
    let left = attr.size.saturating_sub(offset);
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(count);
    if length >= SENDFILE && file.is_sendable() {
        if op.lane != Lane::MaySleep {
            return Err(Stop::Defer);
        }
        put_read_header(op, &attr, length, offset);
        op.worker.tail = Some(Tail { file, offset, length });
        return Ok(Status::Ok);
    }
    if length >= LARGE {
        if op.lane == Lane::Instant {
            return Err(Stop::Defer);
        }
        let lease = op.shared.buffers.take(op.client, length + 256).ok_or(Stop::Fail(Status::Jukebox))?;
        let lease = op.worker.lease.insert(lease);
        lease.data.reserve_exact(length + 256);
        lease.data.extend_from_slice(&op.worker.reply);
        std::mem::swap(&mut op.worker.reply, &mut lease.data);
    }
    put_read_header(op, &attr, length, offset);
    let before = op.worker.reply.len();
    match read_data(op, &file, length, offset) {
        Ok(read) => {
            xdr::put_padding(&mut op.worker.reply, read);
            if read < length {
                // The file got shorter meanwhile: what there is ends it.
                let words = [u32::try_from(read).unwrap_or(0), 1, u32::try_from(read).unwrap_or(0)];
                for (at, word) in [12, 8, 4].into_iter().zip(words) {
                    xdr::patch_u32(&mut op.worker.reply, before - at, word);
                }
            }
            Ok(Status::Ok)
        }
        Err(stop) => {
            op.worker.give_lease_back();
            Err(stop)
        }
    }
}

/// Status, attributes, count, end of file, length: all that comes before the data.
fn put_read_header(op: &mut Op<'_>, attr: &Attr, length: usize, offset: u64) {
    op.put_status(Status::Ok);
    op.put_post_op(Some(attr));
    // At most max_transfer, a u32.
    let count = u32::try_from(length).unwrap_or(u32::MAX);
    let end = offset.saturating_add(u64::from(count));
    xdr::put_u32(&mut op.worker.reply, count);
    xdr::put_bool(&mut op.worker.reply, end >= attr.size);
    xdr::put_u32(&mut op.worker.reply, count);
}

/// Appends file data. Unless it may sleep, only what is in memory; if that is not all, nothing.
fn read_data(op: &mut Op<'_>, file: &OpenFile, length: usize, offset: u64) -> Result<usize, Stop> {
    let out = &mut op.worker.reply;
    let start = out.len();
    if op.lane == Lane::Instant && !op.volume.may_read_nowait() {
        return Err(Stop::Defer);
    }
    if op.lane != Lane::MaySleep && op.volume.may_read_nowait() && length > 0 {
        return match sys::read_at(file.fd.as_fd(), out, length, offset, Wait::Refused) {
            Ok(read) if read == length => Ok(read),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                op.volume.no_nowait();
                Err(Stop::Defer)
            }
            // Not all is in memory, or there is an error that the other lane will meet again and report.
            Ok(_) | Err(_) => {
                out.truncate(start);
                Err(Stop::Defer)
            }
        };
    }
    let mut done = 0;
    while done < length {
        match sys::read_at(file.fd.as_fd(), out, length - done, offset.saturating_add(done as u64), Wait::Allowed) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}

pub(super) fn write(op: &mut Op<'_>, offset: u64, count: u32, stable: Stability, data: &[u8]) -> Done {
    let count = usize::try_from(count).map_err(|_| Status::Inval)?;
    let data = data.get(..count).ok_or(Status::Inval)?;
    if i64::try_from(offset.saturating_add(count as u64)).is_err() {
        return Err(Stop::Fail(Status::FBig));
    }
    let (file, _) = open(op, Mode::Write)?;
    // The kernel clears setuid bits if the writer may not keep them.
    op.be_caller()?;
    let (before, verifier, written, mut after) = {
        let _alone = file.order.lock().unwrap_or_else(PoisonError::into_inner);
        let before = object::stat_at(file.fd.as_fd(), c"")?;
        // What is there already, and no hole, may be written over on a full disk too.
        let is_new = offset.saturating_add(count as u64) > before.size || before.used < before.size;
        if is_new {
            op.shared.space.take(&op.volume.root, count as u64)?;
        }
        let (charge, room) = op.charge_write(&before, &file.fd, offset, count as u64, is_new)?;
        // The client sends the rest again (RFC 1813 §3.3.7), and is told then.
        let data = usize::try_from(room).ok().and_then(|room| data.get(..room)).unwrap_or(data);
        // The verifier from before the data: if a flush fails in between, the client sends the data again.
        let verifier = op.verifier();
        let written = write_data(&file, data, offset);
        file.was_written();
        let after = object::stat_at(file.fd.as_fd(), c"").ok().map(|attr| op.own(attr));
        charge.end(after.as_ref(), &file.fd);
        (before, verifier, written, after)
    };
    let charge = (stable != Stability::Unstable).then(|| after.as_ref().map(|after| op.charge(after))).flatten();
    let flushed = written.and_then(|written| match stable {
        // Nobody else will learn of an error once the descriptor is closed.
        Stability::Unstable if file.is_retired() => file.flush().map(|()| written),
        Stability::Unstable => Ok(written),
        Stability::DataSync => rustix::fs::fdatasync(&file.fd).map(|()| written),
        Stability::FileSync => file.flush().map(|()| written),
    });
    if written.is_ok() && flushed.is_err() {
        op.shared.verifier.change();
    }
    if stable != Stability::Unstable {
        after = object::stat_at(file.fd.as_fd(), c"").ok().map(|attr| op.own(attr));
    }
    if let Some(charge) = charge {
        charge.end(after.as_ref(), &file.fd);
    }
    let status = flushed.err().map_or(Status::Ok, Status::from);
    op.put_status(status);
    op.put_wcc(Some(&before), after.as_ref());
    if let Ok(written) = flushed {
        let out = &mut op.worker.reply;
        // At most `count`, a u32.
        xdr::put_u32(out, u32::try_from(written).unwrap_or(0));
        xdr::put_u32(out, stable as u32);
        out.extend_from_slice(&verifier);
    }
    Ok(status)
}

/// Writes as much as there is room for; an error counts only if nothing was written.
fn write_data(file: &OpenFile, data: &[u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(&file.fd, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Flushes the whole file: a range would save nothing on the file systems that are exported.
pub(super) fn commit(op: &mut Op<'_>) -> Done {
    let (object, before) = op.object()?;
    op.be_root()?;
    // Blocks that were set aside for data are given out, or given back.
    let charge = op.charge(&before);
    let result = flush(op, &object, &before);
    let after = object.attr().ok().map(|attr| op.own(attr));
    charge.end(after.as_ref(), &*object);
    if result.is_err() {
        op.shared.verifier.change();
    }
    let status = result.err().map_or(Status::Ok, Status::from);
    op.put_status(status);
    op.put_wcc(Some(&before), after.as_ref());
    if status == Status::Ok {
        // From after the flush: it speaks for everything written before.
        let verifier = op.verifier();
        op.worker.reply.extend_from_slice(&verifier);
    }
    Ok(status)
}

fn flush(op: &Op<'_>, object: &Object, attr: &Attr) -> Result<(), Errno> {
    if attr.kind != FileType::RegularFile {
        return Ok(());
    }
    // The descriptor that wrote is told of every failed write-back; a fresh one only of those that nobody was told of.
    match op.shared.files.any_writer(&op.handle.wire).filter(|file| file.is_of(op.volume.opening)) {
        Some(writer) => writer.flush(),
        None => rustix::fs::fsync(object::reopen(&op.shared.proc, object.as_fd(), OFlags::RDONLY)?),
    }
}

/// The open file of the call's handle, and its attributes now.
fn open(op: &mut Op<'_>, mode: Mode) -> Result<(Arc<OpenFile>, Attr), Stop> {
    let now = op.shared.clock.now();
    if let Some(file) = op.shared.files.get(&op.handle.wire, &op.identity, mode, now) {
        let attr = op.own(object::stat_at(file.fd.as_fd(), c"")?);
        if file.still_fits(op.volume.opening, &attr) {
            return Ok((file, attr));
        }
        op.shared.files.forget(&op.handle.wire, &op.identity, mode);
    }
    if op.lane == Lane::Instant {
        return Err(Stop::Defer);
    }
    let (object, attr) = op.object()?;
    match attr.kind {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Stop::Fail(Status::IsDir)),
        _ => return Err(Stop::Fail(Status::Inval)),
    }
    let flags = match mode {
        Mode::Read => OFlags::RDONLY,
        Mode::Write => OFlags::WRONLY,
    };
    match mode {
        Mode::Read => op.be_caller()?,
        Mode::Write => {
            let handle = op.handle.kernel;
            op.room_to_copy_up(&handle, &attr)?;
        }
    }
    let fd = match object::reopen(&op.shared.proc, object.as_fd(), flags) {
        Err(Errno::ACCESS) if may_override(op, &object, &attr, mode) => {
            op.be_root()?;
            object::reopen(&op.shared.proc, object.as_fd(), flags)
        }
        other => other,
    }?;
    let file = Arc::new(OpenFile::new(fd, op.handle.export, op.volume.opening, &attr));
    if attr.nlink > 0 {
        op.shared.files.put(&op.handle.wire, &op.identity, mode, &file, now);
        // A REMOVE meanwhile closed what was kept before this was; kept for one caller after the other, a file without a name
        // would never be gone.
        if object::stat_at(file.fd.as_fd(), c"").is_ok_and(|attr| op.own(attr).nlink == 0) {
            op.shared.files.forget(&op.handle.wire, &op.identity, mode);
        }
    }
    Ok((file, attr))
}

/// NFSv3 has no OPEN, so a client that opened a file before its mode changed must still be let in: the owner always,
/// and readers of what they may execute, because that is how programs are run (as the Linux kernel's server does).
fn may_override(op: &Op<'_>, object: &Object, attr: &Attr, mode: Mode) -> bool {
    op.identity.uid == attr.uid || (mode == Mode::Read && sys::access(object.as_fd(), libc::X_OK).is_ok())
}
