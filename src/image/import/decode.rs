//! Unpacking into a scratch file: one thread decodes, this one writes and looks at what has come so far.

use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{ImportError, Job, Unpacked, space};
use crate::image::blocks::FileBlocks;
use crate::image::partition::{PartitionError, PartitionTable};
use crate::image::source::{ImageStream, SourceError};
use crate::image::unpack::Format;

/// Zero stretches of this size become holes: a file system's block size or a multiple, small enough to find many.
const CHUNK: usize = 64 * 1024;
/// What goes from one thread to the other at once, and how many of them there are.
const PIECE: usize = 4 * CHUNK;
const PIECES: usize = 4;
/// Room left for what nobody counted: directories, the journal of the volume, other writers.
const RESERVE: u64 = 16 << 20;
/// How often it is looked whether that is still there: a superblock may say anything.
const LOOK_EVERY: u64 = 8 << 20;
/// Bytes of a partition's beginning that hold its superblock or boot sector.
const HEAD: u64 = 4096;

struct Plan {
    need: space::Need,
    /// Whether the unpacked image's space must be given back while it is copied.
    punch: bool,
}

struct Piece {
    data: Vec<u8>,
    length: usize,
    consumed: u64,
}

impl Job<'_> {
    /// Unpacks the image into the scratch file.
    pub(super) fn decode(
        &self,
        stream: ImageStream,
        format: Format,
        size: Option<u64>,
    ) -> Result<Unpacked, ImportError> {
        // Packing never makes an image's content smaller than what it packs to.
        if format != Format::Raw {
            self.partial.require(size.unwrap_or(0), 0)?;
        }
        self.progress.set_total(size.unwrap_or(0), 0);
        let (full, pieces) = sync_channel::<Result<Piece, SourceError>>(PIECES);
        let (empty, spare) = sync_channel::<Vec<u8>>(PIECES);
        for _ in 0..PIECES {
            // The channel has room for all of them.
            let _ = empty.send(vec![0; PIECE]);
        }
        std::thread::scope(|scope| {
            let decoder = scope.spawn(move || decode_all(stream, &spare, &full));
            let written = self.write_pieces(pieces, &empty, size);
            // Without spare buffers the decoder ends at once, also when writing failed.
            drop(empty);
            let decoded = decoder.join().unwrap_or(None);
            let disk = written?;
            let (sha256, source_bytes) = decoded.ok_or(ImportError::Cancelled)?;
            Ok(Unpacked { disk, sha256, source_bytes })
        })
    }

    fn write_pieces(
        &self,
        pieces: Receiver<Result<Piece, SourceError>>,
        empty: &SyncSender<Vec<u8>>,
        size: Option<u64>,
    ) -> Result<FileBlocks, ImportError> {
        let file = self.partial.scratch()?;
        let path = self.partial.path().join("disk.img");
        let failed = |error| ImportError::disk("write", &path, error);
        let (mut position, mut consumed, mut unlooked) = (0_u64, 0_u64, 0_u64);
        let mut table: Option<PartitionTable> = None;
        let mut waiting = false;
        let mut plan: Option<Plan> = None;
        while let Ok(piece) = pieces.recv() {
            let piece = piece?;
            if self.progress.cancelled() {
                return Err(ImportError::Cancelled);
            }
            let mut at = position;
            for chunk in piece.data[..piece.length].chunks(CHUNK) {
                // Behind the last partition nothing is read; a packed file may hold any amount of it.
                let wanted = table.as_ref().is_none_or(|table| at < table.end());
                if wanted && !is_zero(chunk) {
                    file.write_all_at(chunk, at).map_err(failed)?;
                    unlooked += chunk.len() as u64;
                }
                at += chunk.len() as u64;
            }
            position = at;
            if unlooked >= LOOK_EVERY {
                unlooked = 0;
                self.partial.require(RESERVE, 0)?;
            }
            self.progress.add(piece.consumed - consumed, 0);
            consumed = piece.consumed;
            // The decoder may have ended and dropped its end.
            let _ = empty.try_send(piece.data);
            if table.is_none() && !waiting {
                rustix::fs::ftruncate(&file, position).map_err(|errno| failed(errno.into()))?;
                let disk = FileBlocks::new(file.try_clone().map_err(failed)?).map_err(failed)?;
                match self.table(&disk) {
                    // The copy of a damaged GPT is at the end.
                    Err(ImportError::Partition { error: PartitionError::Gpt(_), .. }) => waiting = true,
                    other => table = Some(other?),
                }
            }
            if let Some(table) = table.as_ref().filter(|_| plan.is_none()) {
                let (boot, root) = (self.named(table.boot())?, self.named(table.root())?);
                let heads = (boot.start + boot.size).max(root.start + HEAD);
                if position >= heads.min(table.end()) {
                    rustix::fs::ftruncate(&file, position).map_err(|errno| failed(errno.into()))?;
                    let made = self.plan(&file, table, position)?;
                    self.progress
                        .set_total(size.unwrap_or(consumed).saturating_add(made.need.bytes), made.need.entries);
                    plan = Some(made);
                }
            }
        }
        rustix::fs::ftruncate(&file, position).map_err(|errno| failed(errno.into()))?;
        let disk = FileBlocks::new(file.try_clone().map_err(failed)?).map_err(failed)?;
        if waiting {
            plan = Some(self.plan(&file, &self.table(&disk)?, position)?);
        }
        if let Some(plan) = &plan {
            self.progress.set_total(consumed.saturating_add(plan.need.bytes), plan.need.entries);
        }
        Ok(if plan.is_some_and(|plan| plan.punch) { disk.punching() } else { disk })
    }

    /// Checks early that the file systems can be read and that there is room.
    fn plan(&self, file: &std::fs::File, table: &PartitionTable, position: u64) -> Result<Plan, ImportError> {
        let failed = |error| ImportError::disk("read", self.partial.path(), error);
        let disk = FileBlocks::new(file.try_clone().map_err(failed)?).map_err(failed)?;
        let root = self.named(table.root())?;
        // The file system may be checked against its whole partition although little of it is here yet.
        let whole = Ahead { disk: &disk, size: table.end().max(position) };
        let need = space::Need::of(&whole, table).map_err(|error| self.extract_error(error))?;
        let to_come = need.bytes.min(root.start.saturating_add(root.size).saturating_sub(position));
        let comfortable = to_come.saturating_add(need.bytes).saturating_add(RESERVE);
        if self.partial.require(comfortable, need.entries).is_ok() {
            return Ok(Plan { need, punch: false });
        }
        let tight = to_come.saturating_add(need.bytes / 8).saturating_add(RESERVE);
        self.partial.require(tight.max(need.bytes.saturating_sub(position)), need.entries)?;
        Ok(Plan { need, punch: true })
    }
}

