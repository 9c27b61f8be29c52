//! A device in one file: its trees, its record and its section of the configuration as a `.tar.zst`, and back.

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::layers;
use super::record::DeviceRecord;
use crate::archive::{ArchiveError, Entry, Kind, Output, Packed, Reader, Writer, pack_tree};
use crate::config::{self, Config, Device};
use crate::image::unpack::{Decode, DecodeError, Format};
use crate::progress::Progress;
use crate::storage::tree_writer::{Meta, Time};
use crate::storage::usage::{Usage, measure};
use crate::storage::{Layout, RESERVE_BYTES, TREES, free_bytes};

/// The members of a backup before its trees, in this order.
const MANIFEST: &str = "backup.json";
const SECTION: &str = "device.uci";
const RECORD: &str = "device.json";
/// What is written now, and all that is read.
const FORMAT: u32 = 1;
/// Longest description that is read.
const MAX_DESCRIPTION: u64 = 1 << 20;
/// zstd's own default: some 5 MB of memory.
const LEVEL: i32 = 3;
/// Compressed bytes read at once.
const PIECE: usize = 64 << 10;
/// What an entry takes in an archive besides its content.
const PER_ENTRY: u64 = 1536;

/// `backup.json`, the first member: what the rest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// Version of piboot that wrote it.
    pub(super) piboot: String,
    /// The device.
    pub(super) id: String,
    /// Unix time in ms.
    pub(super) made_ms: i64,
    /// Bytes of content, as far as known when it was begun.
    pub(super) bytes: u64,
    /// Names, likewise.
    pub(super) entries: u64,
    /// Whether the Pi may have run.
    pub(super) live: bool,
}

/// What stands before the trees.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) manifest: Manifest,
    pub(super) device: Device,
    pub(super) record: DeviceRecord,
}

/// A part of an archive, with its path there.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// A directory that holds others.
    Directory(String),
    /// A small file.
    Description(String, Vec<u8>),
    /// A tree. One each for what may be a file system of its own, as a subvolume is.
    Tree(String, PathBuf),
}

/// The work of a backup; owned, because it runs on another thread.
#[derive(Debug, Clone)]
pub(super) struct Packing {
    /// Of whom, for messages; and its id, for the manifest.
    pub(super) id: String,
    /// What the manifest is called, which says what this is.
    pub(super) manifest: &'static str,
    /// The other descriptions before the trees.
    pub(super) members: Vec<(&'static str, Vec<u8>)>,
    /// What follows, in the order of a tree.
    pub(super) parts: Vec<Part>,
    pub(super) path: PathBuf,
    /// Whether the Pi may run.
    pub(super) live: bool,
    pub(super) now_ms: i64,
    pub(super) layout: Layout,
}

impl Packing {
    /// The backup of one device.
    ///
    /// # Errors
    /// What is missing, or cannot be read, in words.
    pub(super) fn of_device(
        layout: &Layout,
        device: &Device,
        path: PathBuf,
        live: bool,
        now_ms: i64,
    ) -> Result<Self, String> {
        let id = device.id.clone();
        let directory = layout.device(&id);
        let record = DeviceRecord::load(&directory).map_err(|e| e.to_string())?;
        let record = record.ok_or_else(|| format!("{id} has no files to back up: wait until it is ready"))?;
        let section = config::put_device("", device).map_err(|e| e.to_string())?;
        let record = serde_json::to_vec_pretty(&record).map_err(|e| e.to_string())?;
        let members = vec![(SECTION, section.into_bytes()), (RECORD, record)];
        let parts = TREES.map(|tree| Part::Tree(tree.to_owned(), directory.join(tree))).to_vec();
        Ok(Self { id, manifest: MANIFEST, members, parts, path, live, now_ms, layout: layout.clone() })
    }

