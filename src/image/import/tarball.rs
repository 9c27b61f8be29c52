//! A root file system in a tar archive instead of an image: Debian's, Alpine's, or one that somebody packed of a running
//! system. It is unpacked as it comes; what boot files are in it become the boot tree.

use std::cell::RefCell;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{ImportError, Job, duplicate};
use crate::archive::{ArchiveError, Kind, Reader};
use crate::image::extract::Extracted;
use crate::image::info::{ImageInfo, boot_files};
use crate::image::source::{ImageStream, SourceError};
use crate::openat2::openat2;
use crate::progress::Progress;
use crate::storage::tree_writer::{Meta, Time, TreeWriter, Xattr};

/// Deepest nesting of directories, as for images.
const MAX_DEPTH: usize = 2000;
/// Memory for the attributes of the directories on the way down.
const MAX_HELD: usize = 8 << 20;
/// How often the space that is left is looked at, and how much of it stays.
const LOOK_EVERY: u64 = 8 << 20;
const RESERVE: u64 = 16 << 20;
/// The same for entries and inodes.
const LOOK_EVERY_ENTRIES: u64 = 1000;
const RESERVE_INODES: u64 = 1024;
/// Boot files are counted so deep, two descriptors at each level.
const MAX_COUNTED: usize = 64;
/// Attributes of a directory that the archive has things in and does not have itself.
const IMPLIED: Meta = {
    let time = Time { seconds: 0, nanoseconds: 0 };
    Meta { mode: 0o755, uid: 0, gid: 0, atime: time, mtime: time }
};
/// Where a root has its boot files mounted, by now and formerly.
const BOOT_PLACES: [&str; 2] = ["boot/firmware", "boot"];

struct Open {
    name: Vec<u8>,
    meta: Meta,
    xattrs: Vec<Xattr>,
}

impl Open {
    fn held(&self) -> usize {
        self.name.len() + self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum::<usize>()
    }
}

impl Job<'_> {
    /// Unpacks an archive into the two trees.
    pub(super) fn tarball(
        &self,
        stream: ImageStream,
        size: Option<u64>,
        root_dir: &OwnedFd,
        boot_dir: &OwnedFd,
        info: &mut ImageInfo,
    ) -> Result<(), ImportError> {
        self.partial.require(size.unwrap_or(0), 0)?;
        self.progress.set_total(size.unwrap_or(0), 0);
        let input = Input { stream, progress: self.progress, error: Rc::default() };
        let error = Rc::clone(&input.error);
        let mut reader = Reader::new(input);
        let unpacked = Placer::new(self, duplicate(root_dir).map_err(|e| self.extract_error(e))?)
            .and_then(|placer| placer.run(&mut reader));
        // What the decoder said is better than what became of it on the way.
        if let Some(error) = error.take() {
            return Err(error.into());
        }
        let root = unpacked?;
        let stream = reader.into_inner().stream;
        info.source_bytes = stream.consumed();
        info.sha256 = stream.finish();
        self.check_root(root_dir)?;
        let (boot, place) = self.take_boot_files(root_dir, boot_dir)?;
        let opened = rustix::fs::fchmod(boot_dir, Mode::from_raw_mode(0o755));
        opened.map_err(|errno| ImportError::disk("make", &self.partial.path().join("boot"), errno))?;
        info.root_entries = root.entries.saturating_sub(boot.entries);
        info.root_bytes = root.bytes.saturating_sub(boot.bytes);
        (info.boot_entries, info.boot_bytes) = (boot.entries, boot.bytes);
        info.notes.push(match place {
            Some(place) => format!("the boot files are those that it had in /{place}"),
            None => {
                "it has no boot files for a Raspberry Pi (firmware, kernel, device trees in /boot/firmware or /boot)"
                    .to_owned()
            }
        });
        Ok(())
    }

    /// Refuses an archive of something else.
    fn check_root(&self, root: &OwnedFd) -> Result<(), ImportError> {
        let there = |name: &str| rustix::fs::statat(root, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if there("etc") && (there("usr") || there("bin")) {
            return Ok(());
        }
        let what =
            "it holds no root file system (no directories etc and usr at its top); pack one with 'tar -C ROOT -c .'";
        Err(self.archive_error(ArchiveError::Unsupported(what.to_owned())))
    }

    /// Moves the boot files out of a root; answers what they are and where they were.
    fn take_boot_files(
        &self,
        root: &OwnedFd,
        boot: &OwnedFd,
    ) -> Result<(Extracted, Option<&'static str>), ImportError> {
        let failed = |errno: Errno| ImportError::disk("move boot files to", &self.partial.path().join("boot"), errno);
        for place in BOOT_PLACES {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let Ok(from) = openat2(root, place, flags, Mode::empty(), resolve) else { continue };
            let files = boot_files(&from).unwrap_or_default();
            let kernel = files.kernels.iter().any(|name| name.starts_with("kernel"));
            if files.firmware.is_empty() && (!kernel || files.device_trees.is_empty()) {
                continue;
            }
            let mut names = Vec::new();
            for entry in Dir::read_from(&from).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_owned();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    names.push(name);
                }
            }
            for name in &names {
                rustix::fs::renameat(&from, name, boot, name).map_err(failed)?;
            }
            return Ok((count(boot, 0).map_err(failed)?, Some(place)));
        }
        Ok((Extracted::default(), None))
    }

    fn archive_error(&self, error: ArchiveError) -> ImportError {
        ImportError::Archive { path: self.label.clone(), error }
    }
}

