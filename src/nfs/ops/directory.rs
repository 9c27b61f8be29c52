//! READDIR, READDIRPLUS.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use super::lookup::entry;
use super::{Done, Op, Stop};
use crate::nfs::attr::Attr;
use crate::nfs::fs::Object;
use crate::nfs::handle::FileHandle;
use crate::nfs::proto::{MAX_HANDLE, Status};
use crate::nfs::xdr;

/// Longest reply, whatever the client asks for.
const MAX_REPLY: usize = 64 << 10;
/// What the kernel is asked for at a time; enough for the longest name even at the smallest request.
const MIN_CHUNK: usize = 1 << 10;
const MAX_CHUNK: usize = 16 << 10;
/// A `fattr3` with the word that says that it is there.
const ATTR: usize = 88;
/// A reply without entries: status, attributes, verifier, end of list, end of directory.
const EMPTY: usize = 4 + ATTR + 8 + 4 + 4;

/// Entries without attributes.
pub(super) fn read(op: &mut Op<'_>, cookie: u64, verifier: [u8; 8], count: u32) -> Done {
    let limit = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_REPLY);
    list(op, cookie, verifier, &Form { limit, names: limit, plus: false })
}

/// Entries with attributes and handles. `dircount` bounds the bytes of names, ids and cookies, `maxcount` the reply.
pub(super) fn read_plus(op: &mut Op<'_>, cookie: u64, verifier: [u8; 8], dircount: u32, maxcount: u32) -> Done {
    let limit = usize::try_from(maxcount).unwrap_or(usize::MAX).min(MAX_REPLY);
    // Zero is taken as "no wish of its own".
    let names = usize::try_from(dircount).ok().filter(|n| *n > 0).unwrap_or(limit).min(limit);
    list(op, cookie, verifier, &Form { limit, names, plus: true })
}

struct Form {
    /// Bytes of the result.
    limit: usize,
    /// Bytes of names, ids and cookies.
    names: usize,
    plus: bool,
}

fn list(op: &mut Op<'_>, cookie: u64, verifier: [u8; 8], form: &Form) -> Done {
    let (dir, attr) = op.object()?;
    if attr.kind != FileType::Directory {
        return Err(Stop::Fail(Status::NotDir));
    }
    // Cookies are the file system's own positions, good as long as it is the same file system.
    let own_verifier = u64::from(op.volume.tag).to_be_bytes();
    if cookie != 0 && verifier != own_verifier {
        return Err(Stop::Fail(Status::BadCookie));
    }
    op.be_caller()?;
    let fd = dir.open_dir(&op.shared.proc)?;
    if cookie != 0 {
        seek(&fd, SeekFrom::Start(cookie)).map_err(|_| Status::BadCookie)?;
    }
    let start = op.worker.reply.len();
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    op.worker.reply.extend_from_slice(&own_verifier);

    let mut chunk = [MaybeUninit::uninit(); MAX_CHUNK];
    let mut entries = RawDir::new(&fd, &mut chunk[..form.names.clamp(MIN_CHUNK, MAX_CHUNK)]);
    let (mut names, mut is_first) = (0, true);
    let end = loop {
        let Some(next) = entries.next() else { break true };
        let next = match next {
            Ok(next) => next,
            // The directory was removed meanwhile.
            Err(Errno::NOENT) => break true,
            Err(errno) => return Err(errno.into()),
        };
        let name = next.file_name();
        let bytes = 8 + 4 + name.to_bytes().len().next_multiple_of(4) + 8;
        let plus = if form.plus { ATTR + 4 + 4 + MAX_HANDLE } else { 0 };
        let used = op.worker.reply.len() - start + 8;
        if names + bytes > form.names.max(bytes) || used + 4 + bytes + plus > form.limit {
            if is_first {
                return Err(Stop::Fail(Status::TooSmall));
            }
            break false;
        }
        let ino = if name == c".." && op.is_root_of_export(&attr) { attr.ino } else { next.ino() };
        put_entry(op, ino, name, next.next_entry_cookie());
        if form.plus {
            put_plus(op, &dir, &attr, name);
        }
        names += bytes;
        is_first = false;
    };
    debug_assert!(op.worker.reply.len() - start + 8 <= form.limit.max(EMPTY));
    xdr::put_bool(&mut op.worker.reply, false);
    xdr::put_bool(&mut op.worker.reply, end);
    Ok(Status::Ok)
}

fn put_entry(op: &mut Op<'_>, ino: u64, name: &CStr, cookie: u64) {
    let out = &mut op.worker.reply;
    xdr::put_bool(out, true);
    xdr::put_u64(out, ino);
    xdr::put_opaque(out, name.to_bytes());
    xdr::put_u64(out, cookie);
}

/// Attributes and handle of an entry, or neither: at mount points, above the directory, and where the caller may list
/// but not look up. The client then asks by name.
fn put_plus(op: &mut Op<'_>, dir: &Object, dir_attr: &Attr, name: &CStr) {
    let known: Option<(FileHandle, Attr)> = match name.to_bytes() {
        b"." => Some((op.handle.wire, *dir_attr)),
        b".." if op.is_root_of_export(dir_attr) => Some((op.handle.wire, *dir_attr)),
        b".." => None,
        _ => entry(op, dir, name).ok(),
    };
    op.put_post_op(known.as_ref().map(|(_, attr)| attr));
    xdr::put_bool(&mut op.worker.reply, known.is_some());
    if let Some((handle, _)) = known {
        op.put_handle(&handle);
    }
}

/// Keeps the sizes above honest.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs::attr;

    #[test]
    fn attributes_take_the_room_that_is_counted_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let attr = Object::new(fd).attr().unwrap();
        let mut out = Vec::new();
        attr::put_post_op(&mut out, Some(&attr), 0);
        assert_eq!(out.len(), ATTR);
    }
}
