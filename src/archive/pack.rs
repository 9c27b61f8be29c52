//! A tree into an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::extents::MAX_WRITTEN;
use super::{ArchiveError, Entry, Kind, Result, Writer};
use crate::printable::printable;
use crate::progress::Progress;
use crate::storage::Links;
use crate::storage::tree_copy::{identity, meta};
use crate::storage::tree_links::Several;
use crate::storage::tree_walk::{Found, Walk};
use crate::storage::tree_writer::Special;

/// Copy buffer, well under the MiB after which a cancel must be seen.
const BUFFER: usize = 256 << 10;
/// Memory for the paths of files whose other names are still to come, as for copies.
const MAX_PENDING: usize = 16 << 20;
const PER_LINK: usize = 96;
/// Memory after which it is looked into which of them have other names in this tree, as for copies.
const LOOK_INTO: usize = 1 << 20;

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    /// Names, the tree's own included.
    pub entries: u64,
    /// Bytes of content, holes not counted.
    pub bytes: u64,
    /// Files that changed while they were read, where that was allowed.
    pub changed: u64,
}

struct Packer<'a, W> {
    top: OwnedFd,
    out: &'a mut Writer<W>,
    name: &'a str,
    /// Files that change are counted and not refused.
    live: bool,
    names: Links,
    links: HashMap<(u64, u64), (Vec<u8>, u64)>,
    pending: usize,
    /// Files with several names in this tree, once that was looked into.
    several: Option<Several>,
    buffer: Vec<u8>,
    progress: &'a dyn Progress,
    done: Packed,
}

/// Packs directory `tree` and everything in it under `name`. Nothing outside is read: no link is followed, and no other
/// file system entered. A file that changes meanwhile is refused, or, if the tree is `live`, counted. `names` says what the
/// links of its files are.
///
/// # Errors
/// [`ArchiveError`].
pub fn pack_tree<W: Write>(
    tree: OwnedFd,
    name: &str,
    out: &mut Writer<W>,
    live: bool,
    names: Links,
    progress: &dyn Progress,
) -> Result<Packed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(&tree, c".", flags, Mode::empty()).map_err(|e| ArchiveError::Read(e.into()))?;
    let mut packer = Packer {
        top,
        out,
        name,
        live,
        names,
        links: HashMap::new(),
        pending: 0,
        several: None,
        buffer: vec![0; BUFFER],
        progress,
        done: Packed::default(),
    };
    packer.run(tree)?;
    Ok(packer.done)
}

