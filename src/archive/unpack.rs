//! A tree out of an archive.

use std::io::Read;

use super::{ArchiveError, Entry, Kind, Reader, Result};
use crate::printable::printable;
use crate::progress::Progress;
use crate::storage::tree_writer::{Meta, TreeWriter, Xattr};

/// Deepest nesting of directories, as for copies.
const MAX_DEPTH: usize = 2000;
/// Memory for the attributes of the directories on the way down.
const MAX_HELD: usize = 8 << 20;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Names.
    pub entries: u64,
    /// Bytes of content, holes not counted.
    pub bytes: u64,
}

/// A directory that is being filled: it gets its attributes when it is left.
struct Open {
    name: Vec<u8>,
    meta: Meta,
    xattrs: Vec<Xattr>,
}

struct Unpacker<'a> {
    writer: TreeWriter,
    open: Vec<Open>,
    held: usize,
    progress: &'a dyn Progress,
    done: Unpacked,
}

/// Unpacks everything that is left of the archive into the empty directory of `writer`. Only what is below one of `tops`
/// may be in it, each of them a directory that has to be there. Entries have to be in the order in which they were packed: a
/// directory, then what is in it. `watch` is asked after each entry and each MiB, and may say no.
///
/// # Errors
/// [`ArchiveError`]. What was written until then stays: the caller builds beside and renames.
pub fn unpack_tree<R: Read>(
    reader: &mut Reader<R>,
    writer: TreeWriter,
    tops: &[&str],
    progress: &dyn Progress,
    mut watch: impl FnMut() -> Result<()>,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker { writer, open: Vec::new(), held: 0, progress, done: Unpacked::default() };
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let top = entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let Some(top) = tops.iter().find(|name| name.as_bytes() == top) else {
            return Err(unusable(&entry.path, "does not belong into a backup"));
        };
        if !entry.path.contains(&b'/') {
            if entry.kind != Kind::Directory {
                return Err(unusable(&entry.path, "is no directory"));
            }
            seen.push(*top);
        }
        unpacker.entry(entry, reader, &mut watch)?;
        watch()?;
    }
    unpacker.leave_to(0)?;
    if let Some(missing) = tops.iter().find(|top| !seen.contains(top)) {
        return Err(ArchiveError::Unsupported(format!("there is no directory '{missing}' in it")));
    }
    Ok(unpacker.done)
}

impl Unpacker<'_> {
    fn entry<R: Read>(
        &mut self,
        entry: Entry,
        reader: &mut Reader<R>,
        watch: &mut impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if self.progress.cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let mut parts: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
        let name = parts.pop().unwrap_or_default();
        let common = self.open.iter().zip(&parts).take_while(|(open, part)| open.name == **part).count();
        if common < parts.len() {
            return Err(unusable(&entry.path, "stands before, or far behind, the directory that it is in"));
        }
        self.leave_to(common)?;
        self.done.entries += 1;
        self.progress.add(0, 1);
        match entry.kind {
            Kind::Directory => {
                self.held += entry.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum::<usize>() + name.len();
                if self.open.len() >= MAX_DEPTH || self.held > MAX_HELD {
                    return Err(unusable(&entry.path, "is nested too deep"));
                }
                self.writer.enter(name)?;
                self.open.push(Open { name: name.to_vec(), meta: entry.meta, xattrs: entry.xattrs });
            }
            Kind::HardLink(target) => {
                if target.split(|byte| *byte == b'/').next() != parts.first().copied() {
                    return Err(unusable(&entry.path, "is a link to another tree"));
                }
                self.writer.link_to(&target, name)?;
            }
            Kind::Symlink(target) => self.writer.symlink(name, &target, &entry.meta, &entry.xattrs)?,
            Kind::Special(special) => self.writer.special(name, special, &entry.meta, &entry.xattrs)?,
            Kind::File => {
                let mut file = self.writer.file(name)?;
                let (mut bytes, mut unwatched) = (0, 0);
                reader.content(|offset, piece| {
                    if self.progress.cancelled() {
                        return Err(ArchiveError::Cancelled);
                    }
                    file.write_at(piece, offset)?;
                    self.progress.add(piece.len() as u64, 0);
                    bytes += piece.len() as u64;
                    unwatched += piece.len();
                    if unwatched >= 1 << 20 {
                        unwatched = 0;
                        watch()?;
                    }
                    Ok(())
                })?;
                file.finish(entry.size, &entry.meta, &entry.xattrs)?;
                self.done.bytes += bytes;
            }
        }
        Ok(())
    }

    /// Leaves directories until so many are open.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            let xattrs = done.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum::<usize>();
            self.held = self.held.saturating_sub(xattrs + done.name.len());
            self.writer.leave(&done.meta, &done.xattrs)?;
        }
        Ok(())
    }
}

fn unusable(path: &[u8], why: &str) -> ArchiveError {
    ArchiveError::Unsupported(format!("'{}' {why}", printable(path)))
}
