//! REMOVE, RMDIR, RENAME, LINK.

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::{Done, Op};
use crate::nfs::fs::{Name, Object, object};
use crate::nfs::proto::Status;

pub(super) fn remove(op: &mut Op<'_>, name: &[u8]) -> Done {
    take_away(op, name, |op, dir, name| {
        let victim = open_victim(op, dir, name);
        dir.unlink(name)?;
        close_victim(op, victim);
        Ok(())
    })
}

pub(super) fn rmdir(op: &mut Op<'_>, name: &[u8]) -> Done {
    take_away(op, name, |_, dir, name| Ok(dir.rmdir(name)?))
}

fn take_away<'a>(
    op: &mut Op<'_>,
    name: &'a [u8],
    work: impl FnOnce(&mut Op<'_>, &Object, Name<'a>) -> Result<(), Status>,
) -> Done {
    let (dir, before) = op.object()?;
    op.be_caller()?;
    let result = Name::new_entry(name, Status::Inval)
        .and_then(|name| work(op, &dir, name))
        .and_then(|()| op.sync_changes(&[(&dir, FileType::Directory)]));
    let status = result.err().unwrap_or(Status::Ok);
    let after = dir.attr().ok();
    op.put_status(status);
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}

/// The inode that is about to lose this name, if anything of the export is open: an open file that lost its last name
/// would keep its space.
fn open_victim(op: &Op<'_>, dir: &Object, name: Name<'_>) -> Option<u64> {
    let export = op.handle.export;
    if !op.shared.files.holds_any(export) && !op.shared.objects.holds_any_file(export) {
        return None;
    }
    let name = CString::new(name.bytes()).ok()?;
    object::stat_at(dir.as_fd(), &name).ok().filter(|attr| attr.kind == FileType::RegularFile).map(|attr| attr.ino)
}

fn close_victim(op: &Op<'_>, victim: Option<u64>) {
    if let Some(ino) = victim {
        op.shared.files.forget_object(op.handle.export, ino);
        op.shared.objects.forget_object(op.handle.export, ino);
    }
}

pub(super) fn rename(op: &mut Op<'_>, from: &[u8], to_dir: &[u8], to: &[u8]) -> Done {
    let (source, source_before) = op.object()?;
    let (target, target_before) = op.other_object(to_dir)?;
    op.be_caller()?;
    let names = Name::new_entry(from, Status::Inval).and_then(|from| Ok((from, Name::new_entry(to, Status::Inval)?)));
    let result = names.and_then(|(from, to)| {
        let victim = open_victim(op, &target, to);
        source.rename(from, &target, to)?;
        close_victim(op, victim);
        op.sync_changes(&[(&source, FileType::Directory), (&target, FileType::Directory)])
    });
    let status = result.err().unwrap_or(Status::Ok);
    let after = (source.attr().ok(), target.attr().ok());
    op.put_status(status);
    op.put_wcc(Some(&source_before), after.0.as_ref());
    op.put_wcc(Some(&target_before), after.1.as_ref());
    Ok(status)
}

pub(super) fn link(op: &mut Op<'_>, dir: &[u8], name: &[u8]) -> Done {
    let (object, _) = op.object()?;
    let (dir, before) = op.other_object(dir)?;
    op.be_caller()?;
    let result = Name::new_entry(name, Status::Exist)
        .and_then(|name| Ok(object.link(&op.shared.proc, &dir, name)?))
        .and_then(|()| op.sync_changes(&[(&dir, FileType::Directory)]));
    let status = result.err().unwrap_or(Status::Ok);
    let (attr, after) = (object.attr().ok(), dir.attr().ok());
    op.put_status(status);
    op.put_post_op(attr.as_ref());
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}
