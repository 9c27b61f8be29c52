//! Import: from an image to `images/<name>/{boot,root,image.json}`, all or nothing.
//!
//! The new image grows in `import-<name>-<pid>.partial` in the scratch directory and appears under its name by one
//! rename after everything is on the disk. Whatever stops the import, the directory is removed: by the import itself,
//! or by [`sweep`] when the process was killed.

mod decode;
mod partial;
mod space;
mod tarball;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use partial::sweep;

use super::blocks::{BlockSource, FileBlocks, Window};
use super::ext4::Ext4;
use super::extract::{ExtractError, extract_boot, extract_ext4};
use super::info::{self, ImageInfo};
use super::partition::{self, PartitionError, PartitionTable};
use super::source::{Source, SourceError, digest};
use super::unpack::{Format, is_tar};
use crate::archive::ArchiveError;
use crate::config::{NameError, check_image_name};
use crate::progress::Progress;
use crate::storage::tree_writer::TreeWriter;
use partial::Partial;

/// Why an import failed. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is an image of that name.
    #[error("there is already an image '{0}': remove it first, or choose another name")]
    Exists(String),
    /// Somebody imports it right now.
    #[error("an import of image '{0}' is running already")]
    Running(String),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The partition table.
    #[error("{path}: {error}")]
    Partition {
        /// The image file.
        path: String,
        /// What is wrong.
        error: PartitionError,
    },
    /// The file systems, or writing the trees.
    #[error("{path}: {error}")]
    Extract {
        /// The image file.
        path: String,
        /// What is wrong.
        error: ExtractError,
    },
    /// The archive with a root, or writing its trees.
    #[error("{path}: {error}")]
    Archive {
        /// The archive.
        path: String,
        /// What is wrong.
        error: ArchiveError,
    },
    /// Not enough room for what the image holds.
    #[error("not enough space in {path}: {} MB needed, {} MB free", .needed.div_ceil(1 << 20), .free >> 20)]
    Space {
        /// The volume.
        path: String,
        /// Bytes wanted.
        needed: u64,
        /// Bytes there.
        free: u64,
    },
    /// The file system's inodes are too few.
    #[error("not enough inodes in {path}: {needed} needed, {free} free (a file system made for small files has more)")]
    Inodes {
        /// The volume.
        path: String,
        /// Wanted.
        needed: u64,
        /// There.
        free: u64,
    },
    /// The volume.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Asked to stop.
    #[error("the import was cancelled")]
    Cancelled,
}

impl ImportError {
    pub(super) fn disk(what: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        if source.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) {
            let source = io::Error::other("the disk is full");
            return Self::Disk { what, path: path.display().to_string(), source };
        }
        Self::Disk { what, path: path.display().to_string(), source }
    }

    /// Cancelling shows up in every layer; the caller wants one answer.
    fn tidy(self) -> Self {
        match self {
            Self::Source(SourceError::Cancelled)
            | Self::Extract { error: ExtractError::Cancelled, .. }
            | Self::Archive { error: ArchiveError::Cancelled, .. } => Self::Cancelled,
            other => other,
        }
    }
}

/// Imports `source` as image `name`: a file or disk in place or unpacked, a stream as it comes. `images_dir` and `scratch_dir` lie on one file system; `wall_ms` is the time to
/// record.
///
/// # Errors
/// [`ImportError`]; nothing is left behind then.
pub fn import(
    source: Source,
    name: &str,
    images_dir: &Path,
    scratch_dir: &Path,
    wall_ms: i64,
    progress: &dyn Progress,
) -> Result<ImageInfo, ImportError> {
    check_image_name(name)?;
    if std::fs::symlink_metadata(images_dir.join(name)).is_ok() {
        return Err(ImportError::Exists(name.to_owned()));
    }
    let partial = Partial::create(scratch_dir, name)?;
    // Minutes of work must not end at the last step.
    partial.check_target(images_dir)?;
    let job = Job { label: source.label().to_owned(), partial: &partial, progress };
    let info = job.run(source, name, wall_ms).map_err(ImportError::tidy)?;
    partial.publish(images_dir, name)?;
    Ok(info)
}

const RAMDISK: &str =
    "the boot files are those inside its boot.img; a Pi that boots signed files only (secure boot) does not take them";

/// An image that can be read anywhere, and what it was before.
struct Unpacked {
    disk: FileBlocks,
    sha256: String,
    source_bytes: u64,
}