/// Entries and bytes of a tree.
fn count(directory: &OwnedFd, depth: usize) -> rustix::io::Result<Extracted> {
    let mut sum = Extracted::default();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        sum.entries += 1;
        let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => sum.bytes += u64::try_from(stat.st_size).unwrap_or(0),
            rustix::fs::FileType::Directory if depth < MAX_COUNTED => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = count(&rustix::fs::openat(directory, name, flags, Mode::empty())?, depth + 1)?;
                sum.entries += below.entries;
                sum.bytes += below.bytes;
            }
            _ => {}
        }
    }
    Ok(sum)
}

/// The unpacked stream as a reader, whose error is kept: a reader can only tell of the system's.
struct Input<'p> {
    stream: ImageStream,
    progress: &'p dyn Progress,
    error: Rc<RefCell<Option<SourceError>>>,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Here, because of what is skipped nothing else is seen.
        if self.progress.cancelled() {
            self.error.replace(Some(SourceError::Cancelled));
            return Err(io::Error::other("cancelled"));
        }
        self.stream.read(buffer).map_err(|error| {
            self.error.replace(Some(error));
            io::Error::other("the source failed")
        })
    }
}

/// Puts entries, in whatever order they come, to where they belong.
struct Placer<'a, 'j> {
    job: &'a Job<'j>,
    writer: TreeWriter,
    /// The directories down to where the writer is. They get their attributes when they are left.
    open: Vec<Open>,
    held: usize,
    root: Open,
    done: Extracted,
    consumed: u64,
    unlooked: u64,
}

impl<'a, 'j> Placer<'a, 'j> {
    fn new(job: &'a Job<'j>, root: OwnedFd) -> Result<Self, ImportError> {
        let writer = TreeWriter::new(root).map_err(|error| job.extract_error(error.into()))?;
        let root = Open { name: Vec::new(), meta: IMPLIED, xattrs: Vec::new() };
        let done = Extracted::default();
        Ok(Self { job, writer, open: Vec::new(), held: 0, root, done, consumed: 0, unlooked: 0 })
    }

    fn run(mut self, reader: &mut Reader<Input<'_>>) -> Result<Extracted, ImportError> {
        self.place_all(reader).map_err(|error| match error {
            PlaceError::Archive(error) => self.job.archive_error(error),
            PlaceError::Import(error) => error,
        })?;
        Ok(self.done)
    }

