//! Copies of a tree, with every bit of metadata a file system keeps: a device's root made from an image's. The content of
//! files is written anew, or shared with the original (ioctl_ficlone(2)) until either is written to.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::progress::Progress;
use crate::storage::Links;
use crate::storage::tree_links::Several;
use crate::storage::tree_walk::WalkError;
use crate::storage::tree_writer::{FileWriter, Meta, Special, Time, TreeWriter, WriteError, Xattr};

/// Copy buffer, well under the MiB after which a cancel must be seen.
const BUFFER: usize = 256 * 1024;
/// Deepest nesting of directories, as for images.
const MAX_DEPTH: usize = 2000;
/// Names of a directory taken at once: sorting them by inode reads inode tables in order, and a huge directory must
/// not need memory for all.
const CHUNK: usize = 2048;
/// Memory for the names taken of all directories on the way down.
const MAX_HELD: usize = 8 << 20;
/// What a name takes besides its bytes.
const PER_NAME: usize = 32;

/// Memory for names of files whose other names are still to come, after which it is looked into which have any in this tree.
const LOOK_INTO: usize = 1 << 20;

/// Why a tree could not be copied. What was written until then stays: the caller builds beside and renames.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The original.
    #[error("cannot {what} {path} in the original: {errno}")]
    Read {
        /// What was being done.
        what: &'static str,
        /// Path from the tree's root.
        path: String,
        /// Why it failed.
        errno: Errno,
    },
    /// The copy.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Another file system is mounted inside the tree.
    #[error("another file system is mounted at {0}: unmount it first")]
    Mount(String),
    /// Nesting.
    #[error("directories are nested more than {MAX_DEPTH} deep at {0}")]
    TooDeep(String),
    /// Looking for names of one file.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Somebody moved a directory of the original meanwhile.
    #[error("{0} was moved while it was being copied: try again")]
    Moved(String),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// How the content of files gets into a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Written anew.
    Copied,
    /// Shared with the original; a file whose blocks cannot be shared is copied.
    Shared,
    /// The original's own: files and symbolic links get another name (link(2)) and have everything in common from then on,
    /// owner and mode too. For trees that nobody writes to. What cannot be given another name is copied.
    Linked,
}

/// What a copy wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Names, the root directory itself not counted.
    pub entries: u64,
    /// Bytes of content that were written (holes not counted).
    pub bytes: u64,
    /// Bytes of content that were shared (holes not counted).
    pub shared: u64,
    /// Files that were to be shared or linked and had to be copied.
    pub unshared: u64,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.shared += other.shared;
        self.unshared += other.unshared;
    }
}

/// Directories on the way down: what is still to be copied of them and how to know them again.
struct Frame {
    meta: Meta,
    identity: (u64, u64),
    pending: std::vec::IntoIter<CString>,
    /// Bytes that `pending` took when it was new.
    held: usize,
    /// Where the names after those begin; `None` at the end.
    next: Option<u64>,
}

struct Copier<'a> {
    top: OwnedFd,
    current: OwnedFd,
    device: u64,
    writer: TreeWriter,
    content: Content,
    names: Links,
    buffer: Vec<u8>,
    progress: &'a dyn Progress,
    done: Copied,
    /// What the names of all frames take.
    held: usize,
    /// Files with several names in this tree, once that was looked into.
    several: Option<Several>,
}

/// Copies everything in directory `from` into the empty directory `to`: content with its holes, hard links, owners,
/// modes, times, extended attributes and ACLs, devices, pipes and sockets. Does not follow links and does not leave
/// the file system; nobody may write to either tree meanwhile.
///
/// # Errors
/// [`CopyError`].
pub fn copy_tree(from: OwnedFd, to: OwnedFd, progress: &dyn Progress) -> Result<Copied, CopyError> {
    copy_tree_as(Content::Copied, Links::Names, from, to, progress)
}

