//! CREATE, MKDIR, SYMLINK, MKNOD.

use rustix::fs::{FileType, Timespec, Timestamps};
use rustix::io::Errno;

use super::attributes::apply;
use super::{Done, Op};
use crate::nfs::args::{CreateHow, Node, SetAttr};
use crate::nfs::attr::Attr;
use crate::nfs::fs::{Name, Object};
use crate::nfs::handle::KernelHandle;
use crate::nfs::proto::Status;
use crate::nfs::space;
use crate::nfs::xdr;

/// How often a file is looked for that is alternately there and not there.
const TRIES: usize = 4;

type Made = Result<(KernelHandle, Attr), Status>;

pub(super) fn create(op: &mut Op<'_>, name: &[u8], how: &CreateHow) -> Done {
    make(op, name, |op, dir, name| {
        for _ in 0..TRIES {
            let made = match how {
                CreateHow::Unchecked(set) | CreateHow::Guarded(set) => new_file(op, dir, name, set),
                CreateHow::Exclusive(verifier) => new_exclusive(op, dir, name, *verifier),
            };
            let existing = match made {
                Err(Status::Exist) => dir.child(name),
                other => return other,
            };
            let object = match existing {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let attr = object.attr()?;
            return match how {
                CreateHow::Unchecked(set) => {
                    // Of an existing file only the length is changed (RFC 1813 §3.3.8 leaves it open; as Linux does).
                    if attr.kind == FileType::RegularFile && set.size.is_some() {
                        op.room_to_copy_up(&object.handle()?, &attr)?;
                        apply(op, &object, &attr, &SetAttr { size: set.size, ..SetAttr::default() })?;
                    }
                    Ok((object.handle()?, object.attr()?))
                }
                CreateHow::Guarded(_) => Err(Status::Exist),
                CreateHow::Exclusive(verifier) => {
                    let (atime, mtime) = verifier_times(*verifier);
                    let same = (attr.kind, attr.size, i64::from(attr.atime.seconds), i64::from(attr.mtime.seconds))
                        == (FileType::RegularFile, 0, atime.tv_sec, mtime.tv_sec);
                    if same { Ok((object.handle()?, attr)) } else { Err(Status::Exist) }
                }
            };
        }
        Err(Status::Jukebox)
    })
}

/// Takes room for a new name. A name that is there needs none, and is then found.
fn room(op: &Op<'_>, dir: &Object, name: Name<'_>) -> Result<(), Status> {
    let is_there = || dir.child(name).is_ok();
    match op.shared.space.take(&op.volume.root, space::NAME) {
        Err(_) if is_there() => Ok(()),
        other => Ok(other.and_then(|()| op.room_for_name(is_there))?),
    }
}

fn new_file(op: &mut Op<'_>, dir: &Object, name: Name<'_>, set: &SetAttr) -> Made {
    room(op, dir, name)?;
    let mode = set.mode.unwrap_or(0);
    let file = dir.create(name, mode)?;
    let attr = complete(op, &file, set, mode)?;
    Ok((file.handle()?, attr))
}

/// Keeps the verifier in the times of the new file, which the client sets right afterwards anyway.
fn new_exclusive(op: &mut Op<'_>, dir: &Object, name: Name<'_>, verifier: [u8; 8]) -> Made {
    room(op, dir, name)?;
    let file = dir.create(name, 0)?;
    let (last_access, last_modification) = verifier_times(verifier);
    file.set_times(&Timestamps { last_access, last_modification })?;
    op.sync_changes(&[(&file, FileType::RegularFile)])?;
    let attr = file.attr()?;
    op.charge_new(&attr, &file);
    Ok((file.handle()?, attr))
}

/// The verifier as two times of 31 bits, which every file system can keep.
fn verifier_times(verifier: [u8; 8]) -> (Timespec, Timespec) {
    let [a, b, c, d, e, f, g, h] = verifier;
    let time = |word: [u8; 4]| Timespec { tv_sec: i64::from(u32::from_be_bytes(word) & 0x7fff_ffff), tv_nsec: 0 };
    (time([a, b, c, d]), time([e, f, g, h]))
}

pub(super) fn mkdir(op: &mut Op<'_>, name: &[u8], set: &SetAttr) -> Done {
    make(op, name, |op, dir, name| {
        let mode = set.mode.unwrap_or(0o755);
        room(op, dir, name)?;
        dir.mkdir(name, mode)?;
        let made = dir.child(name)?;
        let attr = made.attr()?;
        // mkdir(2) ignores setuid and setgid; a setgid bit that came from the parent stays.
        if mode & 0o6000 != 0 {
            made.chmod(&op.shared.proc, mode | (attr.mode & 0o2000))?;
        }
        let attr = complete(op, &made, set, mode)?;
        Ok((made.handle()?, attr))
    })
}

pub(super) fn symlink(op: &mut Op<'_>, name: &[u8], set: &SetAttr, target: &[u8]) -> Done {
    make(op, name, |op, dir, name| {
        if target.contains(&0) {
            return Err(Status::Inval);
        }
        room(op, dir, name)?;
        dir.symlink(name, target)?;
        let made = dir.child(name)?;
        // A symlink has no mode of its own.
        let attr = complete(op, &made, &SetAttr { mode: None, ..*set }, 0)?;
        Ok((made.handle()?, attr))
    })
}

pub(super) fn mknod(op: &mut Op<'_>, name: &[u8], node: &Node) -> Done {
    make(op, name, |op, dir, name| {
        let (kind, set, device) = match node {
            Node::BlockDevice { set, major, minor } => (FileType::BlockDevice, set, (*major, *minor)),
            Node::CharDevice { set, major, minor } => (FileType::CharacterDevice, set, (*major, *minor)),
            Node::Socket { set } => (FileType::Socket, set, (0, 0)),
            Node::Fifo { set } => (FileType::Fifo, set, (0, 0)),
            Node::Other => return Err(Status::BadType),
        };
        let mode = set.mode.unwrap_or(0);
        room(op, dir, name)?;
        dir.mknod(name, kind, mode, device)?;
        let made = dir.child(name)?;
        let attr = complete(op, &made, set, mode)?;
        Ok((made.handle()?, attr))
    })
}

/// Sets what could not be given when `object` was made with `mode`, as far as it differs; its attributes then.
fn complete(op: &mut Op<'_>, object: &Object, set: &SetAttr, mode: u32) -> Result<Attr, Status> {
    let made = object.attr()?;
    op.charge_new(&made, object);
    let (uid, gid) = (set.uid.filter(|uid| *uid != made.uid), set.gid.filter(|gid| *gid != made.gid));
    let rest = SetAttr {
        // A change of owner clears setuid bits.
        mode: ((uid.is_some() || gid.is_some()) && mode & 0o6000 != 0).then_some(mode),
        uid,
        gid,
        size: set.size.filter(|size| *size != made.size && made.kind == FileType::RegularFile),
        ..*set
    };
    let as_made = rest == SetAttr::default();
    if !as_made {
        apply(op, object, &made, &rest)?;
    }
    op.sync_changes(&[(object, made.kind)])?;
    Ok(if as_made { made } else { object.attr()? })
}

/// What the four have in common: the directory before and after, and the result's form.
fn make<'a>(op: &mut Op<'_>, name: &'a [u8], work: impl FnOnce(&mut Op<'_>, &Object, Name<'a>) -> Made) -> Done {
    let (dir, before) = op.object()?;
    op.be_caller()?;
    let charge = op.charge(&before);
    let made = Name::new_entry(name, Status::Exist)
        .and_then(|name| work(op, &dir, name))
        .and_then(|made| op.sync_changes(&[(&dir, FileType::Directory)]).map(|()| made));
    let after = dir.attr().ok();
    charge.end(after.as_ref(), &*dir);
    let status = made.as_ref().err().copied().unwrap_or(Status::Ok);
    op.put_status(status);
    if let Ok((handle, attr)) = made {
        xdr::put_bool(&mut op.worker.reply, true);
        let attr = attr.of(handle.is_of_lower_layer());
        let handle = op.seal(&handle);
        op.put_handle(&handle);
        op.put_post_op(Some(&attr));
    }
    op.put_wcc(Some(&before), after.as_ref());
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_becomes_times_that_fit_31_bits() {
        let (atime, mtime) = verifier_times([0xff; 8]);
        assert_eq!((atime.tv_sec, mtime.tv_sec), (0x7fff_ffff, 0x7fff_ffff));
        let (atime, mtime) = verifier_times([0, 0, 0, 1, 0, 0, 1, 0]);
        assert_eq!((atime.tv_sec, mtime.tv_sec), (1, 256));
    }
}