struct Job<'a> {
    /// What the source is called in messages.
    label: String,
    partial: &'a Partial,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn run(&self, source: Source, name: &str, wall_ms: i64) -> Result<ImageInfo, ImportError> {
        let mut info = ImageInfo {
            name: name.to_owned(),
            source: source.name().to_owned(),
            imported_at: wall_ms,
            ..ImageInfo::default()
        };
        let (format, size, file) = (source.format(), source.size(), source.seekable()?);
        let mut stream = source.into_stream()?;
        let (boot_dir, root_dir) = (self.partial.subdirectory("boot")?, self.partial.subdirectory("root")?);
        if is_tar(stream.head()?) {
            self.tarball(stream, size, &root_dir, &boot_dir, &mut info)?;
        } else {
            let disk = match (format, file) {
                (Format::Raw, Some(file)) => self.in_place(file)?,
                _ => self.decode(stream, format, size)?,
            };
            self.disk(disk, &root_dir, &boot_dir, &mut info)?;
            self.partial.discard_scratch()?;
        }
        info::examine(&root_dir, &boot_dir, &mut info);
        self.write_info(&info)?;
        if self.progress.cancelled() {
            return Err(ImportError::Cancelled);
        }
        Ok(info)
    }

    /// Writes the trees of a disk image.
    fn disk(
        &self,
        unpacked: Unpacked,
        root_dir: &OwnedFd,
        boot_dir: &OwnedFd,
        info: &mut ImageInfo,
    ) -> Result<(), ImportError> {
        let Unpacked { disk, sha256, source_bytes } = unpacked;
        let table = self.table(&disk)?;
        let (boot, root) = (self.named(table.boot())?, self.named(table.root())?);
        let boot_blocks = Window::new(&disk, boot.start, boot.size);
        let root_blocks = Window::new(&disk, root.start, root.size);
        let (boot_done, ramdisk) = self.extract(|| {
            let mut writer = TreeWriter::new(duplicate(boot_dir)?)?;
            extract_boot(&boot_blocks, &mut writer, self.progress)
        })?;
        let root_done = self.extract(|| {
            let mut writer = TreeWriter::new(duplicate(root_dir)?)?;
            extract_ext4(&Ext4::open(&root_blocks)?, &mut writer, self.progress)
        })?;
        (info.sha256, info.source_bytes, info.disk_bytes) = (sha256, source_bytes, disk.size());
        info.disk_id = table.disk_id.to_string();
        info.partuuids = vec![table.partuuid(&boot), table.partuuid(&root)];
        (info.root_entries, info.root_bytes) = (root_done.entries, root_done.bytes);
        (info.boot_entries, info.boot_bytes) = (boot_done.entries, boot_done.bytes);
        info.notes.extend(ramdisk.then(|| RAMDISK.to_owned()));
        Ok(())
    }

    /// A plain image is read where it lies. A disk may go on for long behind its last partition.
    fn in_place(&self, file: File) -> Result<Unpacked, ImportError> {
        let failed = |source| ImportError::disk("read", Path::new(&self.label), source);
        let device = !file.metadata().map_err(failed)?.is_file();
        let disk = FileBlocks::new(file.try_clone().map_err(failed)?).map_err(failed)?;
        let table = self.table(&disk)?;
        let need = space::Need::of(&disk, &table).map_err(|error| self.extract_error(error))?;
        let source_bytes = if device { table.end().min(disk.size()) } else { disk.size() };
        self.progress.set_total(source_bytes.saturating_add(need.bytes), need.entries);
        self.partial.require(need.bytes, need.entries)?;
        let sha256 = digest(file, source_bytes, &self.label, self.progress)?;
        Ok(Unpacked { disk, sha256, source_bytes })
    }

    fn table(&self, disk: &dyn BlockSource) -> Result<PartitionTable, ImportError> {
        self.named(partition::read(disk))
    }

    fn named<T>(&self, result: Result<T, PartitionError>) -> Result<T, ImportError> {
        result.map_err(|error| ImportError::Partition { path: self.label.clone(), error })
    }

    fn extract<T>(&self, work: impl FnOnce() -> Result<T, ExtractError>) -> Result<T, ImportError> {
        work().map_err(|error| self.extract_error(error))
    }

    fn extract_error(&self, error: ExtractError) -> ImportError {
        ImportError::Extract { path: self.label.clone(), error }
    }

    fn write_info(&self, info: &ImageInfo) -> Result<(), ImportError> {
        let path = self.partial.path().join(info::FILE_NAME);
        let failed = |error| ImportError::disk("write", &path, error);
        let mut text = serde_json::to_vec_pretty(info).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.partial.directory(), info::FILE_NAME, flags, Mode::from_raw_mode(0o644));
        let mut file = File::from(fd.map_err(|errno| failed(errno.into()))?);
        file.write_all(&text).map_err(failed)
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, ExtractError> {
    fd.try_clone().map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        crate::storage::tree_writer::WriteError { what: "open", path: "/".to_owned(), errno }.into()
    })
}