/// The same, with a choice of how content gets there, and what the original's links are.
///
/// # Errors
/// [`CopyError`].
pub fn copy_tree_as(
    content: Content,
    names: Links,
    from: OwnedFd,
    to: OwnedFd,
    progress: &dyn Progress,
) -> Result<Copied, CopyError> {
    let writer = TreeWriter::new(to)?;
    let top = rustix::fs::openat(&from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let top = top.map_err(|errno| CopyError::Read { what: "open", path: "/".to_owned(), errno })?;
    let mut copier = Copier {
        top,
        current: from,
        device: 0,
        writer,
        content,
        names,
        buffer: vec![0; BUFFER],
        progress,
        done: Copied::default(),
        held: 0,
        several: None,
    };
    copier.run()?;
    Ok(copier.done)
}

impl Frame {
    fn new(stat: &Stat) -> Self {
        let pending = Vec::new().into_iter();
        Self { meta: meta(stat), identity: identity(stat), pending, held: 0, next: Some(0) }
    }
}

impl Copier<'_> {
    fn run(&mut self) -> Result<(), CopyError> {
        let stat = self.check("look at", b"", rustix::fs::fstat(&self.current))?;
        self.device = device(&stat);
        let mut frames = vec![Frame::new(&stat)];
        while let Some(top) = frames.last_mut() {
            let Some(name) = top.pending.next() else {
                if self.refill(top)? {
                    continue;
                }
                let Some(top) = frames.pop() else { break };
                let xattrs = self.xattrs(c".")?;
                self.writer.leave(&top.meta, &xattrs)?;
                if let Some(parent) = frames.last() {
                    self.current = self.go_back(parent)?;
                }
                continue;
            };
            if self.progress.cancelled() {
                return Err(CopyError::Cancelled);
            }
            self.done.entries += 1;
            self.progress.add(0, 1);
            let stat = rustix::fs::statat(&self.current, &name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = self.check("look at", name.to_bytes(), stat)?;
            if device(&stat) != self.device {
                return Err(CopyError::Mount(self.writer.display(name.to_bytes())));
            }
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                if frames.len() >= MAX_DEPTH {
                    return Err(CopyError::TooDeep(self.writer.display(name.to_bytes())));
                }
                self.current = self.open(&name, OFlags::DIRECTORY)?;
                self.writer.enter(name.to_bytes())?;
                frames.push(Frame::new(&stat));
            } else {
                self.entry(&name, &stat)?;
            }
        }
        Ok(())
    }

    /// Takes the next names of the current directory, fewer the less memory is left; answers whether there are any.
    fn refill(&mut self, frame: &mut Frame) -> Result<bool, CopyError> {
        self.held -= std::mem::take(&mut frame.held);
        let Some(from) = frame.next else { return Ok(false) };
        let wanted = (MAX_HELD.saturating_sub(self.held) / 4096).clamp(1, CHUNK);
        let (names, next) = self.check("list", b"", read_names(&self.current, from, wanted))?;
        frame.held = names.iter().map(|name| PER_NAME + name.as_bytes().len()).sum();
        self.held += frame.held;
        frame.next = next;
        frame.pending = names.into_iter();
        Ok(frame.pending.len() > 0)
    }

    /// From a finished directory to its parent.
    fn go_back(&self, parent: &Frame) -> Result<OwnedFd, CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let up = self.check("go back from", b"", rustix::fs::openat(&self.current, c"..", flags, Mode::empty()))?;
        let stat = self.check("look at", b"", rustix::fs::fstat(&up))?;
        if identity(&stat) == parent.identity { Ok(up) } else { Err(CopyError::Moved(self.writer.display(b""))) }
    }

    fn entry(&mut self, name: &CStr, stat: &Stat) -> Result<(), CopyError> {
        let bytes = name.to_bytes();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let wants_linking = self.content == Content::Linked && (kind.is_file() || kind.is_symlink());
        if wants_linking && self.link(name, stat)? {
            return Ok(());
        }
        let links = match &self.several {
            Some(several) if !several.contains(stat) => 1,
            _ => self.names.names(self.current.as_fd(), name, stat),
        };
        if links > 1 && self.writer.link(stat.st_ino, bytes)? {
            return Ok(());
        }
        let meta = meta(stat);
        let xattrs = self.xattrs(name)?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let special = match kind {
            FileType::RegularFile => None,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.current, name, Vec::new());
                let target = self.check("read the link", bytes, target)?;
                self.writer.symlink(bytes, target.as_bytes(), &meta, &xattrs)?;
                return self.remember(stat, bytes, links);
            }
            FileType::Fifo => Some(Special::Fifo),
            FileType::Socket => Some(Special::Socket),
            FileType::CharacterDevice => Some(Special::Char(major, minor)),
            FileType::BlockDevice => Some(Special::Block(major, minor)),
            FileType::Directory | FileType::Unknown => {
                return self.check("copy", bytes, Err(Errno::INVAL));
            }
        };
        match special {
            Some(special) => self.writer.special(bytes, special, &meta, &xattrs)?,
            None => {
                let from = File::from(self.open(name, OFlags::NONBLOCK)?);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let path = self.writer.display(bytes);
                let mut to = self.writer.file(bytes)?;
                let wants_sharing = self.content == Content::Shared && size > 0;
                if wants_sharing && share(&from, stat, &mut to, &path)? {
                    let held = held(stat);
                    self.done.shared += held;
                    self.progress.add(held, 0);
                    to.finish(size, &meta, &xattrs)?;
                    return self.remember(stat, bytes, links);
                }
                self.done.unshared += u64::from(wants_sharing || wants_linking);
                self.done.bytes += copy_content(&from, size, &mut to, &mut self.buffer, self.progress, &path)?;
                to.finish(size, &meta, &xattrs)?;
            }
        }
        self.remember(stat, bytes, links)
    }

    fn remember(&mut self, stat: &Stat, name: &[u8], links: u64) -> Result<(), CopyError> {
        if links > 1 {
            self.writer.remember(stat.st_ino, name, links - 1)?;
            // A tree that another is linked to: nearly every file has a name in there.
            if self.several.is_none() && self.writer.pending() > LOOK_INTO {
                let top = self.top.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
                let top = self.check("open", b"", top)?;
                let several = Several::find(top, self.progress)?.ok_or(CopyError::Cancelled)?;
                self.writer.forget_unless(|id| several.has(id));
                self.several = Some(several);
            }
        }
        Ok(())
    }

    /// Gives a file of the original another name in the copy; false if it cannot have one more.
    fn link(&mut self, name: &CStr, stat: &Stat) -> Result<bool, CopyError> {
        if !self.writer.adopt(&self.current, name)? {
            return Ok(false);
        }
        let held = held(stat);
        self.done.shared += held;
        self.progress.add(held, 0);
        Ok(true)
    }

    /// Opens an entry of the current directory for reading; a mount point on it is refused.
    fn open(&self, name: &CStr, flags: OFlags) -> Result<OwnedFd, CopyError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match crate::openat2::openat2(&self.current, name, flags, Mode::empty(), resolve) {
            Err(Errno::XDEV) => Err(CopyError::Mount(self.writer.display(name.to_bytes()))),
            other => self.check("open", name.to_bytes(), other),
        }
    }

    fn xattrs(&self, name: &CStr) -> Result<Vec<Xattr>, CopyError> {
        // There is no getxattrat before Linux 6.13.
        let path = [format!("/proc/self/fd/{}/", self.current.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
        let result = read_xattrs(&path);
        self.check("read the extended attributes of", name.to_bytes(), result)
    }

    fn check<T>(&self, what: &'static str, name: &[u8], result: rustix::io::Result<T>) -> Result<T, CopyError> {
        result.map_err(|errno| CopyError::Read { what, path: self.writer.display(name), errno })
    }
}

/// Some `wanted` names of a directory from position `from` on (0: its beginning), in the order of inodes, which is
/// that of the tables on the disk; and the position after them, `None` at the end. No names only at the end.
pub(super) fn read_names(
    directory: &OwnedFd,
    from: u64,
    wanted: usize,
) -> rustix::io::Result<(Vec<CString>, Option<u64>)> {
    rustix::fs::seek(directory, SeekFrom::Start(from))?;
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    let (mut position, mut next) = (from, None);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.ino(), entry.file_name().to_owned()));
        }
        // ext4's positions are hashes of names. Of names with the same one, none may be left behind: to go on there
        // would give all of them again.
        let after = entry.next_entry_cookie();
        if names.len() >= wanted && after != position {
            next = Some(after);
            break;
        }
        position = after;
    }
    names.sort_unstable_by_key(|(inode, _)| *inode);
    Ok((names.into_iter().map(|(_, name)| name).collect(), next))
}

