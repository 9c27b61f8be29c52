//! Writes a tree with every attribute, always relative to directory descriptors: paths may be longer than PATH_MAX
//! and names any bytes.
//!
//! The order of one file's calls matters: data, size, owner (drops setuid bits and capabilities), mode, extended
//! attributes, times. A directory gets its attributes when it is left: a default ACL must not be inherited by its
//! entries, and creating them changes its times.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::printable::printable;

/// Memory for names of files whose other names are still to come. Raspberry Pi OS has a handful of such files; this is
/// enough for some 80 000.
const MAX_PENDING: usize = 16 << 20;
/// What one of them takes besides its name.
const PENDING: usize = 128;

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// 0 to 999 999 999, counted forward from `seconds`.
    pub nanoseconds: u32,
}

/// What every entry of a tree carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits including setuid, setgid and sticky (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
}

/// One extended attribute as setxattr takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name, `user.…`.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// An entry that is neither a file, a directory nor a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device, major and minor number.
    Char(u32, u32),
    /// Block device, major and minor number.
    Block(u32, u32),
}

/// A call failed while writing a tree.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path} in the new tree: {}", describe(*.errno))]
pub struct WriteError {
    /// What was being done.
    pub what: &'static str,
    /// Which entry, from the tree's root.
    pub path: String,
    /// Why it failed.
    pub errno: Errno,
}

/// ext4 says "no space" also when an attribute does not fit in its block.
fn too_large(errno: Errno) -> Errno {
    if errno == Errno::NOSPC { Errno::TOOBIG } else { errno }
}

fn describe(errno: Errno) -> String {
    match errno {
        Errno::NOSPC => "the disk is full".to_owned(),
        Errno::DQUOT => "the disk quota is used up".to_owned(),
        Errno::TOOBIG => "no space for it: too large for this file system, or the disk is full".to_owned(),
        Errno::EXIST => "the name exists twice in its directory".to_owned(),
        Errno::OPNOTSUPP => {
            "the file system does not support it (ext4, xfs, btrfs and f2fs keep everything a root needs)".to_owned()
        }
        Errno::PERM => {
            "not permitted (this needs root, and a file system that knows owners and device nodes)".to_owned()
        }
        // No file system says this: it is ours, see `TreeWriter::remember`.
        Errno::NOBUFS => "too many files with several names wait for the others, more than memory allows".to_owned(),
        other => other.to_string(),
    }
}

/// Files with several names: the first name of each, while more are to come.
#[derive(Debug)]
struct Link {
    /// Shared by the links of one directory.
    directory: Arc<[u8]>,
    name: CString,
    left: u64,
}

/// Writes one tree, entry by entry, depth first.
#[derive(Debug)]
pub struct TreeWriter {
    root: OwnedFd,
    current: OwnedFd,
    /// Path of the current directory from the root, `/`-joined, and the length before each component.
    path: Vec<u8>,
    lengths: Vec<usize>,
    links: HashMap<u64, Link>,
    /// Bytes that `links` takes.
    pending: usize,
    /// `path`, if a link shares it.
    shared_path: Option<Arc<[u8]>>,
    /// The tree is on a volume that is mounted over NFS.
    on_network: bool,
}

type Result<T> = std::result::Result<T, WriteError>;

