//! LOOKUP, READLINK.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Done, Op};
use crate::nfs::attr::Attr;
use crate::nfs::fs::{Name, Object, object, sys};
use crate::nfs::handle::{FileHandle, KernelHandle};
use crate::nfs::proto::{MAX_NAME, Status};
use crate::nfs::xdr;

/// How far up `..` is followed before giving up: deeper than any path Linux can name.
const MAX_DEPTH: usize = 2048;

pub(super) fn lookup(op: &mut Op<'_>, name: &[u8]) -> Done {
    let (dir, dir_attr) = op.object()?;
    let found = match name {
        b".." => parent(op, &dir, &dir_attr).map(|(kernel, attr)| (op.seal(&kernel), attr)),
        _ => Name::new(name).and_then(|name| {
            op.be_caller()?;
            let mut buffer = [0; MAX_NAME + 1];
            buffer[..name.bytes().len()].copy_from_slice(name.bytes());
            // A checked name has no NUL, so the first one is the end.
            let name = CStr::from_bytes_until_nul(&buffer).map_err(|_| Status::NameTooLong)?;
            entry(op, &dir, name)
        }),
    };
    let status = match found {
        Ok((handle, attr)) => {
            op.put_status(Status::Ok);
            op.put_handle(&handle);
            op.put_post_op(Some(&attr));
            Status::Ok
        }
        Err(status) => {
            op.put_status(status);
            status
        }
    };
    op.put_post_op(Some(&dir_attr));
    Ok(status)
}

/// Handle and attributes of an entry, never from beyond a mount point or another file system.
pub(super) fn entry(op: &Op<'_>, dir: &Object, name: &CStr) -> Result<(FileHandle, Attr), Status> {
    let attr = object::stat_at(dir.as_fd(), name)?;
    if attr.place == op.volume.place {
        if let Some(handle) = op.shared.known.get(op.volume.opening, &attr) {
            return Ok((handle, attr.of(handle.is_of_lower_layer())));
        }
        // Two calls by name are cheaper than opening and closing. They may see two objects if the name is taken over in
        // between: where the handle shows its inode that is noticed, and the slower way taken.
        let kernel = sys::name_to_handle(dir.as_fd(), name)?;
        if kernel.is_inode(attr.ino) == Some(true) {
            let handle = op.seal(&kernel);
            op.shared.known.put(op.volume.opening, &attr, &handle, op.shared.clock.wall_ms());
            return Ok((handle, attr.of(kernel.is_of_lower_layer())));
        }
    }
    let child = dir.child(Name::new(name.to_bytes())?).map_err(|errno| match errno {
        Errno::XDEV => Status::Acces,
        other => other.into(),
    })?;
    let attr = child.attr()?;
    if attr.place != op.volume.place {
        return Err(Status::Acces);
    }
    let kernel = child.handle()?;
    Ok((op.seal(&kernel), attr.of(kernel.is_of_lower_layer())))
}

/// The parent directory; the root's parent is the root. Elsewhere the way up has to lead to the root: an object that was
/// moved out of the export on the server does not open the way to the rest of the disk.
fn parent(op: &mut Op<'_>, dir: &Object, attr: &Attr) -> Result<(KernelHandle, Attr), Status> {
    if attr.kind != FileType::Directory {
        return Err(Status::NotDir);
    }
    if op.is_root_of_export(attr) {
        return Ok((op.volume.root_handle, *attr));
    }
    op.be_caller()?;
    sys::access(dir.as_fd(), libc::X_OK)?;
    let parent = dir.parent()?;
    let parent_attr = parent.attr()?;
    let handle = parent.handle()?;
    op.be_root()?;
    let (mut above, mut above_attr) = (parent, parent_attr);
    for _ in 0..MAX_DEPTH {
        if op.is_root_of_export(&above_attr) {
            return Ok((handle, parent_attr));
        }
        let next = above.parent()?;
        let next_attr = next.attr()?;
        if next_attr.place != op.volume.place || next_attr.ino == above_attr.ino {
            break;
        }
        (above, above_attr) = (next, next_attr);
    }
    Err(Status::Acces)
}

pub(super) fn read_link(op: &mut Op<'_>) -> Done {
    let (link, attr) = op.object()?;
    let target =
        if attr.kind == FileType::Symlink { link.read_link().map_err(Status::from) } else { Err(Status::Inval) };
    let status = target.as_ref().err().copied().unwrap_or(Status::Ok);
    op.put_status(status);
    op.put_post_op(Some(&attr));
    if let Ok(target) = target {
        xdr::put_opaque(&mut op.worker.reply, &target);
    }
    Ok(status)
}