pub(crate) fn read_xattrs(path: &[u8]) -> rustix::io::Result<Vec<Xattr>> {
    // Most files have none: one call, no buffer.
    let length = match rustix::fs::llistxattr_query(path) {
        Err(Errno::OPNOTSUPP) | Ok(0) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(other) => return Err(other),
    };
    let mut list = vec![0; length];
    let length = rustix::fs::llistxattr(path, &mut list[..])?;
    list.truncate(length);
    let mut out = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = rustix::fs::lgetxattr_query(path, name)?;
        let mut value = vec![0; length];
        let length = if length > 0 { rustix::fs::lgetxattr(path, name, &mut value[..])? } else { 0 };
        value.truncate(length);
        out.push(Xattr { name: name.to_vec(), value });
    }
    Ok(out)
}

/// Whether the file's content could be shared; if not, it is to be copied.
fn share(from: &File, stat: &Stat, to: &mut FileWriter<'_>, path: &str) -> Result<bool, CopyError> {
    match to.share(from, u64::try_from(stat.st_size).unwrap_or(0)) {
        Ok(()) => Ok(true),
        // None can be shared here, or not this file's: on btrfs those without copy-on-write are of another kind.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::TXTBSY) => Ok(false),
        Err(errno) => Err(CopyError::Read { what: "share the content of", path: path.to_owned(), errno }),
    }
}