    /// Writes the backup; whatever fails, nothing is left of it.
    pub(super) fn run(&self, progress: &dyn Progress) -> Result<String, String> {
        let shown = self.path.display();
        let (mut usage, mut in_use) = (Usage::default(), Vec::new());
        for part in &self.parts {
            let Part::Tree(_, directory) = part else { continue };
            if let Some(of) = directory.parent() {
                in_use.extend(layers::open(&self.layout, of)?);
            }
            let opened = open(directory).map_err(|e| format!("cannot use {}: {e}", directory.display()))?;
            usage += measure(opened, progress).map_err(|e| e.to_string())?.ok_or("cancelled")?;
        }
        progress.set_total(usage.bytes, usage.entries);
        let keep_free = self.check_space(&usage)?;
        let output = Output::create(&self.path, keep_free, progress).map_err(|e| cannot_create(&self.path, &e))?;
        let (packed, written) = self.pack(output, &usage, progress).map_err(|error| match error {
            ArchiveError::Changed(path) => {
                format!("{path} changed while it was being read: the Pi runs. Shut it down, or give --live")
            }
            other => format!("{shown}: {other}"),
        })?;
        let torn = match packed.changed {
            0 => String::new(),
            n => format!("; {n} files changed while they were read, and may be torn"),
        };
        Ok(format!(
            "{} backed up to {shown}: {} MB in {} files, {} MB compressed{torn}",
            self.id,
            packed.bytes.div_ceil(1_000_000),
            packed.entries,
            written.div_ceil(1_000_000)
        ))
    }

    fn pack(&self, output: Output<'_>, usage: &Usage, progress: &dyn Progress) -> Result<(Packed, u64), ArchiveError> {
        let writing = ArchiveError::writing;
        let mut encoder = zstd::stream::write::Encoder::new(output, LEVEL).map_err(writing)?;
        encoder.include_checksum(true).map_err(writing)?;
        let mut writer = Writer::new(encoder);
        let manifest = Manifest {
            format: FORMAT,
            piboot: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id.clone(),
            made_ms: self.now_ms,
            bytes: usage.bytes,
            entries: usage.entries,
            live: self.live,
        };
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(|e| writing(e.into()))?;
        let members = self.members.iter().map(|(name, content)| (*name, content.as_slice()));
        for (name, content) in std::iter::once((self.manifest, manifest.as_slice())).chain(members) {
            writer.entry(&description(name, content, self.now_ms)).map_err(writing)?;
            writer.data(content).map_err(writing)?;
        }
        let mut packed = Packed::default();
        for part in &self.parts {
            match part {
                Part::Directory(name) => {
                    let entry =
                        Entry { kind: Kind::Directory, extents: Vec::new(), ..description(name, b"", self.now_ms) };
                    let meta = Meta { mode: 0o755, ..entry.meta };
                    writer.entry(&Entry { meta, ..entry }).map_err(writing)?;
                }
                Part::Description(name, content) => {
                    writer.entry(&description(name, content, self.now_ms)).map_err(writing)?;
                    writer.data(content).map_err(writing)?;
                }
                Part::Tree(name, directory) => {
                    let opened = open(directory).map_err(ArchiveError::Read)?;
                    let part = pack_tree(opened, name, &mut writer, self.live, layers::links(directory), progress)?;
                    packed.entries += part.entries;
                    packed.bytes += part.bytes;
                    packed.changed += part.changed;
                }
            }
        }
        let output = writer.finish().and_then(zstd::Encoder::finish).map_err(writing)?;
        let written = output.written();
        output.publish().map_err(writing)?;
        Ok((packed, written))
    }

    /// Refuses what could not fit; answers what is to be left free. The router's own flash and memory take no risk: there
    /// has to be room for all of it uncompressed. Elsewhere a third has to do for a beginning.
    fn check_space(&self, usage: &Usage) -> Result<u64, String> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let Ok(free) = free_bytes(directory) else { return Ok(0) };
        let all = usage.bytes.saturating_add(usage.entries.saturating_mul(PER_ENTRY));
        let is_own = is_routers_own(directory);
        let needed = (if is_own { all } else { all / 3 }).saturating_add(RESERVE_BYTES);
        if free >= needed || std::fs::metadata(&self.path).is_ok() {
            return Ok(RESERVE_BYTES);
        }
        let what = if is_own { "the router's own flash or memory" } else { "that disk" };
        Err(format!(
            "a backup of {} may need {} MB and {} MB are free in {}: that is too much for {what}",
            self.id,
            needed >> 20,
            free >> 20,
            directory.display()
        ))
    }
}

/// Whether a directory is on the root file system, or in memory.
fn is_routers_own(directory: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    // 32 bits wide; its C type differs between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only 32 bits are defined")]
    let in_memory = rustix::fs::statfs(directory).is_ok_and(|stat| [TMPFS, RAMFS].contains(&(stat.f_type as u32)));
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    in_memory || device(directory) == device(Path::new("/"))
}

fn cannot_create(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists already, and nothing is replaced: choose another name", path.display())
        }
        _ => format!("cannot write {}: {error}", path.display()),
    }
}