/// Most of an image is zeros: looked at by words, also where the compiler is told to make small code.
fn is_zero(chunk: &[u8]) -> bool {
    let (words, rest) = chunk.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// A source whose end has not come yet.
struct Ahead<'a> {
    disk: &'a FileBlocks,
    size: u64,
}

impl crate::image::blocks::BlockSource for Ahead<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.disk.read_at(buf, offset)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// Decodes until the end, an error, or until nobody wants more; answers the digest and the packed
/// size if the end was reached.
fn decode_all(
    mut stream: ImageStream,
    spare: &Receiver<Vec<u8>>,
    full: &SyncSender<Result<Piece, SourceError>>,
) -> Option<(String, u64)> {
    while let Ok(mut data) = spare.recv() {
        match stream.read(&mut data) {
            Ok(0) => {
                let consumed = stream.consumed();
                return Some((stream.finish(), consumed));
            }
            Ok(length) => full.send(Ok(Piece { data, length, consumed: stream.consumed() })).ok()?,
            Err(error) => {
                let _ = full.send(Err(error));
                return None;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        for length in [0, 1, 7, 8, 4096, 4099] {
            let mut chunk = vec![0; length];
            assert!(is_zero(&chunk));
            for at in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|at| *at < length) {
                chunk[at] = 0x80;
                assert!(!is_zero(&chunk), "{at} of {length}");
                chunk[at] = 0;
            }
        }
    }
}