/// Bytes of content that are no holes, about: blocks are counted whole, and in units of 512 bytes (stat(3type)).
#[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "types differ between targets")]
fn held(stat: &Stat) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512).min(size)
}

fn copy_content(
    from: &File,
    size: u64,
    to: &mut FileWriter<'_>,
    buffer: &mut [u8],
    progress: &dyn Progress,
    path: &str,
) -> Result<u64, CopyError> {
    let failed = |what, errno| CopyError::Read { what, path: path.to_owned(), errno };
    let (mut at, mut total) = (0, 0);
    while at < size {
        let data = match rustix::fs::seek(from.as_fd(), SeekFrom::Data(at)) {
            // No more data: a hole to the end.
            Err(Errno::NXIO) => break,
            other => other.map_err(|errno| failed("find the data of", errno))?,
        };
        let hole =
            rustix::fs::seek(from.as_fd(), SeekFrom::Hole(data)).map_err(|errno| failed("find the holes of", errno))?;
        at = data;
        let end = hole.min(size);
        while at < end {
            if progress.cancelled() {
                return Err(CopyError::Cancelled);
            }
            let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = from.read_exact_at(&mut buffer[..step], at);
            read.map_err(|e| failed("read", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
            to.write_at(&buffer[..step], at)?;
            progress.add(step as u64, 0);
            at += step as u64;
            total += step as u64;
        }
        at = hole;
    }
    Ok(total)
}

pub(super) fn device(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion, reason = "the field's type differs between targets")]
    stat.st_dev.into()
}

pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    #[allow(clippy::useless_conversion, reason = "the field's type differs between targets")]
    (device(stat), stat.st_ino.into())
}

#[allow(clippy::useless_conversion, reason = "the fields' types differ between targets")]
pub(crate) fn meta(stat: &Stat) -> Meta {
    let time = |seconds, nanoseconds: u64| Time { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        atime: time(stat.st_atime.into(), stat.st_atime_nsec.into()),
        mtime: time(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
    }
}