impl<W: Write> Packer<'_, W> {
    fn run(&mut self, tree: OwnedFd) -> Result<()> {
        // The top of the tree, by way of a name in itself.
        let top = rustix::fs::fstat(&tree).map_err(|e| ArchiveError::Read(e.into()))?;
        let mut walk = Walk::new(tree)?;
        let found = Found { name: c".".to_owned(), stat: top };
        let xattrs = walk.xattrs(&found)?;
        self.put(Entry {
            path: self.name.as_bytes().to_vec(),
            kind: Kind::Directory,
            meta: meta(&top),
            xattrs,
            size: 0,
            extents: Vec::new(),
        })?;
        while let Some(found) = walk.next()? {
            if self.progress.cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            match self.entry(&walk, &found) {
                // Gone since it was found: as if it had never been there.
                Err(ArchiveError::Walk(crate::storage::tree_walk::WalkError::Read {
                    errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP,
                    ..
                })) if self.live => self.done.changed += 1,
                other => other?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, walk: &Walk, found: &Found) -> Result<()> {
        let path = [self.name.as_bytes(), b"/", &walk.path(found)].concat();
        let names = self.names.names(walk.directory(), &found.name, &found.stat);
        let has_others = self.several.as_ref().is_none_or(|several| several.contains(&found.stat));
        let is_shared = names > 1 && has_others && !found.kind().is_dir();
        let mut entry = Entry {
            path,
            kind: Kind::Directory,
            meta: meta(&found.stat),
            xattrs: Vec::new(),
            size: 0,
            extents: Vec::new(),
        };
        if is_shared && let Some(first) = self.first_name(found) {
            return self.put(Entry { kind: Kind::HardLink(first), ..entry });
        }
        entry.xattrs = walk.xattrs(found)?;
        let (major, minor) = (rustix::fs::major(found.stat.st_rdev), rustix::fs::minor(found.stat.st_rdev));
        entry.kind = match found.kind() {
            FileType::RegularFile => {
                let shown = printable(&entry.path);
                let remembered = is_shared.then(|| entry.path.clone());
                self.file(walk, found, entry, &shown)?;
                return remembered.map_or(Ok(()), |path| self.remember(walk, found, path, names));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(walk.directory(), &found.name, Vec::new());
                let target = target.map_err(|errno| walk.error("read the link", found, errno))?;
                Kind::Symlink(target.into_bytes())
            }
            FileType::Directory => Kind::Directory,
            FileType::Fifo => Kind::Special(Special::Fifo),
            FileType::Socket => Kind::Special(Special::Socket),
            FileType::CharacterDevice => Kind::Special(Special::Char(major, minor)),
            FileType::BlockDevice => Kind::Special(Special::Block(major, minor)),
            FileType::Unknown => return Err(walk.error("tell the kind of", found, Errno::INVAL).into()),
        };
        let remembered = is_shared.then(|| entry.path.clone());
        self.put(entry)?;
        remembered.map_or(Ok(()), |path| self.remember(walk, found, path, names))
    }

    /// The path under which a file with several names was packed.
    fn first_name(&mut self, found: &Found) -> Option<Vec<u8>> {
        let key = identity(&found.stat);
        let (path, left) = self.links.get_mut(&key)?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Some(path.clone());
        }
        let (path, _) = self.links.remove(&key)?;
        self.pending = self.pending.saturating_sub(PER_LINK + path.len());
        Some(path)
    }

    fn remember(&mut self, walk: &Walk, found: &Found, path: Vec<u8>, names: u64) -> Result<()> {
        self.pending += PER_LINK + path.len();
        if self.several.is_none() && self.pending > LOOK_INTO {
            let again = self.top.try_clone().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
            let again = again.map_err(|errno| walk.error("open the tree of", found, errno))?;
            let several = Several::find(again, self.progress)?.ok_or(ArchiveError::Cancelled)?;
            self.links.retain(|(_, number), _| several.has(*number));
            self.pending = self.links.values().map(|(path, _)| PER_LINK + path.len()).sum();
            if !several.contains(&found.stat) {
                self.several = Some(several);
                return Ok(());
            }
            self.several = Some(several);
            self.pending += PER_LINK + path.len();
        }
        if self.pending > MAX_PENDING {
            let what = "too many files with several names wait for the others, more than memory allows";
            return Err(ArchiveError::Unsupported(what.to_owned()));
        }
        self.links.insert(identity(&found.stat), (path, names - 1));
        Ok(())
    }

    fn put(&mut self, entry: Entry) -> Result<()> {
        self.done.entries += 1;
        self.progress.add(0, 1);
        self.out.entry(&entry).map_err(ArchiveError::writing)
    }

    fn file(&mut self, walk: &Walk, found: &Found, mut entry: Entry, shown: &str) -> Result<()> {
        let file = File::from(walk.open(found)?);
        let failed = |what| move |errno| ArchiveError::Walk(walk.error(what, found, errno));
        let before = rustix::fs::fstat(&file).map_err(failed("look at"))?;
        if !FileType::from_raw_mode(before.st_mode).is_file() {
            return Err(failed("read")(Errno::NOENT));
        }
        entry.kind = Kind::File;
        entry.meta = meta(&before);
        entry.size = u64::try_from(before.st_size).unwrap_or(0);
        entry.extents = extents(&file, entry.size).map_err(failed("find the holes of"))?;
        let extents = entry.extents.clone();
        self.put(entry)?;
        for (offset, length) in extents {
            self.data(&file, offset, length).map_err(|error| match error {
                DataError::Read(errno) => failed("read")(errno),
                DataError::Write(error) => ArchiveError::writing(error),
                DataError::Cancelled => ArchiveError::Cancelled,
            })?;
        }
        let after = rustix::fs::fstat(&file).map_err(failed("look at"))?;
        if times_and_size(&before) != times_and_size(&after) {
            if !self.live {
                return Err(ArchiveError::Changed(shown.to_owned()));
            }
            self.done.changed += 1;
        }
        Ok(())
    }

    /// Copies data; what is no longer there is zeros.
    fn data(&mut self, file: &File, mut offset: u64, mut length: u64) -> std::result::Result<(), DataError> {
        while length > 0 {
            if self.progress.cancelled() {
                return Err(DataError::Cancelled);
            }
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
            let piece = self.buffer.get_mut(..step).unwrap_or_default();
            let mut filled = 0;
            while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, offset + filled as u64) {
                    Ok(0) => {
                        rest.fill(0);
                        break;
                    }
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(DataError::Read(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
                }
            }
            self.out.data(piece).map_err(DataError::Write)?;
            self.done.bytes += step as u64;
            self.progress.add(step as u64, 0);
            (offset, length) = (offset + step as u64, length - step as u64);
        }
        Ok(())
    }
}

enum DataError {
    Read(Errno),
    Write(io::Error),
    Cancelled,
}

fn times_and_size(stat: &Stat) -> [i128; 5] {
    [
        i128::from(stat.st_size),
        i128::from(stat.st_mtime),
        i128::from(stat.st_mtime_nsec),
        i128::from(stat.st_ctime),
        i128::from(stat.st_ctime_nsec),
    ]
}

/// Where data is; with a hole at the end, the last extent is an empty one there, as GNU tar writes it.
fn extents(file: &File, size: u64) -> rustix::io::Result<Vec<(u64, u64)>> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while at < size {
        if extents.len() == MAX_WRITTEN {
            extents.push((at, size - at));
            return Ok(extents);
        }
        let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?.min(size),
        };
        at = rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data))?.min(size);
        if at > data {
            extents.push((data, at - data));
        } else if data >= size {
            break;
        }
    }
    if extents.last().is_none_or(|(offset, length)| offset + length < size) {
        extents.push((size, 0));
    }
    if size == 0 {
        return Ok(vec![(0, 0)]);
    }
    Ok(extents)
}