    fn place_all(&mut self, reader: &mut Reader<Input<'_>>) -> Result<(), PlaceError> {
        while let Some(entry) = reader.next_entry()? {
            let consumed = reader.get_ref().stream.consumed();
            self.job.progress.add(consumed.saturating_sub(self.consumed), 1);
            self.consumed = consumed;
            if self.job.progress.cancelled() {
                return Err(ArchiveError::Cancelled.into());
            }
            let mut parts: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
            let name = parts.pop().unwrap_or_default();
            if name.is_empty() {
                if entry.kind != Kind::Directory {
                    return Err(self.unusable(&entry.path, "is no directory"));
                }
                (self.root.meta, self.root.xattrs) = (entry.meta, entry.xattrs);
                continue;
            }
            self.go_to(&parts)?;
            self.done.entries += 1;
            if self.done.entries.is_multiple_of(LOOK_EVERY_ENTRIES) {
                self.job.partial.require(RESERVE, RESERVE_INODES).map_err(PlaceError::Import)?;
            }
            match entry.kind {
                Kind::Directory => {
                    self.go_down(name)?;
                    // It may have been there: made for what is in it, or by an entry before.
                    let last = self.open.last_mut();
                    if let Some(open) = last {
                        self.held = self.held.saturating_sub(open.held());
                        (open.meta, open.xattrs) = (entry.meta, entry.xattrs);
                        self.held += open.held();
                    }
                }
                Kind::HardLink(target) => self.writer.link_to(&target, name).map_err(ArchiveError::from)?,
                Kind::Symlink(target) => {
                    self.writer.symlink(name, &target, &entry.meta, &entry.xattrs).map_err(ArchiveError::from)?;
                }
                Kind::Special(special) => {
                    self.writer.special(name, special, &entry.meta, &entry.xattrs).map_err(ArchiveError::from)?;
                }
                Kind::File => {
                    let mut file = self.writer.file(name).map_err(ArchiveError::from)?;
                    let (job, mut unlooked, mut full) = (self.job, self.unlooked, None);
                    let mut bytes = 0;
                    let written = reader.content(|offset, piece| {
                        if job.progress.cancelled() {
                            return Err(ArchiveError::Cancelled);
                        }
                        bytes += piece.len() as u64;
                        unlooked += piece.len() as u64;
                        // Ends before the disk is full to the last byte.
                        if unlooked >= LOOK_EVERY {
                            unlooked = 0;
                            if let Err(error) = job.partial.require(RESERVE, 0) {
                                full = Some(error);
                                return Err(ArchiveError::NoSpace(0));
                            }
                        }
                        Ok(file.write_at(piece, offset)?)
                    });
                    if let Some(error) = full {
                        return Err(PlaceError::Import(error));
                    }
                    written?;
                    self.unlooked = unlooked;
                    file.finish(entry.size, &entry.meta, &entry.xattrs).map_err(ArchiveError::from)?;
                    self.done.bytes += bytes;
                }
            }
        }
        self.go_up_to(0)?;
        self.writer.leave(&self.root.meta, &self.root.xattrs).map_err(ArchiveError::from)?;
        Ok(())
    }

    /// Goes to a directory, by way of what the path has in common with the current one.
    fn go_to(&mut self, parts: &[&[u8]]) -> Result<(), PlaceError> {
        let common = self.open.iter().zip(parts).take_while(|(open, part)| open.name == **part).count();
        self.go_up_to(common)?;
        parts.iter().skip(common).try_for_each(|part| self.go_down(part))
    }

    fn go_down(&mut self, name: &[u8]) -> Result<(), PlaceError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.unusable(name, "is nested too deep"));
        }
        let (meta, xattrs) = match self.writer.enter(name) {
            Ok(()) => (IMPLIED, Vec::new()),
            Err(error) if error.errno == Errno::EXIST => {
                self.writer.reenter(name).map_err(|error| match error.errno {
                    // Following it, as other programs do, could lead anywhere.
                    Errno::NOTDIR | Errno::LOOP => {
                        self.unusable(name, "is no directory, and something else is to be put into it")
                    }
                    _ => ArchiveError::from(error).into(),
                })?
            }
            Err(error) => return Err(ArchiveError::from(error).into()),
        };
        let open = Open { name: name.to_vec(), meta, xattrs };
        self.held += open.held();
        if self.held > MAX_HELD {
            return Err(self.unusable(name, "is nested too deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn go_up_to(&mut self, depth: usize) -> Result<(), PlaceError> {
        while self.open.len() > depth {
            let Some(open) = self.open.pop() else { break };
            self.held = self.held.saturating_sub(open.held());
            self.writer.leave(&open.meta, &open.xattrs).map_err(ArchiveError::from)?;
        }
        Ok(())
    }

    fn unusable(&self, name: &[u8], why: &str) -> PlaceError {
        ArchiveError::Unsupported(format!("{} {why}", self.writer.display(name))).into()
    }
}

enum PlaceError {
    Archive(ArchiveError),
    Import(ImportError),
}

impl From<ArchiveError> for PlaceError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}
