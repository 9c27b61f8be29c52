//! The procedures of NFS version 3 (RFC 1813 §3.3), and what they have in common.
//!
//! A procedure either writes its whole result, status first, and returns that status; or it stops before it wrote
//! anything, and the dispatcher answers with the bare status.

mod acl;
mod attributes;
mod create;
mod data;
mod directory;
mod lookup;
mod namespace;
mod quota;
mod volume;

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::access::{Client, Grant};
use super::args::Args;
use super::attr::{self, Attr};
use super::creds::Identity;
use super::dispatch::Lane;
use super::exports::Volume;
use super::fs::{Object, sys};
use super::handle::{FileHandle, KernelHandle, Opened};
use super::proto::Status;
use super::shared::{Shared, Worker};
use super::xdr;

/// Why a procedure did not write a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Answer this, without attributes.
    Fail(Status),
    /// It may have to wait for the disk: run it in the other lane.
    Defer,
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Fail(status)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Fail(errno.into())
    }
}

/// What a procedure returns: the status that it wrote.
pub(super) type Done = Result<Status, Stop>;

/// One request under way.
pub(super) struct Op<'a> {
    pub(super) shared: &'a Shared,
    pub(super) worker: &'a mut Worker,
    pub(super) grant: &'a Grant,
    pub(super) volume: &'a Volume,
    pub(super) identity: Identity,
    pub(super) handle: Opened,
    pub(super) lane: Lane,
    pub(super) client: Client,
}

/// Runs the procedure of `args`.
pub(super) fn run(op: &mut Op<'_>, args: &Args<'_>) -> Done {
    match *args {
        Args::GetAttr => attributes::get(op),
        Args::SetAttr { set, guard } => attributes::set(op, &set, guard),
        Args::Access { wanted } => attributes::access(op, wanted),
        Args::Lookup { name } => lookup::lookup(op, name),
        Args::ReadLink => lookup::read_link(op),
        Args::Read { offset, count } => data::read(op, offset, count),
        Args::Write { offset, count, stable, data } => data::write(op, offset, count, stable, data),
        Args::Commit { .. } => data::commit(op),
        Args::Create { name, how } => create::create(op, name, &how),
        Args::MkDir { name, set } => create::mkdir(op, name, &set),
        Args::SymLink { name, set, target } => create::symlink(op, name, &set, target),
        Args::MkNod { name, node } => create::mknod(op, name, &node),
        Args::Remove { name } => namespace::remove(op, name),
        Args::RmDir { name } => namespace::rmdir(op, name),
        Args::Rename { from, to_dir, to } => namespace::rename(op, from, to_dir, to),
        Args::Link { dir, name } => namespace::link(op, dir, name),
        Args::ReadDir { cookie, verifier, count } => directory::read(op, cookie, verifier, count),
        Args::ReadDirPlus { cookie, verifier, dircount, maxcount } => {
            directory::read_plus(op, cookie, verifier, dircount, maxcount)
        }
        Args::FsStat => volume::stat(op),
        Args::FsInfo => volume::info(op),
        Args::PathConf => volume::path_conf(op),
    }
}

/// Answers GETACL, which is of another program.
pub(super) fn get_acl(op: &mut Op<'_>, mask: u32) -> Done {
    acl::get(op, mask)
}