fn description(name: &str, content: &[u8], now_ms: i64) -> Entry {
    let time = Time { seconds: now_ms.div_euclid(1000), nanoseconds: 0 };
    let size = content.len() as u64;
    Entry {
        path: name.as_bytes().to_vec(),
        kind: Kind::File,
        meta: Meta { mode: 0o600, uid: 0, gid: 0, atime: time, mtime: time },
        xattrs: Vec::new(),
        size,
        extents: vec![(0, size)],
    }
}

/// An archive that is decompressed as it is read, in as much memory as images are.
pub(super) fn decompress<R: Read>(input: R) -> Result<Reader<impl Read>, ArchiveError> {
    let decoder = Format::Zstd.decoder().map_err(|e| ArchiveError::Unsupported(e.to_string()))?;
    Ok(Reader::new(Decompress { input, decoder, buffer: vec![0; PIECE], filled: 0..0, is_last: false }))
}

struct Decompress<R> {
    input: R,
    decoder: Box<dyn Decode>,
    buffer: Vec<u8>,
    /// What of it was read and not decoded yet.
    filled: Range<usize>,
    is_last: bool,
}

impl<R: Read> Read for Decompress<R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.filled.is_empty() && !self.is_last {
                self.filled = 0..self.input.read(&mut self.buffer)?;
                self.is_last = self.filled.is_empty();
            }
            let input = self.buffer.get(self.filled.clone()).unwrap_or_default();
            let step = self.decoder.step(input, output, self.is_last).map_err(|error| match error {
                DecodeError::MemoryLimit { needed, limit, advice } => {
                    let (needed, limit) = (needed.div_ceil(1 << 20), limit >> 20);
                    let what = format!("it takes {needed} MB of memory to read, and has {limit} MB: {advice}");
                    io::Error::new(io::ErrorKind::OutOfMemory, what)
                }
                other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
            })?;
            self.filled.start += step.consumed;
            if step.produced > 0 || step.end || output.is_empty() {
                return Ok(step.produced);
            }
            if self.is_last && step.consumed == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Reads the description that has to come next.
pub(super) fn read_member<R: Read>(reader: &mut Reader<R>, name: &str) -> Result<Vec<u8>, ArchiveError> {
    match reader.next_entry()? {
        Some(entry) if entry.path == name.as_bytes() && entry.kind == Kind::File => {
            reader.small_content(MAX_DESCRIPTION)
        }
        _ => Err(unusable(format!(
            "'{name}' is not where it should be: piboot did not make it, or made it for another command ('backup' and 'restore', 'export' and 'import-all')"
        ))),
    }
}

/// Reads the manifest, the first member.
pub(super) fn read_manifest<R: Read>(reader: &mut Reader<R>, name: &str) -> Result<Manifest, ArchiveError> {
    let manifest = read_member(reader, name)?;
    let manifest: Manifest =
        serde_json::from_slice(&manifest).map_err(|e| unusable(format!("{name} is not understood: {e}")))?;
    match manifest.format {
        FORMAT => Ok(manifest),
        other => Err(unusable(format!("it has format {other}, and this piboot knows {FORMAT}: take a newer one"))),
    }
}

/// Reads what stands before the trees of a device.
pub(super) fn read_head<R: Read>(reader: &mut Reader<R>) -> Result<Head, ArchiveError> {
    let manifest = read_manifest(reader, MANIFEST)?;
    let section = read_member(reader, SECTION)?;
    let record = read_member(reader, RECORD)?;
    let device = read_section(&section).ok_or_else(|| unusable(format!("{SECTION} is no section of one device")))?;
    if device.id != manifest.id {
        return Err(unusable(format!("{MANIFEST} and {SECTION} are of two devices")));
    }
    let record: DeviceRecord =
        serde_json::from_slice(&record).map_err(|e| unusable(format!("{RECORD} is not understood: {e}")))?;
    config::check_image_name(&record.image).map_err(|e| unusable(e.to_string()))?;
    Ok(Head { manifest, device, record })
}

fn unusable(what: String) -> ArchiveError {
    ArchiveError::Unsupported(what)
}

/// The one device that a text of UCI has; every name in it is checked as in the configuration.
fn read_section(text: &[u8]) -> Option<Device> {
    let sections = config::uci::parse(std::str::from_utf8(text).ok()?).ok()?;
    let (config, problems) = Config::from_sections(&sections);
    let is_wrong = problems.iter().any(|problem| problem.severity == config::Severity::Error);
    match <[Device; 1]>::try_from(config.devices) {
        Ok([device]) if !is_wrong => Some(device),
        _ => None,
    }
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
