//! From a parsed file system to a tree on disk.

use std::collections::HashSet;

use super::blocks::BlockSource;
use super::ext4::{Entries, Entry, Ext4, Ext4Error, Inode, Kind, ROOT};
use super::fat::{Fat, FatEntry, FatError};
use super::info::{BootFile, classify};
use crate::progress::Progress;
use crate::storage::tree_writer::{FileWriter, Meta, Special, Time, TreeWriter, WriteError};

/// Deepest nesting of directories. Real roots stay below fifty.
const MAX_DEPTH: usize = 2000;
/// Names of a directory taken at once: sorting them by inode reads inode tables in order, and a huge directory must
/// not need memory for all.
const CHUNK: usize = 2048;
/// Memory for all directories on the way down to the current one: names still to be written, and where the rest of them
/// is. What real trees need is a small part of it.
const MAX_HELD: usize = 8 << 20;
/// What a directory and a name take besides their bytes.
const HELD_PER_FRAME: usize = 512;
const HELD_PER_NAME: usize = 48;
/// Copy buffer: as large as pays, well under the MiB after which a cancel must be seen.
const BUFFER: usize = 256 * 1024;

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The root file system.
    #[error("root partition: {0}")]
    Ext4(#[from] Ext4Error),
    /// The boot file system.
    #[error("boot partition: {0}")]
    Fat(#[from] FatError),
    /// The tree.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Nesting.
    #[error("directories are nested more than {MAX_DEPTH} deep at {0}")]
    TooDeep(String),
    /// Many huge directories inside each other.
    #[error("too many huge directories inside each other at {0}, more than memory allows")]
    TooWide(String),
    /// A directory with two parents.
    #[error("the file system is damaged: directory {0} exists in two places; try e2fsck on the source")]
    Loop(String),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Names, the root directory itself not counted.
    pub entries: u64,
    /// Bytes of content written (holes not counted).
    pub bytes: u64,
}

struct Frame<'a> {
    directory: Inode,
    entries: Entries<'a>,
    chunk: std::vec::IntoIter<Entry>,
    /// Bytes that all this takes.
    held: usize,
}

impl<'a> Frame<'a> {
    fn new(fs: &'a Ext4<'a>, directory: Inode) -> Result<Self, Ext4Error> {
        let entries = fs.entries(&directory)?;
        let mut frame = Self { directory, entries, chunk: Vec::new().into_iter(), held: 0 };
        frame.count();
        Ok(frame)
    }

    /// Takes the next names, fewer the less memory is left; answers whether there are any.
    fn refill(&mut self, left: usize) -> Result<bool, Ext4Error> {
        // A small part of what is left, even if all names are as long as can be.
        let wanted = (left / 4096).clamp(1, CHUNK);
        let mut chunk = self.entries.next_chunk(wanted)?;
        chunk.sort_unstable_by_key(|entry| entry.inode);
        self.chunk = chunk.into_iter();
        self.count();
        Ok(self.chunk.len() > 0)
    }

    fn count(&mut self) {
        let names: usize = self.chunk.as_slice().iter().map(|entry| HELD_PER_NAME + entry.name.len()).sum();
        self.held = HELD_PER_FRAME + self.directory.held() + self.entries.held() + names;
    }
}

/// Writes the whole file system into `writer`, which stands at an empty root.
///
/// # Errors
/// [`ExtractError`]; what was written until then stays.
pub fn extract_ext4(
    fs: &Ext4<'_>,
    writer: &mut TreeWriter,
    progress: &dyn Progress,
) -> Result<Extracted, ExtractError> {
    let mut done = Extracted::default();
    let mut buffer = vec![0; BUFFER];
    let mut seen = HashSet::from([ROOT]);
    let mut frames = vec![Frame::new(fs, fs.inode(ROOT)?)?];
    let mut held: usize = frames.iter().map(|frame| frame.held).sum();
    while let Some(top) = frames.last_mut() {
        let Some(entry) = top.chunk.next() else {
            let others = held - top.held;
            if top.refill(MAX_HELD.saturating_sub(others))? {
                held = others + top.held;
                if held > MAX_HELD {
                    return Err(ExtractError::TooWide(writer.display(b"")));
                }
            } else {
                let xattrs = fs.xattrs(&top.directory)?;
                writer.leave(&top.directory.meta, &xattrs)?;
                held = others;
                frames.pop();
            }
            continue;
        };
        if progress.cancelled() {
            return Err(ExtractError::Cancelled);
        }
        done.entries += 1;
        progress.add(0, 1);
        let name = entry.name.as_slice();
        let inode = fs.inode(entry.inode)?;
        if inode.kind == Kind::Directory {
            if !seen.insert(inode.number) {
                return Err(ExtractError::Loop(writer.display(name)));
            }
            if frames.len() >= MAX_DEPTH {
                return Err(ExtractError::TooDeep(writer.display(name)));
            }
            writer.enter(name)?;
            let frame = Frame::new(fs, inode)?;
            held += frame.held;
            if held > MAX_HELD {
                return Err(ExtractError::TooWide(writer.display(b"")));
            }
            frames.push(frame);
            continue;
        }
        let several = inode.links > 1;
        if several && writer.link(inode.number.into(), name)? {
            continue;
        }
        done.bytes += write_entry(fs, writer, &inode, name, &mut buffer, progress)?;
        if several {
            writer.remember(inode.number.into(), name, u64::from(inode.links) - 1)?;
        }
    }
    Ok(done)
}

