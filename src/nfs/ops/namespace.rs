//! REMOVE, RMDIR, RENAME, LINK.

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags};

use super::quota::Charge;
use super::{Done, Op};
use crate::nfs::fs::{Name, Object, object};
use crate::nfs::proto::Status;
use crate::quota::Moving;

pub(super) fn remove(op: &mut Op<'_>, name: &[u8]) -> Done {
    take_away(op, name, |op, dir, name| {
        let victim = Victim::find(op, dir, name)?;
        dir.unlink(name)?;
        victim.lost_a_name(op)
    })
}

pub(super) fn rmdir(op: &mut Op<'_>, name: &[u8]) -> Done {
    take_away(op, name, |op, dir, name| {
        let victim = Victim::find(op, dir, name)?;
        dir.rmdir(name)?;
        victim.lost_a_name(op)
    })
}

fn take_away<'a>(
    op: &mut Op<'_>,
    name: &'a [u8],
    work: impl FnOnce(&mut Op<'_>, &Object, Name<'a>) -> Result<(), Status>,
) -> Done {
    let (dir, before) = op.object()?;
    op.be_caller()?;
    let charge = op.charge(&before);
    let result = Name::new_entry(name, Status::Inval)
        .and_then(|name| work(op, &dir, name))
        .and_then(|()| op.sync_changes(&[(&dir, FileType::Directory)]));
    let status = result.err().unwrap_or(Status::Ok);
    let after = dir.attr().ok();
    charge.end(after.as_ref(), &*dir);
    op.put_status(status);
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}

/// What is about to lose a name, as far as somebody has to know: an open file that lost its last name would keep its space,
/// one of an overlay's lower layer keeps it in any case, and a quota gets it back.
struct Victim<'a> {
    /// A file's inode number.
    file: Option<u64>,
    charge: Option<Charge<'a>>,
    /// It tells itself whether this was the last name.
    held: Option<Object>,
    is_of_lower_layer: bool,
}

impl<'a> Victim<'a> {
    fn find(op: &mut Op<'a>, dir: &Object, name: Name<'_>) -> Result<Self, Status> {
        let none = Self { file: None, charge: None, held: None, is_of_lower_layer: false };
        let export = op.handle.export;
        let may_be_open = op.shared.files.holds_any(export) || op.shared.objects.holds_any_file(export);
        let (is_counted, is_layered) = (op.quota().is_some(), op.volume.is_layered());
        if !may_be_open && !is_counted && !is_layered {
            return Ok(none);
        }
        let Ok(c_name) = CString::new(name.bytes()) else { return Ok(none) };
        let held = if is_counted || is_layered { dir.child(name).ok() } else { None };
        // What is held may have a name again, or another one, when this one is gone: it is asked then.
        let attr = held.as_ref().map_or_else(|| object::stat_at(dir.as_fd(), &c_name), Object::attr);
        let Ok(attr) = attr else { return Ok(none) };
        let is_dir = attr.kind == FileType::Directory;
        let layered = held.as_ref().filter(|_| is_layered && !is_dir);
        let handle = layered.and_then(|object| object.handle().ok());
        if let Some(handle) = &handle {
            op.room_to_copy_up(handle, &attr)?;
        }
        let is_of_lower_layer = handle.is_some_and(|handle| handle.is_of_lower_layer());
        Ok(Self {
            file: (attr.kind == FileType::RegularFile).then_some(attr.ino),
            charge: (is_counted && held.is_some()).then(|| op.charge(&attr)),
            // A directory of several layers has one link ever after.
            held: held.filter(|_| is_of_lower_layer || (is_counted && !(is_layered && is_dir))),
            is_of_lower_layer,
        })
    }

    /// Whether there is one, as far as a quota has to know.
    const fn is_counted(&self) -> bool {
        self.charge.is_some()
    }

    fn lost_a_name(self, op: &mut Op<'_>) -> Result<(), Status> {
        if let Some(ino) = self.file {
            op.shared.files.forget_object(op.handle.export, ino);
            op.shared.objects.forget_object(op.handle.export, ino);
        }
        let is_nameless = |object: &Object| object.attr().is_ok_and(|attr| attr.of(true).nlink == 0);
        let is_gone = self.is_of_lower_layer && self.held.as_ref().is_some_and(is_nameless);
        if let Some(object) = self.held.as_ref().filter(|_| is_gone && self.file.is_some()) {
            empty(op, object)?;
        }
        match (self.charge, self.held) {
            (Some(charge), Some(object)) if !is_gone => charge.look(&object),
            (Some(charge), _) => charge.gone(),
            (None, _) => {}
        }
        Ok(())
    }
}