impl TreeWriter {
    /// Writes into `root`, an empty directory.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn new(root: OwnedFd) -> Result<Self> {
        let current = root.try_clone().map_err(|e| WriteError {
            what: "open",
            path: "/".to_owned(),
            errno: Errno::from_io_error(&e).unwrap_or(Errno::IO),
        })?;
        Ok(Self {
            on_network: super::is_network(&root),
            root,
            current,
            path: Vec::new(),
            lengths: Vec::new(),
            links: HashMap::new(),
            pending: 0,
            shared_path: None,
        })
    }

    /// How many directories deep the writer is.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.lengths.len()
    }

    /// Makes a directory and goes into it.
    ///
    /// # Errors
    /// The failed call.
    pub fn enter(&mut self, name: &[u8]) -> Result<()> {
        let c_name = self.name(name)?;
        let step = rustix::fs::mkdirat(&self.current, &c_name, Mode::RWXU)
            .and_then(|()| rustix::fs::openat(&self.current, &c_name, DIRECTORY, Mode::empty()));
        let directory = self.check("make directory", name, step)?;
        self.go_into(directory, name);
        Ok(())
    }

    /// Goes back into a directory that was left, for an order that is not depth first. Answers its attributes, to be given to
    /// [`TreeWriter::leave`] again; of the extended ones only a default ACL, which is taken off it meanwhile: what is made
    /// in it must not inherit it.
    ///
    /// # Errors
    /// The failed call; also when it is no directory.
    pub fn reenter(&mut self, name: &[u8]) -> Result<(Meta, Vec<Xattr>)> {
        const DEFAULT_ACL: &str = "system.posix_acl_default";
        let c_name = self.name(name)?;
        let opened = rustix::fs::openat(&self.current, &c_name, DIRECTORY, Mode::empty());
        let directory = self.check("go back into", name, opened)?;
        let stat = self.check("look at", name, rustix::fs::fstat(&directory))?;
        let meta = super::tree_copy::meta(&stat);
        let mut value = vec![0; 64 << 10];
        let mut xattrs = Vec::new();
        if let Ok(length) = rustix::fs::fgetxattr(&directory, DEFAULT_ACL, &mut value) {
            value.truncate(length);
            self.check("take the default ACL off", name, rustix::fs::fremovexattr(&directory, DEFAULT_ACL))?;
            xattrs.push(Xattr { name: DEFAULT_ACL.into(), value });
        }
        self.go_into(directory, name);
        Ok((meta, xattrs))
    }

    fn go_into(&mut self, directory: OwnedFd, name: &[u8]) {
        self.current = directory;
        self.forget_shared_path();
        self.lengths.push(self.path.len());
        self.path.push(b'/');
        self.path.extend_from_slice(name);
    }

    /// Gives the current directory its attributes and goes back to its parent; from the root, stays there.
    ///
    /// # Errors
    /// The failed call.
    pub fn leave(&mut self, meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        self.finish(self.current.as_fd(), b"", meta, xattrs)?;
        if let Some(length) = self.lengths.pop() {
            // Nobody else knows this tree, so ".." is where we came from; keeping every parent open could run out of
            // descriptors.
            let parent = rustix::fs::openat(&self.current, c"..", DIRECTORY, Mode::empty());
            self.current = self.check("go back from", b"", parent)?;
            self.forget_shared_path();
            self.path.truncate(length);
        }
        Ok(())
    }

    /// Makes a regular file, to be filled and finished through the answer.
    ///
    /// # Errors
    /// The failed call.
    pub fn file(&mut self, name: &[u8]) -> Result<FileWriter<'_>> {
        let c_name = self.name(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.current, &c_name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(self.check("create", name, fd)?);
        Ok(FileWriter { writer: self, file, name: name.to_vec(), end: 0 })
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The failed call.
    pub fn symlink(&mut self, name: &[u8], target: &[u8], meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        let c_name = self.name(name)?;
        self.check("link", name, rustix::fs::symlinkat(target, &self.current, &c_name))?;
        self.finish_at(name, &c_name, None, meta, xattrs)
    }

    /// Makes a device node, named pipe or socket.
    ///
    /// # Errors
    /// The failed call.
    pub fn special(&mut self, name: &[u8], special: Special, meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        let c_name = self.name(name)?;
        let (kind, device) = match special {
            Special::Fifo => (FileType::Fifo, 0),
            Special::Socket => (FileType::Socket, 0),
            Special::Char(major, minor) => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Special::Block(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        };
        let made = rustix::fs::mknodat(&self.current, &c_name, kind, Mode::RUSR | Mode::WUSR, device);
        self.check("make node", name, made)?;
        self.finish_at(name, &c_name, Some(meta.mode), meta, xattrs)
    }

    /// Gives file `id`, which has more names to come, another name; `false` if it has none yet.
    ///
    /// # Errors
    /// The failed call.
    pub fn link(&mut self, id: u64, name: &[u8]) -> Result<bool> {
        let Some(mut link) = self.links.remove(&id) else { return Ok(false) };
        let c_name = self.name(name)?;
        let step = if *link.directory == *self.path {
            rustix::fs::linkat(&self.current, &link.name, &self.current, &c_name, AtFlags::empty())
        } else {
            self.open_directory(&link.directory)
                .and_then(|other| rustix::fs::linkat(other, &link.name, &self.current, &c_name, AtFlags::empty()))
        };
        self.check("link", name, step)?;
        link.left = link.left.saturating_sub(1);
        if link.left > 0 {
            self.links.insert(id, link);
        } else {
            self.pending = self.pending.saturating_sub(PENDING + link.name.as_bytes().len());
            self.release(link.directory);
        }
        Ok(true)
    }

    /// Gives a file or link of another tree, `name` in `directory`, the same name in this one: what there is of it, owner,
    /// mode and content, is both's from then on. `false` if it cannot have one more name.
    ///
    /// # Errors
    /// The failed call.
    pub fn adopt(&mut self, directory: impl AsFd, name: &CStr) -> Result<bool> {
        match rustix::fs::linkat(directory, name, &self.current, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // ext4 has room for 65000 names; what is immutable gets none (chattr(1)); subvolumes share no files.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV) => Ok(false),
            Err(errno) => self.check("link", name.to_bytes(), Err(errno)),
        }
    }

    /// Bytes that it takes to remember files with several names.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Forgets files with several names, unless `has_more` says of their number that names are to come.
    pub fn forget_unless(&mut self, has_more: impl Fn(u64) -> bool) {
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) = self.links.drain().partition(|(id, _)| has_more(*id));
        self.links = kept;
        for link in gone.into_values() {
            self.pending = self.pending.saturating_sub(PENDING + link.name.as_bytes().len());
            self.release(link.directory);
        }
    }

    /// Gives the entry that `target` names, from the tree's root, another name. Whoever wrote the names, they lead nowhere
    /// else: no link is followed, and there is no way up.
    ///
    /// # Errors
    /// The failed call; a target that is not in the tree yet.
    pub fn link_to(&mut self, target: &[u8], name: &[u8]) -> Result<()> {
        let c_name = self.name(name)?;
        let (directory, last) = match target.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..).unwrap_or_default()),
            None => (&[][..], target),
        };
        let plain = |part: &[u8]| part != b"." && part != b"..";
        if !plain(last) || last.is_empty() || !directory.split(|byte| *byte == b'/').all(plain) {
            return self.check("link", name, Err(Errno::INVAL));
        }
        let linked = self
            .open_directory(directory)
            .and_then(|other| rustix::fs::linkat(other, last, &self.current, &c_name, AtFlags::empty()));
        self.check("link", name, linked)
    }

    /// Remembers that file `id` has the name `name` in the current directory and `others` more to come.
    ///
    /// # Errors
    /// A name that cannot be one, or more such files than memory allows.
    pub fn remember(&mut self, id: u64, name: &[u8], others: u64) -> Result<()> {
        let c_name = self.name(name)?;
        let directory = match &self.shared_path {
            Some(shared) => Arc::clone(shared),
            None => {
                self.pending += self.path.len();
                Arc::clone(self.shared_path.insert(self.path.as_slice().into()))
            }
        };
        self.pending += PENDING + name.len();
        if self.pending > MAX_PENDING {
            return self.check("remember", name, Err(Errno::NOBUFS));
        }
        self.links.insert(id, Link { directory, name: c_name, left: others });
        Ok(())
    }

    fn forget_shared_path(&mut self) {
        if let Some(path) = self.shared_path.take() {
            self.release(path);
        }
    }

    /// Drops a directory's path, and counts it off when it was the last of its kind.
    fn release(&mut self, path: Arc<[u8]>) {
        if Arc::strong_count(&path) == 1 {
            self.pending = self.pending.saturating_sub(path.len());
        }
    }

    /// Path of an entry of the current directory, for messages.
    #[must_use]
    pub fn display(&self, name: &[u8]) -> String {
        format!("{}/{}", printable(&self.path), printable(name))
    }

    fn open_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut directory = None;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let from = directory.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            directory = Some(rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?);
        }
        directory.map_or_else(|| rustix::fs::openat(&self.root, c".", DIRECTORY, Mode::empty()), Ok)
    }

    /// Attributes of an open file or directory.
    fn finish(&self, fd: BorrowedFd<'_>, name: &[u8], meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        let owner = rustix::fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        self.check("set the owner of", name, owner)?;
        self.check("set the mode of", name, rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode)))?;
        for xattr in xattrs {
            let set = rustix::fs::fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty());
            self.check("set an extended attribute of", name, self.or_dropped(set))?;
        }
        self.check("set the times of", name, rustix::fs::futimens(fd, &times(meta)))
    }

    /// Attributes of an entry that cannot be opened.
    fn finish_at(&self, name: &[u8], c_name: &CString, mode: Option<u32>, meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        let owner = rustix::fs::chownat(&self.current, c_name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        self.check("set the owner of", name, owner)?;
        if let Some(mode) = mode {
            // We made it a moment ago and it is no link, so that following is no question.
            let set = rustix::fs::chmodat(&self.current, c_name, Mode::from_raw_mode(mode), AtFlags::empty());
            self.check("set the mode of", name, set)?;
        }
        for xattr in xattrs {
            // There is no setxattrat before Linux 6.13.
            let mut path = format!("/proc/self/fd/{}/", self.current.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            let set = rustix::fs::lsetxattr(path.as_slice(), xattr.name.as_slice(), &xattr.value, XattrFlags::empty());
            self.check("set an extended attribute of", name, self.or_dropped(set))?;
        }
        let set = rustix::fs::utimensat(&self.current, c_name, &times(meta), AtFlags::SYMLINK_NOFOLLOW);
        self.check("set the times of", name, set)
    }

    /// Attributes that NFSv3 does not carry are lost on a volume that is mounted over it: no Pi would see them either.
    fn or_dropped(&self, set: rustix::io::Result<()>) -> rustix::io::Result<()> {
        match set {
            Err(Errno::OPNOTSUPP) if self.on_network => Ok(()),
            other => other.map_err(too_large),
        }
    }

    /// A name must stay in its directory.
    fn name(&self, name: &[u8]) -> Result<CString> {
        let plain = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/');
        let c_name = CString::new(name).ok().filter(|_| plain);
        c_name.ok_or_else(|| WriteError { what: "use the name", path: self.display(name), errno: Errno::INVAL })
    }

    fn check<T>(&self, what: &'static str, name: &[u8], result: rustix::io::Result<T>) -> Result<T> {
        result.map_err(|errno| WriteError { what, path: self.display(name), errno })
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn times(meta: &Meta) -> Timestamps {
    // Under 10^9, which fits the signed 32 bits that the field has on 32-bit machines too.
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds as _ };
    Timestamps { last_access: spec(meta.atime), last_modification: spec(meta.mtime) }
}

/// A regular file being written.
#[derive(Debug)]
pub struct FileWriter<'w> {
    writer: &'w TreeWriter,
    file: File,
    name: Vec<u8>,
    end: u64,
}

impl FileWriter<'_> {
    /// Writes `data` at byte `offset`; what is never written stays a hole.
    ///
    /// # Errors
    /// The failed call.
    pub fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(data, offset);
        let written = written.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
        self.writer.check("write", &self.name, written)?;
        self.end = self.end.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    /// Takes the whole content of `from`, `size` bytes, without copying it: the two share their blocks until one is
    /// written to. Call it first, or not at all.
    ///
    /// # Errors
    /// As ioctl_ficlone(2) reports; nothing was written then.
    pub fn share(&mut self, from: impl AsFd, size: u64) -> rustix::io::Result<()> {
        rustix::fs::ioctl_ficlone(&self.file, from)?;
        self.end = size;
        Ok(())
    }

    /// Sets the size and every attribute.
    ///
    /// # Errors
    /// The failed call.
    pub fn finish(self, size: u64, meta: &Meta, xattrs: &[Xattr]) -> Result<()> {
        if size != self.end {
            self.writer.check("set the size of", &self.name, rustix::fs::ftruncate(&self.file, size))?;
        }
        self.writer.finish(self.file.as_fd(), &self.name, meta, xattrs)
    }
}

#[cfg(test)]
#[path = "tree_writer_tests.rs"]
mod tests;