/// Writes one entry that is no directory; answers the bytes of content.
fn write_entry(
    fs: &Ext4<'_>,
    writer: &mut TreeWriter,
    inode: &Inode,
    name: &[u8],
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<u64, ExtractError> {
    let xattrs = fs.xattrs(inode)?;
    let meta = &inode.meta;
    let (major, minor) = inode.device();
    let special = match inode.kind {
        Kind::Symlink => {
            writer.symlink(name, &fs.symlink(inode)?, meta, &xattrs)?;
            return Ok(0);
        }
        Kind::File | Kind::Directory => {
            let mut file = writer.file(name)?;
            let bytes = copy_content(fs, inode, &mut file, buffer, progress)?;
            file.finish(inode.size, meta, &xattrs)?;
            return Ok(bytes);
        }
        Kind::Fifo => Special::Fifo,
        Kind::Socket => Special::Socket,
        Kind::CharDevice => Special::Char(major, minor),
        Kind::BlockDevice => Special::Block(major, minor),
    };
    writer.special(name, special, meta, &xattrs)?;
    Ok(0)
}

fn copy_content(
    fs: &Ext4<'_>,
    inode: &Inode,
    file: &mut FileWriter<'_>,
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<u64, ExtractError> {
    if let Some(data) = fs.inline(inode)? {
        file.write_at(&data, 0)?;
        progress.add(data.len() as u64, 0);
        return Ok(data.len() as u64);
    }
    let block = u64::from(fs.superblock().block_size);
    let mut total = 0;
    let mut runs = fs.runs(inode)?;
    while let Some(run) = runs.next()? {
        fs.claim(inode.number, run.count)?;
        let start = run.logical * block;
        let length = (run.count * block).min(inode.size.saturating_sub(start));
        let mut done = 0;
        while done < length {
            if progress.cancelled() {
                return Err(ExtractError::Cancelled);
            }
            let step = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..step];
            fs.read_run(run, done, piece)?;
            file.write_at(piece, start + done)?;
            progress.add(step as u64, 0);
            done += step as u64;
        }
        fs.discard(run);
        total += length;
    }
    Ok(total)
}

/// Writes the boot files of a boot partition into `writer`, which stands at an empty root. Where all of them are in one
/// `boot.img`, a FAT volume that the firmware loads as a whole (`boot_ramdisk` in config.txt), those in it are written;
/// the answer says whether they were.
///
/// # Errors
/// [`ExtractError`]; what was written until then stays.
pub fn extract_boot(
    source: &dyn BlockSource,
    writer: &mut TreeWriter,
    progress: &dyn Progress,
) -> Result<(Extracted, bool), ExtractError> {
    let outer = Fat::open(source)?;
    let entries = outer.root()?;
    let kernel = |entry: &FatEntry| matches!(classify(&entry.name.to_ascii_lowercase()), Some(BootFile::Kernel));
    let ramdisk = entries.iter().find(|entry| entry.name.eq_ignore_ascii_case("boot.img") && !entry.directory);
    if let Some(entry) = ramdisk.filter(|_| !entries.iter().any(kernel)) {
        let file = outer.file(entry)?;
        if let Ok(inner) = Fat::open(&file) {
            return Ok((extract_fat(&inner, writer, progress)?, true));
        }
    }
    // A volume gives each directory once.
    Ok((extract_fat(&Fat::open(source)?, writer, progress)?, false))
}

/// Writes every file of a FAT volume into `writer`, which stands at an empty root. FAT knows no owners: files become
/// root's, 0644, directories 0755.
///
/// # Errors
/// [`ExtractError`]; what was written until then stays.
pub fn extract_fat(fs: &Fat<'_>, writer: &mut TreeWriter, progress: &dyn Progress) -> Result<Extracted, ExtractError> {
    let mut done = Extracted::default();
    let mut buffer = vec![0; BUFFER];
    let directory = |mtime| Meta { mode: 0o755, uid: 0, gid: 0, atime: mtime, mtime };
    let mut frames = vec![(fs.root()?.into_iter(), directory(Time::default()))];
    while let Some((entries, meta)) = frames.last_mut() {
        let Some(entry) = entries.next() else {
            writer.leave(meta, &[])?;
            frames.pop();
            continue;
        };
        if progress.cancelled() {
            return Err(ExtractError::Cancelled);
        }
        done.entries += 1;
        progress.add(0, 1);
        let name = entry.name.as_bytes();
        if entry.directory {
            if frames.len() >= MAX_DEPTH {
                return Err(ExtractError::TooDeep(writer.display(name)));
            }
            writer.enter(name)?;
            frames.push((fs.directory(&entry)?.into_iter(), directory(entry.mtime)));
            continue;
        }
        let mut file = writer.file(name)?;
        let mut content = fs.content(&entry)?;
        let mut offset = 0;
        loop {
            let length = content.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            file.write_at(&buffer[..length], offset)?;
            offset += length as u64;
            progress.add(length as u64, 0);
            if progress.cancelled() {
                return Err(ExtractError::Cancelled);
            }
        }
        done.bytes += offset;
        file.finish(offset, &Meta { mode: 0o644, ..directory(entry.mtime) }, &[])?;
    }
    Ok(done)
}