/// Frees what the kernel keeps of a file of an overlay's lower layer that has no name any more.
fn empty(op: &mut Op<'_>, object: &Object) -> Result<(), Status> {
    op.be_root()?;
    // The name is gone, whatever becomes of the space: the next mount frees what is left of it.
    if let Err(errno) = object::reopen(&op.shared.proc, object.as_fd(), OFlags::WRONLY | OFlags::TRUNC) {
        log::debug!("a deleted file keeps its space until its device's root is mounted anew: {errno}");
    }
    op.be_caller()
}

/// What gets another name, as far as a quota has to know: ext4 gives out the blocks of a file whose data were not written yet
/// when it takes another's place, and a census that is under way may look for it where it is not.
struct Moved<'a> {
    object: Object,
    charge: Charge<'a>,
    _moving: Option<Moving<'a>>,
}

impl<'a> Moved<'a> {
    fn find(op: &Op<'a>, dir: &Object, name: Name<'_>) -> Option<Self> {
        op.quota()?;
        let object = dir.child(name).ok()?;
        let attr = object.attr().ok()?;
        Some(Self { charge: op.charge(&attr), _moving: op.moving(&attr), object })
    }
}

/// Takes room for what gets another name.
fn room_to_move(op: &mut Op<'_>, dir: &Object, name: Name<'_>) -> Result<(), Status> {
    if !op.volume.is_layered() {
        return Ok(());
    }
    // What is not there is for the kernel to say.
    let Ok(object) = dir.child(name) else { return Ok(()) };
    let found = object.attr().and_then(|attr| Ok((object.handle()?, attr)));
    found.map_or(Ok(()), |(handle, attr)| op.room_to_copy_up(&handle, &attr))
}

pub(super) fn rename(op: &mut Op<'_>, from: &[u8], to_dir: &[u8], to: &[u8]) -> Done {
    let (source, source_before) = op.object()?;
    let (target, target_before) = op.other_object(to_dir)?;
    op.be_caller()?;
    let charges = (op.charge(&source_before), op.charge(&target_before));
    let names = Name::new_entry(from, Status::Inval).and_then(|from| Ok((from, Name::new_entry(to, Status::Inval)?)));
    let result = names.and_then(|(from, to)| {
        let victim = Victim::find(op, &target, to)?;
        let is_elsewhere = (source_before.place, source_before.ino) != (target_before.place, target_before.ino);
        if is_elsewhere {
            // Names alone could fill the disk.
            op.room_for_name(|| victim.is_counted())?;
        }
        room_to_move(op, &source, from)?;
        let moved = Moved::find(op, &source, from);
        source.rename(from, &target, to)?;
        victim.lost_a_name(op)?;
        if let Some(Moved { object, charge, _moving }) = moved {
            charge.look(&object);
        }
        op.sync_changes(&[(&source, FileType::Directory), (&target, FileType::Directory)])
    });
    let status = result.err().unwrap_or(Status::Ok);
    let after = (source.attr().ok(), target.attr().ok());
    charges.0.end(after.0.as_ref(), &*source);
    charges.1.end(after.1.as_ref(), &*target);
    op.put_status(status);
    op.put_wcc(Some(&source_before), after.0.as_ref());
    op.put_wcc(Some(&target_before), after.1.as_ref());
    Ok(status)
}

pub(super) fn link(op: &mut Op<'_>, dir: &[u8], name: &[u8]) -> Done {
    let (object, attr) = op.object()?;
    let (dir, before) = op.other_object(dir)?;
    op.be_caller()?;
    let charge = op.charge(&before);
    let handle = op.handle.kernel;
    let result = Name::new_entry(name, Status::Exist)
        .and_then(|name| {
            op.room_to_copy_up(&handle, &attr)?;
            // Names alone could fill the disk.
            op.room_for_name(|| dir.child(name).is_ok())?;
            Ok(object.link(&op.shared.proc, &dir, name)?)
        })
        .and_then(|()| op.sync_changes(&[(&dir, FileType::Directory)]));
    let status = result.err().unwrap_or(Status::Ok);
    let (attr, after) = (object.attr().ok().map(|attr| op.own(attr)), dir.attr().ok());
    charge.end(after.as_ref(), &*dir);
    op.put_status(status);
    op.put_post_op(attr.as_ref());
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}
