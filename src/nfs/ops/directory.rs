//! READDIR, READDIRPLUS.

use std::collections::BinaryHeap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

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

impl Form {
    /// What an entry takes of `names`: id, name and cookie.
    fn room_of(&self, name: &CStr) -> usize {
        8 + 4 + name.to_bytes().len().next_multiple_of(4) + 8
    }

    /// What attributes and handle of an entry take at most.
    const fn room_of_plus(&self) -> usize {
        if self.plus { ATTR + 4 + 4 + MAX_HANDLE } else { 0 }
    }

    /// Entries that an answer has at most.
    fn most(&self) -> usize {
        let shortest = self.room_of(c"a");
        // Attributes and handle may be absent, each of which takes a word.
        let plus = if self.plus { 8 } else { 0 };
        (self.names / shortest).min(self.limit / (4 + shortest + plus)).max(1)
    }
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
    // The top of an overlay has a handle of the upper layer.
    let is_merged = op.handle.kernel.is_of_lower_layer() || (op.volume.is_layered() && op.is_root_of_export(&attr));
    if cookie != 0 && !is_merged {
        seek(&fd, SeekFrom::Start(cookie)).map_err(|_| Status::BadCookie)?;
    }
    let start = op.worker.reply.len();
    op.put_status(Status::Ok);
    op.put_post_op(Some(&attr));
    op.worker.reply.extend_from_slice(&own_verifier);

    let mut page = Page { start, names: 0, is_first: true };
    let end = if is_merged {
        let (entries, are_all) = after(op, &fd, cookie, form)?;
        let mut fit = true;
        for Listed { cookie, name, ino } in &entries {
            fit = put(op, &mut page, form, (&dir, &attr), name, *ino, *cookie)?;
            if !fit {
                break;
            }
        }
        fit && are_all
    } else {
        let mut chunk = [MaybeUninit::uninit(); MAX_CHUNK];
        let mut entries = RawDir::new(&fd, &mut chunk[..form.names.clamp(MIN_CHUNK, MAX_CHUNK)]);
        loop {
            let Some(next) = entries.next() else { break true };
            let next = match next {
                Ok(next) => next,
                // The directory was removed meanwhile.
                Err(Errno::NOENT) => break true,
                Err(errno) => return Err(errno.into()),
            };
            let (ino, cookie) = (next.ino(), next.next_entry_cookie());
            if !put(op, &mut page, form, (&dir, &attr), next.file_name(), ino, cookie)? {
                break false;
            }
        }
    };
    debug_assert!(op.worker.reply.len() - start + 8 <= form.limit.max(EMPTY));
    xdr::put_bool(&mut op.worker.reply, false);
    xdr::put_bool(&mut op.worker.reply, end);
    Ok(Status::Ok)
}

/// How far an answer is.
struct Page {
    /// Where it begins in the reply.
    start: usize,
    /// Bytes of names, ids and cookies.
    names: usize,
    is_first: bool,
}

/// Appends an entry if there is room for it.
fn put(
    op: &mut Op<'_>,
    page: &mut Page,
    form: &Form,
    (dir, attr): (&Object, &Attr),
    name: &CStr,
    ino: u64,
    cookie: u64,
) -> Result<bool, Stop> {
    let bytes = form.room_of(name);
    let plus = form.room_of_plus();
    let used = op.worker.reply.len() - page.start + 8;
    if page.names + bytes > form.names.max(bytes) || used + 4 + bytes + plus > form.limit {
        return if page.is_first { Err(Stop::Fail(Status::TooSmall)) } else { Ok(false) };
    }
    let ino = if name == c".." && op.is_root_of_export(attr) { attr.ino } else { ino };
    put_entry(op, ino, name, cookie);
    if form.plus {
        put_plus(op, dir, attr, name);
    }
    page.names += bytes;
    page.is_first = false;
    Ok(true)
}

/// An entry of a merged directory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    cookie: u64,
    name: CString,
    ino: u64,
}

/// The entries of a merged directory that come after `cookie`, no more than fit into an answer; and whether those are all.
///
/// The kernel counts the entries of a directory that is in both layers, and counts anew when one is gone; one that is in the
/// lower layer alone becomes one of both when something in it is removed, and its positions others altogether. So they are
/// listed in the order of a hash of their names, which is their position. (Two of 63 bits that are the same are not expected.)
fn after(op: &Op<'_>, fd: &OwnedFd, cookie: u64, form: &Form) -> Result<(Vec<Listed>, bool), Errno> {
    let most = form.most();
    let (mut first, mut are_all) = (BinaryHeap::with_capacity(most.min(64)), true);
    let mut chunk = [MaybeUninit::uninit(); MAX_CHUNK];
    let mut entries = RawDir::new(fd, &mut chunk);
    while let Some(next) = entries.next() {
        let next = match next {
            Err(Errno::NOENT) => break,
            other => other?,
        };
        let position = match next.file_name().to_bytes() {
            b"." => 1,
            b".." => 2,
            name => (op.shared.key.hash(name) >> 1).max(3),
        };
        let is_later = first.peek().is_some_and(|last: &Listed| position > last.cookie);
        if position <= cookie || (first.len() >= most && is_later) {
            are_all &= position <= cookie;
            continue;
        }
        first.push(Listed { cookie: position, name: next.file_name().to_owned(), ino: next.ino() });
        if first.len() > most {
            first.pop();
            are_all = false;
        }
    }
    Ok((first.into_sorted_vec(), are_all))
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