impl Op<'_> {
    /// The object that the call is about, and its attributes now.
    fn object(&mut self) -> Result<(Arc<Object>, Attr), Stop> {
        let handle = self.handle;
        self.open(&handle)
    }

    /// A second object that the call names: it must be of the same export.
    fn other_object(&mut self, wire: &[u8]) -> Result<(Arc<Object>, Attr), Stop> {
        let other = self.shared.key.open(wire).map_err(|_| Status::BadHandle)?;
        if (other.export, other.tag) != (self.handle.export, self.handle.tag) {
            return Err(Stop::Fail(Status::XDev));
        }
        self.open(&other)
    }

    fn open(&mut self, handle: &Opened) -> Result<(Arc<Object>, Attr), Stop> {
        let now = self.shared.clock.now();
        if let Some(object) = self.shared.objects.get(self.volume.opening, &handle.wire, now) {
            let attr = object.attr()?.of(handle.kernel.is_of_lower_layer());
            if attr.nlink > 0 {
                return Ok((object, attr));
            }
            // Whether it is gone or still open somewhere is the kernel's to say, once it is not open here.
            self.shared.objects.forget(&handle.wire);
        }
        if self.lane == Lane::Instant {
            return Err(Stop::Defer);
        }
        self.be_root()?;
        let object = match sys::open_by_handle(self.volume.root.as_fd(), &handle.kernel) {
            Ok(fd) => Arc::new(Object::new(fd)),
            // Some file systems say that the inode number is out of range, or not there, instead of stale.
            Err(Errno::STALE | Errno::NOENT | Errno::INVAL) => return Err(Stop::Fail(Status::Stale)),
            Err(errno) => return Err(errno.into()),
        };
        let attr = object.attr()?.of(handle.kernel.is_of_lower_layer());
        if attr.nlink == 0 && handle.kernel.is_of_lower_layer() {
            // Without a name, whatever the kernel keeps of it.
            return Err(Stop::Fail(Status::Stale));
        }
        if attr.nlink > 0 {
            self.shared.objects.put(self.volume.opening, handle, &object, &attr, now);
        }
        Ok((object, attr))
    }

    /// Attributes of the object that the call is about, as clients see them.
    fn own(&self, attr: Attr) -> Attr {
        attr.of(self.handle.kernel.is_of_lower_layer())
    }

    fn be_root(&mut self) -> Result<(), Status> {
        self.worker.creds.be_root().map_err(|_| Status::ServerFault)
    }

    /// From here on the kernel checks the caller's permissions.
    fn be_caller(&mut self) -> Result<(), Status> {
        self.worker.creds.be(&self.identity).map_err(|_| Status::ServerFault)
    }

    /// Takes room for a file of an overlay's lower layer that is about to be changed, or to lose a name: all of it is copied
    /// before that, once. Goes on as the caller.
    ///
    /// # Errors
    /// NOSPC.
    fn room_to_copy_up(&mut self, handle: &KernelHandle, attr: &Attr) -> Result<(), Status> {
        if self.volume.is_layered() && attr.kind == FileType::RegularFile && handle.is_of_lower_layer() {
            self.be_root()?;
            if !self.volume.has_copied_up(handle) {
                self.shared.space.take(&self.volume.root, attr.used)?;
            }
        }
        self.be_caller()
    }

    /// The write verifier: changes with the server, with the opening of the volume, and when a flush failed.
    fn verifier(&self) -> [u8; 8] {
        let (server, opening) = (self.shared.verifier.get(), self.volume.opening);
        (u64::from_ne_bytes(server) ^ u64::from_ne_bytes(opening)).to_ne_bytes()
    }

    fn is_root_of_export(&self, attr: &Attr) -> bool {
        (attr.ino, attr.place) == (self.volume.root_ino, self.volume.place)
    }

    fn put_status(&mut self, status: Status) {
        xdr::put_u32(&mut self.worker.reply, status as u32);
    }

    fn seal(&self, kernel: &KernelHandle) -> FileHandle {
        self.shared.key.seal(self.handle.export, self.volume.tag, kernel)
    }

    fn put_handle(&mut self, handle: &FileHandle) {
        xdr::put_opaque(&mut self.worker.reply, handle.bytes());
    }

    fn put_post_op(&mut self, attr: Option<&Attr>) {
        attr::put_post_op(&mut self.worker.reply, attr, self.volume.fsid);
    }

    fn put_wcc(&mut self, before: Option<&Attr>, after: Option<&Attr>) {
        attr::put_wcc(&mut self.worker.reply, before, after, self.volume.fsid);
    }

    /// Where namespace changes are promised to be on the disk when they are answered, puts them there.
    fn sync_changes(&mut self, objects: &[(&Object, FileType)]) -> Result<(), Status> {
        if !self.shared.sync {
            return Ok(());
        }
        // The caller need not be able to read what it may change.
        self.be_root()?;
        let synced = objects.iter().try_for_each(|(object, kind)| object.sync(&self.shared.proc, *kind));
        self.be_caller()?;
        Ok(synced?)
    }
}
